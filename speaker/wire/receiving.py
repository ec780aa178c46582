"""What comes in on the links: read, answered, and handed to the protocol.

Each call reads one socket up to a bound, so that a flood on one costs the others no more than some milliseconds. A
question is answered here and now; whatever else matters goes to the protocol, whose decisions are carried out at the
end of the call (``settle``).

Answers to our own questions come through a socket of their own, and heartbeats through another: what others ask cannot
push out what tells that somebody lives. What found one of these two queues full is told to the protocol (`note_lost`),
since what was not heard then tells nothing about anybody. Lost questions are only counted: they cost an answer, and the
asker asks again.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable

from speaker.protocol.effects import ArpSeen
from speaker.protocol.protocol import Protocol
from speaker.wire.arp import frames
from speaker.wire.heartbeats.sockets import HeartbeatDrop, Refusal
from speaker.wire.ports import Port
from speaker.wire.process import boottime
from speaker.wire.sending import Sender
from speaker.wire.sockets import FRAME_OCTETS, forgiven

FRAMES_PER_TURN = 64
DATAGRAMS_PER_TURN = 64
NEIGHBOUR_SAMPLE_S = 0.05
"""Of the askers that are answered on a link, the protocol sees one in so many seconds: enough to know some."""


class Receiver:
    """Reads the sockets of ports."""

    def __init__(
        self,
        protocol: Protocol,
        sender: Sender,
        counters: Counter[str],
        late_s: float,
        settle: Callable[[float], None],
    ) -> None:
        """A reply is sent no later than ``late_s`` seconds after its batch was begun: later, who knows who holds the
        address."""
        self._protocol = protocol
        self._sender = sender
        self._counters = counters
        self._late_s = late_s
        self._settle = settle
        self.unread = False
        """Something that tells of peers was left in a socket; whoever cares sets it back."""

    def arp(self, port: Port, waiting: socket.socket) -> None:
        """Questions, and rivals; or answers to our own questions."""
        receive, send, answer = waiting.recv, port.arp.socket.send, port.responder.receive
        late = boottime() + self._late_s
        touched = False
        for _ in range(FRAMES_PER_TURN):
            try:
                frame = receive(FRAME_OCTETS)
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
                    self._sender.failed(port.state.name, "replies", forgiven(error), now)
                if now < port.sample_at:
                    continue
                port.sample_at = now + NEIGHBOUR_SAMPLE_S
                verdict = port.responder.seen(frame)
                if verdict.sender == frames.NO_ADDRESS:
                    continue
            if isinstance(verdict, ArpSeen):
                self._protocol.receive_arp(verdict, now)
                touched = True
            else:
                self._counters[f"frames_dropped:{verdict.value}"] += 1
        else:
            self.unread = self.unread or waiting is port.answers.socket
            touched |= self.note_lost(port, now)
        if touched:
            self._settle(boottime())

    def heartbeats(self, port: Port, most: int = DATAGRAMS_PER_TURN) -> None:
        """Up to so many heartbeats, and refusals of ours."""
        link = port.state.name
        received, touched = 0, False
        for heard in port.heartbeat.receive(most):
            received += 1
            if isinstance(heard, HeartbeatDrop):
                self._counters[f"heartbeats_dropped:{heard.value}"] += 1
                continue
            touched = True
            if isinstance(heard, Refusal):
                self._protocol.datagram_refused(link, heard.source, boottime())
            else:
                self._protocol.receive_datagram(link, heard.source, heard.data, boottime(), by_group=heard.by_group)
        self.unread = self.unread or received == most
        if received >= DATAGRAMS_PER_TURN:
            touched |= self.note_lost(port, boottime())
        if touched:
            self._settle(boottime())

    def anything(self, port: Port) -> None:
        """Who is heard at all, while somebody wants to know."""
        if port.watch is None:
            return
        now = boottime()
        heard = port.watch.receive(port.responder.own_macs, now)
        for sender in heard:
            self._protocol.receive_frame(port.state.name, sender, now)
        if heard:
            self._settle(boottime())

    def note_lost(self, port: Port, now: float) -> bool:
        """Count what found a queue full; whether the protocol was told.

        To be called when a queue was long, since only then it can have been full, and now and then.
        """
        tells = False
        for what, count in port.lost():
            self._counters[f"frames_lost:{what}"] += count
            tells |= what != "questions"
        if tells:
            self._protocol.frames_lost(port.state.name, now)
        return tells
