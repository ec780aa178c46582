"""How claims compare, and how a claim set reaches a listener over a bad network."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from cluster.objects import AddressText, NodeName
from speaker.link import LinkName
from speaker.protocol.claims import LOG_STEPS, MAX_CLAIMS, Claim, ClaimLog, ClaimMirror, outranks
from speaker.protocol.datagram import Authenticator
from speaker.protocol.heartbeat import LONGEST_SAID, ClaimPart, ClaimStep, WireClaim, pack_address
from tests.speaker.protocol.versions import MISSING

SEALER = Authenticator("c", (b"k" * 32,))


def address(i: int) -> AddressText:
    return AddressText(f"10.{i >> 16 & 255}.{i >> 8 & 255}.{i & 255}")


def feed(mirror: ClaimMirror, messages: list[ClaimStep | ClaimPart]) -> None:
    for message in messages:
        if isinstance(message, ClaimPart):
            mirror.take_part(message)
        else:
            mirror.take_step(message)


claim = st.tuples(st.builds(Claim, st.integers(1, 3), st.integers(0, 2), st.just(())), st.sampled_from(["a", "b", "c"]))


@given(claim, claim, claim)
def test_claims_are_totally_ordered(one: tuple[Claim, str], two: tuple[Claim, str], three: tuple[Claim, str]) -> None:
    def beats(x: tuple[Claim, str], y: tuple[Claim, str]) -> bool:
        return outranks(x[0], NodeName(x[1]), y[0], NodeName(y[1]))

    if one != two:
        assert beats(one, two) != beats(two, one)
    if beats(one, two) and beats(two, three):
        assert beats(one, three)


def test_which_links_a_claim_is_for_has_no_part_in_the_order_and_arrives() -> None:
    a, b = NodeName("a"), NodeName("b")
    eth0, many = (LinkName("eth0"),), tuple(LinkName(f"{'x' * 59}{i}") for i in range(8))
    assert outranks(Claim(2, 0, eth0), a, Claim(2, 0), b) == outranks(Claim(2, 0), a, Claim(2, 0, eth0), b)
    log, early, late = ClaimLog(), ClaimMirror(), ClaimMirror()
    for i in range(40):
        log.put(address(i), Claim(2, 0, (eth0, many, ())[i % 3]))
    steps = log.commit()
    assert max(len(SEALER.encode(1, 1, step)) for step in steps) <= LONGEST_SAID
    feed(early, [*steps])
    feed(late, log.after(-1))
    assert early.claims == late.claims == log.claims
    log.put(address(1), Claim(2, 0, eth0))
    feed(early, [*log.commit()])
    assert early.claims[address(1)].links == eth0
    early.note(log.version, log.digest)
    assert early.in_step


def test_the_epoch_decides_before_the_preference() -> None:
    a, b = NodeName("a"), NodeName("b")
    assert outranks(Claim(2, 0), a, Claim(1, 100), b)
    assert outranks(Claim(2, 1), a, Claim(2, 0), b)


def test_a_change_costs_one_small_message_however_much_is_held() -> None:
    log = ClaimLog()
    for i in range(10_000):
        log.put(address(i), Claim(1, 0))
    log.commit()
    log.put(address(5), None)
    (step,) = log.commit()
    assert step.claims == (WireClaim(pack_address(address(5)), 0, 0),)
    assert log.commit() == []


@pytest.mark.parametrize("family", ["10.0.{}.{}", "2001:db8::{:x}:{:x}"])
def test_every_message_fits_a_datagram(family: str) -> None:
    log = ClaimLog()
    for i in range(500):
        log.put(AddressText(family.format(i // 250, i % 250 + 1)), Claim((1 << 48) - 1, (1 << 31) - 1))
    messages = [*log.commit(), *log.after(-1)]
    assert max(len(SEALER.encode(2**64 - 1, 1, message)) for message in messages) <= LONGEST_SAID


@given(st.integers(0, 1 << 32))
def test_a_listener_gets_there_whatever_is_lost_reordered_and_repeated(seed: int) -> None:
    rng = random.Random(seed)
    log, mirror = ClaimLog(), ClaimMirror()
    for _ in range(30):
        for _ in range(rng.randrange(4)):
            claimed = None if rng.random() < 0.4 else Claim(rng.randint(1, 9), 0)
            log.put(address(rng.randrange(12)), claimed)
        said = [step for step in log.commit() for _ in range(3) if rng.random() < 0.5]
        rng.shuffle(said)
        feed(mirror, list(said))
    mirror.note(log.version, log.digest)
    for _ in range(10):
        if mirror.in_step:
            break
        feed(mirror, [message for message in log.after(mirror.version) if rng.random() < 0.7])
    feed(mirror, log.after(mirror.version))
    assert mirror.in_step
    assert mirror.claims == log.claims


@given(st.integers(0, 1 << 32))
def test_what_was_released_is_claimed_at_no_moment_while_a_newcomer_catches_up(seed: int) -> None:
    """Nor is what is claimed now ever gone again, once it was heard."""
    rng = random.Random(seed)
    log, links = ClaimLog(), tuple(LinkName(f"{'x' * 59}{i}") for i in range(8))
    for _ in range(rng.choice((5, 60, LOG_STEPS + 20))):
        for _ in range(rng.randrange(1, 30)):
            claimed = None if rng.random() < 0.4 else Claim(rng.randint(1, 9), 0, rng.choice(((), links)))
            log.put(address(rng.randrange(60)), claimed)
        log.commit()
    mirror = ClaimMirror()
    known: dict[AddressText, Claim] = {}
    for message in log.after(0):
        said = log.as_of_now(message)
        assert len(SEALER.encode(1, 1, said)) <= LONGEST_SAID
        feed(mirror, [said])
        assert mirror.claims.items() <= log.claims.items()
        assert mirror.claims.items() >= known.items()
        known = dict(mirror.claims)
    mirror.note(log.version, log.digest)
    assert mirror.in_step
    assert mirror.claims == log.claims


def test_a_newcomer_gets_the_whole_set_when_the_log_is_too_short() -> None:
    log, mirror = ClaimLog(), ClaimMirror()
    for i in range(LOG_STEPS + 50):
        log.put(address(i), Claim(1, 0))
        log.commit()
    messages = log.after(0)
    assert any(isinstance(message, ClaimPart) for message in messages)
    rng = random.Random(1)
    while not mirror.in_step or not mirror.claims:
        mirror.note(log.version, log.digest)
        feed(mirror, [message for message in log.after(mirror.version) if rng.random() < 0.6])
    assert mirror.claims == log.claims


def test_a_set_that_differs_at_the_same_version_is_fetched_whole() -> None:
    log, mirror = ClaimLog(), ClaimMirror()
    log.put(address(1), Claim(1, 0))
    feed(mirror, list(log.commit()))
    mirror.claims.clear()
    mirror.note(log.version, log.digest ^ 1)
    assert not mirror.in_step
    feed(mirror, log.after(mirror.version))
    assert mirror.version == log.version
    assert mirror.claims == log.claims


def test_a_peer_cannot_grow_ones_table_without_limit() -> None:
    mirror = ClaimMirror()
    for version in range(1, 700):
        claims = tuple(WireClaim(pack_address(address(version * 40 + i)), 1, 0) for i in range(40))
        mirror.take_step(ClaimStep(version, claims))
    assert len(mirror.claims) <= MAX_CLAIMS
    for version in range(10_000, 20_000):
        mirror.take_step(ClaimStep(version, ()))
    assert len(mirror._buffered) <= 1024


def test_a_claim_that_we_cannot_understand_keeps_its_place_and_is_no_claim_to_us() -> None:
    log, mirror = ClaimLog(), ClaimMirror()
    for number in (1, 2):
        log.put(address(number), Claim(2, 0))
    (first,) = log.commit()
    assert mirror.take_step(replace(first, marks=((0, MISSING),))) == {address(2): Claim(2, 0)}
    assert (mirror.claims, mirror.strange) == ({address(2): Claim(2, 0)}, {address(1): Claim(2, 0)})
    mirror.note(log.version, log.digest)
    assert mirror.in_step
    log.put(address(1), Claim(4, 0))
    (second,) = log.commit()
    assert mirror.take_step(second) == {address(1): Claim(4, 0)}  # an ordinary claim now
    log.put(address(1), None)
    (third,) = log.commit()
    assert mirror.take_step(replace(third, marks=((0, MISSING),))) == {address(1): None}
    log.put(address(2), Claim(4, 0))
    (fourth,) = log.commit()
    assert mirror.take_step(replace(fourth, marks=((0, MISSING),))) == {address(2): None}
    mirror.note(log.version, log.digest)
    assert mirror.in_step
    assert mirror.claims == {}


def test_of_a_whole_set_too() -> None:
    log, mirror = ClaimLog(), ClaimMirror()
    for number in range(3):
        log.put(address(number), Claim(2, 0))
    log.commit()
    (whole,) = log.after(-1)
    assert isinstance(whole, ClaimPart)
    assert mirror.take_part(replace(whole, marks=((1, MISSING),))).keys() == {address(0), address(2)}
    mirror.note(log.version, log.digest)
    assert mirror.in_step
    mirror.version = 0
    assert mirror.take_part(whole) == {address(1): Claim(2, 0)}
