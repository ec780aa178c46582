"""The open links: the interfaces on which this node announces, each with its sockets.

A link is open when it has all its sockets: for each family those of address resolution (``resolver``) and those of the
heartbeats. A family that the kernel does not know has no heartbeats. Only an open link is announced to the protocol.
Where the sockets cannot be had, one log line says so, and `OpenLinks.open_missing` tries again.

An interface is the one with its index, whatever its name. Renamed, it keeps its sockets and what they have received. A
name that another interface has by now is another link.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack

from cluster.addresses import Family
from speaker.link import LinkName, Mac, Reception
from speaker.protocol.effects import LinkState
from speaker.wire.frame_watch import FrameWatch
from speaker.wire.heartbeats.copies import DatagramCopies
from speaker.wire.heartbeats.routed import Heartbeats
from speaker.wire.medium import Medium
from speaker.wire.reception import WiderReception
from speaker.wire.resolution import Responder
from speaker.wire.resolver import Resolver
from speaker.wire.responders import Responders
from speaker.wire.sockets import discard

logger = logging.getLogger(__name__)


class OpenLink:
    """The sockets of one link."""

    def __init__(
        self,
        state: LinkState,
        medium: Medium,
        responders: Mapping[Family, Responder],
        reception: Reception,
    ) -> None:
        """Raises ``OSError`` if the sockets cannot be had now."""
        self.state = state
        self.resolvers: dict[Family, Resolver] = {}
        with ExitStack() as opened:
            for family, responder in responders.items():
                self.resolvers[family] = Resolver(state, medium.resolutions[family], responder)
                opened.callback(self.resolvers[family].close)
            self._reception = WiderReception(state.index, reception)
            opened.callback(self._reception.close)
            self.heartbeats = medium.open_heartbeats(state)
            opened.pop_all()
        self.copies = DatagramCopies()
        self._order = list(self.heartbeats)
        self.watch: FrameWatch | None = None
        """Hears frames of any kind, while the protocol wants to know."""

    def set_state(self, state: LinkState, responders: Mapping[Family, Responder]) -> None:
        """The same interface, as it is now."""
        if state.up and not self.state.up:
            self.discard()  # received before it went down
        self.state = state
        for heartbeats in self.heartbeats.values():
            heartbeats.set_state(state)
        for family, resolver in self.resolvers.items():
            resolver.set_state(state, responders[family])

    def speaking(self) -> list[Heartbeats]:
        """The heartbeats of the families that the link speaks now, each time in another order: peers note the address
        from which they heard a datagram first, and so come to know both."""
        self._order.reverse()
        return [self.heartbeats[family] for family in self._order if self.heartbeats[family].speaks]

    def let_pass(self, now: float) -> None:
        """Have the kernel pass what the responders answer for now."""
        for resolver in self.resolvers.values():
            resolver.let_pass(now)

    def next_deadline(self) -> float | None:
        """When `handle_timer` is due; ``None`` while nothing is to be done."""
        moments = [each.next_deadline() for each in self._parts]
        if self.watch is not None:
            moments.append(self.watch.resumes_at)
        return min((at for at in moments if at is not None), default=None)

    def handle_timer(self, now: float) -> None:
        for each in self._parts:
            each.handle_timer(now)
        if self.watch is not None and self.watch.resumes_at is not None and now >= self.watch.resumes_at:
            self.watch.resume()

    def lost(self) -> Iterator[tuple[str, int]]:
        """What was for us and found a queue full since the last call: others' ``questions`` (and rivals), ``answers``
        to ours, or ``heartbeats``; and how many."""
        queues = [("heartbeats", heartbeats.lost()) for heartbeats in self.heartbeats.values()]
        for resolver in self.resolvers.values():
            queues += [("questions", resolver.questions.lost()), ("answers", resolver.answers.lost())]
        return ((what, count) for what, count in queues if count)

    def discard(self) -> None:
        """Throw away what was received so far."""
        for opened in self.sockets:
            discard(opened)

    def close(self) -> None:
        for opened in self._parts:
            opened.close()
        self._reception.close()
        if self.watch is not None:
            self.watch.close()

    @property
    def _parts(self) -> list[Resolver | Heartbeats]:
        return [*self.resolvers.values(), *self.heartbeats.values()]

    @property
    def sockets(self) -> list[socket.socket]:
        """All that may have something to read."""
        opened = [heartbeats.socket for heartbeats in self.heartbeats.values()]
        for resolver in self.resolvers.values():
            opened += [resolver.questions.socket, resolver.answers.socket]
        return opened if self.watch is None else [*opened, self.watch.socket]


class OpenLinks:
    """All of them, by name."""

    def __init__(
        self,
        medium: Medium,
        responders: Responders,
        opened: Callable[[OpenLink], object],
        closing: Callable[[OpenLink], object],
        reception: Reception = Reception.FILTERED,
    ) -> None:
        """``opened`` and ``closing`` are told of each link, to wait for its sockets and to wait no longer."""
        self._medium = medium
        self._responders = responders
        self._opened = opened
        self._closing = closing
        self._reception = reception
        self._links: dict[LinkName, OpenLink] = {}
        self.wanted: tuple[LinkState, ...] = ()
        """All links that are to be announced, open or not."""
        self.refused: dict[LinkName, str] = {}
        """Those without sockets, and why."""

    def __iter__(self) -> Iterator[OpenLink]:
        return iter(self._links.values())

    def get(self, link: LinkName) -> OpenLink | None:
        return self._links.get(link)

    @property
    def announced(self) -> tuple[LinkState, ...]:
        """Those of the wanted links that are open."""
        return tuple(state for state in self.wanted if state.name in self._links)

    @property
    def own_macs(self) -> frozenset[Mac]:
        return frozenset(link.state.mac for link in self)

    def set_links(self, links: Iterable[LinkState]) -> None:
        """The links that are to be announced now, with or without carrier."""
        self.wanted = tuple(links)
        self._responders.set_links(self.wanted)
        open_yet = {link.state.index: link for link in self}
        self._links = {}
        for state in self.wanted:
            if link := open_yet.pop(state.index, None):
                if link.state.name != state.name:
                    logger.info("interface renamed", extra={"link": state.name, "before": link.state.name})
                link.set_state(state, self._responders.on(state.name))
                self._links[state.name] = link
        for link in open_yet.values():
            self._closing(link)
            link.close()
            logger.info("interface no longer announced", extra={"link": link.state.name})
        self.open_missing()

    def open_missing(self) -> None:
        """Open the links whose sockets are missing."""
        refused, self.refused = self.refused, {}
        self._responders.set_links(self.wanted)
        for state in self.wanted:
            if state.name in self._links:
                continue
            try:
                link = OpenLink(state, self._medium, self._responders.on(state.name), self._reception)
            except OSError as error:
                self.refused[state.name] = str(error)
                if refused.get(state.name) != str(error):
                    logger.warning("interface not announced", extra={"link": state.name, "reason": str(error)})
                continue
            self._links[state.name] = link
            self._opened(link)
            logger.info("interface announced", extra={"link": state.name, "mac": state.mac.hex(":")})
        self._responders.set_links(self.announced)

    def close(self) -> None:
        for link in self:
            link.close()
