"""What is known of kube-proxy after some looks at this node, and when to look again (``node_look`` does).

1. The second look comes two seconds after the first, the next ones after pauses that double up to ``LONGEST_PAUSE_S``.
   They begin anew when kube-proxy is not found to serve any more, so that its return is soon seen.
2. What was known of kube-proxy is known until two looks in a row could not find it out: one that restarts changes
   nothing. What it says itself counts at once.
"""

from __future__ import annotations

from typing import NamedTuple, TypeVar

from speaker.api.listening import LOOKS

FIRST_PAUSE_S = 2.0
LONGEST_PAUSE_S = 30.0

T = TypeVar("T")


class ProxyState(NamedTuple):
    """What kube-proxy says of itself; None: nothing."""

    mode: str | None = None
    healthy: bool | None = None


class Looks:
    """See the module's docstring."""

    def __init__(self) -> None:
        self.pause_s = FIRST_PAUSE_S
        """Until the next look, after the one that was told last."""
        self._mode: tuple[str | None, int] = None, 0
        self._healthy: tuple[bool | None, int] = None, 0
        """What is known, and how many looks have not found it out."""
        self._served = False
        self._next_pause_s = FIRST_PAUSE_S

    def found(self, proxy: ProxyState) -> ProxyState:
        """A look found this. Returns what is known."""
        self._mode = (proxy.mode, 0) if proxy.mode is not None else _missed(*self._mode)
        self._healthy = (proxy.healthy, 0) if proxy.healthy is not None else _missed(*self._healthy)
        ceased = self._served and not proxy.healthy
        self._served = bool(proxy.healthy)
        self.pause_s = FIRST_PAUSE_S if ceased else self._next_pause_s
        self._next_pause_s = min(2 * self.pause_s, LONGEST_PAUSE_S)
        return ProxyState(self._mode[0], self._healthy[0])


def _missed(known: T | None, missed: int) -> tuple[T | None, int]:
    return (known, missed + 1) if missed + 1 < LOOKS else (None, 0)
