"""What stands in the way of a migration from MetalLB, what changes, and what there is to do. Pure.

A finding has one of three weights. What **blocks** would cost an address or its announcement. What **changes** is for
the user to decide. A **step** is a thing to do on the way; the page that the finding names says how.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Literal, NamedTuple, TypeVar

import msgspec

from cli.surveying import Survey
from cluster.addresses import AddressError, parse_address
from cluster.annotations import DEPRECATED_PREFIX, KNOWN, PREFIX
from cluster.config import Config, load
from cluster.objects import IPAddressPool, L2Advertisement, Object, PoolName
from cluster.resources import METALLB_GROUP

Weight = Literal["blocks", "changes", "step"]
WEIGHTS: tuple[Weight, ...] = ("blocks", "changes", "step")
KNOWN_FIELDS = {
    "ipaddresspools": {"addresses", "autoAssign", "avoidBuggyIPs", "serviceAllocation"},
    "l2advertisements": {
        "ipAddressPools",
        "ipAddressPoolSelectors",
        "nodeSelectors",
        "serviceSelectors",
        "preferredNodeSelectors",
        "interfaces",
    },
}


class Finding(NamedTuple):
    weight: Weight
    reason: str
    """One word for programs."""
    objects: tuple[str, ...]
    text: str
    """One line for people."""


def judge(survey: Survey, namespace: str) -> list[Finding]:
    """All findings, the heaviest first. ``namespace`` is the one that BerthLB is to run in."""
    found = [
        *_old_pools(survey),
        *_bgp(survey, namespace),
        *_not_in_force(survey, namespace),
        *_without_counterpart(survey, namespace),
        *_installations(survey, namespace),
        *_definitions(survey),
        *_webhooks(survey),
    ]
    return sorted(found, key=lambda each: WEIGHTS.index(each.weight))


T = TypeVar("T", bound=Object)


# ------------------------------------------------------------------------ what the objects say


def _old_pools(survey: Survey) -> Iterator[Finding]:
    if old := survey["addresspools"]:
        text = "of MetalLB 0.13, and not read by BerthLB: turn them into IPAddressPools first, with berthlb convert"
        yield Finding("blocks", "AddressPool", _named(old), text)


def _bgp(survey: Survey, namespace: str) -> Iterator[Finding]:
    advertisements, peers = (_in(survey[kind], namespace) for kind in ("bgpadvertisements", "bgppeers"))
    config = _configured(survey, namespace)
    only_bgp = _announced(_configured(survey, namespace, "bgpadvertisements")) - _announced(config)
    if only_bgp:
        used = sum(_pool_of(service, config) in only_bgp for service in survey["services"])
        text = (
            f"announced by BGP alone, which BerthLB does not serve: {used} Services with an address of theirs would "
            "not be announced any more. Add an L2Advertisement for them, or keep MetalLB for these pools"
        )
        yield Finding("blocks", "PoolByBGP", tuple(f"IPAddressPool {name}" for name in sorted(only_bgp)), text)
    elif advertisements:
        text = "without effect from then on: BerthLB does not serve BGP, and announces these pools by layer 2"
        yield Finding("changes", "BGPAdvertisement", _named(advertisements), text)
    if peers:
        text = "left without a session: BerthLB does not serve BGP"
        yield Finding("changes", "BGPPeer", _named(peers), text)


def _announced(config: Config) -> set[PoolName]:
    """The pools that some advertisement selects."""
    return {name for name in config.pools if any(each.announces(name) for each in config.advertisements.values())}


def _pool_of(service: dict[str, Any], config: Config) -> PoolName | None:
    for ingress in service.get("status", {}).get("loadBalancer", {}).get("ingress") or ():
        try:
            pool = config.pool_of(parse_address(ingress.get("ip", "")))
        except AddressError:
            continue
        if pool is not None:
            return pool.name
    return None


def _not_in_force(survey: Survey, namespace: str) -> Iterator[Finding]:
    pools = _views(_in(survey["ipaddresspools"], namespace), IPAddressPool)
    advertisements = _views(_in(survey["l2advertisements"], namespace), L2Advertisement)
    for problem in load(pools, advertisements, None).problems:
        text = f"not in force as it stands: {problem.field}: {problem.reason}"
        yield Finding("blocks", "NotInForce", (f"{problem.kind} {problem.name}",), text)


def _without_counterpart(survey: Survey, namespace: str) -> Iterator[Finding]:
    for plural, known in KNOWN_FIELDS.items():
        for each in _in(survey[plural], namespace):
            unknown = sorted(each.get("spec", {}).keys() - known)
            if unknown:
                text = f"without a counterpart in BerthLB, and dropped: {', '.join(f'spec.{name}' for name in unknown)}"
                yield Finding("changes", "UnknownField", _named([each]), text)
    for service in survey["services"]:
        unknown = sorted(_unknown_annotations(service))
        if unknown:
            text = f"annotated with what BerthLB does not read: {', '.join(unknown)}"
            yield Finding("changes", "UnknownAnnotation", _named([service]), text)


def _unknown_annotations(service: dict[str, Any]) -> Iterator[str]:
    for key in service["metadata"].get("annotations") or {}:
        prefix, slash, name = key.partition("/")
        if prefix + slash in (PREFIX, DEPRECATED_PREFIX) and name not in KNOWN:
            yield key


# ------------------------------------------------------------------------ what MetalLB itself is


def _installations(survey: Survey, namespace: str) -> Iterator[Finding]:
    controllers = [each for each in survey["deployments"] if _runs(each, "controller")]
    speakers = [each for each in survey["daemonsets"] if _runs(each, "speaker")]
    if not controllers and not speakers:
        yield Finding("changes", "NoMetalLB", (), "no MetalLB runs in this cluster: there is nothing to migrate from")
        return
    elsewhere = [each for each in (*controllers, *speakers) if each["metadata"]["namespace"] != namespace]
    if elsewhere:
        where = ", ".join(sorted({each["metadata"]["namespace"] for each in elsewhere}))
        text = f"in namespace {where}: BerthLB reads pools in its own namespace only, so install it there (--namespace)"
        yield Finding("blocks", "OtherNamespace", _named(elsewhere), text)
    classes = {_class_of(each) for each in (*controllers, *speakers)}
    for lb_class in sorted(each for each in classes if each):
        served = sum(each.get("spec", {}).get("loadBalancerClass") == lb_class for each in survey["services"])
        text = (
            f"for Services of loadBalancerClass {lb_class} alone, which are {served}: give BerthLB the same --lb-class"
        )
        yield Finding("changes", "LoadBalancerClass", _named((*controllers, *speakers)), text)
    running = [each for each in (*controllers, *speakers) if _wants_pods(each)]
    if running:
        text = "to be scaled to zero before BerthLB begins: two that answer for one address are worse than none"
        yield Finding("step", "StopMetalLB", _named(running), text)


def _runs(workload: dict[str, Any], part: str) -> bool:
    """Whether one of its containers is MetalLB's controller or speaker, from whatever registry."""
    return any(
        re.search(rf"(^|/)metallb([^/]*/|-){part}([:@]|$)", each.get("image", "")) for each in _containers(workload)
    ) or (
        (workload["metadata"].get("labels") or {}).get("app.kubernetes.io/name") == "metallb"
        and any(each["name"] == part or each["name"].endswith(f"-{part}") for each in _containers(workload))
    )


