"""What is answered, what is handed on and what is dropped."""

from __future__ import annotations

from hashlib import blake2b

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.addresses import Family
from cluster.objects import AddressText
from speaker.link import LinkName, Mac
from speaker.protocol.effects import AnswerChange, LinkState, NeighbourSeen
from speaker.wire.addresses import WireAddress
from speaker.wire.answering import Answering
from speaker.wire.arp import frames
from speaker.wire.arp.filter import ArpFilter
from speaker.wire.arp.frames import ArpFrame, Operation
from speaker.wire.arp.responder import ArpResponder
from speaker.wire.ethernet import BROADCAST, NO_MAC
from speaker.wire.families import RESOLUTIONS
from speaker.wire.held_responder import PROOFS_AT_ONCE, PROOFS_PER_S
from speaker.wire.resolution import DropReason, Prove, no_proof
from speaker.wire.responders import Responders
from tests.arp_frames import gratuitous, on_wire, request

ETH0, ETH1 = LinkName("eth0"), LinkName("eth1")
OWN = Mac(bytes.fromhex("020000000001"))
SECOND = Mac(bytes.fromhex("020000000002"))
CLIENT = Mac(bytes.fromhex("0200000000aa"))
VIP, OTHER, ASKER = AddressText("192.0.2.200"), AddressText("192.0.2.201"), AddressText("192.0.2.50")

NOW = 100.0
KEY = b"a key"

macs = st.binary(min_size=6, max_size=6).map(Mac)
unicast_macs = macs.map(lambda mac: Mac(bytes([mac[0] & 0xFE]) + mac[1:]))
ipv4 = st.binary(min_size=4, max_size=4).map(lambda octets: WireAddress(octets).text)
askers = ipv4.filter(lambda a: a != VIP and 0 < int(a.split(".")[0]) < 224 and not a.startswith("127."))
asking_macs = unicast_macs.filter(lambda mac: mac not in {OWN, NO_MAC})


def link(name: LinkName = ETH0, mac: Mac = OWN) -> LinkState:
    return LinkState(name, 2, mac, up=True)


def prove(nonce: bytes, mac: Mac, address: AddressText) -> bytes:
    """Stands for the protocol's: twelve octets that depend on everything."""
    return blake2b(nonce + mac + address.encode(), key=KEY, digest_size=12).digest()


class World:
    """The ledger and the responders of all links."""

    def __init__(self, prove: Prove = no_proof) -> None:
        self._answering = Answering(RESOLUTIONS)
        self._responders = Responders(RESOLUTIONS, self._answering, prove)
        self.set_links, self.take_answered = self._responders.set_links, self._responders.take_answered

    def links_of(self, address: AddressText) -> frozenset[LinkName]:
        return self._answering.links_of(address) - self._answering.suspended

    def on(self, link: LinkName) -> ArpResponder:
        made = self._responders.on(link)[Family.IPV4]
        assert isinstance(made, ArpResponder)
        return made

    def change_answers(self, change: AnswerChange) -> set[LinkName]:
        differences = self._answering.change(change)
        self._responders.follow(differences)
        return set(differences)


def responder(held: dict[AddressText, frozenset[LinkName]] | None = None) -> World:
    made = World(prove)
    made.set_links([link(), link(ETH1, SECOND)])
    made.change_answers(AnswerChange({VIP: frozenset((ETH0,))} if held is None else held))
    return made


@given(mac=asking_macs, asker=askers, padding=st.binary(max_size=18), unicast=st.booleans())
def test_reply_equals_the_codecs(mac: Mac, asker: AddressText, padding: bytes, unicast: bool) -> None:
    question = request(VIP, asker, mac, to=OWN if unicast else BROADCAST)
    assert responder().on(ETH0).receive(question.encode() + padding, NOW) == frames.reply_to(question, OWN).encode()


def test_probe_without_a_sender_address_is_answered() -> None:
    reply = responder().on(ETH0).receive(request(VIP, AddressText("0.0.0.0"), CLIENT).encode(), NOW)
    assert isinstance(reply, bytes)
    assert ArpFrame.parse(reply) == ArpFrame(CLIENT, OWN, Operation.REPLY, OWN, on_wire(VIP), CLIENT, frames.NO_ADDRESS)


