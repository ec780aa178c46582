"""What goes out on the links, and whether the kernel takes it.

A frame that the kernel refuses (its queue is full, a filter drops it, it is too long, the interface is down) is lost as
one that the network loses, with one difference: we know it. It is counted, said in a log line with its ``errno``, and
for heartbeats the protocol hears of it: who cannot be heard is silent to the others, whatever it hears itself.
"""

from __future__ import annotations

import errno
import logging
import os
from collections import Counter

from speaker.link import LinkName
from speaker.protocol.effects import AskAddress, SendHeartbeat, SendUnicast
from speaker.wire.arp import frames
from speaker.wire.failures import Failures
from speaker.wire.gratuitous import Frame
from speaker.wire.ports import Ports

logger = logging.getLogger(__name__)


class Sender:
    """Sends on the announced links; what is for another link is dropped."""

    def __init__(self, ports: Ports, counters: Counter[str]) -> None:
        self._ports = ports
        self._counters = counters
        self._failures = Failures()
        self._mute: set[LinkName] = set()
        """Links whose last heartbeat to the group the kernel did not take."""
        self._told_mute: frozenset[LinkName] = frozenset()

    def send(self, effect: SendHeartbeat | SendUnicast | AskAddress, now: float) -> None:
        port = self._ports.get(effect.link)
        if port is None:
            return
        match effect:
            case SendHeartbeat(link, data):
                error = port.heartbeat.send(data)
                self._count(link, "heartbeats", error, now)
                (self._mute.add if error else self._mute.discard)(link)
            case SendUnicast(link, to, mac, data) if frames.is_ipv4(to):
                self._count(link, "heartbeats", port.heartbeat.send(data, to, mac), now)
            case AskAddress(link, target, mac, nonce) if frames.is_ipv4(target):
                self._count(link, "questions", port.ask(target, mac or frames.BROADCAST, nonce), now)

    def announce(self, frame: Frame, now: float) -> bool:
        """Whether the kernel took a gratuitous frame."""
        port = self._ports.get(frame.link)
        error = port.arp.send(frame.data) if port is not None else 0
        if error:
            self.failed(frame.link, "gratuitous", error, now)
        return port is not None and not error

    def failed(self, link: LinkName, what: str, error: int, now: float) -> None:
        """The kernel refused a frame with this ``errno``."""
        self._counters[f"sends_failed:{what}"] += 1
        if count := self._failures.note((link, what, error), now):
            reason = f"{errno.errorcode.get(error, error)}: {os.strerror(error)}"
            logger.warning("not sent", extra={"link": link, "what": what, "reason": reason, "frames": count})

    def take_changes(self) -> list[tuple[LinkName, bool]]:
        """Links on which heartbeats are taken again, or no more, since the last call. They are until told; a link that
        is not announced any more is not told of."""
        if not self._mute and not self._told_mute:
            return []
        announced = {port.state.name for port in self._ports}
        self._mute &= announced
        before, self._told_mute = self._told_mute & announced, frozenset(self._mute)
        return [(link, link in before) for link in sorted(before ^ self._told_mute)]

    def _count(self, link: LinkName, what: str, error: int, now: float) -> None:
        if error:
            self.failed(link, what, error, now)
        else:
            self._counters[f"sent:{what}"] += 1
