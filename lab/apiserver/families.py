"""Which families a Service has, from its policy, what it asks for, and what the cluster has.

The four fields ``clusterIP``, ``clusterIPs``, ``ipFamilies`` and ``ipFamilyPolicy`` say one thing in several ways, and
a client may say any part of it. The order is that of Kubernetes' registry:

1. ``keep`` puts back what an update leaves out, and makes ``clusterIPs`` follow ``clusterIP``.
2. What contradicts itself is refused.
3. A policy that is missing is SingleStack. A Service that nobody selects endpoints for and that has no address is
   RequireDualStack.
4. SingleStack gives a second family back. Without that policy, to leave one out is refused.
5. Families that are missing are those of the addresses, or the cluster's primary one. Another policy than SingleStack
   adds the second family where the cluster has it.

Example: in a dual-stack cluster ``ipFamilyPolicy: PreferDualStack`` with ``ipFamilies: [IPv6]`` gets [IPv6, IPv4].
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from typing import Any

from cluster.addresses import Family
from lab.apiserver.errors import FieldProblem, shown, wrong

Body = dict[str, Any]

FIELDS = ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy")
EACH = tuple(family.text for family in Family)
HEADLESS = "None"
_SINGLE, _BOTH = "SingleStack", "RequireDualStack"
_POLICY = "spec.ipFamilyPolicy"


def is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def keep(after: Body, before: Body) -> None:
    """Put back, in place, what a client left out although it stays (``patchAllocatedValues``,
    ``NormalizeClusterIPs``). ``before`` is the specification as it was; it may hold nothing."""
    for name in ("clusterIP", "ipFamilies", "ipFamilyPolicy"):
        if before.get(name):
            after[name] = after.get(name) or before[name]
    chosen, known = after.get("clusterIP"), before.get("clusterIPs", [])
    if chosen and (after.get("clusterIPs") or known) == known:
        after["clusterIPs"] = known if chosen == before.get("clusterIP") else [chosen]


def decide(spec: Body, before: Body | None, cluster: Sequence[str]) -> list[FieldProblem]:
    """Fill in ``ipFamilyPolicy``, ``ipFamilies`` and as much of ``clusterIPs`` as is asked for, in place.

    ``before`` is the specification as it was; None: the Service is new. ``cluster`` has the cluster's families, the
    primary one first. Returns what the Service may not say.
    """
    problems = list(_contradictions(spec))
    if problems:
        return problems
    headless, had = spec.get("clusterIP") == HEADLESS, before or {}
    for name in ("clusterIPs", "ipFamilies"):
        spec[name] = list(spec.get(name, ()))  # a list that was put back is the stored object's
    nobody_selects = headless and not spec.get("selector")
    policy = spec["ipFamilyPolicy"] = spec.get("ipFamilyPolicy") or (_BOTH if nobody_selects else _SINGLE)
    problems += _follow_policy(spec, had)
    addresses: list[str] = spec["clusterIPs"]
    families: list[str] = spec["ipFamilies"]
    if not headless:
        for index, address in enumerate(addresses[len(families) :], start=len(families)):
            families.append(_family_of(address))
            if families[-1] not in cluster:
                why = f"{families[-1]} is not configured on this cluster"
                problems.append(wrong(f"spec.clusterIPs[{index}]", addresses, why))
    if not nobody_selects:  # such a Service may name families that the cluster has not
        if policy == _BOTH and len(cluster) < len(EACH):
            problems.append(wrong(_POLICY, policy, "this cluster is not configured for dual-stack services"))
        problems += [
            wrong(f"spec.ipFamilies[{index}]", family, "not configured on this cluster")
            for index, family in enumerate(families)
            if family not in cluster
        ]
    if problems:
        return problems
    families += cluster[:1] if not families else []
    if policy != _SINGLE:
        families += [family for family in (EACH if nobody_selects else cluster) if family not in families]
    first = had.get("clusterIPs", [])[:1]
    if first and addresses[:1] != first:
        return [wrong("spec.clusterIPs[0]", addresses, "may not change once set")]
    return []


def _contradictions(spec: Body) -> Iterator[FieldProblem]:
    """What cannot be meant, whatever the cluster has (``ValidateServiceClusterIPsRelatedFields``)."""
    addresses, families = spec.get("clusterIPs", []), spec.get("ipFamilies", [])
    for index, family in enumerate(families):
        if family in families[:index]:
            yield FieldProblem(f"spec.ipFamilies[{index}]", "FieldValueDuplicate", f"Duplicate value: {shown(family)}")
    if addresses and not spec.get("clusterIP"):
        yield wrong("spec.clusterIPs", addresses, "must be empty when `clusterIP` is not specified")
    elif addresses and addresses[0] != spec["clusterIP"]:
        yield wrong("spec.clusterIPs", addresses, "first value must match `clusterIP`")
    elif HEADLESS in addresses and len(addresses) > 1:
        yield wrong("spec.clusterIPs", addresses, "'None' must be the first and only value")
    elif len(addresses) > len(EACH):
        yield wrong("spec.clusterIPs", addresses, f"may only hold up to {len(EACH)} values")
    elif addresses != [HEADLESS]:
        yield from _wrong_addresses(addresses, families)


def _wrong_addresses(addresses: Sequence[str], families: Sequence[str]) -> Iterator[FieldProblem]:
    bad = [index for index, address in enumerate(addresses) if not is_address(address)]
    for index in bad:
        yield wrong(f"spec.clusterIPs[{index}]", addresses[index], "must be a valid IP address")
    if bad:
        return
    found = [_family_of(address) for address in addresses]
    if len(set(found)) < len(found):
        yield wrong("spec.clusterIPs", addresses, "may specify no more than one IP for each IP family")
    for index, (is_, wanted) in enumerate(zip(found, families, strict=False)):
        if is_ != wanted:
            why = f"expected an {wanted} value as indicated by `ipFamilies[{index}]`"
            yield wrong(f"spec.clusterIPs[{index}]", addresses[index], why)


def _follow_policy(spec: Body, had: Body) -> Iterator[FieldProblem]:
    """Give back, in place, what a policy of one family has no use for; or say that the policy should be that."""
    policy = spec["ipFamilyPolicy"]
    for field, what in (("clusterIPs", "cluster IP"), ("ipFamilies", "IP family")):
        now, then = spec[field], had.get(field, [])
        if policy == _SINGLE and now == then:  # clear intent, since the field itself did not change
            spec[field] = now[:1]
        elif policy == _SINGLE and len(now) > 1:
            yield wrong(_POLICY, policy, f"must be 'RequireDualStack' or 'PreferDualStack' when more than one {what}")
        elif policy != _SINGLE and len(now) < len(then):
            yield wrong(_POLICY, policy, f"must be 'SingleStack' to release the secondary {what}")


def _family_of(address: str) -> str:
    return Family(ipaddress.ip_address(address).version).text
