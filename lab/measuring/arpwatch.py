"""A client asks for addresses all the time, and writes down who answers and when.

    python -m lab.measuring.arpwatch eth0 172.18.255.200

At every interval the client broadcasts one ARP Request from its own address, whatever its neighbour table has. Each
Reply becomes one line of JSON: ``{"at": 12.345, "address": "172.18.255.200", "mac": "02:…"}``. ``at`` is seconds of
CLOCK_MONOTONIC, which all processes of the machine share, so that a line can be compared with the time of a fault. The
first line is ``{"ready": true}``.
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
from ipaddress import IPv4Address

ETH_P_ARP = 0x0806
ARP_HEADER = struct.pack("!HHBB", 1, 0x0800, 6, 4)  # Ethernet, IPv4 (RFC 826)
BROADCAST = b"\xff" * 6
SIOCGIFADDR = 0x8915


def own_address(interface: str) -> bytes:
    """The interface's first IPv4 address, four octets."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        answer = fcntl.ioctl(s, SIOCGIFADDR, struct.pack("16s240x", interface.encode()))
    return answer[20:24]


def request(mac: bytes, sender: bytes, target: bytes) -> bytes:
    """An ARP Request, broadcast."""
    return (
        BROADCAST + mac + struct.pack("!H", ETH_P_ARP) + ARP_HEADER + b"\0\1" + mac + sender + bytes(6) + target
    ).ljust(60, b"\0")


def watch(interface: str, targets: list[bytes], interval: float, duration: float | None) -> None:
    """Ask until the duration (seconds) is over or SIGTERM comes."""
    stopped = False

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ARP)) as wire:
        wire.bind((interface, ETH_P_ARP))
        wire.setblocking(False)
        mac = wire.getsockname()[4]
        frames = [request(mac, own_address(interface), target) for target in targets]
        wanted = frozenset(targets)
        selector = selectors.DefaultSelector()
        selector.register(wire, selectors.EVENT_READ)
        print(json.dumps({"ready": True}), flush=True)
        began = due = time.monotonic()
        while not stopped and (duration is None or time.monotonic() - began < duration):
            now = time.monotonic()
            if now >= due:
                due = max(due + interval, now)
                for frame in frames:
                    wire.send(frame)
            for _ in selector.select(max(0.0, due - time.monotonic())):
                try:
                    frame, source = wire.recvfrom(128)
                except BlockingIOError:
                    continue
                is_reply = len(frame) >= 42 and frame[20:22] == b"\0\2" and source[2] != socket.PACKET_OUTGOING
                if is_reply and frame[28:32] in wanted and frame[32:38] == mac:
                    line = {
                        "at": round(time.monotonic(), 6),
                        "address": str(IPv4Address(frame[28:32])),
                        "mac": frame[22:28].hex(":"),
                    }
                    print(json.dumps(line), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="lab.measuring.arpwatch", description="Ask for addresses and write down who answers."
    )
    parser.add_argument("interface")
    parser.add_argument("address", nargs="+", type=IPv4Address)
    parser.add_argument("--interval", type=float, default=0.01, help="seconds between questions (0.01)")
    parser.add_argument("--duration", type=float, help="stop after so many seconds")
    args = parser.parse_args()
    watch(args.interface, [a.packed for a in args.address], args.interval, args.duration)
    return 0


if __name__ == "__main__":
    sys.exit(main())
