"""A Service of which the controller keeps track: what it has, and what is going on about it."""

from __future__ import annotations

from dataclasses import dataclass

from cluster.objects import Condition, Service
from controller.allocation.outcomes import Refusal
from controller.changes import Moment, Patch, service_patch
from controller.services.assignments import Assignment
from controller.services.contest import Contest, Shown, wish


@dataclass(frozen=True, slots=True)
class Decided:
    """What a Service was decided to show, and what it was like then."""

    view: Service
    addresses: Shown
    pool: str | None
    condition: Condition
    conflict: Condition | None
    not_delivered: Condition | None
    at: Moment
    of_nodes: bool = False

    def patch(self, view: Service) -> Patch | None:
        """What makes ``view`` show it; None: it does."""
        return service_patch(
            view,
            self.addresses,
            self.pool,
            self.condition,
            self.at,
            conflict=self.conflict,
            not_delivered=self.not_delivered,
            of_nodes=self.of_nodes,
        )

    def is_what(self, view: Service) -> bool:
        """Whether the Service shows it, and asks for nothing else than it did when that was decided."""
        alike = view.metadata.deletion_timestamp == self.view.metadata.deletion_timestamp
        return alike and wish(view) == wish(self.view) and self.patch(view) is None


@dataclass(slots=True)
class Tracked(Assignment):
    """The state of one Service. Times are monotonic seconds."""

    refusal: Refusal | None = None
    """Why it has no address, or not the one that it asks for."""
    stated: Shown | None = None
    """What the Service showed when we last knew it to be as we wrote it."""
    contest: Contest | None = None
    not_delivered: Condition | None = None
    """What it is to say of its companion (``companions``)."""
    told: frozenset[str] = frozenset()
    """The annotations of which it was told that they are deprecated or have no effect."""
    remind: bool = False
    """Whether it is to be told once more why it waits."""
    doubtful: bool = False
    """It left the watched selection and has not been read since."""
    in_flight: bool = False
    """Whether a request about it is under way."""
    decided: Decided | None = None
    """What the write that is under way makes of it."""
    overtaken: bool = False
    """Whether something else than the Service has changed while a request about it was under way."""
    attempts: int = 0
    """Requests in a row that failed, or met a conflict."""
    retry_at: float | None = None
    """Nothing is asked before this."""
    addresses_whole_at: float = 0.0
    """``pace.ADDRESSES`` of it …"""
    words_whole_at: float = 0.0
    """… and ``pace.WORDS``."""

    @property
    def uid(self) -> str:
        return self.view.metadata.uid
