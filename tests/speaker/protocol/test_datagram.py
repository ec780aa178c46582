"""The datagram: what is said arrives, what is forged, broken or repeated does not."""

from __future__ import annotations

import struct
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.addresses import Family
from cluster.objects import AddressText
from speaker.protocol.datagram import MAX_DATAGRAM, Authenticator, Drop, HeartbeatError, Unknown
from speaker.protocol.heartbeat import (
    BY_GROUP,
    LONGEST_INTERVAL_MS,
    LONGEST_SAID,
    MAX_AGE_MS,
    MAX_EPOCH,
    MAX_OFFERED,
    MAX_PARTS,
    MAX_PREFERENCE,
    MAX_STOOD_IN,
    SKILLS,
    SUSPECTED,
    ClaimPart,
    ClaimStep,
    Flag,
    Heartbeat,
    Message,
    Offer,
    OnBehalf,
    StoodIn,
    WireClaim,
    pack_address,
    pack_families,
    pack_heard,
    unpack_families,
    unpack_heard,
)
from speaker.protocol.standing_in import ENTRY_OCTETS
from tests.speaker.protocol.versions import MISSING, LastAuthenticator, NextAuthenticator

OURS = Authenticator("cluster-1", (b"a" * 32, b"b" * 32))
WORDS = st.integers(0, (1 << 64) - 1)

