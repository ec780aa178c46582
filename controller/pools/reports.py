"""What the controller writes about pools and advertisements, on the objects themselves. Pure, as ``reconcile`` is.

It keeps the objects that exist, makes them into the ``Config`` in force, and keeps these up to date in the API:

1. the conditions of each pool and advertisement (``conditions``);
2. the counters and the recent releases of each pool;
3. the ConfigurationState named ``controller``.

Counters may lag by ``COUNTERS_S``, so that a thousand allocations are not a thousand writes. The rest is written at
once. Where the definitions are not ours (MetalLB's know no conditions) the API server drops what it does not know, and
the controller does not write that again and again. What somebody else keeps replacing is written ever more seldom: two
controllers of different classes in one namespace write about the same pools, and know of different releases.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterable, Mapping
from typing import Any

from msgspec.structs import replace

from cluster import config as configuration
from cluster.addresses import Family, Range
from cluster.config import Config, Pool, Problem
from cluster.objects import (
    Condition,
    ConfigurationState,
    IPAddressPool,
    L2Advertisement,
    NodeName,
    PoolName,
    RecentRelease,
    is_older,
    to_builtins,
)
from cluster.resources import CONFIGURATION_STATES, IP_ADDRESS_POOLS, L2_ADVERTISEMENTS, Resource
from cluster.times import LONG_AGO
from controller.allocation.ledger import Ledger
from controller.allocation.releases import Releases, RememberedRelease
from controller.allocation.reserved import Reserved
from controller.changes import Change, Moment, Read, Write, shortened, with_conditions
from controller.pools import conditions
from controller.retry import CONFLICTS_AT_ONCE, retry_delay

COUNTERS_S = 1.0
"""Seconds between two writes of one pool's counters."""
AGAIN_S = (1.0, 300.0)
"""Seconds until the same is said once more on an object where somebody else replaces it: at first, and at most."""
CALM_S = 3600.0
"""After so long the next time is the first again."""
LARGEST_COUNT = 2**63 - 1
"""The API's integers end here; an IPv6 /64 has more addresses."""
STATE_NAME = "controller"
_STATE_CONDITIONS = ("configReconcilerValid", "poolReconcilerValid")
_LABELS = {"metallb.io/component-type": "controller"}

Configured = IPAddressPool | L2Advertisement


@dataclasses.dataclass(slots=True)
class _Reported:
    """One object that we report on."""

    resource: Resource[Any]
    name: str
    view: IPAddressPool | L2Advertisement | ConfigurationState | None = None
    known: bool = True
    """Whether ``view`` is what the API has; a ConfigurationState is read once, not watched."""
    in_flight: bool = False
    attempts: int = 0
    not_before: float = 0.0
    """Monotonic seconds; after a failure."""
    counters_not_before: float = 0.0
    said: dict[str, Any] | None = None
    """The status of the last write …"""
    said_at: str = ""
    """… and the ``resourceVersion`` that the object had after it."""
    sent: float = LONG_AGO
    """When the last write was decided, in monotonic seconds."""
    again_s: float = AGAIN_S[0]
    """How long after it the same may be said once more."""


