"""What one Service should have: a pure judgement of its request, of what it has, and of the configuration.

1. A working address is given up only for a successor that was found, or because the configuration does not let the
   Service have it any more.
2. A wish that cannot be met, or makes no sense, is refused and leaves the Service what it has.
3. A change of the family policy adds or takes away one address and leaves the other. What is missing comes from the
   pool of the address that stays.
4. A Service that needs both families never starts with one of them, and is not left with one when a pool withdraws the
   other. One that comes to need both keeps the one it has until the other can be had.
5. A Service that has addresses of nodes keeps to its NodeIPPool, and has of it at each moment what the nodes give then.
   Where they give nothing any more all pools are asked, as for one that has nothing. Where only the nodes of one family
   are left it keeps those, since it is no configuration that took the others away.

Example: ``default/web`` has 192.0.2.4 and asks for 192.0.2.9, which another Service has. It keeps 192.0.2.4, and its
condition says ``AddressInUse``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from cluster.addresses import Address, Family
from cluster.config import Config
from cluster.node_pools import NodePool
from cluster.objects import Condition, NodeName, PoolName
from cluster.record import ADDRESS_ASSIGNED, assigned_words
from controller.allocation.allocator import (
    NOTHING_KNOWN,
    AddressRequest,
    Staying,
    allocate,
    complete,
    suffices,
    what_may_stay,
    why_in_use,
    why_not_for,
    why_not_requested,
)
from controller.allocation.ledger import Ledger
from controller.allocation.node_allocation import NodeSupply, from_nodes
from controller.allocation.outcomes import Allocation, PoolRefusal, Reason, Refusal, refusal_of
from controller.changes import MESSAGE_LIMIT, shortened
from controller.nodeip.reasons import LeftOut
from controller.nodeip.words import left_out_words
from controller.services.reading import Reading

EXPLANATION_LIMIT = 500
"""Characters for what is said beside a long list of addresses, and for the nodes that are left out."""
LEFT_OUT = "; nodes left out: "
"""Where in a condition's message it begins which nodes are left out."""


@dataclass(frozen=True, slots=True)
class Judgement:
    addresses: tuple[Address, ...] = ()
    pool: PoolName | None = None
    refusal: Refusal | None = None
    """Why the Service has no address, or, beside addresses, why not the ones that it asks for."""
    lacking: Refusal | None = None
    """Why a Service that would rather have both families has one."""
    cleared: str | None = None
    """Why it may not keep what it present."""
    remark: Refusal | None = None
    """What is wrong with an address that it keeps all the same."""
    unread: str = ""
    """What it says that nobody understands."""
    of_nodes: bool = False
    """Whether the pool is a NodeIPPool."""
    left_out: Mapping[NodeName, LeftOut] = field(default_factory=dict)
    """Nodes of its NodeIPPool of which it has no address."""
    denied: frozenset[Address] = frozenset()
    """Addresses of nodes that it has not beside the others, since other Services have its ports there."""


def judge(
    config: Config,
    ledger: Ledger,
    reading: Reading,
    present: tuple[Address, ...],
    recorded: str,
    *,
    nodes: NodeSupply = NOTHING_KNOWN,
) -> Judgement:
    """Judge one Service. ``present``: the addresses that it has now. ``recorded``: the pool that they were given
    from."""
    want = reading.request
    if not present:
        return _from_nothing(config, ledger, reading, None, nodes=nodes)
    if (of_nodes := config.node_pools.get(PoolName(recorded))) is not None:
        return _of_nodes(config, ledger, reading, present, of_nodes, nodes=nodes)
    pool = config.pool_of(present[0])
    name = pool.name if pool else PoolName(recorded)
    if reading.refusal is not None and reading.refusal.reason is Reason.NO_CLUSTER_IP:
        return Judgement(present, name, reading.refusal)
    staying = what_may_stay(config, ledger, want, present)
    lost = staying.lost
    if lost is not None and _may_come_back(config, present, recorded, lost):
        lost = why_in_use(ledger, want, present)  # whoever breaks the terms of sharing leaves, whatever comes back
        if lost is None:
            return Judgement(present, PoolName(recorded) if recorded else name)
    cleared = lost.message if lost is not None else None
    if not staying.addresses:
        return _from_nothing(config, ledger, reading, cleared, nodes=nodes)
    refusal = reading.refusal
    if refusal is None and why_not_requested(config, want, staying.addresses) is not None:
        moving = replace(want, former=(*staying.addresses, *want.former))  # what need not move does not
        outcome = allocate(config, ledger, moving, nodes)
        if isinstance(outcome, Allocation):
            return _judgement(config, ledger, moving, outcome, cleared, nodes=nodes)
        refusal = outcome
    judgement = _with_what_stays(config, ledger, reading, staying, refusal, nodes=nodes)
    remark = _remark(ledger, judgement.addresses)
    return judgement if remark is None else replace(judgement, remark=remark)


