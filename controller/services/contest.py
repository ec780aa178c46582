"""Somebody else who writes a Service's status: noticed, named, and not fought.

k3s' ServiceLB, a MetalLB that was left running, kube-vip and a cloud's controller all take a Service's status for
theirs. Two controllers that correct each other would do so for ever, and each correction is a change for every node.

1. The first two times in a row that somebody replaces the addresses they are put right: a person may have edited them.
2. From the third time on there is a contest, and nothing is written. The Service keeps the address, and its condition
   names the other writer (``metadata.managedFields``).
3. The addresses are written again when the Service itself is changed, or once after a pause. The pause counts from the
   other's last write, and doubles each time up to an hour.

A contest is about the addresses in the status and nothing else. Our annotation and condition are put back as often as
``pace`` allows. One thing is not left alone in a contest: an address that another Service has is taken out of the
status each time, within a second.

After a restart the Service's condition says that there was a contest, and the pause begins anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cluster.addresses import Address
from cluster.annotations import ALLOCATED_FROM_POOL, DEPRECATED_PREFIX, PREFIX
from cluster.objects import ManagedFields, Service, find_condition
from cluster.record import ADDRESS_ASSIGNED, kept_words
from cluster.times import LONG_AGO
from controller.allocation.outcomes import Reason, Refusal

REWRITES = 3
"""From the third on it is no slip of somebody's hand."""
CALM_S = 3600.0
"""After so long without a rewrite the next one is the first again. Most rivals answer within seconds; some only when
they go over everything, every few minutes."""
FIRST_PAUSE_S = 300.0
AGAIN_S = 30.0
"""Between two tries because the Service was changed, at least: rivals change Services, too."""
LAST_PAUSE_S = 3600.0

Shown = tuple[str, ...]
"""The addresses in a Service's status, as text."""


def shown(view: Service) -> Shown:
    """What the Service shows now."""
    return tuple(each.ip for each in view.status.load_balancer.ingress)


def shown_of_nodes(view: Service) -> Shown:
    """As ``shown``, with the ``ipMode`` that an address of a node must not have."""
    ingress = view.status.load_balancer.ingress
    return tuple(f"{each.ip} (Proxy)" if each.ip_mode == "Proxy" else each.ip for each in ingress)


def wish(view: Service) -> object:
    """All by which people tell us something in the Service. When it changes the addresses are tried again. Other
    annotations do not count: rivals write some of their own beside the status."""
    ours = {
        key: value
        for key, value in view.metadata.annotations.items()
        if key.startswith((PREFIX, DEPRECATED_PREFIX)) and not key.endswith("/" + ALLOCATED_FROM_POOL)
    }
    return (view.spec, view.metadata.labels, ours)


def last_other_writer(entries: Iterable[ManagedFields], ourselves: str) -> str | None:
    """The manager other than ourselves that wrote ``status.loadBalancer`` last, or else anything of the status."""
    others = [each for each in entries if each.manager not in {"", ourselves} and each.fields_v1.status is not None]
    if not others:
        return None

    def rank(each: ManagedFields) -> tuple[bool, str]:
        return (each.fields_v1.status is not None and each.fields_v1.status.load_balancer is not None, each.time)

    return max(others, key=rank).manager


@dataclass(slots=True)
class Contest:
    """The contest about one Service's status. Times are monotonic seconds."""

    rewrites: int = 0
    """In a row."""
    last: float = 0.0
    """When the last one was seen."""
    pause: float = FIRST_PAUSE_S
    """Seconds from the other's last write to the next try."""
    until: float | None = None
    """No write before this; None: there is no contest."""
    about: object = None
    """The Service's ``wish`` when it began."""
    tried: float = LONG_AGO
    """When it was last tried because of another wish."""
    asked: bool = False
    """Whether the API has told who it is."""
    rival: str | None = None
    told: bool = False
    """Whether the Service's condition says so."""

    @classmethod
    def remembered(cls, view: Service, now: float) -> Contest | None:
        """The contest that the Service's condition tells of, after a restart."""
        said = find_condition(view.status.conditions, ADDRESS_ASSIGNED)
        if said is None or said.reason != Reason.CONTESTED.value:
            return None
        return cls(REWRITES, now, FIRST_PAUSE_S, now + FIRST_PAUSE_S, wish(view), told=True)

    def rewritten(self, view: Service, now: float) -> None:
        """Somebody replaced what we wrote."""
        if now - self.last > CALM_S:
            self.rewrites, self.pause = 0, FIRST_PAUSE_S
        self.rewrites, self.last = self.rewrites + 1, now
        if self.until is not None:
            self.until = now + self.pause
        elif self.rewrites >= REWRITES:
            self.about, self.until = wish(view), now + self.pause
            self.asked, self.rival, self.told = False, None, False

    def lasts(self, view: Service, now: float) -> bool:
        """Whether we keep from writing. Asking ends a contest that is over: that is one more try, and the next rewrite
        begins it anew."""
        if self.until is None:
            return False
        if self.about != wish(view) and now >= self.tried + AGAIN_S:
            self.tried, self.until = now, None
        elif now >= self.until:
            self.last, self.pause, self.until = now, min(LAST_PAUSE_S, 2 * self.pause), None
        return self.until is not None

    def next_try(self, view: Service) -> float | None:
        """When to ask again though nothing was observed."""
        if self.until is None or self.about == wish(view):
            return self.until
        return min(self.until, self.tried + AGAIN_S)

    def refusal(self, assigned: Sequence[Address], *, written: bool) -> Refusal:
        """For the condition and the Event. ``written``: the Service's addresses stand in its status all the same."""
        who = f'"{self.rival}"' if self.rival else "something that the API does not name"
        kept = f"{kept_words(assigned)}, {'and' if written else 'but'}" if assigned else "it"
        then = (
            "is written again each time, since other Services hold what was put there"
            if written
            else "is not written again until the Service is changed or the other stops"
        )
        return Refusal(
            Reason.CONTESTED,
            f"{who} keeps replacing what is written to the Service's status; {kept} {then}. "
            "Remove one of the two, or give the Service a loadBalancerClass",
        )
