"""Which of the announcer's notices become Events, in which words, and how often.

Anybody on the LAN can cause conflicts, with as many MACs as he likes: one Event per address and MAC in ten minutes, a
bounded memory of them, and a bounded rate in all.
"""

from __future__ import annotations

from typing import NamedTuple

from cluster.objects import AddressText, NodeName
from speaker.channel import Notice

REPEAT_S = 600.0  # until the same address and MAC are worth another Event
MEMORY = 1024  # pairs of address and MAC remembered
BURST = 10  # Events in a row
REFILL_S = 10.0  # until one more is allowed after a burst


class Alert(NamedTuple):
    """A Warning Event to be."""

    address: AddressText
    reason: str
    message: str


def alert(notice: Notice, node: NodeName) -> Alert | None:
    """The Event that a notice asks for; None for notices that are nobody's business but the log's."""
    address, mac = notice.fields.get("address"), notice.fields.get("mac")
    if not address or not mac:
        return None
    link, rival = notice.fields.get("link"), notice.fields.get("node")
    who = f"{mac} on {link}" if link else f"{mac}"
    message = (
        f"{who} also answers for {address}, which node {node} announces; who believes it does not reach the Service"
    )
    if rival:
        message += (
            f". It is node {rival}, whose kernel answers by itself:"
            " with kube-proxy in IPVS mode, set strictARP in its configuration"
        )
    return Alert(AddressText(str(address)), notice.reason, message)


class NoticeGate:
    """Lets a bounded number of Events through. Time in monotonic seconds."""

    def __init__(self) -> None:
        self._told: dict[tuple[str, ...], float] = {}
        self._tokens = float(BURST)
        self._filled_at = 0.0

    def __len__(self) -> int:
        """How many rivals are remembered."""
        return len(self._told)

    def admits(self, key: tuple[str, ...], now: float) -> bool:
        told = self._told.get(key)
        if told is not None and now - told < REPEAT_S:
            return False
        self._tokens = min(BURST, self._tokens + (now - self._filled_at) / REFILL_S)
        self._filled_at = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        self._told.pop(key, None)
        while len(self._told) >= MEMORY:
            del self._told[next(iter(self._told))]
        self._told[key] = now
        return True