def _of_nodes(
    config: Config,
    ledger: Ledger,
    reading: Reading,
    present: tuple[Address, ...],
    pool: NodePool,
    *,
    nodes: NodeSupply,
) -> Judgement:
    """Of a Service that has addresses of this pool."""
    want, refusal = reading.request, reading.refusal
    if refusal is not None and refusal.reason is Reason.NO_CLUSTER_IP:
        return Judgement(present, pool.name, refusal, of_nodes=True)
    if (excluded := why_not_for(pool, want)) is not None:
        return _from_nothing(config, ledger, reading, refusal_of((excluded,)).message, nodes=nodes)
    if refusal is None and (want.addresses or want.pool not in {None, pool.name}):
        outcome = allocate(config, ledger, want, nodes)
        if isinstance(outcome, Allocation):
            return _judgement(config, ledger, want, outcome, None, nodes=nodes)
        refusal = outcome
    if nodes.of(pool.name) is None:
        return Judgement(present, pool.name, refusal, of_nodes=True)
    found = from_nodes(nodes, ledger, pool, want.node_need, either_family(want))
    if isinstance(found, PoolRefusal):
        return _from_nothing(config, ledger, reading, refusal_of((found,)).message, nodes=nodes)
    judgement = _judgement(config, ledger, want, found, None, nodes=nodes)
    if refusal is None and not suffices(want, found.addresses):
        judgement = replace(judgement, refusal=judgement.lacking, lacking=None)
    return (
        judgement if refusal is None else replace(judgement, refusal=refusal, denied=judgement.denied | refusal.denied)
    )


def either_family(want: AddressRequest) -> tuple[tuple[Family, ...], ...]:
    """The families of which a Service has addresses of nodes once it has some, best first."""
    return tuple(dict.fromkeys((*want.families, *((family,) for family in want.families[0]))))


def may_be_believed(config: Config, ledger: Ledger, reading: Reading, shown: tuple[Address, ...]) -> bool:
    """Whether a Service that has no address may have what its status has come to show: where that is what it asks for,
    and what it could be given."""
    want = reading.request
    if reading.refusal is not None or any(ledger.withheld(address) is not None for address in shown):
        return False
    staying = what_may_stay(config, ledger, want, shown)
    return staying.addresses == shown and why_not_requested(config, want, shown) is None


def _with_what_stays(
    config: Config, ledger: Ledger, reading: Reading, staying: Staying, refusal: Refusal | None, *, nodes: NodeSupply
) -> Judgement:
    """``refusal``: why the Service cannot have what it asks for instead."""
    want = reading.request
    cleared = staying.lost.message if staying.lost is not None else None
    pool = config.pool_of(staying.addresses[0])
    kept = Allocation(pool.name if pool else PoolName(""), staying.addresses)
    if suffices(want, staying.addresses):
        if refusal is not None:
            return Judgement(kept.addresses, kept.pool, refusal, cleared=cleared)
        return _judgement(config, ledger, want, kept, cleared, nodes=nodes)
    completed = complete(config, ledger, want, staying.addresses)
    if isinstance(completed, Allocation):
        return Judgement(completed.addresses, completed.pool, refusal, cleared=cleared)
    if staying.lost is None:
        return Judgement(kept.addresses, kept.pool, refusal or completed)
    return _from_nothing(config, ledger, reading, cleared, nodes=nodes)


def _from_nothing(
    config: Config, ledger: Ledger, reading: Reading, cleared: str | None, *, nodes: NodeSupply
) -> Judgement:
    outcome = reading.refusal or allocate(config, ledger, reading.request, nodes)
    if isinstance(outcome, Refusal):
        return Judgement(refusal=outcome, cleared=cleared, left_out=outcome.left_out)
    return _judgement(config, ledger, reading.request, outcome, cleared, nodes=nodes)


