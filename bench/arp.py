"""How fast a speaker answers ARP, beside the kernel's own responder on the same wire in the same run.

    python -m bench.arp [--seconds 2] [--json FILE]

Needs root (network namespaces). Measured, with the announcer as it runs in a cluster (protocol, heartbeats and all):

- replies a second with up to 64 questions outstanding, for one and for many senders and addresses;
- the time from one question to its answer, one at a time;
- the CPU that other people's questions cost: 50,000 a second for addresses that are not held;
- the same for 200,000 UDP datagrams a second that are no heartbeats.

The generator uses sendmmsg and recvmmsg, so that it is faster than what it measures. It needs a processor of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import itertools
import json
import os
import random
import socket
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from cluster.objects import AddressText
from speaker.link import Mac
from speaker.wire.arp import frames
from speaker.wire.heartbeats.datagrams import UdpFrame
from tests.waiting import wait_until
from tests.wire.network import Host, Wire
from tests.wire.speakers import Speaker, bundle

OUTSTANDING = 64
FRAME_OCTETS = 64
_LIBC = ctypes.CDLL(None, use_errno=True)


class _Iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


class _Message(ctypes.Structure):
    """``struct mmsghdr``."""

    _fields_ = [
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("iov", ctypes.c_void_p),
        ("iov_length", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
        ("padding", ctypes.c_uint32),
        ("length", ctypes.c_uint32),
    ]


class Batch:
    """Messages for sendmmsg or recvmmsg over buffers that stay."""

    def __init__(self, contents: Sequence[bytes]) -> None:
        self._buffers = [ctypes.create_string_buffer(content, FRAME_OCTETS) for content in contents]
        self._iovecs = (_Iovec * len(contents))()
        self.messages = (_Message * len(contents))()
        for at, content in enumerate(contents):
            self._iovecs[at] = _Iovec(ctypes.addressof(self._buffers[at]), len(content))
            self.messages[at].iov = ctypes.addressof(self._iovecs[at])
            self.messages[at].iov_length = 1

    def at(self, index: int) -> ctypes.c_void_p:
        return ctypes.c_void_p(ctypes.addressof(self.messages) + index * ctypes.sizeof(_Message))


def questions(targets: Sequence[AddressText], senders: int, count: int) -> list[bytes]:
    chance = random.Random(1)
    made = []
    for target in itertools.islice(itertools.cycle(targets), count):
        number = chance.randrange(senders)
        mac = Mac(b"\x02\x00\x00\x01" + number.to_bytes(2, "big"))
        sender = frames.address_text((0xC0000300 + number).to_bytes(4, "big"))
        made.append(frames.request(target, sender, mac).encode())
    return made


def opened(host: Host, receives: bool = True) -> socket.socket:
    def create() -> socket.socket:
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        made.bind(("eth0", frames.ETHERTYPE_ARP if receives else 0))
        made.settimeout(0.2)
        return made

    return host.call(create)


def replies_per_second(client: Host, asked: list[bytes], seconds: float) -> float:
    """Replies with 32 to 64 questions outstanding: refilled by halves, or the generator would be what is measured."""
    with opened(client) as wire:
        wire.setblocking(True)
        wire.setsockopt(
            socket.SOL_SOCKET, socket.SO_RCVTIMEO, (0).to_bytes(8, "little") + (50_000).to_bytes(8, "little")
        )
        out, back = Batch(asked), Batch([bytes(FRAME_OCTETS)] * OUTSTANDING)
        at, answered, started = 0, 0, time.perf_counter()
        allowed = OUTSTANDING
        while (now := time.perf_counter()) - started < seconds:
            while allowed:
                many = min(allowed, len(asked) - at)
                sent = _LIBC.sendmmsg(wire.fileno(), out.at(at), many, 0)
                if sent <= 0:
                    break
                at = (at + sent) % len(asked)
                allowed -= sent
            allowed = _LIBC.recvmmsg(wire.fileno(), back.at(0), OUTSTANDING // 2, 0, None)
            if allowed <= 0:  # lost: start again with all
                allowed = OUTSTANDING
            else:
                answered += allowed
        return answered / (now - started)


def answer_times(client: Host, question: bytes, count: int) -> list[float]:
    """Microseconds from a question to its answer, one at a time."""
    times = []
    with opened(client) as wire:
        for _ in range(count):
            started = time.perf_counter()
            wire.send(question)
            try:
                wire.recv(FRAME_OCTETS)
            except TimeoutError:
                continue
            times.append((time.perf_counter() - started) * 1e6)
    return times


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def foreign_questions() -> list[bytes]:
    return questions([AddressText(f"192.0.2.{n}") for n in range(100, 150)], 1000, 100)


def foreign_datagrams(node: Host) -> list[bytes]:
    """To a port of the node that nobody has: what a filter has to look at before it knows."""
    to = Mac(bytes.fromhex(node.mac().replace(":", "")))
    here, sender = AddressText("192.0.2.1"), AddressText("192.0.2.2")
    frame = UdpFrame(to, Mac(b"\x02\x00\x00\x01\x00\x00"), here, sender, 9, 9, 64, b"no heartbeat")
    return [frame.encode()] * 100


def foreign_cpu_share(client: Host, pid: int, frames: Sequence[bytes], rate: int, seconds: float) -> float:
    """Share of one processor that the speaker uses while others' frames pass by at this rate."""
    batch = Batch(frames)
    with opened(client, receives=False) as wire:
        before, started, sent = cpu_seconds(pid), time.perf_counter(), 0
        while (passed := time.perf_counter() - started) < seconds:
            if sent < passed * rate:
                sent += max(0, _LIBC.sendmmsg(wire.fileno(), batch.at(0), 100, 0))
            else:
                time.sleep(0.0005)
        share = (cpu_seconds(pid) - before) / passed
    if sent < 0.9 * rate * seconds:
        raise SystemExit(f"the generator managed only {sent / seconds:.0f} frames a second")
    return share


