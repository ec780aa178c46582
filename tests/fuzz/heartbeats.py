"""What speakers say, and whoever has the key: from the datagram to all that follows from it.

`datagram` is what anybody can send. `message` is any content behind a right tag. `conversation` is a member that says
one thing after the other, while time passes, links change and strangers send ARP: the octets are read as a list of
steps.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import suppress

import msgspec

from cluster.objects import AddressText, NodeName
from speaker.link import LinkName, Mac
from speaker.plan import Bundle, BundleId, Candidate, Plan
from speaker.protocol import datagram as codec
from speaker.protocol import heartbeat
from speaker.protocol.datagram import Authenticator, HeartbeatError, Unknown
from speaker.protocol.effects import Effect, LinkState, NeighbourSeen
from speaker.protocol.heartbeat import (
    ClaimPart,
    ClaimStep,
    Heartbeat,
    Message,
    Offer,
    OnBehalf,
    StoodIn,
    WireClaim,
    pack_address,
    pack_heard,
)
from speaker.protocol.protocol import Protocol
from speaker.protocol.settings import Settings
from tests.bounds import assert_bounded

CLUSTER, KEYS = "cluster", (b"k" * 32,)
MEMBERS = Authenticator(CLUSTER, KEYS)
OUR_SESSION, THEIR_SESSION = 1, 9
ETH0, ETH1 = LinkName("eth0"), LinkName("eth1")
ME = NodeName("a")
SOURCE = AddressText("10.0.0.9")
SPOKEN: tuple[Message, ...] = (
    Heartbeat("z", 100, 1, "eth0", b"\2\0\0\0\0\x09", ("10.0.0.9/16",), (), pack_heard([(1, 3)]), 0, 0, ((1, 0),)),
    ClaimStep(1, (WireClaim(pack_address(AddressText("10.0.9.1")), 4, 0),)),
    ClaimPart(3, 0, 2, (WireClaim(pack_address(AddressText("2001:db8::1")), 4, 0),), ((0, 1),)),
)


# ------------------------------------------------------------------------ one datagram

DATAGRAM_SEEDS = tuple(MEMBERS.encode(THEIR_SESSION, 1, each) for each in SPOKEN)


def datagram(data: bytes) -> None:
    """Without the key."""
    with suppress(HeartbeatError):
        MEMBERS.parse(data)
        assert data in DATAGRAM_SEEDS, "a forgery was believed"


MESSAGE_SEEDS = tuple(msgspec.msgpack.encode(each) for each in (*SPOKEN, [9, {"a": [1]}]))


def sealed(payload: bytes, session: int = THEIR_SESSION, sequence: int = 1) -> bytes:
    """A datagram with a right tag around any content."""
    whole = MEMBERS.encode(session, sequence, SPOKEN[0])
    signed = whole[: codec._SIGNED.size]
    return signed + codec._tag(KEYS[0], signed, payload) + payload


def message(payload: bytes) -> None:
    """With the key."""
    try:
        said = MEMBERS.parse(sealed(payload)).message
    except HeartbeatError:
        return
    if isinstance(said, Unknown):
        assert said.kind not in heartbeat.KINDS
    else:
        assert MEMBERS.parse(MEMBERS.encode(THEIR_SESSION, 2, said)).message == said


# ------------------------------------------------------------------------ many


class Octets:
    """Reads decisions from octets, and zeros behind their end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def number(self, octets: int = 1) -> int:
        return int.from_bytes(self.take(octets), "big")

    def take(self, octets: int) -> bytes:
        taken = self._data[self._at : self._at + octets]
        self._at += octets
        return taken.ljust(octets, b"\0")

    def one_of(self, choices: Sequence[str]) -> str:
        return choices[self.number() % len(choices)]


