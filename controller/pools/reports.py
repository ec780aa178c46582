"""What the controller writes about pools and advertisements, on the objects themselves. Pure, as ``reconcile`` is.

It keeps the objects that exist, has them made into the configuration in force (``in_force``), and keeps these up to
date in the API:

1. the conditions of each pool and advertisement (``conditions``);
2. the counters and the recent releases of each pool;
3. the ConfigurationState named ``controller``.

Counters may lag by ``COUNTERS_S``, so that a thousand allocations are not a thousand writes. The rest is written at
once. Where the definitions are not ours (MetalLB's know no conditions) the API server drops what it does not know, and
the controller does not write that again and again. What somebody else keeps replacing is written ever more seldom: two
controllers of different classes in one namespace write about the same pools, and know of different releases.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any, NamedTuple

from msgspec.structs import replace

from cluster.addresses import Family, Range
from cluster.components import COMPONENT_LABEL
from cluster.config import Config, Pool, Problem
from cluster.node_pools import NodeIPPool
from cluster.objects import (
    Condition,
    ConfigurationState,
    IPAddressPool,
    L2Advertisement,
    PoolName,
    RecentRelease,
    is_older,
    to_builtins,
)
from cluster.resources import CONFIGURATION_STATES, IP_ADDRESS_POOLS, L2_ADVERTISEMENTS, NODE_IP_POOLS, Resource
from controller.allocation.ledger import Ledger
from controller.allocation.releases import Releases, RememberedRelease
from controller.allocation.reserved import Reserved
from controller.changes import Change, Moment, Read, Write, shortened, with_conditions
from controller.nodeip.cluster import NodePools
from controller.pools import conditions, node_pools
from controller.pools.findings import AdvertisementFindings
from controller.pools.in_force import InForce
from controller.pools.reported import Configured, Reported, View

COUNTERS_S = 1.0
"""Seconds between two writes of one pool's counters."""
LARGEST_COUNT = 2**63 - 1
"""The API's integers end here; an IPv6 /64 has more addresses."""
STATE_NAME = "controller"
_STATE_CONDITIONS = ("configReconcilerValid", "poolReconcilerValid")
_LABELS = {COMPONENT_LABEL: "controller"}


class _Given(NamedTuple):
    """What Services have been given, and what nodes give."""

    ledger: Ledger
    releases: Releases
    nodes: NodePools


