"""How fast a speaker answers ARP, beside the kernel's own responder on the same wire in the same run.

    python -m bench.arp [--seconds 2] [--json FILE]

It needs root (network namespaces). The announcer runs as in a cluster, with protocol and heartbeats. Measured are:

- the replies a second with up to 64 questions outstanding, for one and for many senders and addresses;
- the time from one question to its answer, one at a time;
- the CPU that other people's questions cost, 50,000 a second for addresses that the speaker does not hold;
- the CPU of 200,000 UDP datagrams a second that are no heartbeats.

The generator uses sendmmsg and recvmmsg, so that it is faster than what it measures. It needs a processor of its own;
where it has none it sends less, and the figures say how much.
"""

from __future__ import annotations

import ctypes
import itertools
import random
import socket
import statistics
import time
from collections.abc import Callable, Sequence

from bench.probes import announcer_cpu_s, take_precedence
from bench.report import Figures, arguments, progress, show, write
from cluster.objects import AddressText
from speaker.link import Mac
from speaker.wire.addresses import WireAddress
from speaker.wire.arp import frames
from speaker.wire.heartbeats.datagrams import UdpFrame
from tests.waiting import wait_until
from tests.wire.network import Wire, WireHost
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
        sender = WireAddress((0xC0000300 + number).to_bytes(4, "big"))
        made.append(frames.request(WireAddress.of(target), sender, mac).encode())
    return made


def opened(host: WireHost, receives: bool = True) -> socket.socket:
    def create() -> socket.socket:
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        made.bind(("eth0", frames.ETHERTYPE_ARP if receives else 0))
        made.settimeout(0.2)
        return made

    return host.call(create)


def replies_per_second(client: WireHost, asked: list[bytes], seconds: float) -> float:
    """Replies a second with 32 to 64 questions outstanding.

    They are refilled by halves, or the generator would be what is measured.
    """
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


def answer_times(client: WireHost, question: bytes, count: int) -> list[float]:
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


def foreign_questions() -> list[bytes]:
    return questions([AddressText(f"192.0.2.{n}") for n in range(100, 150)], 1000, 100)


def foreign_datagrams(node: WireHost) -> list[bytes]:
    """UDP datagrams to a port that nobody has on the node: a filter has to look into them before it drops them."""
    to = Mac(bytes.fromhex(node.mac().replace(":", "")))
    here, sender = (WireAddress.of(AddressText(text)) for text in ("192.0.2.1", "192.0.2.2"))
    frame = UdpFrame(to, Mac(b"\x02\x00\x00\x01\x00\x00"), here, sender, 9, 9, 64, b"no heartbeat")
    return [frame.encode()] * 100


def foreign_cpu(client: WireHost, pid: int, frames: Sequence[bytes], rate: int, seconds: float) -> tuple[float, float]:
    """Send others' frames past the speaker, ``rate`` a second or as many as can be sent.

    Returns the share of one processor that the speaker used meanwhile, and the frames a second that there were.
    """
    batch = Batch(frames)
    with opened(client, receives=False) as wire:
        before, started, sent = announcer_cpu_s(pid), time.perf_counter(), 0
        while (passed := time.perf_counter() - started) < seconds:
            if sent < passed * rate:
                sent += max(0, _LIBC.sendmmsg(wire.fileno(), batch.at(0), 100, 0))
            else:
                time.sleep(0.0005)
        return (announcer_cpu_s(pid) - before) / passed, sent / passed


def measure(client: WireHost, addresses: Sequence[AddressText], seconds: float, pid: int | None = None) -> Figures:
    one, many = addresses[:1], addresses
    figures = {}
    for senders, targets in ((1, one), (1, many), (10_000, one), (10_000, many)):
        case = f"{senders} senders, {len(targets)} addresses"
        before = announcer_cpu_s(pid) if pid else 0.0
        progress.print(f"  {case}")
        rate = replies_per_second(client, questions(targets, senders, 10_000), seconds)
        figures[f"replies/s, {case}"] = rate
        if pid:
            figures[f"replies per CPU second, {case}"] = rate * seconds / (announcer_cpu_s(pid) - before)
    times = answer_times(client, questions(one, 1, 1)[0], 5000)
    if len(times) < 100:
        raise SystemExit("hardly any question was answered")
    figures["answer p50, µs"] = statistics.median(times)
    figures["answer p99, µs"] = statistics.quantiles(times, n=100)[98]
    return figures


def with_wire(run: Callable[[Wire, WireHost, WireHost], Figures]) -> Figures:
    wire = Wire()
    try:
        return run(wire, wire.host("node"), wire.host("client"))
    finally:
        wire.end()


def main() -> None:
    parser = arguments("arp", __doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement (%(default)s)")
    options = parser.parse_args()
    take_precedence()
    addresses = [AddressText(f"198.51.{100 + n // 250}.{n % 250}") for n in range(1000)]

    def ours(_: Wire, node: WireHost, client: WireHost) -> Figures:
        speaker = Speaker(node)
        try:
            speaker.plan(1, *(bundle(address, (address,), "node") for address in addresses))
            wait_until(lambda: speaker.holds(*addresses), 30)
            wait_until(lambda: sum(speaker.traffic.gratuitous.values()) >= 9000, 60)
            figures = measure(client, addresses, options.seconds, speaker.process.pid)
            pid, asked = speaker.process.pid, foreign_questions()
            idle = foreign_cpu(client, pid, asked, 0, options.seconds)[0]
            for what, sent, rate in (("questions", asked, 50_000), ("datagrams", foreign_datagrams(node), 200_000)):
                share, passed = foreign_cpu(client, pid, sent, rate, options.seconds)
                figures[f"CPU of {rate // 1000}k/s foreign {what}, %"] = 100 * (share - idle)
                figures[f"foreign {what}/s"] = passed
            figures["idle CPU, %"] = 100 * idle
            return figures
        finally:
            speaker.end()

    def kernel(_: Wire, node: WireHost, client: WireHost) -> Figures:
        node.run("sh", "-c", "; ".join(f"ip address add {address}/32 dev eth0" for address in addresses))
        node.run("ip", "route", "add", "default", "dev", "eth0")  # it answers only whom it could reach
        return measure(client, addresses, options.seconds)

    results: dict[str, Figures] = {}
    for name, run in (("speaker", ours), ("kernel", kernel)):
        progress.print(name)
        results[name] = with_wire(run)
    kernels = results["kernel"]
    rows = {name: [value, *([kernels[name]] if name in kernels else [])] for name, value in results["speaker"].items()}
    show(["figure", "speaker", "kernel"], rows)
    write(options.json, results)


if __name__ == "__main__":
    main()
