"""Our reading of rtnetlink messages, with pyroute2 as the independent one."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from cluster.objects import AddressText
from speaker.link import LinkName, Mac
from speaker.wire import netlink
from speaker.wire.addresses import OwnAddress, WireAddress
from speaker.wire.links import DUMPS
from speaker.wire.netlink import (
    Dump,
    DumpEnd,
    Gateway,
    Interface,
    InterfaceAddress,
    NetlinkError,
    Removed,
    RequestRefused,
    Unfit,
    parse,
)

UP, BROADCAST, RUNNING, NOARP, SLAVE, LOWER_UP = 0x1, 0x2, 0x40, 0x80, 0x800, 0x10000
CARRYING = UP | RUNNING | LOWER_UP


def encoded(message: ifinfmsg | ifaddrmsg | rtmsg, kind: int) -> bytes:
    message["header"]["type"] = kind
    message["header"]["sequence_number"] = 7
    message.encode()
    return bytes(message.data)


def link_message(flags: int = CARRYING | BROADCAST, kind: int = netlink.NEW_LINK, **fields: object) -> bytes:
    message = ifinfmsg()
    message["family"] = fields.get("family", 0)
    message["ifi_type"] = fields.get("ifi_type", 1)
    message["index"] = 3
    message["flags"] = flags
    message["attrs"] = [("IFLA_IFNAME", "eth0"), ("IFLA_ADDRESS", fields.get("mac", "02:00:00:00:00:01"))]
    message["attrs"].append(("IFLA_MTU", 1500))
    if "master" in fields:
        message["attrs"].append(("IFLA_MASTER", fields["master"]))
    if "downs" in fields:
        message["attrs"].append(("IFLA_CARRIER_DOWN_COUNT", fields["downs"]))
    return encoded(message, kind)


def one(data: bytes) -> netlink.Message:
    (message,) = parse(data)
    return message


def test_interface() -> None:
    assert one(link_message(downs=4)) == Interface(
        3, LinkName("eth0"), Mac(bytes.fromhex("020000000001")), carrier=True, unfit=None, downs=4
    )
    assert one(link_message(kind=netlink.DEL_LINK)) == Removed(
        Interface(3, LinkName("eth0"), Mac(bytes.fromhex("020000000001")), carrier=True, unfit=None, downs=0)
    )


@pytest.mark.parametrize("missing", [UP, RUNNING, LOWER_UP])
def test_interface_without_carrier(missing: int) -> None:
    read = one(link_message(flags=(CARRYING | BROADCAST) & ~missing))
    assert isinstance(read, Interface)
    assert not read.carrier
    assert read.unfit is None


@pytest.mark.parametrize(
    ("data", "unfit"),
    [
        (link_message(flags=CARRYING), Unfit.NO_BROADCAST),
        (link_message(flags=CARRYING | BROADCAST | NOARP), Unfit.NO_ARP),
        (link_message(flags=CARRYING | BROADCAST | SLAVE), Unfit.PART_OF_ANOTHER),
        (link_message(master=9), Unfit.PART_OF_ANOTHER),
        (link_message(ifi_type=772), Unfit.NOT_ETHERNET),
        (link_message(mac="00:00:00:00:00:00"), Unfit.NO_MAC),
        (link_message(mac="01:00:5e:00:00:01"), Unfit.NO_MAC),
    ],
    ids=["no broadcast", "no ARP", "in a bond", "in a bridge", "loopback", "no MAC", "a group's MAC"],
)
def test_interface_that_cannot_be_announced_says_why(data: bytes, unfit: Unfit) -> None:
    read = one(data)
    assert isinstance(read, Interface)
    assert read.unfit is unfit


def test_bridge_ports_end_is_not_the_interfaces_end() -> None:
    assert list(parse(link_message(kind=netlink.DEL_LINK, family=socket.AF_BRIDGE))) == []


def address_message(family: int = socket.AF_INET, scope: int = 0, kind: int = netlink.NEW_ADDRESS) -> bytes:
    message = ifaddrmsg()
    message["family"], message["prefixlen"], message["scope"], message["index"] = family, 24, scope, 3
    message["attrs"] = [("IFA_ADDRESS", "192.0.2.1"), ("IFA_LOCAL", "192.0.2.11"), ("IFA_LABEL", "eth0")]
    return encoded(message, kind)


def test_address_is_the_local_one_with_its_prefix_length() -> None:
    assert one(address_message()) == InterfaceAddress(3, OwnAddress.of("192.0.2.11/24"))
    assert one(address_message(kind=netlink.DEL_ADDRESS)) == Removed(
        InterfaceAddress(3, OwnAddress.of("192.0.2.11/24"))
    )
    assert list(parse(address_message(scope=254))) == []


def ipv6_message(address: str = "2001:db8::11", kind: int = netlink.NEW_ADDRESS, flags: int = 0x80) -> bytes:
    message = ifaddrmsg()
    message["family"], message["prefixlen"], message["index"], message["flags"] = socket.AF_INET6, 64, 3, flags
    message["scope"] = 253 if address.startswith("fe80") else 0
    message["attrs"] = [("IFA_ADDRESS", address)]
    return encoded(message, kind)


def test_ipv6_address_counts_once_it_may_be_used_and_until_it_is_deleted() -> None:
    own = InterfaceAddress(3, OwnAddress.of("2001:db8::11/64"))
    tentative, failed = 0x40, 0x48
    assert one(ipv6_message()) == own
    assert one(ipv6_message(flags=tentative)) == Removed(own)
    assert one(ipv6_message(flags=failed)) == Removed(own)
    assert one(ipv6_message(kind=netlink.DEL_ADDRESS, flags=tentative)) == Removed(own)
    assert one(ipv6_message("fe80::11")) == InterfaceAddress(3, OwnAddress.of("fe80::11/64"))


def route_message(kind: int = netlink.NEW_ROUTE, **fields: object) -> bytes:
    message = rtmsg()
    message["family"], message["table"], message["type"] = (
        fields.get("family", socket.AF_INET),
        fields.get("table", 254),
        1,
    )
    message["dst_len"] = fields.get("dst_len", 0)
    message["attrs"] = [("RTA_TABLE", fields.get("table", 254))]
    if "hops" in fields:
        message["attrs"].append(("RTA_MULTIPATH", fields["hops"]))
    else:
        via = fields.get("via", "192.0.2.1")
        message["attrs"] += [("RTA_GATEWAY", via), ("RTA_OIF", 3), ("RTA_PRIORITY", 100)]
    return encoded(message, kind)


def test_default_route_names_the_gateway() -> None:
    assert one(route_message()) == Gateway(3, WireAddress.of(AddressText("192.0.2.1")), 100)
    assert one(route_message(kind=netlink.DEL_ROUTE)) == Removed(
        Gateway(3, WireAddress.of(AddressText("192.0.2.1")), 100)
    )


def test_default_route_of_ipv6_goes_by_a_link_local_gateway() -> None:
    gateway = Gateway(3, WireAddress.of(AddressText("fe80::1")), 100)
    assert one(route_message(family=socket.AF_INET6, via="fe80::1")) == gateway


def test_other_routes_and_tables_are_skipped() -> None:
    assert list(parse(route_message(dst_len=24))) == []
    assert list(parse(route_message(table=100))) == []


def test_every_next_hop_of_a_multipath_route_is_a_gateway() -> None:
    hops = [
        {"hops": 0, "oif": 3, "attrs": [("RTA_GATEWAY", "192.0.2.1")]},
        {"hops": 0, "oif": 4, "attrs": [("RTA_GATEWAY", "198.51.100.1")]},
    ]
    assert list(parse(route_message(hops=hops))) == [
        Gateway(3, WireAddress.of(AddressText("192.0.2.1")), 0),
        Gateway(4, WireAddress.of(AddressText("198.51.100.1")), 0),
    ]


def test_ends_and_refusals_name_the_request() -> None:
    done = bytes.fromhex("1400000003000200050000000000000000000000")
    assert one(done) == DumpEnd(5, interrupted=False)
    assert one(done[:6] + b"\x12\x00" + done[8:]) == DumpEnd(5, interrupted=True)
    refused = bytes.fromhex("14000000020000000500000000000000") + (-2).to_bytes(4, "little", signed=True)
    assert one(refused) == RequestRefused(5, 2)


@pytest.mark.parametrize("dump", DUMPS)
def test_requests_are_dumps(dump: Dump) -> None:
    request = netlink.dump_request(dump, 9)
    length, read, flags, sequence, _ = netlink._HEADER.unpack_from(request)
    assert (length, read, flags, sequence) == (len(request), dump.kind, 0x301, 9)
    assert request[netlink._HEADER.size] == dump.family


@given(data=st.binary(max_size=200), at=st.integers(0, 150), octets=st.binary(min_size=1, max_size=4))
def test_octets_in_no_known_layout_are_an_error_and_nothing_worse(data: bytes, at: int, octets: bytes) -> None:
    whole = bytearray(link_message() + address_message() + route_message())
    whole[at : at + len(octets)] = octets
    for hostile in (data, bytes(whole), bytes(whole[: at + 16])):
        try:
            list(parse(hostile))
        except NetlinkError:
            continue
