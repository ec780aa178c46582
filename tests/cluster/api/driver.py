"""Drives a ``ListWatch`` through what a server says, with a clock of its own."""

from __future__ import annotations

import json
import random
from typing import Any

from cluster.api.errors import (
    ApiError,
)
from cluster.api.listwatch import (
    INITIAL_EVENTS_END,
    Change,
    ListWatch,
    Step,
    Wait,
    Watch,
)
from cluster.objects import RawList, RawWatchEvent, Service, decode

Json = dict[str, Any]


def service(name: str, version: int, uid: str | None = None) -> Json:
    return {
        "metadata": {"name": name, "namespace": "dev", "uid": uid or f"uid-{name}", "resourceVersion": str(version)}
    }


def unreadable(name: str, version: int) -> Json:
    return service(name, version) | {"spec": {"ports": "eighty"}}


def event(kind: str, body: Json) -> RawWatchEvent:
    return decode(json.dumps({"type": kind, "object": body}).encode(), RawWatchEvent)


def bookmark(version: int, *, ends_initial: bool = False) -> RawWatchEvent:
    annotations = {INITIAL_EVENTS_END: "true"} if ends_initial else {}
    return event("BOOKMARK", {"metadata": {"resourceVersion": str(version), "annotations": annotations}})


def refused(code: int, reason: str = "") -> RawWatchEvent:
    return event("ERROR", {"kind": "Status", "metadata": {}, "code": code, "reason": reason, "message": "no"})


def page(items: list[Json], version: int, continue_: str = "") -> RawList:
    body = {"metadata": {"resourceVersion": str(version), "continue": continue_}, "items": items}
    return decode(json.dumps(body).encode(), RawList)


def told(changes: list[Change[Service]]) -> list[tuple[str, str]]:
    return [(change.kind, change.key) for change in changes]


class Driver:
    """A ListWatch with a clock: waits are taken, and what it then wants to do is looked at."""

    def __init__(self, seed: int = 1, *, optional: bool = False) -> None:
        self.core = ListWatch(Service, random.Random(seed), optional=optional)
        self.now = 1000.0

    def step(self) -> Step:
        """What it wants to do next, its wait taken. Twice waiting would be a defect: the wait was over."""
        step = self.core.next_step(self.now)
        if isinstance(step, Wait):
            self.now += step.seconds
            step = self.core.next_step(self.now)
        assert not isinstance(step, Wait)
        return step

    def wait(self) -> float:
        """Seconds that it wants to wait now, 0 for none."""
        step = self.core.next_step(self.now)
        return step.seconds if isinstance(step, Wait) else 0.0

    def open(self) -> Watch:
        step = self.step()
        assert isinstance(step, Watch)
        self.core.watch_opened(self.now)
        return step

    def receive(self, *events: RawWatchEvent) -> list[tuple[str, str]]:
        return [pair for one in events for pair in told(self.core.receive_event(one, self.now))]

    def sync(self, *objects: Json, version: int = 10) -> list[tuple[str, str]]:
        """A streamed list, up to its end."""
        assert self.open().initial_events
        return self.receive(*[event("ADDED", body) for body in objects], bookmark(version, ends_initial=True))

    def fail(self, error: ApiError) -> None:
        self.core.failed(error, self.now)

    def end(self) -> None:
        self.core.watch_ended(self.now)


def names(driver: Driver) -> set[str]:
    return set(driver.core.held)