def test_only_held_addresses_are_answered_and_only_on_their_links() -> None:
    made = responder()
    assert made.on(ETH0).receive(request(OTHER, ASKER, CLIENT).encode(), NOW) is DropReason.NOT_HELD
    assert made.on(ETH1).receive(request(VIP, ASKER, CLIENT).encode(), NOW) is DropReason.NOT_HELD


def test_released_address_is_silent_at_once_and_a_new_one_answers() -> None:
    made = responder()
    assert made.change_answers(AnswerChange({VIP: frozenset(), OTHER: frozenset((ETH0, ETH1))})) == {ETH0, ETH1}
    assert made.on(ETH0).receive(request(VIP, ASKER, CLIENT).encode(), NOW) is DropReason.NOT_HELD
    for name, mac in ((ETH0, OWN), (ETH1, SECOND)):
        reply = made.on(name).receive(request(OTHER, ASKER, CLIENT).encode(), NOW)
        assert isinstance(reply, bytes)
        assert ArpFrame.parse(reply).sender_mac == mac


def test_unchanged_links_are_not_named_as_changed() -> None:
    assert responder().change_answers(AnswerChange({VIP: frozenset((ETH0,)), OTHER: frozenset((ETH1,))})) == {ETH1}


def test_address_held_before_its_link_appeared_is_answered_there() -> None:
    made = World(prove)
    made.change_answers(AnswerChange({VIP: frozenset((ETH0,))}))
    made.set_links([link()])
    assert isinstance(made.on(ETH0).receive(request(VIP, ASKER, CLIENT).encode(), NOW), bytes)


def test_new_mac_of_the_interface_is_in_the_next_reply() -> None:
    made = responder()
    made.set_links([link(mac=Mac(bytes.fromhex("020000000099")))])
    reply = made.on(ETH0).receive(request(VIP, ASKER, CLIENT).encode(), NOW)
    assert isinstance(reply, bytes)
    assert ArpFrame.parse(reply).source == bytes.fromhex("020000000099")


@pytest.mark.parametrize("operation", list(Operation))
def test_rival_is_handed_on_and_never_answered(operation: Operation) -> None:
    seen = responder().on(ETH0).receive(gratuitous(operation, VIP, CLIENT).encode(), NOW)
    assert seen == NeighbourSeen(ETH0, VIP, CLIENT, VIP, is_reply=operation is Operation.REPLY)


def test_answer_to_our_question_is_handed_on() -> None:
    answer = ArpFrame(OWN, CLIENT, Operation.REPLY, CLIENT, on_wire(ASKER), OWN, on_wire("192.0.2.11"))
    assert responder().on(ETH0).receive(answer.encode(), NOW) == NeighbourSeen(
        ETH0, ASKER, CLIENT, AddressText("192.0.2.11"), is_reply=True
    )


def test_own_frames_that_come_back_are_dropped() -> None:
    made = responder()
    for mac in (OWN, SECOND):
        frame = gratuitous(Operation.REPLY, VIP, mac).encode()
        assert made.on(ETH0).receive(frame, NOW) is DropReason.OWN_FRAME


@pytest.mark.parametrize(
    ("mac", "verdict"),
    [
        (BROADCAST, DropReason.BAD_SENDER),
        (Mac(bytes.fromhex("01005e000001")), DropReason.BAD_SENDER),
        (NO_MAC, DropReason.BAD_SENDER),
        (OWN, DropReason.OWN_FRAME),
    ],
    ids=["everybody", "group", "nobody", "ourselves"],
)
def test_asker_whose_mac_is_no_others_gets_no_reply(mac: Mac, verdict: DropReason) -> None:
    assert responder().on(ETH0).receive(request(VIP, ASKER, mac).encode(), NOW) is verdict


def test_our_own_kernel_is_answered_on_another_interface() -> None:
    assert isinstance(responder().on(ETH0).receive(request(VIP, ASKER, SECOND).encode(), NOW), bytes)


@pytest.mark.parametrize("sender", ["0.0.0.1", "127.0.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255"])
def test_asker_whose_address_is_no_hosts_gets_no_reply(sender: AddressText) -> None:
    assert responder().on(ETH0).receive(request(VIP, sender, CLIENT).encode(), NOW) is DropReason.BAD_SENDER


