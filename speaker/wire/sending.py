"""What goes out on the open links, and whether the kernel takes it.

A frame that the kernel refuses (its queue is full, a filter drops it, it is too long, the interface is down) is lost as
one that the network loses, with one difference: we know it. Each refusal is counted and said in a log line with its
``errno``. For heartbeats the protocol hears of it: a node that cannot be heard is silent to the others, whatever it
hears itself.

**A heartbeat to the group** goes out in every family that the link speaks now, the same octets in each. One that the
kernel takes is enough to be heard, so a link is mute where it takes none. Where the kernel routes, there is no group to
send to. *A datagram to one speaker* goes out in the
family of its address.
"""

from __future__ import annotations

import errno
import logging
import os
from collections import Counter

from speaker.link import LinkName
from speaker.protocol.effects import AskAddress, Knock, ProbeAddress, SendHeartbeat, SendUnicast
from speaker.wire.addresses import WireAddress
from speaker.wire.failures import Failures
from speaker.wire.gratuitous import Frame
from speaker.wire.open_links import OpenLink, OpenLinks

logger = logging.getLogger(__name__)


class Sender:
    """Sends on the open links. What is for another link, or for an address of a family that the link does not speak, is
    dropped."""

    def __init__(self, links: OpenLinks, counters: Counter[str]) -> None:
        self._links = links
        self._counters = counters
        self._failures = Failures()
        self._mute: dict[LinkName, int] = {}
        """Links whose last heartbeat to the group the kernel did not take in any family, with an ``errno``."""
        self._told_mute: frozenset[LinkName] = frozenset()

    def send(self, effect: SendHeartbeat | SendUnicast | Knock | AskAddress | ProbeAddress, now: float) -> None:
        link = self._links.get(effect.link)
        if link is None or (link.state.routed and isinstance(effect, SendHeartbeat)):
            return
        match effect:
            case SendHeartbeat(name, data):
                errors = [heartbeats.send(data) for heartbeats in link.speaking()]
                for error in errors:
                    self._count(name, "heartbeats", error, now)
                if all(errors):
                    self._mute[name] = errors[0] if errors else errno.EADDRNOTAVAIL
                else:
                    self._mute.pop(name, None)
            case SendUnicast():
                self._send_to_one(link, effect, effect.data, "heartbeats", now)
            case Knock():
                self._send_to_one(link, effect, b"", "knocks", now)
            case AskAddress(name, target, asked, nonce):
                address = WireAddress.of(target)
                if resolver := link.resolvers.get(address.family):
                    self._count(name, "questions", resolver.ask(address, asked, nonce), now)
            case ProbeAddress(name, target):
                address = WireAddress.of(target)
                if resolver := link.resolvers.get(address.family):
                    self._count(name, "probes", resolver.probe(address, now), now)

    def announce(self, frame: Frame, now: float) -> bool:
        """Whether the kernel took a gratuitous frame."""
        link = self._links.get(frame.link)
        if link is None:
            return False
        error = link.resolvers[frame.address.family].questions.send(frame.data)
        if error:
            self.failed(frame.link, "gratuitous", error, now)
        return not error

    def failed(self, link: LinkName, what: str, error: int, now: float) -> None:
        """The kernel refused a frame with this ``errno``."""
        self._counters[f"sends_failed:{what}"] += 1
        if count := self._failures.note((link, what, error), now):
            logger.warning("not sent", extra={"link": link, "what": what, "reason": _words(error), "frames": count})

    def take_changes(self) -> list[tuple[LinkName, str]]:
        """Links on which heartbeats are taken no more since the last call, with the reason, or again: without one. They
        are taken until told; a link that is not announced any more is not told of."""
        if not self._mute and not self._told_mute:
            return []
        announced = {link.state.name for link in self._links}
        self._mute = {link: error for link, error in self._mute.items() if link in announced}
        before, self._told_mute = self._told_mute & announced, frozenset(self._mute)
        changed = sorted(before ^ self._told_mute)
        return [(link, _words(self._mute[link]) if link in self._mute else "") for link in changed]

    def _send_to_one(self, link: OpenLink, effect: SendUnicast | Knock, data: bytes, what: str, now: float) -> None:
        peer = WireAddress.of(effect.to)
        heartbeats = link.heartbeats.get(peer.family)
        if heartbeats is not None and heartbeats.speaks:
            self._count(effect.link, what, heartbeats.send_to(peer, effect.mac, data), now)

    def _count(self, link: LinkName, what: str, error: int, now: float) -> None:
        if error:
            self.failed(link, what, error, now)
        else:
            self._counters[f"sent:{what}"] += 1


def _words(error: int) -> str:
    return f"{errno.errorcode.get(error, error)}: {os.strerror(error)}"
