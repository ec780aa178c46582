"""The heartbeat filters, run by a small interpreter of classic BPF, on packets that scapy makes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6EchoRequest, IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from cluster.addresses import Family
from cluster.objects import AddressText
from speaker.link import Mac
from speaker.wire.addresses import WireAddress
from speaker.wire.bpf import NOTHING, Instruction
from speaker.wire.ethernet import FrameError
from speaker.wire.heartbeats.encapsulation import Encapsulation, UdpFrame
from speaker.wire.heartbeats.families import ENCAPSULATIONS, IPV4, IPV6
from speaker.wire.heartbeats.filter import heartbeat_code
from tests.speaker.wire.bpf import HOST, MULTICAST, instructions, passes

PORT, LONGEST = 7948, 1600
GROUP_ADDRESS, HERE, PEER = "224.0.0.254", "192.0.2.11", "192.0.2.12"
ETHERNET = Ether(src="02:00:00:00:00:02", dst="02:00:00:00:00:01")
HEARTBEAT = IP(src=PEER, dst=HERE, ttl=255) / UDP(sport=PORT, dport=PORT) / b"heartbeat"
REFUSED = IP(src=HERE, dst=PEER, ttl=255) / UDP(sport=PORT, dport=PORT) / b"heartbeat"
UNREACHABLE = IP(src=PEER, dst=HERE) / ICMP(type=3, code=3)
HERE6, PEER6 = "fe80::11", "fe80::12"
PORTS = UDP(sport=PORT, dport=PORT)
REFUSED6 = IPv6(src=HERE6, dst=PEER6) / PORTS / b"heartbeat"
TO_US6 = IPv6(src=PEER6, dst=HERE6, hlim=255)
UNREACHABLE6 = TO_US6 / ICMPv6DestUnreach(code=4)


def heartbeats(*own: str) -> Sequence[Instruction]:
    """For one family's addresses."""
    addresses = [WireAddress.of(AddressText(address)) for address in own]
    ip = ENCAPSULATIONS[addresses[0].family]
    return instructions(heartbeat_code(ip.layout, [*addresses, ip.group], PORT, LONGEST))


@pytest.mark.parametrize("packet_type", range(5))
@pytest.mark.parametrize(
    ("packet", "wanted"),
    [
        (HEARTBEAT, True),
        (IP(src=PEER, dst=GROUP_ADDRESS) / UDP(sport=PORT, dport=PORT) / b"heartbeat", True),
        (IP(src=PEER, dst=HERE) / UDP(sport=PORT, dport=PORT) / bytes(LONGEST - 42), True),
        (UNREACHABLE / REFUSED, True),
        (IP(src=PEER, dst="224.0.0.1") / UDP(sport=PORT, dport=PORT) / b"x", False),
        (IP(src=PEER, dst="192.0.2.200") / UDP(sport=PORT, dport=PORT) / b"to an address of a Service", False),
        (IP(src=PEER, dst=HERE) / UDP(sport=PORT, dport=53) / b"x", False),
        (IP(src=PEER, dst=HERE) / UDP(sport=PORT, dport=PORT) / bytes(LONGEST - 41), False),
        (IP(src=PEER, dst=HERE, flags="MF") / UDP(sport=PORT, dport=PORT) / b"x", False),
        (IP(src=PEER, dst=HERE, frag=1) / UDP(sport=PORT, dport=PORT) / b"x", False),
        (IP(src=PEER, dst=HERE, options=b"\x94\x04\x00\x00") / UDP(sport=PORT, dport=PORT) / b"x", False),
        (IP(src=PEER, dst=HERE, proto=6) / bytes(2) / PORT.to_bytes(2, "big") / bytes(30), False),
        (IP(src=PEER, dst=HERE) / ICMP(type=3, code=1) / REFUSED, False),
        (IP(src=PEER, dst=HERE) / ICMP(type=8) / REFUSED, False),
        (UNREACHABLE / (IP(src=HERE, dst=PEER) / UDP(sport=PORT, dport=53) / b"x"), False),
        (UNREACHABLE / (IP(src=HERE, dst=PEER, proto=6) / PORT.to_bytes(2, "big") / PORT.to_bytes(2, "big")), False),
    ],
)  # fmt: skip
def test_heartbeats_and_refusals_to_us_pass_and_nothing_else(packet: IP, wanted: bool, packet_type: int) -> None:
    assert passes(heartbeats(HERE), bytes(ETHERNET / packet), packet_type) == (wanted and packet_type <= MULTICAST)


