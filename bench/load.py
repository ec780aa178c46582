"""What heartbeats cost each speaker among more and more of them, without a network.

    python -m bench.load [--nodes 3 10 50 200] [--holders N] [--seconds 10] [--json FILE]

All speakers run in this process, in made-up time: what one says to the group arrives at all others half a millisecond
later. Each holds one address, or only the first ``--holders``. Measured are the first one's datagrams, octets and CPU
seconds in each second, once all have settled; and in the first second after another one has died, and how long its
address was without an owner. Two hundred nodes take five minutes, and a thousand two hours.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from time import process_time

from bench.report import Figures, arguments, progress, show_side_by_side, write
from cluster.objects import AddressText, NodeName
from speaker.link import LinkName, Mac
from speaker.plan import Bundle, BundleId, Candidate, Plan
from speaker.protocol.effects import AskAddress, LinkState, NeighbourSeen, SendHeartbeat, SendUnicast
from speaker.protocol.protocol import Protocol
from speaker.protocol.settings import Settings

CLUSTER, KEYS = "11111111-2222-3333-4444-555555555555", (b"k" * 32,)
LINK = LinkName("eth0")
WAY_S = 0.0005
START_S = 0.3  # within which all start
SETTLE_S = 3.0  # without a change, until all is as it stays
LONGEST_START_S = 60.0
GATEWAY, GATEWAY_MAC = AddressText("10.0.255.254"), Mac(b"\2\0\0\0\xff\xff")

Action = Callable[[], None]


@dataclass
class Usage:
    """Of the first speaker."""

    datagrams: int = 0
    octets: int = 0
    said: int = 0
    unicast: int = 0
    cpu_s: float = 0.0


@dataclass(eq=False)
class Speaker:
    number: int
    protocol: Protocol
    address: AddressText
    mac: Mac
    timer: int = 0
    lives: bool = True
    usage: Usage = field(default_factory=Usage)


def numbered(number: int, net: int) -> AddressText:
    return AddressText(f"10.{net}.{number // 250}.{1 + number % 250}")


class MadeUpLan:
    def __init__(self, nodes: int, holders: int) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Action]] = []
        self._order = itertools.count()
        self._rng = random.Random(1)
        names = [NodeName(f"node-{number:04}") for number in range(nodes)]
        self._bundles = tuple(
            Bundle(
                BundleId(f"b{number:04}"),
                (numbered(number, 1),),
                (f"default/{number}",),
                tuple(Candidate(name, 0, 0) for name in (names[number], *names[:3], names[-1])),
            )
            for number in range(holders)
        )
        self.speakers = [self._speaker(number, name) for number, name in enumerate(names)]
        self.by_address = {each.address: each for each in self.speakers}

    def _speaker(self, number: int, name: NodeName) -> Speaker:
        protocol = Protocol(name, number + 1, Settings(probes=False), random.Random(number), 0.0)
        speaker = Speaker(number, protocol, numbered(number, 0), Mac(b"\2\0" + number.to_bytes(4)))
        state = LinkState(LINK, 2, speaker.mac, True, (f"{speaker.address}/8",), (GATEWAY,))

        def start() -> None:
            protocol.set_links((state,), self.now)
            protocol.set_credentials(CLUSTER, KEYS, self.now)
            protocol.set_plan(Plan(1, name, self._bundles), self.now)

        self._at(self._rng.uniform(0.0, START_S), lambda: self._do(speaker, start))
        return speaker

    def _at(self, time: float, action: Action) -> None:
        heapq.heappush(self._events, (time, next(self._order), action))

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        while self._events and self._events[0][0] <= until:
            self.now, _, action = heapq.heappop(self._events)
            action()
        self.now = until

    def _do(self, speaker: Speaker, action: Action) -> None:
        """A call of the protocol, and what follows from it."""
        began = process_time() if speaker.number == 0 else 0.0
        action()
        protocol = speaker.protocol
        protocol.take_answers()
        effects, deadline = protocol.take_effects(), protocol.next_deadline()
        if speaker.number == 0:
            speaker.usage.cpu_s += process_time() - began
        for effect in effects:
            if isinstance(effect, SendHeartbeat | SendUnicast):
                speaker.usage.said += isinstance(effect, SendHeartbeat)
                speaker.usage.unicast += isinstance(effect, SendUnicast)
                self._at(self.now + WAY_S, lambda effect=effect: self._deliver(speaker, effect))  # type: ignore[misc]
            elif isinstance(effect, AskAddress):
                self._at(self.now + WAY_S, lambda effect=effect: self._ask(speaker, effect))  # type: ignore[misc]
        speaker.timer += 1
        if deadline is not None:
            timer = speaker.timer
            self._at(max(deadline, self.now), lambda: self._tick(speaker, timer))

    def _tick(self, speaker: Speaker, timer: int) -> None:
        if speaker.lives and speaker.timer == timer:
            self._do(speaker, lambda: speaker.protocol.handle_timer(self.now))

    def _deliver(self, sender: Speaker, effect: SendHeartbeat | SendUnicast) -> None:
        by_group, data = isinstance(effect, SendHeartbeat), effect.data
        others = self.speakers if isinstance(effect, SendHeartbeat) else [self.by_address[effect.to]]
        for each in others:
            if each is sender or not each.lives:
                continue
            each.usage.datagrams += 1
            each.usage.octets += len(data)
            receive = each.protocol.receive_datagram
            self._do(each, lambda r=receive: r(LINK, sender.address, data, self.now, by_group=by_group))  # type: ignore[misc]

    def _ask(self, asker: Speaker, effect: AskAddress) -> None:
        """The gateway and living holders answer."""
        holder = next((each for each in self.speakers if each.lives and effect.target in each.protocol.claims()), None)
        if effect.target == GATEWAY:
            mac, proof = GATEWAY_MAC, b""
        elif holder is not None and effect.nonce:
            mac, proof = holder.mac, holder.protocol.prove(effect.nonce, holder.mac, effect.target)
        else:
            return
        seen = NeighbourSeen(LINK, effect.target, mac, asker.address, True, proof)
        if asker.lives:
            self._do(asker, lambda: asker.protocol.receive_neighbour(seen, self.now))

    # ------------------------------------------------------------------------------------------------ figures

    def holders(self) -> dict[AddressText, int]:
        """Each address that is held, and how many hold it."""
        held: dict[AddressText, int] = {}
        for speaker in self.speakers:
            for address in speaker.protocol.claims() if speaker.lives else ():
                held[address] = held.get(address, 0) + 1
        return held

    def settle(self) -> float:
        """Let time pass until nothing changes any more; the seconds until then."""
        since, before = self.now, self.holders()
        while self.now < since + SETTLE_S or len(before) < len(self._bundles):
            if self.now > LONGEST_START_S:
                raise SystemExit(f"{len(before)} of {len(self._bundles)} addresses are held after {self.now:.0f} s")
            self.run(0.5)
            held = self.holders()
            if held != before:
                since, before = self.now, held
        return since

    def kill(self, speaker: Speaker) -> float:
        """The power of a holder is cut. Returns for how many seconds its addresses were nobody's."""
        lost = set(speaker.protocol.claims())
        speaker.lives, since = False, self.now
        while not lost <= self.holders().keys() and self.now < since + LONGEST_START_S:
            self.run(0.01)
        return self.now - since


