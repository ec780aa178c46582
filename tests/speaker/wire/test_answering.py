"""The ledger of what is answered for: what follows, link by link, from what the protocol says."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cluster.addresses import Family
from cluster.objects import AddressText
from speaker.link import LinkName, Mac
from speaker.protocol.effects import AnswerChange
from speaker.wire.addresses import WireAddress
from speaker.wire.answering import Answering
from tests.arp_frames import on_wire

X, Y = Mac(bytes.fromhex("0200000000f1")), Mac(bytes.fromhex("0200000000f2"))
ETH0, ETH1 = LinkName("eth0"), LinkName("eth1")
VIP, OTHER, SIX = AddressText("192.0.2.200"), AddressText("192.0.2.201"), AddressText("2001:db8::1")
NOWHERE = frozenset[LinkName]()

addresses = st.sampled_from([VIP, OTHER, SIX, AddressText("10.0.0.1")])
places = st.sets(st.sampled_from([ETH0, ETH1])).map(frozenset)


@given(steps=st.lists(st.dictionaries(addresses, places, max_size=4), max_size=12), both=st.booleans())
def test_followers_of_the_differences_have_what_is_answered(
    steps: list[dict[AddressText, frozenset[LinkName]]], both: bool
) -> None:
    ledger = Answering(list(Family) if both else [Family.IPV4])
    followed: dict[LinkName, set[WireAddress]] = {ETH0: set(), ETH1: set()}
    held: dict[AddressText, frozenset[LinkName]] = {}
    for step in steps:
        held.update(step)
        for link, difference in ledger.change(AnswerChange(step)).items():
            gained, lost = set(difference.gained), set(difference.lost)
            assert not any(difference.gained.values()), "all with the link's own MAC"
            assert not gained & followed[link], "what is there is not said again"
            assert lost <= followed[link]
            assert gained or lost
            followed[link] = followed[link] - lost | gained
    for link, has in followed.items():
        assert has == {on_wire(a) for a, links in held.items() if link in links and (both or a != SIX)}
        assert dict(ledger.on(link)) == dict.fromkeys(has), "who begins to follow now begins with the same"
    for address, links in held.items():
        assert ledger.links_of(address) == links


def test_what_is_true_of_a_link_costs_no_address() -> None:
    ledger = Answering([Family.IPV4])
    ledger.change(AnswerChange({VIP: frozenset((ETH0, ETH1))}))
    assert ledger.change(AnswerChange({}, quiet=frozenset((ETH1,)), suspended=frozenset((ETH0,)))) == {}
    assert ledger.suspended == {ETH0}
    assert ledger.quiet == {ETH0, ETH1}, "what is not answered is not announced either"
    assert ledger.links_of(VIP) == {ETH0, ETH1}


def test_address_of_a_family_without_a_room_is_on_record_and_nobody_follows_it() -> None:
    ledger = Answering([Family.IPV4])
    assert ledger.change(AnswerChange({SIX: frozenset((ETH0,))})) == {}
    assert list(ledger.on(ETH0)) == []
    assert ledger.links_of(SIX) == {ETH0}
    ledger.change(AnswerChange({SIX: NOWHERE}))
    assert ledger.links_of(SIX) == NOWHERE


def test_another_mac_is_news_on_the_links_where_it_is_another() -> None:
    """A node is stood in for, and its address is taken over in the end."""
    ledger, both = Answering([Family.IPV4]), frozenset((ETH0, ETH1))
    steps: list[tuple[dict[LinkName, Mac], dict[LinkName, dict[WireAddress, Mac | None]]]] = [
        ({ETH0: X, ETH1: Y}, {ETH0: {on_wire(VIP): X}, ETH1: {on_wire(VIP): Y}}),
        ({ETH0: X, ETH1: Y}, {}),
        ({ETH0: Y, ETH1: Y}, {ETH0: {on_wire(VIP): Y}}),
        ({ETH0: Y}, {ETH1: {on_wire(VIP): None}}),
        ({}, {ETH0: {on_wire(VIP): None}}),
    ]
    for macs, news in steps:
        differences = ledger.change(AnswerChange({VIP: both}, macs={VIP: macs} if macs else {}))
        assert {link: difference.gained for link, difference in differences.items()} == news
        assert dict(ledger.on(ETH0)) == {on_wire(VIP): macs.get(ETH0)}
    gone = ledger.change(AnswerChange({VIP: NOWHERE}))
    assert {link: difference.lost for link, difference in gone.items()} == {link: [on_wire(VIP)] for link in both}
