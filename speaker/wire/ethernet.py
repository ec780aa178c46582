"""What all Ethernet frames have in common: hardware addresses, the least length, and the error of a malformed frame.

Frames come from the LAN and may be hostile. Each codec checks lengths and fixed fields before anything else, and a
frame that is not what it says raises `FrameError`, and nothing else. The kernel has taken VLAN tags off before a packet
socket sees a frame.
"""

from __future__ import annotations

from speaker.link import Mac

ETHERTYPE_IPV4, ETHERTYPE_IPV6 = 0x0800, 0x86DD
HEADER_OCTETS = 14
"""Destination, source and EtherType."""
PADDED_OCTETS = 60
"""The least length of a frame, without the frame check sequence (IEEE 802.3 §3.2.7). Shorter ones are padded."""
BROADCAST = Mac(b"\xff" * 6)
NO_MAC = Mac(bytes(6))


class FrameError(ValueError):
    """A frame from the LAN is malformed. The sender's fault; drop it and count it."""


def is_group(mac: bytes) -> bool:
    """Whether an address is a group's, broadcast included: no sender has such a one (IEEE 802 §8.2.2)."""
    return bool(mac[0] & 1)
