"""On which links an address belongs, on which of these it is answered for, and which nodes are near it."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import pytest

from cluster.objects import AddressText
from speaker.link import LinkName
from speaker.protocol.heartbeat import Heartbeat
from speaker.protocol.standing import Standing
from speaker.protocol.subnets import KNOWN_S, MAX_NETWORKS, NOTED_S, SAME_SEGMENT_S, Subnets, networks_of
from tests.speaker.protocol.company import ETH0, ETH1, ME, B, Company, mac_of

ON_ETH0, ON_ETH1, ROUTED = AddressText("10.0.9.1"), AddressText("10.1.9.1"), AddressText("192.0.2.1")
LAN, OTHER = ip_network("10.0.0.0/16"), ip_network("192.0.2.0/24")
NOW = KNOWN_S + 100.0
ALIVE, SUSPECT, DEAD = Standing


def two_links() -> Company:
    company = Company()
    company.link(ETH0, "10.0.0.1/16")
    company.link(ETH1, "10.1.0.1/16")
    return company


@pytest.mark.parametrize(
    ("prefix", "networks"),
    [
        ("10.0.0.1/16", (LAN,)),
        ("10.0.0.1/8", (ip_network("10.0.0.0/8"),)),
        ("10.0.0.1/7", ()),  # says nothing of where an address belongs
        ("2001:db8::1/64", (ip_network("2001:db8::/64"),)),
        ("no prefix", ()),
    ],
)
def test_a_prefix_is_a_subnet_if_it_is_one(prefix: str, networks: tuple[object, ...]) -> None:
    assert networks_of((prefix,)) == networks


@pytest.mark.parametrize(
    ("address", "named", "belongs"),
    [
        (ON_ETH0, (), [ETH0]),
        (ON_ETH1, (), [ETH1]),
        (ROUTED, (), [ETH0, ETH1]),
        (ON_ETH0, (ETH1,), [ETH1]),  # named means named
        (ON_ETH0, (LinkName("eth9"),), []),
    ],
)
def test_an_address_belongs_on_the_links_of_its_subnet_unless_some_are_named(
    address: AddressText, named: tuple[LinkName, ...], belongs: list[LinkName]
) -> None:
    assert Subnets(two_links().roster).belongs(address, named, NOW) == belongs


@pytest.mark.parametrize(
    ("here", "elsewhere", "belongs"),
    [
        (NOW, None, [ETH0]),  # a peer has the subnet on this link
        (NOW - KNOWN_S, None, [ETH0, ETH1]),  # too long ago
        (None, NOW, []),  # some node has it on another network
        (None, NOW - KNOWN_S, [ETH0, ETH1]),
    ],
)
def test_an_address_whose_subnet_only_others_have_belongs_where_they_have_it(
    here: float | None, elsewhere: float | None, belongs: list[LinkName]
) -> None:
    company = two_links()
    if here is not None:
        company.roster.links[ETH0].networks[OTHER] = here
    if elsewhere is not None:
        company.roster.elsewhere[OTHER] = elsewhere
    assert Subnets(company.roster).belongs(ROUTED, (), NOW) == belongs


@pytest.mark.parametrize(
    ("shared", "had_shared", "belongs"),
    [((ETH1,), None, [ETH1]), ((), NOW, []), ((), NOW - KNOWN_S, [ETH0, ETH1])],
)
def test_an_address_on_nobodys_subnet_belongs_where_speakers_are(
    shared: tuple[LinkName, ...], had_shared: float | None, belongs: list[LinkName]
) -> None:
    company = two_links()
    for name in shared:
        company.roster.links[name].shared = True
    if had_shared is not None:
        company.roster.shared[LAN] = had_shared
    assert Subnets(company.roster).belongs(ROUTED, (), NOW) == belongs


@pytest.mark.parametrize(
    ("prefixes", "heard_at", "named", "down", "answered"),
    [
        (("10.0.0.1/16", "10.1.0.1/16"), None, False, None, {ETH0, ETH1}),
        (("10.0.0.1/16", "10.0.0.2/16"), None, False, None, {ETH0}),  # both have the subnet
        (("10.0.0.1/16", "10.0.0.2/16"), None, False, ETH0, {ETH1}),
        (("10.0.0.1/16", "10.0.0.2/16"), None, True, None, {ETH0, ETH1}),
        (("10.0.0.1/16", "10.1.0.1/16"), NOW, True, None, {ETH0}),  # one was heard on the other
        (("10.0.0.1/16", "10.1.0.1/16"), NOW - SAME_SEGMENT_S, True, None, {ETH0, ETH1}),
    ],
)
def test_one_link_of_a_segment_answers(
    prefixes: tuple[str, str], heard_at: float | None, named: bool, down: LinkName | None, answered: set[LinkName]
) -> None:
    company = Company()
    for name, prefix in zip((ETH0, ETH1), prefixes, strict=True):
        company.link(name, prefix, up=name != down)
    if heard_at is not None:
        company.roster.links[ETH1].also[ETH0] = heard_at
    assert Subnets(company.roster).answered_on(ON_ETH0, [ETH0, ETH1], named, NOW) == answered


@pytest.mark.parametrize(
    ("prefixes", "elsewhere", "near", "differ"),
    [
        (("10.0.0.2/16",), ("10.1.0.2/16",), True, False),
        (("10.1.0.2/16",), ("10.0.0.2/16",), True, False),  # by a link on which it is not heard
        (("10.1.0.2/16",), (), False, True),
    ],
)
def test_a_node_is_near_by_any_of_its_links(
    prefixes: tuple[str, ...], elsewhere: tuple[str, ...], near: bool, differ: bool
) -> None:
    company = two_links()
    sighting = company.peer(B, eth1=ALIVE).sightings[ETH1]
    sighting.prefixes, sighting.elsewhere = prefixes, elsewhere
    subnets = Subnets(company.roster)
    assert (subnets.has(B, ON_ETH0), subnets.has(ME, ON_ETH0), subnets.differ()) == (near, True, differ)


def test_what_a_peer_says_is_news_once_and_the_tables_are_bounded() -> None:
    company = two_links()
    sighting, link = company.peer(B, eth0=ALIVE).sightings[ETH0], company.roster.links[ETH0]
    subnets = Subnets(company.roster)

    def says(prefix: str, now: float) -> tuple[bool, bool]:
        message = Heartbeat(B, 100, 0, ETH0, mac_of(B), (prefix,), (), b"", 0, 0, ())
        return subnets.note(link, sighting, message, now)

    assert says("192.0.2.2/24", 0.0) == (True, True)
    assert says("192.0.2.2/24", NOTED_S + 1.0) == (False, False)
    for number in range(2 * MAX_NETWORKS):
        says(f"172.16.{number}.1/24", 1.0)
    assert len(link.networks) == MAX_NETWORKS


@pytest.mark.parametrize("shared", [True, False])
def test_an_address_of_no_subnet_stays_off_a_private_link_after_the_loss_of_a_lan_that_has_no_subnet_either(
    shared: bool,
) -> None:
    """Of IPv6 a LAN may have link-local addresses alone, which say nothing of where an address belongs."""
    company = Company()
    company.link(ETH1, "10.1.0.1/16")
    lan = company.link(ETH0)
    lan.state, lan.shared = replace(lan.state, link_local=AddressText("fe80::1")), shared
    subnets = Subnets(company.roster)
    subnets.remember_own(NOW)
    del company.roster.links[ETH0]
    assert subnets.belongs(AddressText("2001:db8::9:1"), (), NOW) == ([] if shared else [ETH1])
    again, other = replace(lan.state, index=7), replace(lan.state, index=8, link_local=AddressText("fe80::2"))
    assert subnets.was_shared(again, NOW) is shared
    assert not subnets.was_shared(other, NOW), "every link has the subnet of link-local addresses"