@pytest.mark.parametrize("packet_type", range(5))
@pytest.mark.parametrize(
    ("packet", "wanted"),
    [
        (TO_US6 / PORTS / b"heartbeat", True),
        (IPv6(src=PEER6, dst="ff02::114", hlim=255, tc=0xC0) / PORTS / b"heartbeat", True),
        (TO_US6 / PORTS / bytes(LONGEST - 62), True),
        (UNREACHABLE6 / REFUSED6, True),
        (IPv6(src=PEER6, dst="ff02::1") / PORTS / b"x", False),
        (IPv6(src=PEER6, dst="2001:db8::200") / PORTS / b"to an address of a Service", False),
        (TO_US6 / UDP(sport=PORT, dport=53) / b"x", False),
        (TO_US6 / PORTS / bytes(LONGEST - 61), False),
        (TO_US6 / IPv6ExtHdrFragment(m=1) / PORTS / b"x", False),
        (TO_US6 / IPv6ExtHdrDestOpt() / PORTS / b"x", False),
        (IPv6(src=PEER6, dst=HERE6, nh=6) / bytes(2) / PORT.to_bytes(2, "big") / bytes(30), False),
        (TO_US6 / ICMPv6DestUnreach(code=1) / REFUSED6, False),
        (TO_US6 / ICMPv6EchoRequest() / REFUSED6, False),
        (UNREACHABLE6 / (IPv6(src=HERE6, dst=PEER6) / UDP(sport=PORT, dport=53) / b"x"), False),
        (UNREACHABLE6 / (IPv6(src=HERE6, dst=PEER6, nh=6) / (2 * PORT.to_bytes(2, "big")) / bytes(8)), False),
    ],
)  # fmt: skip
def test_heartbeats_and_refusals_in_ipv6_pass_and_nothing_else(packet: IPv6, wanted: bool, packet_type: int) -> None:
    assert passes(heartbeats(HERE6), bytes(ETHERNET / packet), packet_type) == (wanted and packet_type <= MULTICAST)


@given(
    family=st.sampled_from(Family),
    at=st.integers(12, 109),
    octets=st.binary(min_size=1, max_size=3),
    refusal=st.booleans(),
)
def test_what_the_parser_takes_for_ours_passes(family: Family, at: int, octets: bytes, refusal: bool) -> None:
    """Of frames that differ in some octets from good ones: the filter may pass more, and never less."""
    packets: dict[Family, tuple[Packet, Packet]] = {
        Family.IPV4: (HEARTBEAT, UNREACHABLE / REFUSED),
        Family.IPV6: (TO_US6 / PORTS / b"heartbeat", UNREACHABLE6 / REFUSED6),
    }
    whole = bytes(ETHERNET / packets[family][refusal])
    frame = whole[:at] + octets + whole[at + len(octets) :]
    own = {Family.IPV4: HERE, Family.IPV6: HERE6}[family]
    ip = ENCAPSULATIONS[family]
    try:
        read = ip.parse(frame)
    except FrameError:
        return
    ours = read.to in (WireAddress.of(AddressText(own)), ip.group)
    ports = read.to_port == PORT if isinstance(read, UdpFrame) else (read.asked_port, read.asker_port) == (PORT, PORT)
    knock = isinstance(read, UdpFrame) and not read.data
    if ours and ports:
        assert passes(heartbeats(own), frame, HOST) is not knock


@pytest.mark.parametrize("ip", [IPV4, IPV6], ids=["IPv4", "IPv6"])
@given(data=st.binary(min_size=1, max_size=100))
def test_what_we_send_to_the_group_passes(ip: Encapsulation, data: bytes) -> None:
    own, peer = (HERE, PEER) if ip is IPV4 else (HERE6, PEER6)
    source = WireAddress.of(AddressText(peer))
    frame = UdpFrame(ip.group_mac, Mac(bytes(6)), ip.group, source, PORT, PORT, 255, data)
    assert passes(heartbeats(own), ip.encode(frame), MULTICAST)


@pytest.mark.parametrize("ip", [IPV4, IPV6], ids=["IPv4", "IPv6"])
def test_a_knock_does_not_wake_who_lives(ip: Encapsulation) -> None:
    own, peer = (HERE, PEER) if ip is IPV4 else (HERE6, PEER6)
    here, source = (WireAddress.of(AddressText(address)) for address in (own, peer))
    for data, heard in ((b"", False), (b"x", True)):
        frame = UdpFrame(Mac(bytes(6)), Mac(bytes(6)), here, source, PORT, PORT, 255, data)
        assert passes(heartbeats(own), ip.encode(frame), HOST) is heard


def test_every_address_of_the_interface_hears() -> None:
    own = [f"10.{n % 7}.{n}.1" for n in range(200)]
    made = heartbeats(*own)
    for address in own:
        assert passes(made, bytes(ETHERNET / IP(dst=address) / UDP(dport=PORT) / b"x"))
        assert not passes(made, bytes(ETHERNET / IP(dst=address[:-1] + "2") / UDP(dport=PORT) / b"x"))


@given(frame=st.binary(max_size=120), packet_type=st.integers(0, 4))
def test_arbitrary_octets_are_no_heartbeat(frame: bytes, packet_type: int) -> None:
    if passes(heartbeats(HERE), frame, packet_type):
        assert frame[23] in {1, 17}
        assert frame[14] == 0x45
    if passes(heartbeats(HERE6), frame, packet_type):
        assert frame[20] in {58, 17}


def test_more_addresses_than_a_small_program_can_tell_apart_all_hear() -> None:
    own = [f"10.{n % 200}.{n // 200}.1" for n in range(2000)]
    made = heartbeats(*own)
    assert len(made) < 1024
    for address in own:
        assert passes(made, bytes(ETHERNET / IP(dst=address) / UDP(dport=PORT) / b"x"))


def test_filter_of_nothing_passes_nothing() -> None:
    assert not passes(instructions(NOTHING), bytes(ETHERNET / HEARTBEAT), HOST)
