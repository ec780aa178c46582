"""Which links are announced, as the kernel's messages come in."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cluster.addresses import Family
from cluster.objects import AddressText
from speaker.exclusion import Exclusion
from speaker.link import LinkName, Mac
from speaker.protocol.effects import LinkState
from speaker.wire import netlink
from speaker.wire.addresses import OwnAddress, WireAddress
from speaker.wire.links import DUMPS, MAX_GATEWAYS, MAX_UNUSABLE, LinkTable, Lost, steps
from speaker.wire.netlink import Gateway, Interface, InterfaceAddress, Removed, Unfit

ETH0 = Interface(2, LinkName("eth0"), Mac(bytes(5) + b"\x01"), carrier=True, unfit=None, downs=0)
ETH1 = Interface(3, LinkName("eth1"), Mac(bytes(5) + b"\x02"), carrier=True, unfit=None, downs=0)
OWN, SECOND = InterfaceAddress(2, OwnAddress.of("192.0.2.11/24")), InterfaceAddress(2, OwnAddress.of("198.51.100.1/24"))


LINK_LOCAL = InterfaceAddress(2, OwnAddress.of("fe80::11/64"))


def table(*known: netlink.Known) -> LinkTable:
    made = LinkTable()
    for message in known:
        made.receive(message)
    return made


def test_interface_with_an_address_is_announced_with_all_of_them_and_its_gateway() -> None:
    gateway = Gateway(2, WireAddress.of(AddressText("192.0.2.1")), 100)
    dearer = Gateway(2, WireAddress.of(AddressText("192.0.2.9")), 200)
    elsewhere = Gateway(3, WireAddress.of(AddressText("192.0.2.2")), 0)
    assert table(ETH0, ETH1, OWN, SECOND, dearer, gateway, elsewhere).links() == (
        LinkState(
            LinkName("eth0"), 2, ETH0.mac, True, ("192.0.2.11/24", "198.51.100.1/24"), (AddressText("192.0.2.1"),)
        ),
    )


def test_a_link_local_address_suffices_to_talk_and_is_no_subnet() -> None:
    global_ = InterfaceAddress(2, OwnAddress.of("2001:db8::11/64"))
    (link,) = table(ETH0, global_, LINK_LOCAL, OWN).links()
    assert (link.prefixes, link.link_local) == (("192.0.2.11/24", "2001:db8::11/64"), "fe80::11")
    assert link.own == ("192.0.2.11/24", "2001:db8::11/64", "fe80::11/64")
    assert link.families == frozenset(Family)
    (link,) = table(ETH0, LINK_LOCAL).links()
    assert (link.prefixes, link.own, link.families) == ((), ("fe80::11/64",), frozenset({Family.IPV6}))
    made = table(ETH0, global_)
    assert made.links() == ()
    assert made.unusable() == {"eth0": "has no IPv4 and no link-local IPv6 address"}
    (link,) = table(ETH0, OWN).links()
    assert link.families == {Family.IPV4}


def test_each_family_has_the_best_of_its_gateways() -> None:
    gateways = [
        Gateway(2, WireAddress.of(AddressText(address)), metric)
        for address, metric in (("fe80::2", 1024), ("fe80::1", 512), ("192.0.2.1", 100), ("192.0.2.2", 200))
    ]
    made = table(ETH0, OWN, LINK_LOCAL, *gateways)
    assert made.links()[0].gateways == ("192.0.2.1", "fe80::1")
    made.begin_dump(netlink.ROUTES[1])
    made.end_dump()
    assert made.links()[0].gateways == ("192.0.2.1",), "a dump of one family says nothing of the other"


def test_host_that_says_to_be_many_routers_makes_some_known_and_hides_no_gateway_of_ipv4() -> None:
    routers = [Gateway(2, WireAddress(b"\xfe\x80" + n.to_bytes(14, "big")), 1024) for n in range(1, 5000)]
    home = Gateway(2, WireAddress.of(AddressText("192.0.2.1")), 100)
    made = table(ETH0, OWN, LINK_LOCAL, *routers, home)
    assert made.links()[0].gateways == ("192.0.2.1", "fe80::1")
    assert len(made._gateways) == MAX_GATEWAYS + 1


def test_interface_without_carrier_stays_and_is_down() -> None:
    (link,) = table(ETH0, OWN, replace(ETH0, carrier=False)).links()
    assert not link.up


@pytest.mark.parametrize(
    "interface",
    [
        replace(ETH0, unfit=Unfit.PART_OF_ANOTHER),
        replace(ETH0, name=LinkName("veth12")),
        replace(ETH0, name=LinkName("lo")),
    ],
)
def test_interfaces_of_others_are_not_announced(interface: Interface) -> None:
    assert table(interface, OWN).links() == ()


def test_names_are_excluded_as_the_cluster_says_from_now_on() -> None:
    made = table(replace(ETH0, name=LinkName("veth12")), OWN, ETH1, InterfaceAddress(3, OwnAddress.of("192.0.2.12/24")))
    assert [link.name for link in made.links()] == ["eth1"]
    made.exclusion = Exclusion(["^eth1$"])
    assert [link.name for link in made.links()] == ["veth12"]
    assert made.unusable() == {"eth1": "is excluded by its name (^eth1$)"}


def test_interface_that_is_gone_takes_its_addresses_along() -> None:
    made = table(ETH0, OWN)
    made.receive(Removed(ETH0))
    assert made.links() == ()
    made.receive(ETH0)
    assert made.links() == (), "a new interface of that index has to get its address anew"


def test_address_that_is_gone_ends_the_announcing() -> None:
    made = table(ETH0, OWN)
    made.receive(Removed(OWN))
    assert made.links() == ()


def test_what_a_new_dump_does_not_mention_is_forgotten_at_its_end() -> None:
    made = table(ETH0, ETH1, OWN, InterfaceAddress(3, OwnAddress.of("192.0.2.12/24")))
    made.begin_dump(netlink.LINKS)
    made.receive(replace(ETH0, mac=ETH1.mac))
    assert [link.name for link in made.links()] == ["eth0", "eth1"], "until the end, events may have been lost or not"
    made.end_dump()
    assert [(link.name, link.mac) for link in made.links()] == [("eth0", ETH1.mac)]
    for dump in DUMPS[1:]:
        made.begin_dump(dump)
        made.end_dump()
    assert made.links() == ()


def test_table_is_complete_when_all_dumps_are() -> None:
    made = LinkTable()
    seen = []
    for dump in DUMPS:
        made.begin_dump(dump)
        made.end_dump()
        seen.append(made.complete)
    assert seen == [False, False, False, True]


def test_carrier_that_was_lost_and_back_before_we_looked_is_told_once() -> None:
    made = table(ETH0, OWN)
    assert made.take_lost() == Lost()
    made.receive(replace(ETH0, downs=1))
    assert made.take_lost() == Lost(carrier=frozenset({2}))
    assert made.take_lost() == Lost()
    made.receive(replace(ETH0, downs=2, carrier=False))
    assert made.take_lost() == Lost()
    made.receive(replace(ETH0, downs=2))
    assert made.take_lost() == Lost(), "a loss that was seen is told by the link itself"


def test_why_interfaces_are_not_announced_is_said_of_the_likeliest_first() -> None:
    made = table(
        replace(ETH0, name=LinkName("lo"), unfit=Unfit.NOT_ETHERNET, index=1),
        replace(ETH0, carrier=False),
        OWN,
        ETH1,
        replace(ETH0, index=4, name=LinkName("eth2"), unfit=Unfit.PART_OF_ANOTHER),
        replace(ETH0, index=5, name=LinkName("docker0")),
        InterfaceAddress(5, OwnAddress.of("172.17.0.1/16")),
        replace(ETH0, index=6, name=LinkName("eth3")),
        InterfaceAddress(6, OwnAddress.of("203.0.113.1/24")),
    )
    assert list(made.unusable().items()) == [
        ("eth0", "has no carrier"),
        ("eth1", "has no IPv4 and no link-local IPv6 address"),
        ("eth2", "is part of a bridge, a bond or a VRF"),
        ("docker0", "is excluded by its name (^docker.*)"),
    ]


def test_of_a_thousand_pods_interfaces_some_are_named_and_the_nodes_own_are_among_them() -> None:
    made = table(*(replace(ETH0, index=10 + n, name=LinkName(f"cali{n}")) for n in range(1000)), ETH1)
    assert len(made.unusable()) == MAX_UNUSABLE
    assert "eth1" in made.unusable()


def test_addresses_of_an_interface_keep_their_order_and_the_last_one_ends_it() -> None:
    made = table(ETH0, OWN, SECOND)
    made.receive(Removed(OWN))
    made.receive(OWN)
    assert made.links()[0].prefixes == (SECOND.own.text, OWN.own.text)
    for address in (OWN, SECOND, SECOND):
        made.receive(Removed(address))
    assert made.links() == ()


def test_carrier_that_is_back_by_the_time_we_look_was_lost_whether_the_kernel_said_so_once_or_twice() -> None:
    made = table(ETH0, OWN)
    made.receive(replace(ETH0, carrier=False, downs=1))
    made.receive(replace(ETH0, downs=1))
    assert made.take_lost() == Lost(carrier=frozenset({ETH0.index})), "both messages were read before anybody looked"
    assert made.take_lost() == Lost(), "that was looked at"
    made.receive(replace(ETH0, downs=2))
    assert made.take_lost() == Lost(carrier=frozenset({ETH0.index})), "the kernel merged the two"
    made.receive(replace(ETH0, carrier=False, downs=3))
    assert made.take_lost() == Lost(), "it is gone, which the links say"
    made.receive(replace(ETH0, downs=3))
    assert made.take_lost() == Lost(), "and is back, which they say too"


def test_ipv6_that_was_lost_and_is_back_before_we_look_is_told_once() -> None:
    """As by an MTU below 1,280 for a moment, after which the kernel knows of no membership."""
    made = table(ETH0, OWN, LINK_LOCAL)
    assert made.take_lost() == Lost()
    for message in (Removed(LINK_LOCAL), LINK_LOCAL):
        made.receive(message)
    assert made.take_lost() == Lost(ipv6=frozenset({2}))
    assert made.take_lost() == Lost()
    made.receive(Removed(LINK_LOCAL))
    assert made.take_lost() == Lost(), "what is not back is told by the link itself"
    made.receive(Removed(LINK_LOCAL))
    made.receive(LINK_LOCAL)
    assert made.take_lost() == Lost(), "that was seen"
    made.receive(Removed(LINK_LOCAL))
    made.receive(Removed(ETH0))
    made.receive(ETH0)
    made.receive(LINK_LOCAL)
    assert made.take_lost() == Lost(interface=frozenset({2})), "which is more"


def state(
    name: str = "eth0",
    index: int = 2,
    up: bool = True,
    prefixes: tuple[str, ...] = ("192.0.2.11/24",),
    link_local: str | None = None,
) -> LinkState:
    own = AddressText(link_local) if link_local else None
    return LinkState(LinkName(name), index, ETH0.mac, up, prefixes, link_local=own)


def said(before: LinkState, now: LinkState, lost: Lost) -> list[tuple[LinkState, ...]]:
    return list(steps((before,), (now,), lost))


def test_links_that_are_what_they_were_are_not_said_again() -> None:
    assert said(state(), state(), Lost()) == []
    of_another = frozenset({99})
    assert said(state(), state(), Lost(of_another, of_another)) == []


def test_carrier_that_was_lost_and_is_back_is_said_to_have_been_lost() -> None:
    lost = Lost(carrier=frozenset({2}))
    assert said(state(), state(), lost) == [(state(up=False),), (state(),)]
    assert said(state(up=False), state(), lost) == [(state(),)]


def test_ipv6_that_was_lost_and_is_back_is_said_to_have_been_lost() -> None:
    lost = Lost(ipv6=frozenset({2}))
    both = state(prefixes=("192.0.2.11/24", "2001:db8::11/64"), link_local="fe80::11")
    assert said(both, both, lost) == [(state(),), (both,)]
    alone = state(prefixes=("2001:db8::11/64",), link_local="fe80::11")
    assert said(alone, alone, lost) == [(), (alone,)], "without IPv6 it is no link"
    assert said(state(), both, lost) == [(both,)], "it had none when it was said last"


def test_interface_that_was_in_another_namespace_and_is_back_is_a_new_one_though_its_index_is_the_same() -> None:
    made = table(ETH0, OWN)
    for message in (Removed(ETH0), ETH0, OWN):
        made.receive(message)
    lost = made.take_lost()
    assert said(state(), made.links()[0], lost) == [(), made.links()]
    made.receive(Removed(ETH0))
    assert made.take_lost() == Lost(), "that is told by its absence"


def test_interface_that_has_the_name_of_another_is_a_new_one() -> None:
    assert said(state(index=2), state(index=3), Lost()) == [(), (state(index=3),)]


def test_renamed_interface_is_the_same_one() -> None:
    assert said(state("eth0"), state("lan0"), Lost()) == [(state("lan0"),)]


def test_interfaces_that_swap_their_names_are_said_to_be_what_they_are_in_the_end() -> None:
    one, two = state("eth0", 2), state("eth1", 3)
    now = (state("eth0", 3), state("eth1", 2))
    said = list(steps((one, two), now, Lost()))
    assert said[-1] == now
