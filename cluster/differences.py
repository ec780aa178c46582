"""Where an observing daemon would do otherwise than what it finds: each difference once, for as long as it lasts. Pure.

Another controller needs some time too: a Service that was made a moment ago has no address yet, and a node that died is
still named. So a difference counts once it has lasted. It is told when it begins to count and when it is over. How many
count is a figure for each kind.

Times are monotonic seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple


class Difference(NamedTuple):
    """About one object."""

    kind: str
    """One word, of a bounded set: the label of the metric."""
    about: str
    """The object, for people."""
    there: str
    """What there is."""
    decided: str
    """What would be."""
    why: str = ""


class DifferenceNews(NamedTuple):
    """What has changed in what counts."""

    begun: tuple[Difference, ...] = ()
    over: tuple[Difference, ...] = ()


class Differences:
    """See the module's docstring. ``patience_s`` is how long a difference must last to count."""

    def __init__(self, kinds: Iterable[str], patience_s: float) -> None:
        self._patience_s = patience_s
        self._counting: dict[str, Difference] = {}
        self._new: dict[str, tuple[Difference, float]] = {}
        """Those that do not count yet, and since when they are there; in order of that time."""
        self._over: list[Difference] = []
        self._counts: Counter[str] = Counter(dict.fromkeys(kinds, 0))

    def set(self, key: str, found: Difference | None, now: float) -> None:
        """What is found of one object; None: it is as it would be."""
        counting = self._counting.get(key)
        new = self._new.get(key)
        if found is not None and new is not None and new[0] == found:
            return
        self._new.pop(key, None)
        if found is None and counting is not None:
            self._end(key)
        elif found is not None and found != counting:
            self._new[key] = found, now

    def set_all(self, found: Mapping[str, Difference], now: float) -> None:
        """What is found of all objects."""
        for key in [*self._counting, *self._new]:
            if key not in found:
                self.set(key, None, now)
        for key, difference in found.items():
            self.set(key, difference, now)

    def take_news(self, now: float) -> DifferenceNews:
        """What began to count, and what ceased to, since the last call."""
        begun = []
        for key, (difference, _) in list(self._due(now)):
            del self._new[key]
            if key in self._counting:
                self._end(key)
            self._counting[key] = difference
            self._counts[difference.kind] += 1
            begun.append(difference)
        over, self._over = self._over, []
        return DifferenceNews(tuple(begun), tuple(over))

    def next_deadline(self) -> float | None:
        """When ``take_news`` has something to tell though nothing be found."""
        return next((since + self._patience_s for _, since in self._new.values()), None)

    def counts(self) -> Mapping[str, int]:
        """How many count, by kind; of each kind, also none. From any thread."""
        return dict(self._counts)

    def _due(self, now: float) -> Iterator[tuple[str, tuple[Difference, float]]]:
        for key, new in self._new.items():
            if new[1] + self._patience_s > now:
                return
            yield key, new

    def _end(self, key: str) -> None:
        ended = self._counting.pop(key)
        self._counts[ended.kind] -= 1
        self._over.append(ended)