NODES = ("z", "y", "a", "x" * heartbeat.MAX_NAME)
LINKS = ("eth0", "eth1", "x" * heartbeat.MAX_LINK_NAME)
PREFIXES = (
    "10.0.0.9/16", "10.1.0.9/16", "0.0.0.0/0", "10.0.0.9", "nonsense", "", "2001:db8::9/64", "::/0", "10.0.0.9/99",
    "fe80::1%eth0/64", "10.0.9.0/24",
)  # fmt: skip
ADDRESSES = tuple(map(AddressText, (*(f"10.0.9.{n}" for n in range(1, 9)), "2001:db8::1")))
NUMBERS = (0, 1, 2, 3, 1 << 31, (1 << 32) - 1, (1 << 63) - 1, (1 << 64) - 1)
MOST_STEPS, MOST_TIMERS = 60, 400
CONVERSATION_SEEDS = (
    bytes((0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 1)) * 4,
    b"".join(bytes((n % 10, 0, n, 1, 2, 3, n, 5, 8, 13)) for n in range(40)),
)


class Hearer:
    """A speaker that holds these addresses, and hears a member say what the octets say."""

    def __init__(self, addresses: Sequence[AddressText] = ADDRESSES) -> None:
        self.now = 0.0
        self.sequence = 0
        self.up = {ETH0: True, ETH1: True}
        self.protocol = Protocol(ME, OUR_SESSION, Settings(), random.Random(1), 0.0)
        self.set_links()
        self.protocol.set_credentials(CLUSTER, KEYS, 0.0)
        candidates = tuple(Candidate(NodeName(node), 0, 0) for node in ("a", "z"))
        bundles = (Bundle(BundleId(f"b-{text}"), (text,), (f"default/{text}",), candidates) for text in addresses)
        self.protocol.set_plan(Plan(1, ME, tuple(bundles)), 0.0)
        self.pass_time(3.0 + len(addresses) / 1000)
        assert len(self.protocol.claims()) == len(addresses)

    def set_links(self) -> None:
        links = (
            LinkState(
                ETH0,
                2,
                Mac(b"\2\0\0\0\0\1"),
                self.up[ETH0],
                ("10.0.0.1/16",),
                (AddressText("10.0.0.254"),),
                AddressText("fe80::1"),
            ),
            LinkState(ETH1, 3, Mac(b"\2\0\0\0\1\1"), self.up[ETH1], ("10.1.0.1/16",)),
        )
        self.protocol.set_links(links, self.now)

    def pass_time(self, seconds: float) -> None:
        until, timers = self.now + seconds, 0
        while (deadline := self.protocol.next_deadline()) is not None and deadline <= until:
            self.now = max(self.now, deadline)
            self.protocol.handle_timer(self.now)
            self.carry_out()
            timers += 1
            assert timers < MOST_TIMERS * max(1.0, seconds), "it spins"
        self.now = until

    def carry_out(self) -> list[Effect]:
        """As the announcer does; what is left to do."""
        self.protocol.take_answers()
        self.protocol.take_claims()
        return self.protocol.take_effects()

    def hear(self, octets: Octets, said: bytes | Message) -> None:
        how = octets.number()
        self.sequence += how % 3
        session = THEIR_SESSION + how // 3 % 3
        payload = said if isinstance(said, bytes) else msgspec.msgpack.encode(said)
        data = sealed(payload, session, self.sequence)
        link = (ETH0, ETH1)[how >> 4 & 1]
        self.protocol.receive_datagram(link, SOURCE, data, self.now, by_group=bool(how >> 5 & 1))

    def step(self, octets: Octets) -> None:
        kind = octets.number() % 13
        link = (ETH0, ETH1)[octets.number() % 2]
        steps: Sequence[Callable[[], None]] = (
            lambda: self.hear(octets, _heartbeat(octets)),
            lambda: self.hear(octets, _claims(octets)),
            lambda: self.hear(octets, _offer(octets)),
            lambda: self.hear(octets, octets.take(octets.number())),
            lambda: self.pass_time(octets.number() / 100),
            lambda: self.protocol.receive_neighbour(_neighbour(octets, link), self.now),
            lambda: self.protocol.datagram_refused(link, SOURCE, self.now),
            lambda: self.protocol.receive_frame(link, Mac(bytes(5) + octets.take(1)), self.now),
            lambda: self.protocol.set_sending(link, bool(octets.number() % 2), self.now, "ENOBUFS"),
            lambda: self.protocol.loop_late(octets.number() / 100, self.now),
            lambda: self.flip(link),
            lambda: self.hear(octets, OnBehalf(octets.number() % 12, _claims(octets))),
            lambda: self.protocol.receive_neighbour(_kernel(octets, link), self.now),
        )
        steps[kind]()
        self.carry_out()

    def flip(self, link: LinkName) -> None:
        self.up[link] = not self.up[link]
        self.set_links()