@pytest.mark.parametrize("sender", ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255"])
def test_answer_in_the_name_of_an_address_that_is_no_hosts_proves_nothing(sender: AddressText) -> None:
    answer = ArpFrame(OWN, CLIENT, Operation.REPLY, CLIENT, on_wire(sender), OWN, on_wire("192.0.2.11"))
    assert responder().on(ETH0).receive(answer.encode(), NOW) is DropReason.BAD_SENDER


def test_rival_without_a_mac_is_dropped() -> None:
    assert responder().on(ETH0).receive(gratuitous(Operation.REPLY, VIP, NO_MAC).encode(), NOW) is DropReason.BAD_SENDER


@pytest.mark.parametrize("operation", list(Operation))
def test_frame_for_another_host_is_dropped(operation: Operation) -> None:
    frame = ArpFrame(SECOND, CLIENT, operation, CLIENT, on_wire(VIP), OWN, on_wire(VIP))
    assert responder().on(ETH0).receive(frame.encode(), NOW) is DropReason.NOT_FOR_US


def test_ipv6_addresses_are_left_to_neighbour_discovery() -> None:
    made = responder({AddressText("2001:db8::1"): frozenset((ETH0,)), VIP: frozenset((ETH0,))})
    made.on(ETH0).filter.tighten()
    assert made.on(ETH0).filter.code == ArpFilter([WireAddress.of(VIP)]).code


def test_answers_are_counted_per_address_over_all_links() -> None:
    made = responder({VIP: frozenset((ETH0, ETH1)), OTHER: frozenset((ETH0,))})
    for name in (ETH0, ETH1, ETH1):
        made.on(name).receive(request(VIP, ASKER, CLIENT).encode(), NOW)
    assert made.take_answered() == {VIP: 3}
    made.on(ETH0).receive(request(OTHER, ASKER, CLIENT).encode(), NOW)
    assert made.take_answered() == {OTHER: 1}, "since they were last told"
    assert made.take_answered() == {}


@given(
    frame=st.one_of(
        st.binary(max_size=90),
        st.binary(max_size=60).map(lambda b: BROADCAST + CLIENT + frames.FIXED_FIELDS + b),
        st.binary(max_size=16).map(lambda b: request(VIP, ASKER, CLIENT).encode()[:38] + b),
    )
)
def test_hostile_frames_get_a_verdict_and_a_reply_only_for_a_held_address(frame: bytes) -> None:
    made = ArpResponder(ETH0, OWN, prove)
    made.hold(WireAddress.of(VIP))
    verdict = made.receive(frame, NOW)
    if isinstance(verdict, bytes):
        question = ArpFrame.parse(frame)
        assert question.target.text == VIP
        assert verdict[:42] == frames.reply_to(question, OWN).encode()


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["hold", "release", "links"]), st.sets(ipv4, max_size=6), st.booleans()), max_size=20
    )
)
def test_changes_lead_to_what_a_responder_that_begins_now_answers(
    steps: list[tuple[str, set[AddressText], bool]],
) -> None:
    made, both = World(), frozenset((ETH0, ETH1))
    made.set_links([link(), link(ETH1, SECOND)])
    holding: dict[AddressText, frozenset[LinkName]] = {}
    states, seen = [link(), link(ETH1, SECOND)], set[AddressText]()
    for what, addresses, second in steps:
        seen |= addresses
        if what == "links":
            states = [link(), link(ETH1, SECOND)] if second else [link()]
            made.set_links(states)
            continue
        where = frozenset[LinkName]() if what == "release" else both if second else frozenset((ETH0,))
        made.change_answers(AnswerChange(dict.fromkeys(addresses, where)))
        holding.update(dict.fromkeys(addresses, where))
    fresh = World()
    fresh.set_links(states)
    fresh.change_answers(AnswerChange(holding))
    for state in states:
        made.on(state.name).filter.tighten()
        fresh.on(state.name).filter.tighten()
        assert made.on(state.name).filter.code == fresh.on(state.name).filter.code
        for address in seen:
            question = request(address, ASKER, CLIENT).encode()
            assert made.on(state.name).receive(question, NOW) == fresh.on(state.name).receive(question, NOW)
            assert made.links_of(address) == holding.get(address, frozenset())


