"""How long Services wait for their first address, as histograms of two measurements.

1. ``since_seen``: from when this process first saw the Service without an address until it saw it with one. It is
   exact, and is all that the controller answers for.
2. ``since_creation``: from the Service's ``creationTimestamp``. It includes what came before the controller saw the
   Service. The API keeps whole seconds, so it may be up to a second too long.

A Service that has an address when it is first seen is not measured: a restart would count thousands. Nor is one that
loses its address and gets another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from cluster.objects import Service
from controller.changes import Moment
from controller.services.reading import is_ours

BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
BOUNDS_SINCE_CREATION_S = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0)
"""From one second on: less cannot be told."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """What a histogram shows at one moment."""

    buckets: tuple[tuple[str, int], ...] = (("+Inf", 0),)
    """Upper bound as text, and how many were not above it; the last is ``+Inf``."""
    sum: float = 0.0


class Histogram:
    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        at = next((index for index, bound in enumerate(self._bounds) if value <= bound), len(self._bounds))
        self._counts[at] += 1
        self._sum += value

    def distribution(self) -> Distribution:
        texts = [*(str(bound) for bound in self._bounds), "+Inf"]
        total = 0
        buckets = []
        for text, count in zip(texts, self._counts, strict=True):
            total += count
            buckets.append((text, total))
        return Distribution(tuple(buckets), self._sum)


class FirstAddresses:
    """The Services of one class that wait for their first address. One thread only."""

    def __init__(self, load_balancer_class: str | None) -> None:
        self.since_seen = Histogram(BOUNDS_S)
        self.since_creation = Histogram(BOUNDS_SINCE_CREATION_S)
        self._class = load_balancer_class
        self._seen: dict[str, float] = {}
        """By uid, in monotonic seconds."""

    def begin_anew(self) -> None:
        """Forget the Services that wait now, since what happens to them is not observed any more."""
        self._seen.clear()

    def appeared(self, view: Service, now: Moment) -> None:
        """A Service was seen for the first time."""
        if is_ours(view, self._class) and not view.status.load_balancer.ingress:
            self._seen[view.metadata.uid] = now.monotonic

    def changed(self, view: Service, now: Moment) -> None:
        """A Service as it is now."""
        if not view.status.load_balancer.ingress or view.metadata.uid not in self._seen:
            return
        self.since_seen.observe(now.monotonic - self._seen.pop(view.metadata.uid))
        try:
            created = datetime.fromisoformat(view.metadata.creation_timestamp or "").timestamp()
        except ValueError:
            return
        self.since_creation.observe(max(0.0, now.wall - created))

    def vanished(self, view: Service) -> None:
        """A Service is no LoadBalancer any more, or is gone."""
        self._seen.pop(view.metadata.uid, None)
