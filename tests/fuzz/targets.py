"""What is fuzzed: every parser of what comes from the LAN or from the kernel, and what stands behind it.

A `Target` takes any octets and asserts what must hold whatever they are. It has seeds, which are well-formed: a fuzzer
begins with them. ``test_targets`` tries some thousands of octet strings in each run of the tests, ``python -m
tests.fuzz`` millions, guided by which code they reach.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tests.fuzz import frames, heartbeats, kernel


@dataclass(frozen=True)
class Target:
    check: Callable[[bytes], None]
    seeds: tuple[bytes, ...]


TARGETS: Mapping[str, Target] = {
    "arp": Target(frames.arp, frames.ARP_SEEDS),
    "neighbour-discovery": Target(frames.neighbour_discovery, frames.ND_SEEDS),
    "heartbeat-frames": Target(frames.heartbeat_frames, frames.HEARTBEAT_SEEDS),
    "heartbeats": Target(heartbeats.datagram, heartbeats.DATAGRAM_SEEDS),
    "messages": Target(heartbeats.message, heartbeats.MESSAGE_SEEDS),
    "members": Target(heartbeats.conversation, heartbeats.CONVERSATION_SEEDS),
    "netlink": Target(kernel.netlink_messages, kernel.SEEDS),
}
