"""The announced links as the announcer has them: of each its state, its responder, its sockets.

An interface is the one with its index, whatever its name: renamed, it keeps its sockets and what they have received. A
name that another interface has by now is another link.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from ipaddress import IPv4Address, IPv4Interface

from cluster.objects import AddressText
from speaker.link import LinkName, Mac
from speaker.protocol.effects import LinkState
from speaker.wire.arp import frames
from speaker.wire.arp.responder import LinkResponder, Responder
from speaker.wire.frame_watch import FrameWatch
from speaker.wire.heartbeats.sockets import HeartbeatSocket
from speaker.wire.process import boottime
from speaker.wire.sockets import AnswerSocket, ArpSocket, PacketSocket, discard

TIGHTEN_WAIT_S = 0.5
"""Seconds until the filter is narrowed to what is held after that changed: mostly there is more to come."""
TIGHTEN_REST = 300
"""And then for so many times as long as it took: thousands of addresses that come and go cost a third of a percent."""

logger = logging.getLogger(__name__)


class Port:
    """The sockets of one announced link."""

    def __init__(self, state: LinkState, responder: LinkResponder) -> None:
        """Raises ``OSError`` if the sockets cannot be had now."""
        self.state = state
        self.responder = responder
        with ExitStack() as opened:
            self.arp = ArpSocket(state.name, state.index, responder.filter)
            opened.callback(self.arp.close)
            self.answers = AnswerSocket(state.name, state.index)
            opened.callback(self.answers.close)
            self.heartbeat = HeartbeatSocket(state)
            opened.pop_all()
        self.sockets: dict[str, PacketSocket | HeartbeatSocket] = {
            "questions": self.arp,
            "answers": self.answers,
            "heartbeats": self.heartbeat,
        }
        """By what comes in: others' questions (and rivals), answers to ours, heartbeats."""
        self.sample_at = 0.0
        """When the protocol sees an asker next."""
        self.watch: FrameWatch | None = None
        """Hears frames of any kind, while somebody wants to know."""
        self._tighten_at: float | None = None
        """When the filter is to be narrowed; ``None`` where nothing would come of it."""
        self._rests_until = 0.0

    def set_state(self, state: LinkState, responder: LinkResponder) -> None:
        """The same interface, as it is now."""
        if state.up and not self.state.up:
            self.discard()  # received before it went down
        self.state = state
        self.heartbeat.set_state(state)
        if responder is not self.responder:
            self.responder = responder
            self.arp.attach(responder.filter)

    def let_pass(self, now: float) -> None:
        """Have the kernel pass what the responder answers for now."""
        if self.responder.filter.behind:
            self.arp.attach(self.responder.filter)
        if self._tighten_at is None and not self.responder.filter.tight:
            self._tighten_at = max(now + TIGHTEN_WAIT_S, self._rests_until)

    def next_deadline(self) -> float | None:
        """When `handle_timer` is due; ``None`` while nothing is to be done."""
        resumes_at = self.watch.resumes_at if self.watch is not None else None
        return min((at for at in (self._tighten_at, resumes_at) if at is not None), default=None)

    def handle_timer(self, now: float) -> None:
        if self._tighten_at is not None and now >= self._tighten_at:
            self._tighten(now)
        if self.watch is not None and self.watch.resumes_at is not None and now >= self.watch.resumes_at:
            self.watch.resume()

    def _tighten(self, now: float) -> None:
        """Have the kernel pass nothing else, as far as that can be had."""
        self.responder.filter.tighten()
        self.arp.attach(self.responder.filter)
        self._tighten_at = None
        self._rests_until = now + TIGHTEN_REST * (boottime() - now)

    def ask(self, target: AddressText, to: Mac, nonce: bytes) -> int:
        """Ask who has an address; 0, or the ``errno`` with which the kernel refused the frame. The sender is our own
        address on the subnet, or else the link's first: the answer must come to us, and nobody may take the question
        for a claim."""
        own = [IPv4Interface(prefix) for prefix in self.state.prefixes]
        nearest = next((address for address in own if IPv4Address(target) in address.network), own[0])
        question = frames.request(target, AddressText(str(nearest.ip)), self.state.mac, to, nonce)
        return self.arp.send(question.encode())

    def lost(self) -> Iterator[tuple[str, int]]:
        """What was for us and found a queue full since the last call, by its name in ``sockets``, and how many."""
        for what, opened in self.sockets.items():
            if count := opened.lost():
                yield what, count

    def discard(self) -> None:
        """Throw away what was received so far."""
        for opened in self._opened():
            discard(opened.socket)

    def close(self) -> None:
        for opened in self._opened():
            opened.close()

    @property
    def waited_for(self) -> list[socket.socket]:
        """What may have something to read."""
        return [opened.socket for opened in self._opened()]

    def _opened(self) -> list[PacketSocket | HeartbeatSocket | FrameWatch]:
        watch = [] if self.watch is None else [self.watch]
        return [*self.sockets.values(), *watch]


class Ports:
    """The ports of all announced links. Only a link that has its sockets is announced; where they cannot be had, this
    is said once, and tried again by `open_missing`."""

    def __init__(
        self, responder: Responder, opened: Callable[[Port], object], closing: Callable[[Port], object]
    ) -> None:
        """``opened`` and ``closing`` are told of each port, to wait for its sockets and to wait no longer."""
        self._responder = responder
        self._opened = opened
        self._closing = closing
        self._ports: dict[LinkName, Port] = {}
        self.links: tuple[LinkState, ...] = ()
        """All links that are to be announced."""
        self.refused: dict[LinkName, str] = {}
        """Those without sockets, and why."""

    def __iter__(self) -> Iterator[Port]:
        return iter(self._ports.values())

    def get(self, link: LinkName) -> Port | None:
        return self._ports.get(link)

    @property
    def announced(self) -> tuple[LinkState, ...]:
        """Those of the links that have their sockets."""
        return tuple(state for state in self.links if state.name in self._ports)

    def set_links(self, links: Iterable[LinkState]) -> None:
        """The links as they are now, with or without carrier."""
        self.links = tuple(links)
        self._responder.set_links(self.links)
        open_yet = {port.state.index: port for port in self}
        self._ports = {}
        for state in self.links:
            if port := open_yet.pop(state.index, None):
                if port.state.name != state.name:
                    logger.info("interface renamed", extra={"link": state.name, "before": port.state.name})
                port.set_state(state, self._responder.on(state.name))
                self._ports[state.name] = port
        for port in open_yet.values():
            self._closing(port)
            port.close()
            logger.info("interface no longer announced", extra={"link": port.state.name})
        self.open_missing()

    def open_missing(self) -> None:
        """Make the sockets that are missing."""
        refused, self.refused = self.refused, {}
        self._responder.set_links(self.links)
        for state in self.links:
            if state.name in self._ports:
                continue
            try:
                port = Port(state, self._responder.on(state.name))
            except OSError as error:
                self.refused[state.name] = str(error)
                if refused.get(state.name) != str(error):
                    logger.warning("interface not announced", extra={"link": state.name, "reason": str(error)})
                continue
            self._ports[state.name] = port
            self._opened(port)
            logger.info("interface announced", extra={"link": state.name, "mac": state.mac.hex(":")})
        self._responder.set_links(self.announced)

    def close(self) -> None:
        for port in self:
            port.close()
