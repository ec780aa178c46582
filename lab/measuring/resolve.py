"""A client asks for addresses all the time, and writes down who answers and when.

    python -m lab.measuring.resolve eth0 172.18.255.200 fd00:b1b::255:200

At every interval the client asks for each address, whatever its neighbour table has: by an ARP Request that it
broadcasts, or by a Neighbour Solicitation to the address's solicited-node group (RFC 4861 §7.2.2). Each answer to it
becomes one line of JSON: ``{"at": 12.345, "address": "172.18.255.200", "mac": "02:…"}``. ``at`` is seconds of
CLOCK_MONOTONIC, which all processes of the machine share, so that a line can be compared with the time of a fault. The
first line is ``{"ready": true}``.

A client that gets no processor for a while does not ask, and hears no answer. So each time that it asks later than it
wants to becomes a line too: ``{"asked": 12.5, "late": 0.12}``, in seconds.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import selectors
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

Address = IPv4Address | IPv6Address
Answer = tuple[Address, bytes]
"""An address, and the MAC that answered for it."""

ETH_P_ALL, ETH_P_ARP, ETH_P_IPV6 = 0x0003, 0x0806, 0x86DD
ARP_HEADER = struct.pack("!HHBB", 1, 0x0800, 6, 4)  # Ethernet, IPv4 (RFC 826)
ARP_REPLY = b"\0\2"
BROADCAST = b"\xff" * 6
ICMPV6, HOP_LIMIT = 58, 255
SOLICITATION, ADVERTISEMENT = 135, 136  # RFC 4861 §4.3, §4.4
SOURCE_MAC, TARGET_MAC = 1, 2  # RFC 4861 §4.6.1
SOLICITED_NODE = IPv6Address("ff02::1:ff00:0").packed[:13]  # and the address's last three octets (RFC 4291 §2.7.1)
SIOCGIFADDR = 0x8915


def own_v4(interface: str) -> bytes:
    """The interface's first IPv4 address, four octets."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        answer = fcntl.ioctl(s, SIOCGIFADDR, struct.pack("16s240x", interface.encode()))
    return answer[20:24]


def own_v6(interface: str) -> bytes:
    """The interface's link-local address, sixteen octets."""
    lines = (line.split() for line in Path("/proc/net/if_inet6").read_text().splitlines())
    return next(bytes.fromhex(line[0]) for line in lines if line[5] == interface and line[0].startswith("fe80"))


def arp_request(mac: bytes, sender: bytes, target: bytes) -> bytes:
    """An ARP Request, broadcast."""
    return (
        BROADCAST + mac + struct.pack("!H", ETH_P_ARP) + ARP_HEADER + b"\0\1" + mac + sender + bytes(6) + target
    ).ljust(60, b"\0")


def solicitation(mac: bytes, sender: bytes, target: bytes) -> bytes:
    """A Neighbour Solicitation with our link-layer address, to the target's solicited-node group."""
    group = SOLICITED_NODE + target[13:]
    message = struct.pack("!BBHI", SOLICITATION, 0, 0, 0) + target + struct.pack("!BB", SOURCE_MAC, 1) + mac
    pseudo = sender + group + struct.pack("!II", len(message), ICMPV6)  # RFC 8200 §8.1
    message = message[:2] + checksum(pseudo + message) + message[4:]
    header = struct.pack("!IHBB", 6 << 28, len(message), ICMPV6, HOP_LIMIT) + sender + group
    return b"\x33\x33" + group[12:] + mac + struct.pack("!H", ETH_P_IPV6) + header + message


def checksum(octets: bytes) -> bytes:
    """The Internet checksum of an even number of octets (RFC 1071)."""
    total = sum(struct.unpack(f"!{len(octets) // 2}H", octets))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", ~total & 0xFFFF)


def question(interface: str, mac: bytes, target: Address) -> bytes:
    if isinstance(target, IPv4Address):
        return arp_request(mac, own_v4(interface), target.packed)
    return solicitation(mac, own_v6(interface), target.packed)


def answer(frame: bytes, mac: bytes) -> Answer | None:
    """What a frame answers to a question of ours; None where it is no answer."""
    kind = frame[12:14]
    if kind == struct.pack("!H", ETH_P_ARP):
        is_reply = len(frame) >= 42 and frame[20:22] == ARP_REPLY and frame[32:38] == mac
        return (IPv4Address(frame[28:32]), frame[22:28]) if is_reply else None
    is_advertisement = len(frame) >= 86 and frame[:6] == mac and frame[20] == ICMPV6 and frame[54] == ADVERTISEMENT
    if kind == struct.pack("!H", ETH_P_IPV6) and is_advertisement and frame[78] == TARGET_MAC:
        return IPv6Address(frame[62:78]), frame[80:86]
    return None


def watch(interface: str, targets: Iterable[Address], interval: float, duration: float | None) -> None:
    """Ask until the duration (seconds) is over or SIGTERM comes."""
    stopped = False

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    wanted = frozenset(targets)
    kinds = {ETH_P_ARP if isinstance(target, IPv4Address) else ETH_P_IPV6 for target in wanted}
    kind = kinds.pop() if len(kinds) == 1 else ETH_P_ALL
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(kind)) as wire:
        wire.bind((interface, kind))
        wire.setblocking(False)
        mac = wire.getsockname()[4]
        frames = [question(interface, mac, target) for target in wanted]
        selector = selectors.DefaultSelector()
        selector.register(wire, selectors.EVENT_READ)
        print(json.dumps({"ready": True}), flush=True)
        began = due = time.monotonic()
        while not stopped and (duration is None or time.monotonic() - began < duration):
            now = time.monotonic()
            if now >= due:
                if now - due > interval:
                    print(json.dumps({"asked": round(now, 6), "late": round(now - due, 6)}), flush=True)
                due = max(due + interval, now)
                for frame in frames:
                    wire.send(frame)
            for _ in selector.select(max(0.0, due - time.monotonic())):
                try:
                    frame, source = wire.recvfrom(128)
                except BlockingIOError:
                    continue
                found = answer(frame, mac) if source[2] != socket.PACKET_OUTGOING else None
                if found is not None and found[0] in wanted:
                    at = round(time.monotonic(), 6)
                    print(json.dumps({"at": at, "address": str(found[0]), "mac": found[1].hex(":")}), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="lab.measuring.resolve", description="Ask for addresses and write down who answers."
    )
    parser.add_argument("interface")
    parser.add_argument("address", nargs="+", type=ip_address)
    parser.add_argument("--interval", type=float, default=0.01, help="seconds between questions (0.01)")
    parser.add_argument("--duration", type=float, help="stop after so many seconds")
    args = parser.parse_args()
    watch(args.interface, args.address, args.interval, args.duration)
    return 0


if __name__ == "__main__":
    sys.exit(main())
