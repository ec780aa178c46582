"""The checksum of IPv4, UDP and ICMP, of both versions."""

from __future__ import annotations


def internet_checksum(octets: bytes) -> int:
    """The Internet checksum (RFC 1071) of octets in which its field is zero; zero for octets that carry a right one.

    A sum of 16-bit words with end-around carry is the number that they make together, modulo 0xFFFF.
    """
    if len(octets) % 2:
        octets += b"\0"
    number = int.from_bytes(octets, "big")
    return 0xFFFF - (number % 0xFFFF or 0xFFFF) if number else 0xFFFF
