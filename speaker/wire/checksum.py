"""The checksum of IPv4, UDP and ICMP, of both versions."""

from __future__ import annotations

import struct

_PSEUDO = struct.Struct("!II")
_ADDRESSES_OCTETS = 32


def internet_checksum(octets: bytes) -> int:
    """The Internet checksum (RFC 1071) of octets in which its field is zero; zero for octets that carry a right one.

    A sum of 16-bit words with end-around carry is the number that they make together, modulo 0xFFFF.
    """
    if len(octets) % 2:
        octets += b"\0"
    number = int.from_bytes(octets, "big")
    return 0xFFFF - (number % 0xFFFF or 0xFFFF) if number else 0xFFFF


def ipv6_checksum(protocol: int, addresses_and_payload: bytes) -> int:
    """The checksum of what an IPv6 packet carries, given with the source and destination before it (RFC 8200 §8.1).

    It covers the payload's length and the protocol's number as well. As with any Internet checksum, its field is to be
    zero; it is zero for a payload that carries the right one.
    """
    length = len(addresses_and_payload) - _ADDRESSES_OCTETS
    return internet_checksum(_PSEUDO.pack(length, protocol) + addresses_and_payload)
