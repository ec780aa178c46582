"""What one Service should have: a pure verdict on its request, what it holds and the configuration.

A working address is given up only for a successor that was found, or because the configuration does not let the Service
have it any more. A wish that cannot be met, or makes no sense, is refused and leaves the Service what it has.
"""

from __future__ import annotations

from dataclasses import dataclass

from cluster.addresses import Address
from cluster.config import Config
from cluster.objects import Condition, PoolName
from controller.allocator import Allocation, Reason, Refusal, allocate, why_not_permitted, why_not_requested
from controller.changes import ADDRESS_ASSIGNED, shortened
from controller.ledger import Ledger
from controller.request import Reading


@dataclass(frozen=True, slots=True)
class Verdict:
    addresses: tuple[Address, ...] = ()
    pool: PoolName | None = None
    refusal: Refusal | None = None
    """Why the Service has no address, or, beside addresses, why not the ones that it asks for."""
    cleared: str | None = None
    """Why it may not keep what it held."""


def judge(config: Config, ledger: Ledger, reading: Reading, held: tuple[Address, ...], recorded: str) -> Verdict:
    """``held``: what the Service has now. ``recorded``: the pool that its annotation names."""
    if not held:
        return _verdict(reading.refusal or allocate(config, ledger, reading.request))
    pool = config.pool_of(held[0])
    name = pool.name if pool else PoolName(recorded)
    if reading.refusal is not None and reading.refusal.reason is Reason.NO_CLUSTER_IP:
        return Verdict(held, name, reading.refusal)
    unfit = why_not_permitted(config, ledger, reading.request, held)
    if unfit is not None:
        if unfit.reason is Reason.ADDRESS_NOT_IN_POOL and _may_come_back(config, held, recorded):
            return Verdict(held, name)
        return _verdict(reading.refusal or allocate(config, ledger, reading.request), cleared=unfit.message)
    if reading.refusal is not None:
        return Verdict(held, name, reading.refusal)
    if why_not_requested(config, reading.request, held) is None:
        return Verdict(held, name)
    outcome = allocate(config, ledger, reading.request)
    return Verdict(held, name, outcome) if isinstance(outcome, Refusal) else _verdict(outcome)


def _verdict(outcome: Allocation | Refusal, cleared: str | None = None) -> Verdict:
    if isinstance(outcome, Refusal):
        return Verdict(refusal=outcome, cleared=cleared)
    return Verdict(outcome.addresses, outcome.pool, cleared=cleared)


def _may_come_back(config: Config, held: tuple[Address, ...], recorded: str) -> bool:
    """Whether the addresses are in no pool only because their pool cannot be read: a typing error costs nobody his."""
    unknown = all(config.pool_of(address) is None for address in held)
    return unknown and (recorded in config.unreadable if recorded else bool(config.unreadable))


def condition(verdict: Verdict) -> Condition:
    """The verdict as ``berthlb.io/AddressAssigned``."""
    refusal = verdict.refusal
    if not verdict.addresses:
        if refusal is None:
            raise ValueError("a verdict has addresses or a refusal")
        return Condition(ADDRESS_ASSIGNED, "False", refusal.reason.value, shortened(refusal.message))
    message = ", ".join(address.text for address in verdict.addresses) + f' from pool "{verdict.pool}"'
    if refusal is None:
        return Condition(ADDRESS_ASSIGNED, "True", "Assigned", message)
    message = f"{message}; what the Service asks for cannot be had: {refusal.message}"
    return Condition(ADDRESS_ASSIGNED, "True", refusal.reason.value, shortened(message))
