"""An announced link as the announcer has it: its state, its responder, its sockets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import IPv4Address, IPv4Interface

from cluster.objects import AddressText
from speaker import frames
from speaker.effects import LinkState, Mac
from speaker.heartbeat_socket import HeartbeatSocket
from speaker.process import boottime
from speaker.responder import LinkResponder
from speaker.sockets import AnswerSocket, ArpSocket, PacketSocket, discard

TIGHTEN_WAIT_S = 0.5
"""Seconds until the filter is narrowed to what is held after that changed: mostly there is more to come."""
TIGHTEN_REST = 300
"""And then for so many times as long as it took: thousands of addresses that come and go cost a third of a percent."""


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
        self.tighten_at: float | None = None
        """When the filter is to be narrowed; ``None`` where nothing would come of it."""
        self._rests_until = 0.0

    def set_state(self, state: LinkState) -> None:
        """The same interface, as it is now."""
        self.state = state
        self.heartbeat.set_state(state)

    def let_pass(self, now: float) -> None:
        """Have the kernel pass what the responder answers for now."""
        if self.responder.filter.behind:
            self.arp.attach(self.responder.filter)
        if self.tighten_at is None and not self.responder.filter.tight:
            self.tighten_at = max(now + TIGHTEN_WAIT_S, self._rests_until)

    def tighten(self, now: float) -> None:
        """Have the kernel pass nothing else, as far as that can be had."""
        self.responder.filter.tighten()
        self.arp.attach(self.responder.filter)
        self.tighten_at = None
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
        for opened in self.sockets.values():
            discard(opened.socket)

    def close(self) -> None:
        for opened in self.sockets.values():
            opened.close()
