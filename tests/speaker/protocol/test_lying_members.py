"""A member with the key that lies, ten thousand times a second: what it costs, and what it makes grow.

Costs are CPU time, and are compared with what an honest member's heartbeat costs in the same moment: so they are the
same on every machine, however busy.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Iterator

import pytest

from cluster.objects import AddressText
from speaker.link import Mac
from speaker.protocol.effects import Decision, NeighbourSeen, SendUnicast
from speaker.protocol.heartbeat import (
    MAX_ASKS,
    MAX_EPOCH,
    MAX_HEARD,
    MAX_PARTS,
    MAX_PREFIXES,
    SUSPECTED,
    ClaimPart,
    ClaimStep,
    Flag,
    Heartbeat,
    Message,
    Offer,
    WireClaim,
    pack_address,
    pack_heard,
)
from tests.bounds import assert_bounded, filled, listed
from tests.fuzz.heartbeats import ETH0, MEMBERS, OUR_SESSION, THEIR_SESSION, Hearer

MANY = 600
A_SECOND = 10_000
SOURCE = AddressText("10.0.0.9")
CLAIMS = 60  # of a message


def held(number: int) -> AddressText:
    return AddressText(f"10.0.{10 + number // 250}.{number % 250 + 1}")


def nobodys(number: int) -> AddressText:
    return AddressText(f"198.{18 + number // 65536}.{number // 256 % 256}.{number % 256}")


def heartbeat(
    *,
    node: str = "z",
    flags: int = int(Flag.ABLE),
    mac: bytes = b"\2\0\0\0\0\x09",
    prefixes: tuple[str, ...] = ("10.0.0.9/16",),
    elsewhere: tuple[str, ...] = (),
    heard: tuple[tuple[int, int], ...] = ((OUR_SESSION, 0),),
    asks: tuple[tuple[int, int], ...] = (),
    version: int = 0,
    link: str = "eth0",
    families: int = 1,
) -> Heartbeat:
    return Heartbeat(node, 100, flags, link, mac, prefixes, elsewhere, pack_heard(heard), version, 0, asks, 0, families)


def claims(version: int, epoch: int, addresses: Iterator[AddressText]) -> ClaimStep:
    return ClaimStep(version, tuple(WireClaim(pack_address(each), epoch, 0) for each in addresses))


class Member:
    """Says one lie after the other to a speaker that holds ``MANY`` addresses."""

    def __init__(self) -> None:
        self.hearer = Hearer([held(number) for number in range(MANY)])
        self.said = 0
        self.decisions = 0
        self.unicast = 0
        self.random = random.Random(7)
        self.say(heartbeat())
        self.hearer.pass_time(1.0)

    def say(self, message: Message, session: int = THEIR_SESSION) -> None:
        self.said += 1
        data = MEMBERS.encode(session, self.said, message)
        self.hearer.now += 1 / A_SECOND
        self.hearer.protocol.receive_datagram(ETH0, SOURCE, data, self.hearer.now)
        effects = self.hearer.carry_out()
        self.decisions += sum(isinstance(effect, Decision) for effect in effects)
        self.unicast += sum(isinstance(effect, SendUnicast) for effect in effects)

    def subnets(self) -> tuple[str, ...]:
        return tuple(f"10.{self.random.randrange(256)}.{self.random.randrange(256)}.9/24" for _ in range(MAX_PREFIXES))

    # -------------------------------------------------------------------------------------------- lies

    def alternates_subnets(self, _: int) -> None:
        self.say(heartbeat(prefixes=self.subnets(), elsewhere=self.subnets()))

    def alternates_its_ability(self, turn: int) -> None:
        self.say(heartbeat(flags=turn % 2))

    def alternates_its_interface(self, turn: int) -> None:
        mac = b"\2\1" + turn.to_bytes(4, "big")
        self.say(heartbeat(mac=mac, link=f"eth{turn % 3}", flags=int(Flag.ABLE | Flag.ANSWER)))

    def claims_much_and_alternates_its_families(self, turn: int) -> None:
        if turn < 200:
            self.claims_without_end(turn)
        else:
            self.say(heartbeat(families=turn % 4, version=200))

    def hears_nobody(self, _: int) -> None:
        self.say(heartbeat(heard=()))

    def suspects_everybody(self, turn: int) -> None:
        others = tuple((100 + turn + number, SUSPECTED) for number in range(MAX_HEARD - 1))
        self.say(heartbeat(heard=((OUR_SESSION, SUSPECTED), *others)))

    def asks_for_all_that_we_claim(self, turn: int) -> None:
        self.say(heartbeat(asks=tuple((OUR_SESSION, (turn + number) % 20) for number in range(MAX_ASKS))))

    def claims_without_end(self, turn: int) -> None:
        self.say(claims(turn, 2, (nobodys(turn * CLAIMS + number) for number in range(CLAIMS))))

    def claims_all_that_is_held_by_a_low_epoch(self, turn: int) -> None:
        self.say(claims(turn, 1, (held((turn * CLAIMS + number) % MANY) for number in range(CLAIMS))))

    def claims_and_releases(self, turn: int) -> None:
        epoch = 0 if turn % 2 else MAX_EPOCH - 1
        self.say(claims(turn, epoch, (held((turn // 2 * CLAIMS + number) % MANY) for number in range(CLAIMS))))

    def offers_what_it_does_not_hold(self, turn: int) -> None:
        self.say(Offer(OUR_SESSION, tuple(pack_address(held((turn + number) % MANY)) for number in range(CLAIMS))))

    def takes_and_offers(self, turn: int) -> None:
        some = [held((turn // 2 * CLAIMS + number) % MANY) for number in range(CLAIMS)]
        if turn % 2:
            self.say(claims(turn // 2 + 1, 100 + 4 * turn, iter(some)))
        else:
            self.say(Offer(OUR_SESSION, tuple(map(pack_address, some))))

    def speaks_of_steps_that_are_not_there(self, turn: int) -> None:
        self.say(ClaimStep(10 + 2 * turn, ()))

    def speaks_of_parts_that_are_not_there(self, turn: int) -> None:
        self.say(ClaimPart(1 << 40, turn % (MAX_PARTS - 1), MAX_PARTS, ()))

    def is_another_node_each_time(self, turn: int) -> None:
        self.say(heartbeat(node=f"node-{turn}", mac=b"\2\1" + turn.to_bytes(4, "big")), 1000 + turn)

    def is_another_session_each_time(self, turn: int) -> None:
        self.say(heartbeat(), 1000 + turn)

    def is_another_session_that_has_not_heard_us(self, turn: int) -> None:
        self.say(heartbeat(node=f"node-{turn}", heard=()), 1000 + turn)

    def leaves_each_time(self, turn: int) -> None:
        self.say(heartbeat(flags=int(Flag.LEAVING)), 1000 + turn)

    def has_our_name(self, turn: int) -> None:
        self.say(heartbeat(node="a"), 1000 + turn)


LIES: list[Callable[[Member, int], None]] = [
    lie for name, lie in vars(Member).items() if name not in {"say", "subnets"} and not name.startswith("_")
]
named = pytest.mark.parametrize("lie", LIES, ids=lambda lie: str(lie.__name__))


@named
def test_a_member_fills_every_table_to_its_bound_and_no_further(lie: Callable[[Member, int], None]) -> None:
    member = Member()
    for turn in range(1, 1200):
        lie(member, turn)
        if not turn % 64:  # as many as are read in one pass
            member.hearer.pass_time(0.0)
            assert_bounded(member.hearer.protocol)
    member.hearer.pass_time(1.0)
    assert_bounded(member.hearer.protocol)


FILLS: list[tuple[Callable[[Member, int], None], int, set[str]]] = [
    (Member.is_another_node_each_time, 1100, {"Roster.peers", "Sessions._peers"}),
    (Member.is_another_session_that_has_not_heard_us, 1100, {"Roster.pending"}),
    (Member.is_another_session_each_time, 4200, {"Sessions._retired"}),
    (Member.alternates_subnets, 100, {"Roster.elsewhere", "Link.networks"}),
    (Member.suspects_everybody, 2, {"Peer.suspicions"}),
    (Member.speaks_of_steps_that_are_not_there, 1100, {"ClaimMirror._buffered"}),
    (Member.claims_without_end, 350, {"ClaimMirror.claims"}),
]


@pytest.mark.parametrize(("lie", "turns", "full"), FILLS, ids=lambda given: getattr(given, "__name__", ""))
def test_lies_fill_what_they_are_to_fill(lie: Callable[[Member, int], None], turns: int, full: set[str]) -> None:
    """Else its bound would never have been tried."""
    member = Member()
    for turn in range(1, turns):
        lie(member, turn)
    assert_bounded(member.hearer.protocol)
    counts = dict(filled(member.hearer.protocol))
    for name in full:
        assert counts[name] >= 0.99 * int(listed()[name]), name


MOST_TIMES = 40
"""As much CPU time as an honest heartbeat: a pass reads 64, and may take a sixth of a second."""


@named
def test_no_lie_costs_much_more_than_the_truth(lie: Callable[[Member, int], None]) -> None:
    member = Member()
    turns = itertools.count(1)

    def cost(say: Callable[[], None]) -> float:
        began = time.process_time()
        for _ in range(64):
            say()
        return time.process_time() - began

    honest, lying = [], []
    for _ in range(12):
        honest.append(cost(lambda: member.say(heartbeat())))
        lying.append(cost(lambda: lie(member, next(turns))))
    assert sorted(lying)[6] < MOST_TIMES * sorted(honest)[6]


def test_a_member_that_is_at_another_mac_each_time_is_answered_once() -> None:
    """It wants an answer by unicast each time: each of its MACs was sent one."""
    member = Member()
    for turn in range(1, 1000):
        member.alternates_its_interface(turn)
    before = member.unicast
    member.hearer.protocol.handle_timer(member.hearer.now + 0.1)
    member.unicast += sum(isinstance(effect, SendUnicast) for effect in member.hearer.protocol.take_effects())
    assert 0 < member.unicast - before < 10


def test_rivals_of_all_addresses_cost_each_what_rivals_of_few_do() -> None:
    """A table of all of them was made anew for each frame: anybody on the LAN can send as many as there are."""

    def cost(rivals: range) -> float:
        hearer = Hearer([held(number) for number in range(MANY)])
        seen = [
            NeighbourSeen(ETH0, held(number), Mac(b"\2\1" + number.to_bytes(4, "big")), SOURCE, is_reply=True)
            for number in rivals
        ]
        began = time.process_time()
        for each in seen:
            hearer.protocol.receive_neighbour(each, hearer.now)
        return (time.process_time() - began) / len(seen)

    few = min(cost(range(60)) for _ in range(5))
    all_of_them = min(cost(range(MANY)) for _ in range(5))
    assert all_of_them < 2 * few
