"""Which Services are to be judged when something changes: an index of what each one is interested in.

Example: ``web`` waits for port 80 on two addresses of nodes. When one of them is given back, ``of`` names ``web``.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class Interests(Generic[T]):
    """Services are known by their keys. To note and to ask costs as much as there is in the answer."""

    def __init__(self) -> None:
        self._of: dict[str, frozenset[T]] = {}
        self._in: dict[T, set[str]] = {}

    def note(self, service: str, things: Iterable[T]) -> None:
        """What the Service is interested in from now on; nothing: it is forgotten."""
        before, now = self._of.get(service, frozenset()), frozenset(things)
        if before == now:
            return
        for each in before - now:
            self._in[each].discard(service)
            if not self._in[each]:
                del self._in[each]
        for each in now - before:
            self._in.setdefault(each, set()).add(service)
        if now:
            self._of[service] = now
        else:
            del self._of[service]

    def noted(self, service: str) -> frozenset[T]:
        """What the Service is interested in."""
        return self._of.get(service, frozenset())

    def of(self, things: Iterable[T]) -> set[str]:
        """The Services that are interested in any of these."""
        return {service for each in things for service in self._in.get(each, ())}
