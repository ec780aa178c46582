"""Somebody else who writes what we write: noticed, named, and not fought.

k3s' ServiceLB, a MetalLB that was left running, kube-vip and a cloud's controller all take a Service's status for
theirs. Two controllers that correct each other would do so for ever, and each correction is a change for every node. A
person who edits a status once or twice is simply corrected. From the third time in a row we stop: the address stays
reserved, the Service's condition names who wrote instead (``metadata.managedFields``), and we write again when the
Service itself is changed, or once after a pause, counted from the other's last write, that doubles each time up to an
hour.

After a restart the condition on the Service says that there was a contest, and the pause begins anew.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cluster.objects import ManagedFields, Service
from controller.allocator import Reason, Refusal
from controller.changes import ADDRESS_ASSIGNED, find_condition
from controller.request import ALLOCATED_FROM_POOL, DEPRECATED_PREFIX, PREFIX

REWRITES = 3
"""From the third on it is no slip of somebody's hand."""
CALM_S = 3600.0
"""After so long without a rewrite the next one is the first again. Most rivals answer within seconds; some only when
they go over everything, every few minutes."""
FIRST_PAUSE_S = 300.0
LAST_PAUSE_S = 3600.0

Statement = tuple[tuple[str, ...], str | None, tuple[str, str] | None]
"""What we write into a Service: the addresses, the pool's annotation, and the condition's status and message."""


def statement(view: Service) -> Statement:
    """What the Service says now in the places where we write."""
    said = find_condition(view.status.conditions, ADDRESS_ASSIGNED)
    return (
        tuple(each.ip for each in view.status.load_balancer.ingress),
        view.metadata.annotations.get(PREFIX + ALLOCATED_FROM_POOL),
        (said.status, said.message) if said is not None else None,
    )


def wish(view: Service) -> object:
    """What people say about the Service; another one is a reason to try again."""
    ours = (PREFIX + ALLOCATED_FROM_POOL, DEPRECATED_PREFIX + ALLOCATED_FROM_POOL)
    annotations = {key: value for key, value in view.metadata.annotations.items() if key not in ours}
    return (view.spec, view.metadata.labels, annotations)


def last_other_writer(entries: Iterable[ManagedFields], ourselves: str) -> str | None:
    """Who, other than ourselves, wrote ``status.loadBalancer`` last, or else anything of the status: the name that it
    gave the API."""
    others = [each for each in entries if each.manager not in {"", ourselves} and each.fields_v1.status is not None]
    if not others:
        return None

    def rank(each: ManagedFields) -> tuple[bool, str]:
        return (each.fields_v1.status is not None and each.fields_v1.status.load_balancer is not None, each.time)

    return max(others, key=rank).manager


@dataclass(slots=True)
class Contest:
    """About one Service. Times are monotonic seconds."""

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
        return cls(REWRITES, now, FIRST_PAUSE_S, now + FIRST_PAUSE_S, wish(view), asked=True, told=True)

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

    def holds(self, view: Service, now: float) -> bool:
        """Whether we keep from writing. Asking ends a contest that is over."""
        if self.until is None:
            return False
        if self.about != wish(view):
            self.rewrites, self.pause, self.until = 0, FIRST_PAUSE_S, None
        elif now >= self.until:  # one more try: the next rewrite begins the contest anew
            self.last, self.pause, self.until = now, min(LAST_PAUSE_S, 2 * self.pause), None
        return self.until is not None

    def refusal(self, addresses: Iterable[str]) -> Refusal:
        """For the condition and the Event."""
        who = f'"{self.rival}"' if self.rival else "something that the API does not name"
        kept = ", ".join(addresses)
        reserved = f"{kept} stays reserved for it, but is" if kept else "it is"
        return Refusal(
            Reason.CONTESTED,
            f"{who} keeps replacing what is written to the Service's status; {reserved} not written again until the "
            "Service is changed or the other stops. Remove one of the two, or give the Service a loadBalancerClass",
        )