NONCE = b"a nonce!"


@given(nonce=st.binary(min_size=8, max_size=8), asker=askers, unicast=st.booleans())
def test_question_with_a_nonce_is_answered_with_the_proof(nonce: bytes, asker: AddressText, unicast: bool) -> None:
    question = request(VIP, asker, CLIENT, to=OWN if unicast else BROADCAST, nonce=nonce)
    reply = responder().on(ETH0).receive(question.encode(), NOW)
    assert reply == frames.reply_to(question, OWN, prove(nonce, OWN, VIP)).encode()
    assert isinstance(reply, bytes)
    assert len(reply) == 60


def test_proof_of_an_answer_to_us_is_handed_on() -> None:
    question = request(ASKER, AddressText("192.0.2.11"), OWN, nonce=NONCE)
    seen = responder().on(ETH0).receive(frames.reply_to(question, CLIENT, b"twelveoctets").encode(), NOW)
    assert isinstance(seen, NeighbourSeen)
    assert (seen.sender, seen.proof) == (ASKER, b"twelveoctets")


def test_without_a_key_the_answer_goes_without_a_proof() -> None:
    made = World()
    made.set_links([link()])
    made.change_answers(AnswerChange({VIP: frozenset((ETH0,))}))
    question = request(VIP, ASKER, CLIENT, nonce=NONCE)
    assert made.on(ETH0).receive(question.encode(), NOW) == frames.reply_to(question, OWN).encode()


def test_flood_of_nonces_makes_a_limited_number_of_proofs_and_no_answer_less() -> None:
    made = responder()
    question = request(VIP, ASKER, CLIENT, nonce=NONCE).encode()
    replies = [made.on(ETH0).receive(question, NOW + n / 50_000) for n in range(100_000)]
    assert all(isinstance(reply, bytes) for reply in replies)
    proved = sum(len(reply) == 60 for reply in replies if isinstance(reply, bytes))
    assert 2 * PROOFS_PER_S <= proved <= 2 * PROOFS_PER_S + PROOFS_AT_ONCE
    assert made.take_answered() == {VIP: 100_000}


def test_truncated_nonce_is_padding() -> None:
    question = request(VIP, ASKER, CLIENT, nonce=NONCE)
    for length in range(42, 54):
        reply = responder().on(ETH0).receive(question.encode()[:length], NOW)
        assert reply == frames.reply_to(question, OWN).encode()


def test_suspended_link_answers_nothing_hands_nobody_on_and_goes_on_as_before() -> None:
    made = responder({VIP: frozenset((ETH0, ETH1))})
    question = request(VIP, ASKER, CLIENT).encode()
    rival = gratuitous(Operation.REPLY, VIP, CLIENT).encode()
    assert made.change_answers(AnswerChange({}, suspended=frozenset((ETH0,)))) == set()
    assert made.on(ETH0).receive(question, 0.0) is DropReason.NOT_HELD
    assert made.on(ETH0).receive(rival, 0.0) is DropReason.NOT_HELD
    assert isinstance(made.on(ETH1).receive(question, 0.0), bytes)
    assert made.links_of(VIP) == {ETH1}
    made.change_answers(AnswerChange({OTHER: frozenset((ETH0,))}, suspended=frozenset((ETH0,))))
    assert made.on(ETH0).receive(request(OTHER, ASKER, CLIENT).encode(), 0.0) is DropReason.NOT_HELD
    made.set_links([link(ETH1, SECOND)])
    made.set_links([link(), link(ETH1, SECOND)])
    assert made.on(ETH0).receive(question, 0.0) is DropReason.NOT_HELD, "a link that is back is suspended still"
    made.change_answers(AnswerChange({}))
    for address in (VIP, OTHER):
        assert isinstance(made.on(ETH0).receive(request(address, ASKER, CLIENT).encode(), 0.0), bytes)


# ------------------------------------------------------------------------------------------------ standing in

AWAY = Mac(bytes.fromhex("0200000000ff"))
"""The node that is stood in for."""


