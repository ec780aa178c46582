"""An announced link as the announcer has it: its state, its responder, its two sockets."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv4Interface

from cluster.objects import AddressText
from speaker import frames
from speaker.effects import LinkState, Mac
from speaker.responder import LinkResponder
from speaker.sockets import ArpSocket, HeartbeatSocket, discard


class Port:
    """The sockets of one announced link."""

    def __init__(self, state: LinkState, responder: LinkResponder) -> None:
        """Raises ``OSError`` if the sockets cannot be had now."""
        self.state = state
        self.responder = responder
        self.arp = ArpSocket(state.name, responder.octets)
        try:
            self.heartbeat = HeartbeatSocket(state.name, state.index)
        except OSError:
            self.arp.close()
            raise
        self.sample_at = 0.0
        """When the protocol sees an asker next."""

    def ask(self, target: AddressText, to: Mac) -> bool:
        """Ask who has an address; whether the kernel took the frame. The sender is our own address on the subnet, or
        else the link's first: the answer must come to us, and nobody may take the question for a claim."""
        own = [IPv4Interface(prefix) for prefix in self.state.prefixes]
        nearest = next((address for address in own if IPv4Address(target) in address.network), own[0])
        question = frames.request(target, AddressText(str(nearest.ip)), self.state.mac, to)
        return self.arp.send(question.encode())

    @property
    def sockets(self) -> tuple[socket.socket, socket.socket]:
        return self.arp.socket, self.heartbeat.socket

    def discard(self) -> None:
        """Throw away what was received so far."""
        for waiting in self.sockets:
            discard(waiting)

    def close(self) -> None:
        self.arp.close()
        self.heartbeat.close()
