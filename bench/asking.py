"""The generator of ``bench.arp`` and ``bench.nd``: questions who has an address, and how fast they are answered.

It uses sendmmsg and recvmmsg, so that it is faster than what it measures. It needs a processor of its own; where it has
none it sends less, and the figures say how much.
"""

from __future__ import annotations

import ctypes
import socket
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bench.probes import announcer_cpu_s
from bench.report import Figures, progress, show, write
from cluster.objects import AddressText
from tests.waiting import wait_until
from tests.wire.network import Wire, WireHost
from tests.wire.speakers import Speaker, bundle

OUTSTANDING = 64
FRAME_OCTETS = 128
"""Of every question and every answer, at most."""
Questions = Callable[[Sequence[AddressText], int, int], list[bytes]]
"""Addresses, how many different askers, how many frames -> the frames."""
Run = Callable[[Wire, WireHost, WireHost], Figures]
"""A wire with a node and a client on it -> what was measured."""
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


def opened(host: WireHost, ethertype: int) -> socket.socket:
    """A socket that receives frames of one EtherType; of 0, none."""

    def create() -> socket.socket:
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        made.bind(("eth0", ethertype))
        made.settimeout(0.2)
        return made

    return host.call(create)


def replies_per_second(client: WireHost, ethertype: int, asked: list[bytes], seconds: float) -> float:
    """Replies a second with 32 to 64 questions outstanding.

    They are refilled by halves, or the generator would be what is measured.
    """
    with opened(client, ethertype) as wire:
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


def answer_times(client: WireHost, ethertype: int, question: bytes, count: int) -> list[float]:
    """Microseconds from a question to its answer, one at a time."""
    times = []
    with opened(client, ethertype) as wire:
        for _ in range(count):
            started = time.perf_counter()
            wire.send(question)
            try:
                wire.recv(FRAME_OCTETS)
            except TimeoutError:
                continue
            times.append((time.perf_counter() - started) * 1e6)
    return times


def foreign_cpu(client: WireHost, pid: int, frames: Sequence[bytes], rate: int, seconds: float) -> tuple[float, float]:
    """Send others' frames past the speaker, ``rate`` a second or as many as can be sent.

    Returns the share of one processor that the speaker used meanwhile, and the frames a second that there were.
    """
    batch = Batch(frames)
    with opened(client, 0) as wire:
        before, started, sent = announcer_cpu_s(pid), time.perf_counter(), 0
        while (passed := time.perf_counter() - started) < seconds:
            if sent < passed * rate:
                sent += max(0, _LIBC.sendmmsg(wire.fileno(), batch.at(0), 100, 0))
            else:
                time.sleep(0.0005)
        return (announcer_cpu_s(pid) - before) / passed, sent / passed


def measure(
    client: WireHost,
    ethertype: int,
    questions: Questions,
    addresses: Sequence[AddressText],
    seconds: float,
    *,
    pid: int | None = None,
) -> Figures:
    """How fast questions for these addresses are answered; also in CPU seconds of the process ``pid``."""
    one, many = addresses[:1], addresses
    figures = {}
    for senders, targets in ((1, one), (1, many), (10_000, one), (10_000, many)):
        case = f"{senders} senders, {len(targets)} addresses"
        before = announcer_cpu_s(pid) if pid else 0.0
        progress.print(f"  {case}")
        rate = replies_per_second(client, ethertype, questions(targets, senders, 10_000), seconds)
        figures[f"replies/s, {case}"] = rate
        if pid:
            figures[f"replies per CPU second, {case}"] = rate * seconds / (announcer_cpu_s(pid) - before)
    times = answer_times(client, ethertype, questions(one, 1, 1)[0], 5000)
    if len(times) < 100:
        raise SystemExit("hardly any question was answered")
    figures["answer p50, µs"] = statistics.median(times)
    figures["answer p99, µs"] = statistics.quantiles(times, n=100)[98]
    return figures


def with_wire(run: Run) -> Figures:
    wire = Wire()
    try:
        return run(wire, wire.host("node"), wire.host("client"))
    finally:
        wire.end()


def foreign(client: WireHost, pid: int, loads: Mapping[str, tuple[Sequence[bytes], int]], seconds: float) -> Figures:
    """The CPU that others' frames cost the speaker: what they are, the frames, and how many a second."""
    figures: Figures = {}
    some = next(frames for frames, _ in loads.values())
    idle = foreign_cpu(client, pid, some, 0, seconds)[0]
    for what, (frames, rate) in loads.items():
        share, passed = foreign_cpu(client, pid, frames, rate, seconds)
        figures[f"CPU of {rate // 1000}k/s foreign {what}, %"] = 100 * (share - idle)
        figures[f"foreign {what}/s"] = passed
    figures["idle CPU, %"] = 100 * idle
    return figures


def of_speaker(
    node: WireHost,
    client: WireHost,
    ethertype: int,
    questions: Questions,
    *,
    addresses: Sequence[AddressText],
    seconds: float,
    unasked: int,
    loads: Mapping[str, tuple[Sequence[bytes], int]],
) -> Figures:
    """Measure a speaker that holds these addresses, once it has sent ``unasked`` frames for each."""
    speaker = Speaker(node)
    try:
        speaker.plan(1, *(bundle(address, (address,), "node") for address in addresses))
        wait_until(lambda: speaker.holds(*addresses), 30)
        wait_until(lambda: sum(speaker.traffic.gratuitous.values()) >= unasked * len(addresses), 60)
        pid = speaker.process.pid
        return measure(client, ethertype, questions, addresses, seconds, pid=pid) | foreign(client, pid, loads, seconds)
    finally:
        speaker.end()


def compare(speaker: Run, kernel: Run, path: Path | None) -> None:
    """Measure both on wires of their own, one after the other, and show the figures beside each other."""
    results: dict[str, Figures] = {}
    for name, run in (("speaker", speaker), ("kernel", kernel)):
        progress.print(name)
        results[name] = with_wire(run)
    kernels = results["kernel"]
    rows = {name: [value, *([kernels[name]] if name in kernels else [])] for name, value in results["speaker"].items()}
    show(["figure", "speaker", "kernel"], rows)
    write(path, results)