def standing_in(*own: AddressText) -> World:
    """``VIP`` is answered with the MAC of the node that is away, and ``own`` with the link's own."""
    here = frozenset((ETH0,))
    return responder_after(AnswerChange(dict.fromkeys((VIP, *own), here), macs={VIP: {ETH0: AWAY}}))


def responder_after(change: AnswerChange) -> World:
    made = responder({})
    made.change_answers(change)
    return made


@given(mac=asking_macs.filter(lambda mac: mac != AWAY), asker=askers, asks_for_proof=st.booleans())
def test_stand_in_answers_with_the_others_mac_from_its_own(mac: Mac, asker: AddressText, asks_for_proof: bool) -> None:
    question = request(VIP, asker, mac, nonce=NONCE if asks_for_proof else b"")
    reply = standing_in().on(ETH0).receive(question.encode(), NOW)
    assert isinstance(reply, bytes)
    said = ArpFrame.parse(reply)
    assert (said.source, said.sender_mac, said.destination) == (OWN, AWAY, mac)
    assert said.proof == (prove(NONCE, AWAY, VIP) if asks_for_proof else b""), "over the MAC that is answered with"
    assert reply == frames.reply_to(question, AWAY, said.proof, OWN).encode()


def test_taking_over_and_giving_back_changes_the_next_answer() -> None:
    made, question = standing_in(OTHER), request(VIP, ASKER, CLIENT)
    other = request(OTHER, ASKER, CLIENT)
    assert made.on(ETH0).receive(other.encode(), NOW) == frames.reply_to(other, OWN).encode()
    new = Mac(bytes.fromhex("020000000099"))
    made.set_links([link(mac=new)])
    assert made.on(ETH0).receive(question.encode(), NOW) == frames.reply_to(question, AWAY, source=new).encode()
    made.change_answers(AnswerChange({VIP: frozenset((ETH0,))}))
    assert made.on(ETH0).receive(question.encode(), NOW) == frames.reply_to(question, new).encode()
    made.change_answers(AnswerChange({VIP: frozenset((ETH0,))}, macs={VIP: {ETH0: AWAY}}))
    made.change_answers(AnswerChange({VIP: frozenset()}))
    assert made.on(ETH0).receive(question.encode(), NOW) is DropReason.NOT_HELD
    assert made.take_answered() == {VIP: 2, OTHER: 1}


def test_node_that_is_stood_in_for_is_no_rival_and_gets_no_answer() -> None:
    """Its returned speaker announces; or its own kernel asks, which would send to itself what it sent there."""
    made = standing_in(OTHER)
    for agrees in (
        *(gratuitous(operation, VIP, AWAY) for operation in Operation),
        request(OTHER, VIP, AWAY),
        request(VIP, ASKER, AWAY),
        request(VIP, AddressText("0.0.0.0"), AWAY),
    ):
        assert made.on(ETH0).receive(agrees.encode(), NOW) is DropReason.STOOD_IN_FOR
    question = request(OTHER, ASKER, AWAY)
    assert made.on(ETH0).receive(question.encode(), NOW) == frames.reply_to(question, OWN).encode(), "what is ours"


def test_who_else_claims_what_is_stood_in_for_is_a_rival() -> None:
    made = standing_in(OTHER)
    for operation in Operation:
        assert isinstance(made.on(ETH0).receive(gratuitous(operation, VIP, CLIENT).encode(), NOW), NeighbourSeen)
        rival = made.on(ETH0).receive(gratuitous(operation, OTHER, AWAY).encode(), NOW)
        assert isinstance(rival, NeighbourSeen), "it claims what is ours"


def test_answer_of_another_that_stands_in_comes_from_who_it_says_and_not_from_us() -> None:
    """On the node itself, when it is back: the stand-in's answer to all carries the node's own MAC."""
    answer = frames.reply_to(request(VIP, ASKER, CLIENT), OWN, source=CLIENT)
    assert responder().on(ETH0).receive(answer.encode(), NOW) is DropReason.NOT_FOR_US
    to_all = ArpFrame(BROADCAST, CLIENT, Operation.REPLY, OWN, on_wire(VIP), BROADCAST, on_wire(VIP))
    assert responder().on(ETH0).receive(to_all.encode(), NOW) is DropReason.OWN_FRAME
