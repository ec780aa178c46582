"""What one Service should have: a pure judgement of its request, of what it has, and of the configuration.

1. A working address is given up only for a successor that was found, or because the configuration does not let the
   Service have it any more.
2. A wish that cannot be met, or makes no sense, is refused and leaves the Service what it has.
3. A change of the family policy adds or takes away one address and leaves the other. What is missing comes from the
   pool of the address that stays.
4. A Service that needs both families never starts with one of them, and is not left with one when a pool withdraws the
   other. One that comes to need both keeps the one it has until the other can be had.

Example: ``default/web`` has 192.0.2.4 and asks for 192.0.2.9, which another Service has. It keeps 192.0.2.4, and its
condition says ``AddressInUse``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from cluster.addresses import Address, Family
from cluster.config import Config
from cluster.objects import Condition, PoolName
from cluster.record import ADDRESS_ASSIGNED, assigned_words
from controller.allocation.allocator import (
    AddressRequest,
    Allocation,
    Reason,
    Refusal,
    Staying,
    allocate,
    complete,
    suffices,
    what_may_stay,
    why_in_use,
    why_not_requested,
)
from controller.allocation.ledger import Ledger
from controller.changes import MESSAGE_LIMIT, shortened
from controller.services.reading import Reading


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


def judge(config: Config, ledger: Ledger, reading: Reading, present: tuple[Address, ...], recorded: str) -> Judgement:
    """Judge one Service. ``present``: the addresses that it has now. ``recorded``: the pool that its annotation
    names."""
    want = reading.request
    if not present:
        return _from_nothing(config, ledger, reading, None)
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
        return _from_nothing(config, ledger, reading, cleared)
    refusal = reading.refusal
    if refusal is None and why_not_requested(config, want, staying.addresses) is not None:
        moving = replace(want, former=(*staying.addresses, *want.former))  # what need not move does not
        outcome = allocate(config, ledger, moving)
        if isinstance(outcome, Allocation):
            return _judgement(config, ledger, moving, outcome, cleared)
        refusal = outcome
    judgement = _with_what_stays(config, ledger, reading, staying, refusal)
    remark = _remark(ledger, judgement.addresses)
    return judgement if remark is None else replace(judgement, remark=remark)


def may_be_believed(config: Config, ledger: Ledger, reading: Reading, shown: tuple[Address, ...]) -> bool:
    """Whether a Service that has no address may have what its status has come to show: where that is what it asks for,
    and what it could be given."""
    want = reading.request
    if reading.refusal is not None or any(ledger.withheld(address) is not None for address in shown):
        return False
    staying = what_may_stay(config, ledger, want, shown)
    return staying.addresses == shown and why_not_requested(config, want, shown) is None


def _with_what_stays(
    config: Config, ledger: Ledger, reading: Reading, staying: Staying, refusal: Refusal | None
) -> Judgement:
    """``refusal``: why the Service cannot have what it asks for instead."""
    want = reading.request
    cleared = staying.lost.message if staying.lost is not None else None
    pool = config.pool_of(staying.addresses[0])
    kept = Allocation(pool.name if pool else PoolName(""), staying.addresses)
    if suffices(want, staying.addresses):
        if refusal is not None:
            return Judgement(kept.addresses, kept.pool, refusal, cleared=cleared)
        return _judgement(config, ledger, want, kept, cleared)
    completed = complete(config, ledger, want, staying.addresses)
    if isinstance(completed, Allocation):
        return Judgement(completed.addresses, completed.pool, refusal, cleared=cleared)
    if staying.lost is None:
        return Judgement(kept.addresses, kept.pool, refusal or completed)
    return _from_nothing(config, ledger, reading, cleared)


def _from_nothing(config: Config, ledger: Ledger, reading: Reading, cleared: str | None) -> Judgement:
    outcome = reading.refusal or allocate(config, ledger, reading.request)
    if isinstance(outcome, Refusal):
        return Judgement(refusal=outcome, cleared=cleared)
    return _judgement(config, ledger, reading.request, outcome, cleared)


def _judgement(config: Config, ledger: Ledger, want: AddressRequest, has: Allocation, cleared: str | None) -> Judgement:
    """What was allocated or stays, with the second family where that can be had too."""
    if len(has.addresses) == len(want.families[0]):
        return Judgement(has.addresses, has.pool, cleared=cleared)
    completed = complete(config, ledger, want, has.addresses)
    if isinstance(completed, Allocation):
        return Judgement(completed.addresses, completed.pool, cleared=cleared)
    return Judgement(has.addresses, has.pool, lacking=completed, cleared=cleared)


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
    return Condition(ADDRESS_ASSIGNED, status, _reason(judgement), _with_unread(words(judgement), judgement.unread))


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


def _with_unread(message: str, unread: str) -> str:
    return f"{shortened(message, MESSAGE_LIMIT - len(unread) - 2)}; {unread}" if unread else shortened(message)


def why_lacking(judgement: Judgement, lacking: Refusal) -> str:
    """Why there is no second address, for people."""
    other = "IPv4" if judgement.addresses[0].family is Family.IPV6 else "IPv6"
    return f"no {other} address: {lacking.message}"