heard = st.lists(st.tuples(WORDS, st.integers(0, MAX_AGE_MS | SUSPECTED)), max_size=20)
claims = st.lists(
    st.builds(
        WireClaim,
        st.one_of(st.binary(min_size=4, max_size=4), st.binary(min_size=16, max_size=16)),
        st.integers(0, MAX_EPOCH - 1),
        st.integers(0, MAX_PREFERENCE - 1),
    ),
    max_size=35,
).map(tuple)
heartbeats = st.builds(
    Heartbeat,
    node=st.text("abcdefghijklmnopqrstuvwxyz0123456789.-", min_size=1, max_size=253),
    due_ms=st.integers(1, LONGEST_INTERVAL_MS),
    flags=st.integers(0, 0xFFFF),
    link=st.text("abcdefghijklmnopqrstuvwxyz0123456789.-", min_size=1, max_size=15),
    mac=st.binary(min_size=6, max_size=6),
    prefixes=st.lists(st.sampled_from(["192.0.2.11/24", "2001:db8::1/64"]), max_size=8).map(tuple),
    elsewhere=st.lists(st.sampled_from(["198.51.100.1/24", "2001:db8:1::1/64"]), max_size=8).map(tuple),
    heard=heard.map(pack_heard),
    version=WORDS,
    digest=WORDS,
    asks=st.lists(st.tuples(WORDS, st.integers(-1, 1 << 32)), max_size=8).map(tuple),
)
steps = st.builds(ClaimStep, version=st.integers(1, 1 << 60), claims=claims)
parts = st.builds(
    lambda version, index, more, claims: ClaimPart(version, index, index + more, claims),
    st.integers(1, 1 << 60),
    st.integers(0, MAX_PARTS // 2),
    st.integers(1, MAX_PARTS // 2),
    claims,
)
offers = st.builds(
    Offer,
    to=WORDS,
    addresses=st.lists(
        st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16), min_size=1, max_size=MAX_OFFERED
    ).map(tuple),
)


on_behalf = st.builds(OnBehalf, session=WORDS, said=steps | parts)
STOOD_IN = StoodIn(7, "node-2", 3, 4, "eth0", b"\2\0\0\0\0\2", 3, (b"1234", b"1" * 16))


def example(**changes: object) -> Heartbeat:
    plain = Heartbeat("node-1", 100, 1, "eth0", b"\2\0\0\0\0\1", ("192.0.2.11/24",), (), b"", 0, 0, ())
    return msgspec.structs.replace(plain, **changes)


def reason(data: bytes, by: Authenticator = OURS) -> Drop:
    with pytest.raises(HeartbeatError) as caught:
        by.parse(data)
    return caught.value.reason


@given(st.one_of(heartbeats, steps, parts, offers, on_behalf), WORDS, WORDS)
def test_what_is_said_is_what_is_heard(message: Message, session: int, sequence: int) -> None:
    envelope = OURS.parse(OURS.encode(session, sequence, message))
    assert (envelope.session, envelope.sequence, envelope.message) == (session, sequence, message)


@given(st.binary(max_size=1600))
def test_garbage_is_dropped_with_a_reason(data: bytes) -> None:
    assert isinstance(reason(data), Drop)


@given(st.binary(max_size=300))
def test_garbage_behind_a_right_tag_is_dropped_with_a_reason(payload: bytes) -> None:
    """A speaker that has the key but another version of the program, or a bug, must not stop another."""
    assert reason(OURS.encode(1, 1, msgspec.Raw(b"\xc1" + payload))) is Drop.MALFORMED  # type: ignore[arg-type]  # a bug


@given(st.integers(0, 2000), st.integers(0, 7))
def test_a_changed_bit_anywhere_is_noticed(position: int, bit: int) -> None:
    data = bytearray(OURS.encode(1, 1, example()))
    data[position % len(data)] ^= 1 << bit
    assert reason(bytes(data)) in {Drop.MALFORMED, Drop.OTHER_VERSION, Drop.OTHER_CLUSTER, Drop.WRONG_KEY}


def test_another_cluster_on_the_same_lan_is_told_apart() -> None:
    theirs = Authenticator("cluster-2", (b"a" * 32,))
    assert reason(theirs.encode(1, 1, example())) is Drop.OTHER_CLUSTER


def test_the_former_key_is_still_accepted_and_a_third_is_not() -> None:
    assert OURS.parse(Authenticator("cluster-1", (b"b" * 32,)).encode(7, 1, example())).session == 7
    assert reason(Authenticator("cluster-1", (b"c" * 32,)).encode(7, 1, example())) is Drop.WRONG_KEY


@pytest.mark.parametrize(
    "changes",
    [
        {"node": ""},
        {"node": "n" * 254},
        {"due_ms": 0},
        {"due_ms": LONGEST_INTERVAL_MS + 1},
        {"mac": b"12345"},
        {"prefixes": ("192.0.2.1/24",) * 9},
        {"prefixes": ("1" * 65,)},
        {"heard": b"123"},
        {"heard": bytes(10 * 129)},
        {"version": -1},
        {"asks": ((1, 1),) * 9},
        {"families": 1 << 16},
        {"skills": 1 << 16},
        {"skills": -1},
        {"families": -1},
        {"lost": ("eth0",) * 9},
        {"lost": ("",)},
        {"lost": ("e" * 61,)},
        {"stand_in": -1},
        {"stood_in": (STOOD_IN,) * (MAX_STOOD_IN + 1)},
        {"stood_in": (msgspec.structs.replace(STOOD_IN, session=-1),)},
        {"stood_in": (msgspec.structs.replace(STOOD_IN, node=""),)},
        {"stood_in": (msgspec.structs.replace(STOOD_IN, version=0),)},
        {"stood_in": (msgspec.structs.replace(STOOD_IN, link="e" * 61),)},
        {"stood_in": (msgspec.structs.replace(STOOD_IN, mac=b"12345"),)},
        {"stood_in": (msgspec.structs.replace(STOOD_IN, addresses=()),)},
        {"stood_in": (msgspec.structs.replace(STOOD_IN, addresses=(b"123",)),)},
        {"stood_in": (msgspec.structs.replace(STOOD_IN, addresses=(b"1234",) * 3),)},
    ],
)
def test_a_heartbeat_out_of_bounds_is_nonsense(changes: dict[str, object]) -> None:
    assert reason(OURS.encode(1, 1, example(**changes))) is Drop.NONSENSE


@pytest.mark.parametrize(
    "message",
    [
        ClaimStep(0, ()),
        ClaimStep(1, (WireClaim(b"123", 1, 0),)),
        ClaimStep(1, (WireClaim(b"1234", MAX_EPOCH, 0),)),
        ClaimStep(1, (WireClaim(b"1234", 1, -1),)),
        ClaimPart(1, 2, 2, ()),
        ClaimPart(1, 0, MAX_PARTS + 1, ()),
        Offer(1, ()),
        Offer(1, (b"123",)),
        Offer(-1, (b"1234",)),
        Offer(1, (b"1234",) * (MAX_OFFERED + 1)),
        OnBehalf(-1, ClaimStep(1, ())),
        OnBehalf(1, ClaimStep(0, ())),
        OnBehalf(1, ClaimPart(1, 2, 2, ())),
    ],
)
def test_claims_out_of_bounds_are_nonsense(message: Message) -> None:
    assert reason(OURS.encode(1, 1, message)) is Drop.NONSENSE


def test_a_datagram_too_long_is_malformed() -> None:
    assert reason(OURS.encode(1, 1, example()) + bytes(MAX_DATAGRAM)) is Drop.MALFORMED


def test_as_much_is_offered_at_once_as_fits_a_datagram() -> None:
    assert (
        len(OURS.encode((1 << 64) - 1, (1 << 64) - 1, Offer((1 << 64) - 1, (bytes(16),) * MAX_OFFERED))) <= LONGEST_SAID
    )


def test_a_heartbeat_has_room_for_all_that_one_speaker_stands_in_for() -> None:
    longest = StoodIn(
        (1 << 64) - 1, "n" * 23, (1 << 64) - 1, (1 << 64) - 1, "e" * 15, bytes(6), 3, (bytes(4), bytes(16))
    )
    plain, one = (len(OURS.encode(1, 1, example(stood_in=entries))) for entries in ((), (longest,)))
    assert one - plain <= ENTRY_OCTETS + len(longest.node)


def test_fifty_peers_fit_one_datagram() -> None:
    packed = pack_heard((session << 57, 31_000) for session in range(50))
    assert len(OURS.encode(1, 1, example(node="n" * 63, heard=packed))) < 700
    assert list(unpack_heard(packed))[7] == (7 << 57, 31_000)


def test_the_header_is_what_the_docstring_says() -> None:
    data = OURS.encode(0x0102030405060708, 9, example())
    assert struct.unpack_from(">4s8xQQ", data)[0:3] == (b"BLB1", 0x0102030405060708, 9)


NEXT = NextAuthenticator("cluster-1", (b"a" * 32,))
LAST = LastAuthenticator("cluster-1", (b"a" * 32,))
ONE = WireClaim(b"1234", 2, 0)


@given(st.one_of(heartbeats, steps, parts, offers, on_behalf), WORDS, WORDS)
def test_what_a_later_release_says_besides_is_ignored(message: Message, session: int, sequence: int) -> None:
    heard = OURS.parse(NEXT.encode(session, sequence, message)).message
    assert isinstance(heard, Heartbeat | ClaimStep | ClaimPart | Offer | OnBehalf)
    if isinstance(message, Heartbeat):
        message = msgspec.structs.replace(message, flags=message.flags | 1 << 15)
    assert heard == message


@given(st.one_of(heartbeats, steps, parts), WORDS, WORDS)
def test_the_last_release_and_this_one_understand_each_other(message: Message, session: int, sequence: int) -> None:
    assert LAST.parse(OURS.encode(session, sequence, message)).message == message
    assert OURS.parse(LAST.encode(session, sequence, message)).message == message


@pytest.mark.parametrize("message", [[5, "anything"], [64], [99, {}, [], None]])
def test_a_message_of_another_kind_is_unknown_and_nothing_worse(message: list[object]) -> None:
    assert OURS.parse(NEXT.seal(1, 1, message)).message == Unknown(message[0])  # type: ignore[arg-type]  # a kind


@pytest.mark.parametrize("message", [[], [-1], [1 << 16], ["0"], [0], [1, 5], {"kind": 3}, 3])
def test_what_is_no_message_is_malformed(message: object) -> None:
    assert reason(NEXT.seal(1, 1, message)) is Drop.MALFORMED


@pytest.mark.parametrize(
    "message", [example(must=MISSING), ClaimStep(1, (ONE,), must=MISSING), ClaimPart(1, 0, 1, (ONE,), must=MISSING)]
)
def test_a_message_that_needs_what_we_lack_is_refused(message: Message) -> None:
    assert reason(OURS.encode(1, 1, message)) is Drop.UNKNOWN_FEATURE


@pytest.mark.parametrize("marks", [((1, MISSING),), ((-1, MISSING),), ((0, -1),)])
def test_marks_out_of_bounds_are_nonsense(marks: tuple[tuple[int, int], ...]) -> None:
    assert reason(OURS.encode(1, 1, ClaimStep(1, (ONE,), marks))) is Drop.NONSENSE


def test_another_version_is_told_apart_without_the_key() -> None:
    data = bytearray(OURS.encode(1, 1, example()))
    data[3:4] = b"2"
    assert reason(bytes(data)) is Drop.OTHER_VERSION


@pytest.mark.parametrize(
    ("bits", "families"), [(1, {Family.IPV4}), (2, {Family.IPV6}), (3, set(Family)), (0, set()), (4 | 2, {Family.IPV6})]
)
def test_a_heartbeat_says_the_families_of_its_link(bits: int, families: set[Family]) -> None:
    heard = OURS.parse(OURS.encode(1, 1, example(families=bits))).message
    assert isinstance(heard, Heartbeat)
    assert unpack_families(heard.families) == families
    assert pack_families(frozenset(families)) == bits & 3


def test_a_release_that_does_not_say_families_answers_for_ipv4_alone() -> None:
    heard = OURS.parse(LAST.encode(1, 1, example(families=3))).message
    assert isinstance(heard, Heartbeat)
    assert unpack_families(heard.families) == {Family.IPV4}


def test_the_examples_of_the_documentation_are_what_is_said() -> None:
    blocks = Path("docs/protocol.md").read_text().split("```\n")[1::2]
    heartbeat, step, offer = (bytes.fromhex(block) for block in blocks)
    speaker = Authenticator("11111111-2222-3333-4444-555555555555", (bytes(range(32)),))
    said = Heartbeat(
        "node-1",
        100,
        int(Flag.ABLE),
        "eth0",
        bytes.fromhex("02420000000b"),
        ("192.0.2.11/24",),
        (),
        pack_heard([(0x1122334455667788, 12 | BY_GROUP)]),
        3,
        0x0123456789ABCDEF,
        (),
        families=pack_families(frozenset(Family)),
        skills=SKILLS,
        lost=("eth1",),
    )
    assert speaker.parse(heartbeat).message == said
    claimed = ClaimStep(3, (WireClaim(pack_address(AddressText("192.0.2.200")), 2, 0),))
    assert speaker.encode(0x0102030405060708, 1, said) == heartbeat
    assert speaker.parse(step).message == claimed
    assert speaker.encode(0x0102030405060708, 2, claimed) == step
    offered = Offer(0x1122334455667788, (pack_address(AddressText("192.0.2.200")),))
    assert speaker.parse(offer).message == offered
    assert speaker.encode(0x0102030405060708, 3, offered) == offer