class Reports:
    """See the module's docstring. One thread only."""

    def __init__(self, namespace: str, rng: random.Random, previous: Config | None = None) -> None:
        """``previous`` is the configuration whose objects stay in force where they cannot be honoured any more."""
        self.in_force = InForce(previous)
        self.findings = AdvertisementFindings()
        """It is to be told of nodes and speakers."""
        self.states_served = True
        """Whether the API has the kind ConfigurationState; MetalLB up to 0.15 did not."""
        self._namespace = namespace
        self._rng = rng
        self._pools: dict[str, Reported] = {}
        self._node_pools: dict[str, Reported] = {}
        self._advertisements: dict[str, Reported] = {}
        self._state = Reported(CONFIGURATION_STATES, STATE_NAME, known=False)
        self._withheld: dict[PoolName, list[tuple[Range, Reserved]]] = {}
        self._withheld_for: tuple[object, object] = (None, None)
        self._deadline: float | None = None

    # -------------------------------------------------------------------- what is observed

    def observe(self, view: Configured) -> None:
        """A pool or an advertisement as the API shows it."""
        table, resource = self._table(view)
        reported = table.setdefault(view.metadata.name, Reported(resource, view.metadata.name))
        before = reported.view
        if before is not None and is_older(view.metadata.resource_version, before.metadata.resource_version):
            return
        reported.view = view
        if before is None or not isinstance(before, Configured) or not _same_wish(before, view):
            self.in_force.changed()

    def vanished(self, view: Configured) -> None:
        table, _ = self._table(view)
        if table.pop(view.metadata.name, None) is not None:
            self.in_force.changed()

    def _table(self, view: Configured) -> tuple[dict[str, Reported], Resource[Any]]:
        if isinstance(view, IPAddressPool):
            return self._pools, IP_ADDRESS_POOLS
        if isinstance(view, NodeIPPool):
            return self._node_pools, NODE_IP_POOLS
        return self._advertisements, L2_ADVERTISEMENTS

    # -------------------------------------------------------------------- what became of the changes

    def answered(self, change: Change, view: View | None) -> None:
        """The change was made: the object as it is now, or None where it is gone."""
        reported = self._reported(change)
        if reported is None:
            return
        reported.answered(change, view)
        self._learn(reported, view)

    def superseded(self, change: Change, view: View | None, now: Moment) -> None:
        """Somebody else wrote first; ``view`` is what the object has become. It is judged anew."""
        reported = self._reported(change)
        if reported is None:
            return
        reported.superseded(now.monotonic, self._rng)
        self._learn(reported, view)

    def _learn(self, reported: Reported, view: View | None) -> None:
        if reported is self._state:
            reported.view, reported.known = view, True
        elif isinstance(view, Configured):
            self.observe(view)

    def failed(self, change: Change, retry_after: float, now: Moment) -> None:
        """The change could not be made; it is tried again after a while, at the earliest in ``retry_after`` seconds."""
        reported = self._reported(change)
        if reported is not None:
            reported.failed(retry_after, now.monotonic, self._rng)

    def _reported(self, change: Change) -> Reported | None:
        if change.resource is IP_ADDRESS_POOLS:
            return self._pools.get(change.name)
        if change.resource is NODE_IP_POOLS:
            return self._node_pools.get(change.name)
        if change.resource is L2_ADVERTISEMENTS:
            return self._advertisements.get(change.name)
        return self._state

    # -------------------------------------------------------------------- deciding

    def reload(self) -> bool:
        """Make the objects into the configuration in force if they changed; says whether it is another one now."""
        if not self.in_force.stale:
            return False
        self.findings.clear()
        return self.in_force.load(
            [each.view for each in self._pools.values() if isinstance(each.view, IPAddressPool)],
            [each.view for each in self._advertisements.values() if isinstance(each.view, L2Advertisement)],
            [each.view for each in self._node_pools.values() if isinstance(each.view, NodeIPPool)],
        )

    @property
    def has_node_pools(self) -> bool:
        """Whether any NodeIPPool exists, in force or not."""
        return bool(self._node_pools)

    def next_deadline(self) -> float | None:
        """When ``decide`` wants to be called next though nothing was observed, in monotonic seconds."""
        return self._deadline

    def recorded_releases(self) -> list[RecentRelease]:
        """What the status of the pools remembers, as it was read."""
        views = (each.view for each in self._pools.values())
        return [each for view in views if isinstance(view, IPAddressPool) for each in view.status.recent_releases]

    def decide(self, ledger: Ledger, releases: Releases, nodes: NodePools, now: Moment) -> list[Change]:
        """The writes that make the objects say what is so."""
        self._deadline = None
        config, reserved = self._withheld_for
        if config is not self.in_force.config or reserved is not ledger.reserved:
            self._withheld_for = self.in_force.config, ledger.reserved
            self._withheld = {name: ledger.withheld_of(name) for name in self.in_force.config.pools}
        given = _Given(ledger, releases, nodes)
        wrong = {(problem.kind, problem.name): problem for problem in self.in_force.problems}
        changes: list[Change] = []
        for reported in (*self._pools.values(), *self._node_pools.values(), *self._advertisements.values()):
            problem = wrong.get((reported.resource.kind, reported.name))
            body = self._report(reported, problem, given, now)
            if body:
                changes += self._sent(reported, self._write(reported, body, "reported on the object"), now)
        state = self._state_change(now) if self.states_served else None
        if state is not None:
            changes += self._sent(self._state, state, now)
        return changes

    def _sent(self, reported: Reported, change: Change, now: Moment) -> tuple[Change, ...]:
        """The change, if it may be sent now."""
        opens = reported.opens(change)
        if opens is None:
            return ()
        if now.monotonic < opens:
            self._wake_at(opens)
            return ()
        reported.sent(change, now.monotonic)
        return (change,)

    def _wake_at(self, at: float) -> None:
        self._deadline = at if self._deadline is None else min(self._deadline, at)

    def _report(self, reported: Reported, problem: Problem | None, given: _Given, now: Moment) -> dict[str, Any] | None:
        """What to patch into the object's status."""
        view = reported.view
        if not isinstance(view, Configured):
            return None
        generation = view.metadata.generation
        prompt = {"Valid": self._validity(view, problem)} | self._findings(view, problem)
        wanted = {type_: replace(each, observed_generation=generation) for type_, each in prompt.items()}
        status: dict[str, Any] = {}
        urgent = with_conditions(view.status.conditions, wanted, now) is not None
        if isinstance(view, IPAddressPool):
            exhausted = conditions.exhausted(self._pool_in_force(view), self._counts(view, given.ledger))
            wanted["Exhausted"] = replace(exhausted, observed_generation=generation)
            status |= self._counters(view, given.ledger, everything=not view.status.conditions)
            remembered = tuple(_recorded(each) for each in given.releases.of(PoolName(view.metadata.name)))
            if self._pool_in_force(view) and remembered != view.status.recent_releases:
                status["recentReleases"] = [to_builtins(each) for each in remembered] or None
        if isinstance(view, NodeIPPool):
            name = PoolName(view.metadata.name)
            pool, figures = self.in_force.config.node_pools.get(name), given.nodes.figures(name)
            matching = node_pools.nodes_match(pool, figures, view.status)
            if matching is not None:
                wanted[matching.type] = replace(matching, observed_generation=generation)
            status |= node_pools.counters(pool, figures, view.status)
        changed = with_conditions(view.status.conditions, wanted, now)
        if changed is not None:
            status["conditions"] = changed
        if status and not urgent and now.monotonic < reported.counters_not_before:
            self._wake_at(reported.counters_not_before)
            return None
        if not status:
            return None
        reported.counters_not_before = now.monotonic + COUNTERS_S
        return {"metadata": {"resourceVersion": view.metadata.resource_version}, "status": status}

    def _findings(self, view: Configured, problem: Problem | None) -> dict[str, Condition]:
        """What else there is to say at once."""
        name = view.metadata.name
        if isinstance(view, IPAddressPool):
            withheld = self._withheld.get(PoolName(name), ())
            return {"Overlapping": conditions.overlapping(self._pool_in_force(view), problem, withheld)}
        if isinstance(view, NodeIPPool):
            return {}
        advertisement = self.in_force.config.advertisements.get(name)
        return {} if advertisement is None else self.findings.of(advertisement, self._pools)

    def _pool_in_force(self, view: IPAddressPool) -> Pool | None:
        return self.in_force.config.pools.get(PoolName(view.metadata.name))

    def _counts(self, view: IPAddressPool, ledger: Ledger) -> dict[Family, tuple[int, int]]:
        name = PoolName(view.metadata.name)
        there = name in self.in_force.config.pools
        return {family: ledger.counts(name, family) if there else (0, 0) for family in Family}

    def _validity(self, view: Configured, problem: Problem | None) -> Condition:
        if problem is None:
            return Condition("Valid", "True", "InForce")
        config = self.in_force.config
        stays: Iterable[str] = config.advertisements
        if not isinstance(view, L2Advertisement):
            stays = config.pools if isinstance(view, IPAddressPool) else config.node_pools
        rest = "; the last good version stays in force" if view.metadata.name in stays else ""
        message = shortened(f"{problem.field}: {problem.reason}{rest}")
        return Condition("Valid", "False", problem.word, message)

    def _counters(self, view: IPAddressPool, ledger: Ledger, *, everything: bool) -> dict[str, int]:
        """The counters that differ from what the status shows, or all of them."""
        v4, v6 = self._counts(view, ledger).values()
        shown = view.status
        wanted = {
            "assignedIPv4": (v4[0], shown.assigned_ipv4),
            "assignedIPv6": (v6[0], shown.assigned_ipv6),
            "availableIPv4": (v4[1], shown.available_ipv4),
            "availableIPv6": (min(v6[1], LARGEST_COUNT), shown.available_ipv6),
        }
        return {field: count for field, (count, present) in wanted.items() if everything or count != present}

    def _state_change(self, now: Moment) -> Change | None:
        """What to do about the ConfigurationState."""
        if not self._state.known:
            return Read(CONFIGURATION_STATES, self._namespace, STATE_NAME)
        view = self._state.view
        if not isinstance(view, ConfigurationState):
            body: dict[str, Any] = {"metadata": {"name": STATE_NAME, "namespace": self._namespace, "labels": _LABELS}}
            return self._write(self._state, body, "made the ConfigurationState", create=True)
        problems = (*self.in_force.problems, *([self.in_force.obstacle] if self.in_force.obstacle is not None else []))
        summary = shortened("; ".join(problem.text for problem in problems))
        result = "Invalid" if problems else "Valid"
        status: dict[str, Any] = {}
        if view.status.result != result:
            status["result"] = result
        if view.status.error_summary != summary:
            status["errorSummary"] = summary
        valid, reason = ("False", "ConfigurationError") if problems else ("True", "Reconciled")
        wanted = {type_: Condition(type_, valid, reason, summary) for type_ in _STATE_CONDITIONS}
        changed = with_conditions(view.status.conditions, wanted, now)
        if changed is not None:
            status["conditions"] = changed
        if not status:
            return None
        body = {"metadata": {"resourceVersion": view.metadata.resource_version}, "status": status}
        return self._write(
            self._state, body, f"configuration {result}: {summary}" if summary else "configuration Valid"
        )

    def _write(self, reported: Reported, body: dict[str, Any], decision: str, *, create: bool = False) -> Write:
        return Write(
            reported.resource,
            self._namespace,
            reported.name,
            body,
            decision,
            subresource=None if create else "status",
            create=create,
        )


def _recorded(release: RememberedRelease) -> RecentRelease:
    return RecentRelease(release.service, tuple(address.text for address in release.addresses), release.time)


def _same_wish(before: Configured, after: Configured) -> bool:
    one, other = before.metadata, after.metadata
    return (before.spec, one.labels, one.uid, one.generation) == (after.spec, other.labels, other.uid, other.generation)