def _judgement(
    config: Config, ledger: Ledger, want: AddressRequest, has: Allocation, cleared: str | None, *, nodes: NodeSupply
) -> Judgement:
    """What was allocated or stays, with the second family where that can be had too."""
    if (of_nodes := config.node_pools.get(has.pool)) is not None:
        lacking = _lacking_of_nodes(ledger, want, has, of_nodes, nodes)
        return Judgement(
            has.addresses,
            has.pool,
            lacking=lacking,
            cleared=cleared,
            of_nodes=True,
            left_out=has.left_out,
            denied=has.denied,
        )
    if len(has.addresses) == len(want.families[0]):
        return Judgement(has.addresses, has.pool, cleared=cleared)
    completed = complete(config, ledger, want, has.addresses)
    if isinstance(completed, Allocation):
        return Judgement(completed.addresses, completed.pool, cleared=cleared)
    return Judgement(has.addresses, has.pool, lacking=completed, cleared=cleared)


def _lacking_of_nodes(
    ledger: Ledger, want: AddressRequest, has: Allocation, pool: NodePool, nodes: NodeSupply
) -> Refusal | None:
    """Why a Service that would rather have both families has addresses of nodes of one."""
    if {address.family for address in has.addresses} >= set(want.families[0]):
        return None
    both = from_nodes(nodes, ledger, pool, want.node_need, want.families[:1])
    return refusal_of((both,)) if isinstance(both, PoolRefusal) else None


def _may_come_back(config: Config, present: tuple[Address, ...], recorded: str, lost: Refusal) -> bool:
    """Whether the addresses are in no pool only because their pool cannot be read, or is being made anew. A typing
    error must cost no Service its address."""
    if lost.reason is not Reason.ADDRESS_NOT_IN_POOL:
        return False
    away = config.unreadable | config.departed
    unknown = [address for address in present if config.pool_of(address) is None]
    if recorded:  # another pool may have come to contain some of them meanwhile
        return bool(unknown) and recorded in away
    return len(unknown) == len(present) and bool(away)


def _remark(ledger: Ledger, present: tuple[Address, ...]) -> Refusal | None:
    texts = [f"{address.text} is {what.text}" for address in present if (what := ledger.withheld(address)) is not None]
    return Refusal(Reason.ADDRESS_RESERVED, "; ".join(texts)) if texts else None


def condition(judgement: Judgement) -> Condition:
    """The judgement as ``berthlb.io/AddressAssigned``."""
    status = "True" if judgement.addresses else "False"
    return Condition(ADDRESS_ASSIGNED, status, _reason(judgement), full_message(judgement))


def _reason(judgement: Judgement) -> str:
    if judgement.refusal is not None:
        return judgement.refusal.reason.value
    return "Assigned" if judgement.remark is None else judgement.remark.reason.value


def words(judgement: Judgement) -> str:
    """What the condition says, without the annotations that have no effect."""
    refusal = judgement.refusal
    if not judgement.addresses:
        if refusal is None:
            raise ValueError("a judgement has addresses or a refusal")
        return refusal.message
    message = assigned_words(judgement.addresses, judgement.pool)
    if judgement.remark is not None:
        message = f"{message}, which it keeps although {judgement.remark.message}"
    if judgement.lacking is not None:
        message = f"{message}; {why_lacking(judgement, judgement.lacking)}"
    if refusal is not None:
        message = f"{message}; what the Service asks for cannot be had: {refusal.message}"
    return message


def full_message(judgement: Judgement) -> str:
    """All that the condition says. What was given is never cut (``cluster.record``); what else there is to say is."""
    said, left_out = words(judgement), left_out_words(judgement.left_out)
    room = max(MESSAGE_LIMIT, len(assigned_words(judgement.addresses, judgement.pool)) + EXPLANATION_LIMIT)
    if judgement.unread:
        room -= len(judgement.unread) + 2
    said = shortened(said, room)
    if judgement.unread:
        said = f"{said}; {judgement.unread}"
    return f"{said}{LEFT_OUT}{shortened(left_out, EXPLANATION_LIMIT)}" if left_out else said


def as_said_before(judgement: Judgement, before: str) -> bool:
    """Whether the condition says this already, as far as it must: it names the nodes that were left out when it was
    written, and is not written anew for others."""
    return before.partition(LEFT_OUT)[0] == full_message(judgement).partition(LEFT_OUT)[0]


def why_lacking(judgement: Judgement, lacking: Refusal) -> str:
    """Why there is no second address, for people."""
    other = "IPv4" if judgement.addresses[0].family is Family.IPV6 else "IPv6"
    return f"no {other} address: {lacking.message}"