class Reports:
    """See the module's docstring. One thread only."""

    def __init__(self, namespace: str, rng: random.Random, previous: Config | None = None) -> None:
        """``previous`` is the configuration whose objects stay in force where they cannot be honoured any more."""
        self.config = Config()
        """What is in force, as of the last ``reload``."""
        self.problems: tuple[Problem, ...] = ()
        self.states_served = True
        """Whether the API has the kind ConfigurationState; MetalLB up to 0.15 did not."""
        self._elsewhere: Mapping[PoolName, str] = {}
        self._obstacle: Problem | None = None
        self._namespace = namespace
        self._rng = rng
        self._previous = previous
        self._pools: dict[str, _Reported] = {}
        self._advertisements: dict[str, _Reported] = {}
        self._state = _Reported(CONFIGURATION_STATES, STATE_NAME, known=False)
        self._nodes: dict[NodeName, Mapping[str, str]] = {}
        self._without_interface: dict[NodeName, frozenset[str]] = {}
        self._found: dict[str, dict[str, Condition]] = {}
        """What there is to say about each advertisement; empty: to be looked up anew."""
        self._withheld: dict[PoolName, list[tuple[Range, Reserved]]] = {}
        self._withheld_for: tuple[object, object] = (None, None)
        self._new_problems: list[Problem] = []
        self._changed = True
        self._deadline: float | None = None

    # -------------------------------------------------------------------- what is observed

    def observe(self, view: Configured) -> None:
        """A pool or an advertisement as the API shows it."""
        table, resource = self._table(view)
        reported = table.setdefault(view.metadata.name, _Reported(resource, view.metadata.name))
        before = reported.view
        if before is not None and is_older(view.metadata.resource_version, before.metadata.resource_version):
            return
        reported.view = view
        if before is None or not isinstance(before, Configured) or not _same_wish(before, view):
            self._changed = True

    def vanished(self, view: Configured) -> None:
        table, _ = self._table(view)
        if table.pop(view.metadata.name, None) is not None:
            self._changed = True

    def set_node(self, name: str, labels: Mapping[str, str] | None) -> None:
        """A node's labels; None: it is gone."""
        node = NodeName(name)
        if self._nodes.get(node) == labels:
            return
        self._found.clear()
        if labels is None:
            del self._nodes[node]
        else:
            self._nodes[node] = labels

    def set_elsewhere(self, pools: Mapping[PoolName, str]) -> None:
        """Pools in other namespaces that nobody reads."""
        if pools is not self._elsewhere:
            self._elsewhere, self._changed = pools, True

    def set_obstacle(self, problem: Problem | None) -> None:
        """What keeps pools from being applied; None: nothing."""
        if problem != self._obstacle:
            self._obstacle, self._changed = problem, True
            self._new_problems += [problem] if problem is not None else []

    def set_speaker_state(self, view: ConfigurationState, *, gone: bool = False) -> None:
        """What a speaker says of its node; what other ConfigurationStates say is not looked at."""
        labels = view.metadata.labels
        node = NodeName(labels.get("metallb.io/node-name", ""))
        if labels.get("metallb.io/component-type") != "speaker" or not node:
            return
        said = None if gone else view.status.advertisements_without_interface
        now = None if said is None else frozenset(said)
        if self._without_interface.get(node) == now:
            return
        self._found.clear()
        if now is None:
            del self._without_interface[node]
        else:
            self._without_interface[node] = now

    def _table(self, view: Configured) -> tuple[dict[str, _Reported], Resource[Any]]:
        if isinstance(view, IPAddressPool):
            return self._pools, IP_ADDRESS_POOLS
        return self._advertisements, L2_ADVERTISEMENTS

    # -------------------------------------------------------------------- what became of the changes

    def answered(self, change: Change, view: IPAddressPool | L2Advertisement | ConfigurationState | None) -> None:
        """The change was made: the object as it is now, or None where it is gone."""
        reported = self._reported(change)
        if reported is None:
            return
        reported.attempts = 0
        if isinstance(change, Write) and view is not None:
            reported.said, reported.said_at = _words(change), view.metadata.resource_version
        self._learn(reported, view)

    def superseded(
        self, change: Change, view: IPAddressPool | L2Advertisement | ConfigurationState | None, now: Moment
    ) -> None:
        """Somebody else wrote first; ``view`` is what the object has become. It is judged anew."""
        reported = self._reported(change)
        if reported is None:
            return
        reported.attempts += 1
        if reported.attempts > CONFLICTS_AT_ONCE:
            reported.not_before = now.monotonic + retry_delay(reported.attempts, 0.0, self._rng)
        self._learn(reported, view)

    def _learn(self, reported: _Reported, view: IPAddressPool | L2Advertisement | ConfigurationState | None) -> None:
        reported.in_flight = False
        if reported is self._state:
            reported.view, reported.known = view, True
        elif isinstance(view, Configured):
            self.observe(view)

    def failed(self, change: Change, retry_after: float, now: Moment) -> None:
        """The change could not be made; it is tried again after a while, at the earliest in ``retry_after`` seconds."""
        reported = self._reported(change)
        if reported is None:
            return
        reported.in_flight = False
        reported.attempts += 1
        reported.not_before = now.monotonic + retry_delay(reported.attempts, retry_after, self._rng)

    def _reported(self, change: Change) -> _Reported | None:
        if change.resource is IP_ADDRESS_POOLS:
            return self._pools.get(change.name)
        if change.resource is L2_ADVERTISEMENTS:
            return self._advertisements.get(change.name)
        return self._state

    # -------------------------------------------------------------------- deciding

    def reload(self) -> bool:
        """Make the objects into ``config`` if they changed; says whether it is another one now."""
        if not self._changed:
            return False
        self._changed = False
        loaded = configuration.load(
            [each.view for each in self._pools.values() if isinstance(each.view, IPAddressPool)],
            [each.view for each in self._advertisements.values() if isinstance(each.view, L2Advertisement)],
            self._previous,
        )
        obstacle = self._obstacle.text if self._obstacle is not None else ""
        config = dataclasses.replace(loaded.config, elsewhere=self._elsewhere, obstacle=obstacle)
        differs = config != self.config
        self.config = self._previous = config
        self._found.clear()
        self._new_problems += [problem for problem in loaded.problems if problem not in self.problems]
        self.problems = loaded.problems
        return differs

    def take_new_problems(self) -> list[Problem]:
        """Problems that came up since the last call, for the log."""
        taken, self._new_problems = self._new_problems, []
        return taken

    def next_deadline(self) -> float | None:
        """When ``decide`` wants to be called next though nothing was observed, in monotonic seconds."""
        return self._deadline

    def recorded_releases(self) -> list[RecentRelease]:
        """What the status of the pools remembers, as it was read."""
        views = (each.view for each in self._pools.values())
        return [each for view in views if isinstance(view, IPAddressPool) for each in view.status.recent_releases]

    def decide(self, ledger: Ledger, releases: Releases, now: Moment) -> list[Change]:
        """The writes that make the objects say what is so."""
        self._deadline = None
        config, reserved = self._withheld_for
        if config is not self.config or reserved is not ledger.reserved:
            self._withheld_for = self.config, ledger.reserved
            self._withheld = {name: ledger.withheld_of(name) for name in self.config.pools}
        wrong = {(problem.kind, problem.name): problem for problem in self.problems}
        changes: list[Change] = []
        for reported in (*self._pools.values(), *self._advertisements.values()):
            body = self._report(reported, wrong.get((reported.resource.kind, reported.name)), ledger, releases, now)
            if body:
                changes += self._sent(reported, self._write(reported, body, "reported on the object"), now)
        state = self._state_change(now) if self.states_served else None
        if state is not None:
            changes += self._sent(self._state, state, now)
        return changes

    def _sent(self, reported: _Reported, change: Change, now: Moment) -> tuple[Change, ...]:
        """The change, if it may be sent now."""
        if not self._may_send(reported, change, now):
            return ()
        if isinstance(change, Write):
            again = _words(change) == reported.said and now.monotonic - reported.sent < CALM_S
            reported.again_s = min(2 * reported.again_s, AGAIN_S[1]) if again else AGAIN_S[0]
            reported.sent = now.monotonic
        reported.in_flight = True
        return (change,)

    def _may_send(self, reported: _Reported, change: Change, now: Moment) -> bool:
        if reported.in_flight:
            return False
        not_before = reported.not_before
        if isinstance(change, Write) and _words(change) == reported.said:
            if reported.view is not None and reported.view.metadata.resource_version == reported.said_at:
                return False  # the server dropped it
            not_before = max(not_before, reported.sent + reported.again_s)  # somebody else replaced it
        if now.monotonic < not_before:
            self._wake_at(not_before)
            return False
        return True

    def _wake_at(self, at: float) -> None:
        self._deadline = at if self._deadline is None else min(self._deadline, at)

    def _report(
        self, reported: _Reported, problem: Problem | None, ledger: Ledger, releases: Releases, now: Moment
    ) -> dict[str, Any] | None:
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
            exhausted = conditions.exhausted(self._in_force(view), self._counts(view, ledger))
            wanted["Exhausted"] = replace(exhausted, observed_generation=generation)
            status |= self._counters(view, ledger, everything=not view.status.conditions)
            remembered = tuple(_recorded(each) for each in releases.of(PoolName(view.metadata.name)))
            if self._in_force(view) and remembered != view.status.recent_releases:
                status["recentReleases"] = [to_builtins(each) for each in remembered] or None
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
            return {"Overlapping": conditions.overlapping(self._in_force(view), problem, withheld)}
        advertisement = self.config.advertisements.get(name)
        if advertisement is None:
            return {}
        if name not in self._found:
            matching = conditions.matching_nodes(advertisement, self._nodes)
            said = (
                conditions.pools_exist(advertisement, self._pools),
                conditions.nodes_match(advertisement, matching),
                conditions.interfaces_exist(advertisement, matching, self._without_interface),
            )
            self._found[name] = {each.type: each for each in said}
        return self._found[name]

    def _in_force(self, view: IPAddressPool) -> Pool | None:
        return self.config.pools.get(PoolName(view.metadata.name))

    def _counts(self, view: IPAddressPool, ledger: Ledger) -> dict[Family, tuple[int, int]]:
        name = PoolName(view.metadata.name)
        return {family: ledger.counts(name, family) if name in self.config.pools else (0, 0) for family in Family}

    def _validity(self, view: Configured, problem: Problem | None) -> Condition:
        if problem is None:
            return Condition("Valid", "True", "InForce")
        stays: Iterable[str] = self.config.pools if isinstance(view, IPAddressPool) else self.config.advertisements
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
        problems = (*self.problems, *([self._obstacle] if self._obstacle is not None else []))
        summary = shortened("; ".join(problem.text for problem in problems))
        result = "Invalid" if problems else "Valid"
        status: dict[str, Any] = {}
        if view.status.result != result:
            status["result"] = result
        if view.status.error_summary != summary:
            status["errorSummary"] = summary
        judgement, reason = ("False", "ConfigurationError") if problems else ("True", "Reconciled")
        wanted = {type_: Condition(type_, judgement, reason, summary) for type_ in _STATE_CONDITIONS}
        changed = with_conditions(view.status.conditions, wanted, now)
        if changed is not None:
            status["conditions"] = changed
        if not status:
            return None
        body = {"metadata": {"resourceVersion": view.metadata.resource_version}, "status": status}
        return self._write(
            self._state, body, f"configuration {result}: {summary}" if summary else "configuration Valid"
        )

    def _write(self, reported: _Reported, body: dict[str, Any], decision: str, *, create: bool = False) -> Write:
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


def _words(change: Write) -> dict[str, Any]:
    """What a write says, whenever it says it."""
    status = dict(change.body.get("status", {}))
    conditions = status.pop("conditions", [])
    return status | {each["type"]: each | {"lastTransitionTime": None} for each in conditions}


def _same_wish(before: Configured, after: Configured) -> bool:
    one, other = before.metadata, after.metadata
    return (before.spec, one.labels, one.uid, one.generation) == (after.spec, other.labels, other.uid, other.generation)