def _heartbeat(octets: Octets) -> Heartbeat:
    heard = [(octets.number() % 12, octets.number(2)) for _ in range(octets.number() % 5)]
    return Heartbeat(
        node=octets.one_of(NODES),
        due_ms=1 + octets.number(2) % heartbeat.LONGEST_INTERVAL_MS,
        flags=octets.number(),
        link=octets.one_of(LINKS),
        mac=bytes((2, 0, 0, 0, 0, octets.number() % 12)),
        prefixes=tuple(octets.one_of(PREFIXES) for _ in range(octets.number() % 4)),
        elsewhere=tuple(octets.one_of(PREFIXES) for _ in range(octets.number() % 4)),
        heard=pack_heard(heard),
        version=_odd_number(octets),
        digest=_odd_number(octets),
        asks=tuple((octets.number() % 12, _odd_number(octets)) for _ in range(octets.number() % 4)),
        families=octets.number(),
        skills=octets.number(),
        lost=tuple(octets.one_of(LINKS) for _ in range(octets.number() % 3)),
        stand_in=OUR_SESSION + octets.number() % 4,
        stood_in=tuple(_stood_in(octets) for _ in range(octets.number() % 3)),
    )


def _stood_in(octets: Octets) -> StoodIn:
    return StoodIn(
        session=octets.number() % 12,
        node=octets.one_of(NODES),
        version=max(1, _odd_number(octets)),
        digest=_odd_number(octets),
        link=octets.one_of(LINKS),
        mac=bytes((2, 0, 0, 0, 0, octets.number() % 12)),
        families=octets.number(),
        addresses=tuple(pack_address(AddressText(octets.one_of(ADDRESSES))) for _ in range(1 + octets.number() % 2)),
    )


def _offer(octets: Octets) -> Offer:
    addresses = tuple(pack_address(AddressText(octets.one_of(ADDRESSES))) for _ in range(1 + octets.number() % 3))
    return Offer(OUR_SESSION + octets.number() % 2, addresses)


def _claims(octets: Octets) -> ClaimStep | ClaimPart:
    claims = tuple(
        WireClaim(pack_address(AddressText(octets.one_of(ADDRESSES))), _odd_number(octets) % heartbeat.MAX_EPOCH, 0)
        for _ in range(octets.number() % 6)
    )
    marks = ((0, octets.number() % 4),) if claims and octets.number() % 4 == 0 else ()
    version = max(1, _odd_number(octets))
    if octets.number() % 2:
        return ClaimStep(version, claims, marks)
    total = 1 + octets.number() % 3
    return ClaimPart(version, octets.number() % total, total, claims, marks)


def _odd_number(octets: Octets) -> int:
    return NUMBERS[octets.number() % len(NUMBERS)]


def _neighbour(octets: Octets, link: LinkName) -> NeighbourSeen:
    sender = AddressText(octets.one_of((*ADDRESSES, "10.0.0.254", "10.0.0.77")))
    proof = octets.take(12) if octets.number() % 2 else b""
    return NeighbourSeen(link, sender, Mac(bytes(5) + octets.take(1)), ADDRESSES[0], bool(octets.number() % 2), proof)


def _kernel(octets: Octets, link: LinkName) -> NeighbourSeen:
    """A member's kernel answers for its own address."""
    mac = Mac(bytes((2, 0, 0, 0, 0, octets.number() % 12)))
    sender = AddressText(octets.one_of((SOURCE, *ADDRESSES)))
    return NeighbourSeen(link, sender, mac, ADDRESSES[0], is_reply=True)


def conversation(data: bytes) -> None:
    hearer, octets = Hearer(), Octets(data)
    for _ in range(MOST_STEPS):
        if not octets:
            break
        hearer.step(octets)
    hearer.pass_time(0.5)
    assert_bounded(hearer.protocol)
