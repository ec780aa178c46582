"""What comes in on the open links: read, answered, and handed to the protocol.

Each call reads one socket up to a bound, so that a flood on one costs the others no more than some milliseconds. A
question is answered here and now. Whatever else matters goes to the protocol, whose decisions are carried out at the
end of the call.

Answers to our own questions and heartbeats have queues of their own: what others ask cannot push out what tells that
somebody lives. When one of these queues was full, the protocol is told (`note_lost`), since what was not heard then
tells nothing about anybody. Lost questions are only counted: they cost an answer, and the asker asks again.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable, Iterable

from cluster.addresses import Family
from cluster.times import LONG_AGO, NEVER
from speaker.link import Mac
from speaker.protocol.effects import NeighbourSeen
from speaker.protocol.protocol import Protocol
from speaker.wire.heartbeats.sockets import Datagram, HeartbeatDrop, PortRefused
from speaker.wire.open_links import OpenLink
from speaker.wire.process import boottime
from speaker.wire.resolver import Resolver
from speaker.wire.sending import Sender
from speaker.wire.sockets import forgiven

FRAMES_PER_PASS = 64
DATAGRAMS_PER_PASS = 64
READING_S = 0.02
"""For so long heartbeats are read in one pass of the loop, and one of each family at least: those with claims may cost
some milliseconds each."""
NEIGHBOUR_SAMPLE_S = 0.05
"""Of the askers that are answered on a link, the protocol sees one in so many seconds, for each family: enough to know
some."""


class Receiver:
    """Reads the sockets of open links. Each method is called when the socket can be read."""

    def __init__(
        self,
        protocol: Protocol,
        sender: Sender,
        counters: Counter[str],
        late_s: float,
        obey: Callable[[float], None],
    ) -> None:
        """A reply is sent no later than ``late_s`` seconds after its batch was begun: later, others may answer for the
        address. ``obey`` carries out what the protocol decided."""
        self._protocol = protocol
        self._sender = sender
        self._counters = counters
        self._late_s = late_s
        self._obey = obey
        self._reading_left_s = READING_S
        self._pass_began = LONG_AGO
        self._behind_since = NEVER
        """When the first of the passes began that have left something since all was read last."""
        self.unread = False
        """Something that tells of peers was left in a socket."""

    def begin_pass(self, now: float) -> None:
        """The sockets are looked at anew."""
        self._behind_since = min(self._behind_since, self._pass_began) if self.unread else NEVER
        self._pass_began = now
        self.unread = False
        self._reading_left_s = READING_S

    @property
    def has_time(self) -> bool:
        """Whether more heartbeats are to be read in this pass."""
        return self._reading_left_s > 0

    def behind_s(self, now: float) -> float:
        """How old what was left unread may be, in seconds."""
        return now - min(self._behind_since, self._pass_began) if self.unread else 0.0

    def resolution(self, link: OpenLink, resolver: Resolver, waiting: socket.socket) -> None:
        """Read the questions (and rivals) of one family, or the answers to our own: what is ``waiting``."""
        receive, send, answer = waiting.recv, resolver.questions.socket.send, resolver.responder.receive
        octets = resolver.frame_octets
        late = boottime() + self._late_s
        touched = False
        for _ in range(FRAMES_PER_PASS):
            try:
                frame = receive(octets)
            except BlockingIOError:
                break
            except OSError as error:
                forgiven(error)
                break
            now = boottime()
            if now > late:
                break
            verdict = answer(frame, now)
            if isinstance(verdict, bytes):
                try:
                    send(verdict)
                except OSError as error:
                    self._sender.failed(link.state.name, "replies", forgiven(error), now)
                if now < resolver.sample_at:
                    continue
                resolver.sample_at = now + NEIGHBOUR_SAMPLE_S
                asker = resolver.responder.asker(frame)
                if asker is None:
                    continue
                verdict = asker
            if isinstance(verdict, NeighbourSeen):
                self._protocol.receive_neighbour(verdict, now)
                touched = True
            else:
                self._counters[f"frames_dropped:{verdict.value}"] += 1
        else:
            self.unread = self.unread or waiting is resolver.answers.socket
            touched |= self.note_lost(link, now)
        if touched:
            self._obey(boottime())

    def heartbeats(self, link: OpenLink, family: Family, most: int = DATAGRAMS_PER_PASS) -> None:
        """Read up to so many heartbeats of one family, and refusals of ours."""
        name = link.state.name
        received, touched, began = 0, False, boottime()
        for heard in link.heartbeats[family].receive(most):
            received += 1
            if isinstance(heard, HeartbeatDrop):
                self._counters[f"heartbeats_dropped:{heard.value}"] += 1
                continue
            if isinstance(heard, Datagram) and link.copies.take(heard.data, family):
                continue
            touched = True
            source = heard.source.text
            if isinstance(heard, PortRefused):
                self._protocol.datagram_refused(name, source, boottime())
            elif self._protocol.receive_datagram(
                name, source, heard.data, boottime(), by_group=heard.by_group, mac=heard.mac
            ):
                link.copies.note(heard.data, family)
            if boottime() > began + self._reading_left_s:
                self.unread = True
                break
        self._reading_left_s -= boottime() - began
        self.unread = self.unread or received == most
        if received >= DATAGRAMS_PER_PASS:
            touched |= self.note_lost(link, boottime())
        if touched:
            self._obey(boottime())

    def anything(self, link: OpenLink, own: frozenset[Mac]) -> None:
        """Tell the protocol of the stations that are heard, our ``own`` interfaces left out, while it wants to know."""
        if link.watch is None:
            return
        now = boottime()
        heard = link.watch.receive(own, now)
        for sender in heard:
            self._protocol.receive_frame(link.state.name, sender, now)
        if heard:
            self._obey(boottime())

    def all_that_tells_of_peers(self, links: Iterable[OpenLink], most: int) -> None:
        """Read heartbeats, up to so many of each link and family, and answers to our questions; nothing where the pass
        has no time for it any more."""
        self.unread = not self.has_time
        for link in links if self.has_time else ():
            for family in link.heartbeats:
                self.heartbeats(link, family, most)
            for resolver in link.resolvers.values():
                self.resolution(link, resolver, resolver.answers.socket)

    def note_lost(self, link: OpenLink, now: float) -> bool:
        """Count what found a queue full; whether the protocol was told.

        To be called when a queue was long, since only then it can have been full, and now and then.
        """
        tells = False
        for what, count in link.lost():
            self._counters[f"frames_lost:{what}"] += count
            tells |= what != "questions"
        if tells:
            self._protocol.frames_lost(link.state.name, now)
        return tells