def measure(nodes: int, holders: int, seconds: float) -> Figures:
    began = process_time()
    lan = MadeUpLan(nodes, holders)
    figures = {"settled after, s": lan.settle()}
    first = lan.speakers[0]
    first.usage = usage = Usage()
    lan.run(seconds)
    figures |= {
        "heartbeats heard/s": usage.datagrams / seconds,
        "octets/s": usage.octets / seconds,
        "said/s": usage.said / seconds,
        "said by unicast/s": usage.unicast / seconds,
        "CPU, % of a core": 100 * usage.cpu_s / seconds,
    }
    first.usage = usage = Usage()
    victim = lan.speakers[min(holders, nodes) - 1]
    figures["death: without owner, s"] = lan.kill(victim)
    figures["death: datagrams heard"] = usage.datagrams
    figures["death: CPU, s"] = usage.cpu_s
    figures["seconds of CPU for all"] = process_time() - began
    return figures


def main() -> None:
    parser = arguments("load", __doc__)
    parser.add_argument("--nodes", type=int, nargs="+", default=[3, 10, 50, 200], metavar="N", help="%(default)s")
    parser.add_argument("--holders", type=int, metavar="N", help="how many hold an address; default: all")
    parser.add_argument("--seconds", type=float, default=10.0, help="made-up ones; default: %(default)s")
    given = parser.parse_args()
    found: dict[str, Figures] = {}
    for nodes in given.nodes:
        found[f"{nodes} nodes"] = measure(nodes, min(given.holders or nodes, nodes), given.seconds)
        progress.print(f"{nodes} nodes: done")
    show_side_by_side(found)
    write(given.json, found)


if __name__ == "__main__":
    main()
