"""What is answered on a link, what is handed on and what is dropped."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from hashlib import blake2b

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.objects import AddressText
from speaker.link import LinkName, Mac
from speaker.protocol.effects import NeighbourSeen
from speaker.wire.addresses import WireAddress
from speaker.wire.ethernet import BROADCAST, NO_MAC, FrameError
from speaker.wire.held_responder import PROOFS_AT_ONCE, PROOFS_PER_S
from speaker.wire.nd import frames
from speaker.wire.nd.filter import NdFilter
from speaker.wire.nd.frames import ALL_NODES, NO_ADDRESS, NeighbourAdvertisement, NeighbourSolicitation
from speaker.wire.nd.responder import NdResponder
from speaker.wire.resolution import DropReason
from tests.speaker.wire.nd.messages import (
    ASKER,
    CLIENT,
    NONCE,
    OTHER,
    OWN,
    OWN_ADDRESS,
    PROOF,
    SECOND,
    VIP,
    address,
    advertisements,
    hosts,
    macs,
    questions,
    resummed,
)

ETH0 = LinkName("eth0")
NOW = 100.0
KEY = b"a key"


def prove(nonce: bytes, mac: Mac, target: AddressText) -> bytes:
    """Stands for the protocol's: twelve octets that depend on everything."""
    return blake2b(nonce + mac + target.encode(), key=KEY, digest_size=12).digest()


def responder(*held: WireAddress) -> NdResponder:
    made = NdResponder(ETH0, OWN, prove)
    made.set_macs(OWN, frozenset((OWN, SECOND)))
    for each in held or (VIP,):
        made.hold(each)
    return made


def may_ask(question: NeighbourSolicitation) -> bool:
    """Whether there is somebody who can be answered, and the question reaches us."""
    mac = question.sender_mac or question.source
    reaches = question.destination == OWN or bool(question.destination[0] & 1)
    return reaches and not mac[0] & 1 and mac not in {OWN, NO_MAC} and question.sender != VIP


@given(
    question=questions(st.just(VIP)).map(lambda made: replace(made, destination=OWN) if made.nonce else made),
    padding=st.binary(max_size=8),
)
def test_answer_equals_the_codecs(question: NeighbourSolicitation, padding: bytes) -> None:
    verdict = responder().receive(question.encode() + padding, NOW)
    if may_ask(question):
        proof = prove(question.nonce, OWN, VIP.text) if question.nonce else b""
        assert verdict == frames.answer_to(question, OWN, proof).encode()
    else:
        assert not isinstance(verdict, bytes)


@given(sender=hosts.filter(lambda sender: sender != VIP), mac=macs, held=hosts)
def test_usual_question_is_answered_as_the_codec_does_for_any_address(
    sender: WireAddress, mac: Mac, held: WireAddress
) -> None:
    question = frames.solicit(held, sender, Mac(b"\x02" + mac[1:]))
    verdict = responder(held).receive(question.encode(), NOW)
    if sender != held and may_ask(question):
        assert verdict == frames.answer_to(question, OWN).encode()
        assert frames.parse(verdict) == frames.answer_to(question, OWN)