def measure(client: Host, addresses: Sequence[AddressText], seconds: float, pid: int | None = None) -> dict[str, float]:
    one, many = addresses[:1], addresses
    figures = {}
    for senders, targets in ((1, one), (1, many), (10_000, one), (10_000, many)):
        case = f"{senders} senders, {len(targets)} addresses"
        before = cpu_seconds(pid) if pid else 0.0
        rate = replies_per_second(client, questions(targets, senders, 10_000), seconds)
        figures[f"replies/s, {case}"] = rate
        if pid:
            figures[f"replies per CPU second, {case}"] = rate * seconds / (cpu_seconds(pid) - before)
    times = answer_times(client, questions(one, 1, 1)[0], 5000)
    if len(times) < 100:
        raise SystemExit("hardly any question was answered")
    figures["answer p50, µs"] = statistics.median(times)
    figures["answer p99, µs"] = statistics.quantiles(times, n=100)[98]
    return figures


def with_wire(run: Callable[[Wire, Host, Host], dict[str, float]]) -> dict[str, float]:
    wire = Wire()
    try:
        return run(wire, wire.host("node"), wire.host("client"))
    finally:
        wire.end()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    options = parser.parse_args()
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, -10)  # the generator is not what is measured
    addresses = [AddressText(f"198.51.{100 + n // 250}.{n % 250}") for n in range(1000)]

    def ours(_: Wire, node: Host, client: Host) -> dict[str, float]:
        speaker = Speaker(node)
        try:
            speaker.plan(1, *(bundle(address, (address,), "node") for address in addresses))
            wait_until(lambda: speaker.holds(*addresses), 30)
            wait_until(lambda: sum(speaker.traffic.gratuitous.values()) >= 9000, 60)
            figures = measure(client, addresses, options.seconds, speaker.process.pid)
            pid, asked = speaker.process.pid, foreign_questions()
            idle = foreign_cpu_share(client, pid, asked, 0, options.seconds)
            for what, sent, rate in (("questions", asked, 50_000), ("datagrams", foreign_datagrams(node), 200_000)):
                share = foreign_cpu_share(client, pid, sent, rate, options.seconds)
                figures[f"CPU of {rate // 1000}k/s foreign {what}, %"] = 100 * (share - idle)
            figures["idle CPU, %"] = 100 * idle
            return figures
        finally:
            speaker.end()

    def kernel(_: Wire, node: Host, client: Host) -> dict[str, float]:
        node.run("sh", "-c", "; ".join(f"ip address add {address}/32 dev eth0" for address in addresses))
        node.run("ip", "route", "add", "default", "dev", "eth0")  # it answers only whom it could reach
        return measure(client, addresses, options.seconds)

    results = {"speaker": with_wire(ours), "kernel": with_wire(kernel)}
    for name in results["speaker"]:
        other = results["kernel"].get(name)
        print(f"{name:45} {results['speaker'][name]:12,.1f}" + (f"   kernel {other:12,.1f}" if other else ""))
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