def _containers(workload: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = workload["spec"]["template"]["spec"]["containers"]
    return found


def _class_of(workload: dict[str, Any]) -> str:
    arguments = [word for each in _containers(workload) for word in each.get("args") or ()]
    found = (re.fullmatch(r"--?lb-class=(.+)", word) for word in arguments)
    return next((match[1] for match in found if match), "")


def _wants_pods(workload: dict[str, Any]) -> bool:
    if workload["spec"].get("replicas") == 0:
        return False
    desired: int = workload.get("status", {}).get("desiredNumberScheduled", 1)
    return desired != 0


# ------------------------------------------------------------------------ what would take the pools along


def _definitions(survey: Survey) -> Iterator[Finding]:
    definitions = [each for each in survey["customresourcedefinitions"] if each["spec"]["group"] == METALLB_GROUP]
    pools, advertisements = (len(survey[kind]) for kind in ("ipaddresspools", "l2advertisements"))
    by_owner: dict[str, list[dict[str, Any]]] = {}
    for each in definitions:
        by_owner.setdefault(_owner(each), []).append(each)
    for owner, owned in sorted(by_owner.items()):
        text = (
            f"deleted {owner}, and with them all {pools} pools and {advertisements} advertisements: remove MetalLB "
            'object by object, as docs/how-to/migrate-from-metallb.md says under "Remove what is left of MetalLB"'
        )
        if owner:
            yield Finding("step", "OwnedDefinitions", _named(owned), text)


def _owner(definition: dict[str, Any]) -> str:
    """Who would delete a definition of MetalLB's, in words; empty: nobody that can be seen."""
    meta = definition["metadata"]
    annotations, labels = meta.get("annotations") or {}, meta.get("labels") or {}
    if release := annotations.get("meta.helm.sh/release-name"):
        return f"by `helm uninstall {release} --namespace {annotations.get('meta.helm.sh/release-namespace', '')}`"
    if name := labels.get("kustomize.toolkit.fluxcd.io/name") or labels.get("helm.toolkit.fluxcd.io/name"):
        return f"by Flux when its {name} is removed"
    if tracked := annotations.get("argocd.argoproj.io/tracking-id"):
        return f"by Argo CD when the Application {tracked.partition(':')[0]} is deleted"
    return "by `kubectl delete -f` of MetalLB's manifest"


def _webhooks(survey: Survey) -> Iterator[Finding]:
    for each in survey["validatingwebhookconfigurations"]:
        rules = [rule for hook in each.get("webhooks") or () for rule in hook.get("rules") or ()]
        if any(METALLB_GROUP in rule.get("apiGroups", ()) for rule in rules):
            text = "to be deleted when MetalLB has ended: nobody answers it then, and no pool could be made or changed"
            yield Finding("step", "Webhook", _named([each]), text)


# ------------------------------------------------------------------------ objects


def _configured(survey: Survey, namespace: str, advertisements: str = "l2advertisements") -> Config:
    """The pools, and who announces them: BGPAdvertisements select pools by the same fields."""
    pools = _views(_in(survey["ipaddresspools"], namespace), IPAddressPool)
    announcing = ({**each, "spec": _selection(each)} for each in _in(survey[advertisements], namespace))
    return load(pools, _views(announcing, L2Advertisement), None).config


def _selection(advertisement: dict[str, Any]) -> dict[str, Any]:
    spec = advertisement.get("spec") or {}
    return {key: spec[key] for key in ("ipAddressPools", "ipAddressPoolSelectors") if key in spec}


def _views(objects: Iterable[dict[str, Any]], view: type[T]) -> list[T]:
    return [msgspec.convert(each, view) for each in objects]


def _in(objects: Iterable[dict[str, Any]], namespace: str) -> list[dict[str, Any]]:
    return [each for each in objects if each["metadata"].get("namespace") == namespace]


def _named(objects: Iterable[dict[str, Any]]) -> tuple[str, ...]:
    """Each with its kind, as lists do not say it for their items."""
    return tuple(sorted(f"{each['kind']} {_key(each)}" for each in objects))


def _key(each: dict[str, Any]) -> str:
    meta = each["metadata"]
    return f"{meta['namespace']}/{meta['name']}" if "namespace" in meta else str(meta["name"])