@pytest.mark.parametrize(
    ("at", "octets"),
    [(14, "6a"), (14, "600abcde"), (58, "ffffffff")],
    ids=["traffic class", "flow label", "reserved bits"],
)
def test_what_must_be_ignored_changes_nothing(at: int, octets: str) -> None:
    question = frames.solicit(VIP, ASKER, CLIENT)
    frame = bytearray(question.encode())
    frame[at : at + len(octets) // 2] = bytes.fromhex(octets)
    assert responder().receive(resummed(frame), NOW) == frames.answer_to(question, OWN).encode()


@given(question=questions(st.just(VIP)), bit=st.integers(0))
def test_no_damaged_question_is_answered(question: NeighbourSolicitation, bit: int) -> None:
    frame = bytearray(question.encode())
    bit %= 8 * (len(frame) - 22)
    frame[22 + bit // 8] ^= 1 << bit % 8
    assert not isinstance(responder().receive(bytes(frame), NOW), bytes)


@pytest.mark.parametrize(("at", "octet"), [(12, 8), (14, 0x40), (20, 17), (21, 254), (54, 133), (55, 1), (79, 0)])
def test_what_the_codec_refuses_is_not_answered(at: int, octet: int) -> None:
    frame = bytearray(frames.solicit(VIP, ASKER, CLIENT).encode())
    frame[at] = octet
    assert responder().receive(resummed(frame), NOW) is DropReason.MALFORMED


def test_prober_for_duplicates_learns_that_the_address_is_taken() -> None:
    verdict = responder().receive(frames.probe(VIP, CLIENT).encode(), NOW)
    assert isinstance(verdict, bytes)
    assert frames.parse(verdict) == NeighbourAdvertisement(
        CLIENT, OWN, VIP, ALL_NODES, VIP, OWN, solicited=False, override=True
    )


def test_confirmation_by_unicast_is_answered_with_or_without_the_askers_mac() -> None:
    for question in (
        frames.solicit(VIP, ASKER, CLIENT, to=OWN),
        NeighbourSolicitation(OWN, CLIENT, ASKER, VIP, VIP),
    ):
        verdict = responder().receive(question.encode(), NOW)
        assert isinstance(verdict, bytes)
        assert frames.parse(verdict) == NeighbourAdvertisement(
            CLIENT, OWN, VIP, ASKER, VIP, OWN, solicited=True, override=True
        )


def test_only_what_is_held_is_answered() -> None:
    made = responder()
    for question in (frames.solicit(OTHER, ASKER, CLIENT), frames.probe(OTHER, CLIENT)):
        assert made.receive(question.encode(), NOW) is DropReason.NOT_HELD
    made.release(VIP)
    made.hold(OTHER)
    assert made.receive(frames.solicit(VIP, ASKER, CLIENT).encode(), NOW) is DropReason.NOT_HELD
    assert isinstance(made.receive(frames.solicit(OTHER, ASKER, CLIENT).encode(), NOW), bytes)


def test_new_mac_of_the_interface_is_in_the_next_answer() -> None:
    made, new = responder(), Mac(bytes.fromhex("020000000099"))
    made.set_macs(new, frozenset((new,)))
    question = frames.solicit(VIP, ASKER, CLIENT)
    assert made.receive(question.encode(), NOW) == frames.answer_to(question, new).encode()


RIVAL = NeighbourSeen(ETH0, VIP.text, CLIENT, ALL_NODES.text, is_reply=True)


@pytest.mark.parametrize("override", [False, True])
@pytest.mark.parametrize("option", [None, CLIENT])
@pytest.mark.parametrize("sender", [VIP, ASKER, NO_ADDRESS])
def test_rivals_advertisement_is_handed_on(override: bool, option: Mac | None, sender: WireAddress) -> None:
    said = replace(frames.unsolicited(VIP, CLIENT), override=override, target_mac=option, sender=sender)
    assert responder().receive(said.encode(), NOW) == RIVAL


def test_rivals_question_is_handed_on_and_never_answered() -> None:
    made = responder(VIP, OTHER)
    for target in (VIP, OTHER, ASKER):
        verdict = made.receive(frames.solicit(target, VIP, CLIENT).encode(), NOW)
        assert verdict == NeighbourSeen(ETH0, VIP.text, CLIENT, target.text, is_reply=False)


def test_answer_to_our_question_is_handed_on_with_its_proof() -> None:
    question = frames.solicit(ASKER, OWN_ADDRESS, OWN, nonce=NONCE)
    answer = frames.answer_to(question, CLIENT, PROOF)
    expected = NeighbourSeen(ETH0, ASKER.text, CLIENT, OWN_ADDRESS.text, is_reply=True, proof=PROOF)
    assert responder().receive(answer.encode(), NOW) == expected
    unasked = replace(answer, solicited=False)
    assert responder().receive(unasked.encode(), NOW) is DropReason.NOT_HELD


def test_who_has_an_address_that_was_probed_is_handed_on_while_that_is_expected() -> None:
    """The answer goes to all nodes, since nobody asked (RFC 4861 §7.2.4)."""
    made, answer = responder(), frames.answer_to(frames.probe(OTHER, OWN), CLIENT)
    assert made.receive(answer.encode(), NOW) is DropReason.NOT_HELD
    made.expect(OTHER)
    expected = NeighbourSeen(ETH0, OTHER.text, CLIENT, ALL_NODES.text, is_reply=True)
    assert made.receive(answer.encode(), NOW) == expected
    assert made.receive(frames.solicit(OTHER, ASKER, CLIENT).encode(), NOW) is DropReason.NOT_HELD, "not ours to answer"
    made.expect_no_more(OTHER)
    assert made.receive(answer.encode(), NOW) is DropReason.NOT_HELD


def test_own_frames_that_come_back_are_dropped() -> None:
    made = responder()
    for mac in (OWN, SECOND):
        for message in (
            frames.unsolicited(VIP, mac),
            frames.answer_to(frames.probe(VIP, CLIENT), mac),
            frames.solicit(ASKER, VIP, mac),
        ):
            came_back = replace(message, destination=frames.ALL_NODES_MAC)
            assert made.receive(came_back.encode(), NOW) is DropReason.OWN_FRAME


@pytest.mark.parametrize(
    ("mac", "verdict"),
    [
        (BROADCAST, DropReason.BAD_SENDER),
        (frames.ALL_NODES_MAC, DropReason.BAD_SENDER),
        (NO_MAC, DropReason.BAD_SENDER),
        (OWN, DropReason.OWN_FRAME),
    ],
    ids=["everybody", "group", "nobody", "ourselves"],
)
def test_asker_whose_mac_is_no_others_gets_no_answer(mac: Mac, verdict: DropReason) -> None:
    for question in (
        frames.solicit(VIP, ASKER, mac),
        NeighbourSolicitation(OWN, mac, ASKER, VIP, VIP),
        frames.probe(VIP, mac),
        frames.solicit(VIP, ASKER, mac, to=OWN, nonce=NONCE),
    ):
        assert responder().receive(question.encode(), NOW) is verdict


def test_our_own_kernel_is_answered_on_another_interface() -> None:
    assert isinstance(responder().receive(frames.solicit(VIP, ASKER, SECOND).encode(), NOW), bytes)


@pytest.mark.parametrize("sender", ["::1", "::ffff:192.0.2.1", "::2"])
def test_asker_whose_address_is_no_hosts_gets_no_answer(sender: str) -> None:
    question = frames.solicit(VIP, address(sender), CLIENT)
    assert responder().receive(question.encode(), NOW) is DropReason.BAD_SENDER


@pytest.mark.parametrize("target", ["::", "::1", "::ffff:192.0.2.1"])
def test_answer_in_the_name_of_an_address_that_is_no_hosts_proves_nothing(target: str) -> None:
    said = NeighbourAdvertisement(OWN, CLIENT, ASKER, OWN_ADDRESS, address(target), CLIENT, solicited=True)
    assert responder().receive(said.encode(), NOW) is DropReason.BAD_SENDER


def test_frames_for_another_host_are_dropped() -> None:
    for message in (
        replace(frames.solicit(VIP, ASKER, CLIENT), destination=SECOND),
        replace(frames.unsolicited(VIP, CLIENT), destination=SECOND),
    ):
        assert responder().receive(message.encode(), NOW) is DropReason.NOT_FOR_US


def test_askers_are_told_unless_they_have_no_address() -> None:
    made = responder()
    assert made.asker(frames.solicit(VIP, ASKER, CLIENT).encode()) == NeighbourSeen(
        ETH0, ASKER.text, CLIENT, VIP.text, is_reply=False
    )
    assert made.asker(frames.probe(VIP, CLIENT).encode()) is None


def test_answers_are_counted_by_address_since_they_were_last_told() -> None:
    made = responder(VIP, OTHER)
    for question in (frames.solicit(VIP, ASKER, CLIENT), frames.probe(VIP, CLIENT), frames.solicit(OTHER, VIP, CLIENT)):
        made.receive(question.encode(), NOW)
    assert list(made.take_answered()) == [(VIP, 2)]
    made.receive(frames.solicit(OTHER, ASKER, CLIENT).encode(), NOW)
    assert list(made.take_answered()) == [(OTHER, 1)]
    assert list(made.take_answered()) == []


@given(
    frame=st.one_of(
        st.binary(max_size=150),
        st.binary(max_size=80).map(lambda tail: frames.solicit(VIP, ASKER, CLIENT).encode()[:78] + tail),
        st.binary(max_size=80).map(lambda tail: resummed(frames.solicit(VIP, ASKER, CLIENT).encode()[:78] + tail)),
        advertisements(st.just(VIP)).map(lambda said: said.encode()),
    )
)
def test_hostile_frames_get_a_verdict_and_an_answer_only_where_the_codec_gives_one(frame: bytes) -> None:
    made = NdResponder(ETH0, OWN)
    made.hold(VIP)
    verdict = made.receive(frame, NOW)
    if isinstance(verdict, bytes):
        question = frames.parse(frame)
        assert isinstance(question, NeighbourSolicitation)
        assert question.target == VIP
        assert verdict == frames.answer_to(question, OWN).encode()
    try:
        frames.parse(frame)
    except FrameError:
        assert verdict is DropReason.MALFORMED


def filters(made: NdResponder) -> bytes:
    made.filter.tighten()
    return made.filter.code


@given(steps=st.lists(st.tuples(st.booleans(), st.sampled_from([VIP, OTHER, ASKER])), max_size=12))
def test_filter_is_made_from_what_is_held(steps: Iterable[tuple[bool, WireAddress]]) -> None:
    made, held = NdResponder(ETH0, OWN), set[WireAddress]()
    for hold, each in steps:
        (made.hold if hold else made.release)(each)
        (held.add if hold else held.discard)(each)
    assert filters(made) == NdFilter(sorted(held)).code


def test_without_a_key_the_answer_goes_without_a_proof() -> None:
    made = NdResponder(ETH0, OWN)
    made.hold(VIP)
    question = frames.solicit(VIP, ASKER, CLIENT, nonce=NONCE)
    assert made.receive(question.encode(), NOW) == frames.answer_to(question, OWN).encode()


def test_flood_of_nonces_makes_a_limited_number_of_proofs_and_no_answer_less() -> None:
    made = responder()
    question = frames.solicit(VIP, ASKER, CLIENT, nonce=NONCE)
    plain = len(frames.answer_to(question, OWN).encode())
    replies = [made.receive(question.encode(), NOW + n / 5_000) for n in range(10_000)]
    assert all(isinstance(reply, bytes) for reply in replies)
    proved = sum(len(reply) > plain for reply in replies if isinstance(reply, bytes))
    assert 2 * PROOFS_PER_S - 1 <= proved <= 2 * PROOFS_PER_S + PROOFS_AT_ONCE
    assert list(made.take_answered()) == [(VIP, 10_000)]


def test_suspended_responder_answers_nothing_hands_nobody_on_and_goes_on_as_before() -> None:
    made = responder()
    question = frames.solicit(VIP, ASKER, CLIENT).encode()
    made.suspend(True)
    assert made.receive(question, NOW) is DropReason.NOT_HELD
    assert made.receive(frames.unsolicited(VIP, CLIENT).encode(), NOW) is DropReason.NOT_HELD
    made.hold(OTHER)
    assert made.receive(frames.solicit(OTHER, ASKER, CLIENT).encode(), NOW) is DropReason.NOT_HELD
    made.suspend(False)
    for each in (VIP, OTHER):
        assert isinstance(made.receive(frames.solicit(each, ASKER, CLIENT).encode(), NOW), bytes)


# ------------------------------------------------------------------------------------------------ standing in

AWAY = Mac(bytes.fromhex("0200000000ff"))
"""The node that is stood in for."""


def standing_in(*own: WireAddress) -> NdResponder:
    """``VIP`` is answered with the MAC of the node that is away, and ``own`` with the link's own."""
    made = responder(*own, VIP)
    made.hold(VIP, AWAY)
    return made


@given(question=questions(st.just(VIP)), padding=st.binary(max_size=8))
def test_stand_in_answers_with_the_others_mac_from_its_own(question: NeighbourSolicitation, padding: bytes) -> None:
    verdict = standing_in().receive(question.encode() + padding, NOW)
    if may_ask(question) and AWAY not in (question.sender_mac, question.source):
        proof = prove(question.nonce, AWAY, VIP.text) if question.nonce else b""
        assert verdict == frames.answer_to(question, AWAY, proof, OWN).encode()
        said = frames.parse(verdict)
        assert isinstance(said, NeighbourAdvertisement)
        assert (said.source, said.target_mac, said.sender) == (OWN, AWAY, VIP)


def test_taking_over_and_giving_back_changes_the_next_answer_and_no_membership() -> None:
    made, question = standing_in(OTHER), frames.solicit(VIP, ASKER, CLIENT)
    other = frames.solicit(OTHER, ASKER, CLIENT)
    assert made.receive(other.encode(), NOW) == frames.answer_to(other, OWN).encode()
    steps = []
    while (step := made.groups.next_step()) is not None:
        steps.append(step)
        made.groups.done(step)
    assert {step.group for step in steps} == {frames.solicited_node(each) for each in (VIP, OTHER)}
    new = Mac(bytes.fromhex("020000000099"))
    made.set_macs(new, frozenset((new,)))
    assert made.receive(question.encode(), NOW) == frames.answer_to(question, AWAY, source=new).encode()
    made.hold(VIP)
    assert made.receive(question.encode(), NOW) == frames.answer_to(question, new).encode()
    made.hold(VIP, AWAY)
    assert made.groups.next_step() is None, "a member it is already"
    made.release(VIP)
    leaves = made.groups.next_step()
    assert leaves is not None
    assert (leaves.joins, leaves.group) == (False, frames.solicited_node(VIP))


def test_node_that_is_stood_in_for_is_no_rival_and_gets_no_answer() -> None:
    """Its returned speaker announces; or its own kernel asks, which would send to itself what it sent there."""
    made = standing_in(OTHER)
    for agrees in (
        frames.unsolicited(VIP, AWAY),
        frames.solicit(OTHER, VIP, AWAY),
        frames.solicit(VIP, ASKER, AWAY),
        frames.probe(VIP, AWAY),
        replace(frames.solicit(VIP, ASKER, AWAY), sender_mac=None, destination=OWN),
    ):
        assert made.receive(agrees.encode(), NOW) is DropReason.STOOD_IN_FOR
    question = frames.solicit(OTHER, ASKER, AWAY)
    assert made.receive(question.encode(), NOW) == frames.answer_to(question, OWN).encode(), "what is ours"


def test_who_else_claims_what_is_stood_in_for_is_a_rival() -> None:
    made = standing_in(OTHER)
    for rival in (
        frames.unsolicited(VIP, CLIENT),
        frames.solicit(OTHER, VIP, CLIENT),
        frames.unsolicited(OTHER, AWAY),
        frames.solicit(VIP, OTHER, AWAY),
    ):
        assert isinstance(made.receive(rival.encode(), NOW), NeighbourSeen)


def test_answer_to_a_prober_by_another_that_stands_in_for_us_is_ours() -> None:
    """It goes to all nodes, and so to the node itself, which may be back already."""
    answer = frames.answer_to(frames.probe(VIP, CLIENT), OWN, source=CLIENT)
    to_all = replace(answer, destination=frames.ALL_NODES_MAC)
    assert responder().receive(to_all.encode(), NOW) is DropReason.OWN_FRAME
