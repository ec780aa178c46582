"""A storm of questions: ``python -m lab.faults.storm eth0 172.18.255.200 --rate 10000 --seconds 3``.

Every second question is for one of the addresses, and the others are for addresses that nobody has. They come from
hosts that do not exist, a thousand of them, with a MAC and an address each. ARP Requests and Neighbour Solicitations
alternate where the addresses are of both families.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import socket
import sys
import time
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address

from lab.measuring.resolve import Address, arp_request, solicitation

SENDERS = 1000
NOBODY = {4: "198.51.100.1", 6: "2001:db8::1"}  # RFC 5737, RFC 3849
SENDER = {4: int(IPv4Address("198.51.100.0")), 6: int(IPv6Address("fe80::dead:0"))}


def questions(addresses: list[Address]) -> list[bytes]:
    """One of each sender for each address, and one for an address that nobody has."""
    return [
        frame
        for number in range(1, SENDERS + 1)
        for address in addresses
        for target in (address, ip_address(NOBODY[address.version]))
        for frame in [_question(number, target)]
    ]


def _question(number: int, target: Address) -> bytes:
    mac = b"\2\0\0\xee" + number.to_bytes(2, "big")
    if isinstance(target, IPv4Address):
        return arp_request(mac, IPv4Address(SENDER[4] + number).packed, target.packed)
    return solicitation(mac, IPv6Address(SENDER[6] + number).packed, target.packed)


def send(interface: str, frames: Iterator[bytes], rate: float, seconds: float) -> int:
    """So many frames a second, or as many as go; how many went."""
    sent, began = 0, time.monotonic()
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind((interface, 0))
        while (passed := time.monotonic() - began) < seconds:
            if sent >= passed * rate:
                time.sleep(0.0005)
                continue
            with contextlib.suppress(OSError):  # the queue is full
                wire.send(next(frames))
            sent += 1
    return sent


def main() -> int:
    parser = argparse.ArgumentParser(prog="lab.faults.storm", description="Ask for addresses, very often.")
    parser.add_argument("interface")
    parser.add_argument("address", nargs="+", type=ip_address)
    parser.add_argument("--rate", type=float, default=10_000, help="frames a second (10000)")
    parser.add_argument("--seconds", type=float, default=3, help="how long (3)")
    args = parser.parse_args()
    send(args.interface, itertools.cycle(questions(args.address)), args.rate, args.seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
