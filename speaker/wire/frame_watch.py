"""Whether anything arrives on a link at all: frames of any kind, of which the sender's MAC is told.

A node that hears another is not cut off, whatever the frame says. A LAN may be silent for long, or say a hundred
thousand frames a second, so as little is done as will tell:

1. Of each frame only the Ethernet header is taken.
2. A sender is told once a second.
3. When some frames were read, a filter that passes nothing lets the kernel drop the others for a while.

What proves nothing is filtered out in the kernel: our own frames; tagged ones, which came through another network of
the same switch; and what a switch says itself, also on a port that it blocks: the protocols of IEEE 802.1 and 802.3
(groups 01:80:c2:00:00:00 to 0f), Cisco's (01:00:0c:cc:cc:c0 to cf), and loopback tests (EtherType 0x9000).
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Set as AbstractSet

from cluster.times import LONG_AGO
from speaker.link import Mac
from speaker.protocol.effects import LinkState
from speaker.wire.allowance import Allowance
from speaker.wire.bpf import (
    DROP,
    FROM_US,
    IF_AT_LEAST,
    IF_EQUAL,
    LOAD_HALF,
    LOAD_WORD,
    NOTHING,
    PACKET_TYPE,
    RETURN,
    VLAN_TAG_PRESENT,
    Instruction,
    assemble,
)
from speaker.wire.ethernet import HEADER_OCTETS, is_group
from speaker.wire.sockets import PacketSocket, attach_filter, discard, forgiven

FRAMES_AT_ONCE = 16
FRAMES_PER_S = 320.0
"""That are read; at that rate reading them is no work."""
REST_S = 0.05
"""Seconds in which nothing is received after that."""
TOLD_AGAIN_S = 1.0
MAX_TOLD = 64
"""Senders told within a second; others are not told."""

_SO_RCVBUF_OCTETS = 16 << 10  # some dozens of frames
_ETHERTYPE_ALL = 0x0003  # ETH_P_ALL
_SOL_PACKET, _PACKET_IGNORE_OUTGOING = 263, 23
_LOOPBACK = 0x9000

ANYTHING = assemble(
    (
        Instruction(LOAD_WORD, 0, 0, PACKET_TYPE),
        Instruction(IF_EQUAL, 13, 0, FROM_US),
        Instruction(LOAD_WORD, 0, 0, VLAN_TAG_PRESENT),
        Instruction(IF_EQUAL, 0, 11, 0),
        Instruction(LOAD_HALF, 0, 0, 12),
        Instruction(IF_EQUAL, 9, 0, _LOOPBACK),
        Instruction(LOAD_WORD, 0, 0, 0),
        Instruction(IF_EQUAL, 0, 2, 0x0180C200),
        Instruction(LOAD_HALF, 0, 0, 4),
        Instruction(IF_AT_LEAST, 4, 5, 0x0010),
        Instruction(IF_EQUAL, 0, 3, 0x01000CCC),
        Instruction(LOAD_HALF, 0, 0, 4),
        Instruction(IF_AT_LEAST, 0, 1, 0xCCC0),
        Instruction(IF_AT_LEAST, 0, 1, 0xCCD0),
        Instruction(RETURN, 0, 0, HEADER_OCTETS),
        DROP,
    )
)


class FrameWatch:
    """The stations that are heard on one link."""

    def __init__(self, state: LinkState) -> None:
        """Raises ``OSError`` if the interface has gone."""
        self._packets = PacketSocket(state.name, state.index, _ETHERTYPE_ALL, ANYTHING)
        self.socket = self._packets.socket
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SO_RCVBUF_OCTETS)
        with contextlib.suppress(OSError):  # before Linux 4.20: the filter alone leaves them out
            self.socket.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
        self._reads = Allowance(FRAMES_PER_S, FRAMES_AT_ONCE)
        self._told: dict[Mac, float] = {}
        self.resumes_at: float | None = None
        """When `resume` is due; ``None`` while frames are received."""

    def receive(self, own: AbstractSet[Mac], now: float) -> list[Mac]:
        """Senders that have not been told within the last second, none of them ``own``."""
        heard: list[Mac] = []
        while self._reads.ready_at(1) <= now:
            try:
                sender = Mac(self.socket.recv(HEADER_OCTETS)[6:12])
            except OSError as error:
                if not isinstance(error, BlockingIOError):
                    forgiven(error)
                return heard
            self._reads.take(1, now)
            if len(sender) == 6 and sender not in own and not is_group(sender) and self._tells(sender, now):
                heard.append(sender)
        attach_filter(self.socket, NOTHING)
        discard(self.socket)
        self.resumes_at = now + REST_S
        return heard

    def resume(self) -> None:
        """Receive again."""
        attach_filter(self.socket, ANYTHING)
        self.resumes_at = None

    def close(self) -> None:
        self._packets.close()

    def _tells(self, sender: Mac, now: float) -> bool:
        if now < self._told.get(sender, LONG_AGO) + TOLD_AGAIN_S:
            return False
        if len(self._told) >= MAX_TOLD:
            self._told = {mac: at for mac, at in self._told.items() if now < at + TOLD_AGAIN_S}
        if len(self._told) >= MAX_TOLD:
            return False
        self._told[sender] = now
        return True
