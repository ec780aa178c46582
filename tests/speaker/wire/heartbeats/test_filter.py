"""The heartbeat filter, run by a small interpreter of classic BPF, on packets that scapy makes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.l2 import Ether

from cluster.objects import AddressText
from speaker.wire.addresses import WireAddress
from speaker.wire.bpf import NOTHING, Instruction
from speaker.wire.heartbeats.filter import heartbeat_code
from tests.speaker.wire.bpf import HOST, MULTICAST, instructions, passes

PORT, LONGEST = 7948, 1600
GROUP_ADDRESS, HERE, PEER = "224.0.0.254", "192.0.2.11", "192.0.2.12"
ETHERNET = Ether(src="02:00:00:00:00:02", dst="02:00:00:00:00:01")
HEARTBEAT = IP(src=PEER, dst=HERE, ttl=255) / UDP(sport=PORT, dport=PORT) / b"heartbeat"
REFUSED = IP(src=HERE, dst=PEER, ttl=255) / UDP(sport=PORT, dport=PORT) / b"heartbeat"
UNREACHABLE = IP(src=PEER, dst=HERE) / ICMP(type=3, code=3)


def heartbeats(*own: str) -> Sequence[Instruction]:
    addresses = [WireAddress.of(AddressText(address)) for address in (*own, GROUP_ADDRESS)]
    return instructions(heartbeat_code(addresses, PORT, LONGEST))


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


def test_every_address_of_the_interface_hears() -> None:
    own = [f"10.{n % 7}.{n}.1" for n in range(200)]
    made = heartbeats(*own)
    for address in own:
        assert passes(made, bytes(ETHERNET / IP(dst=address) / UDP(dport=PORT) / b"x"))
        assert not passes(made, bytes(ETHERNET / IP(dst=address[:-1] + "2") / UDP(dport=PORT) / b"x"))


@given(frame=st.binary(max_size=80), packet_type=st.integers(0, 4))
def test_arbitrary_octets_are_no_heartbeat(frame: bytes, packet_type: int) -> None:
    if passes(heartbeats(HERE), frame, packet_type):
        assert frame[23] in {1, 17}
        assert frame[14] == 0x45


def test_more_addresses_than_a_small_program_can_tell_apart_all_hear() -> None:
    own = [f"10.{n % 200}.{n // 200}.1" for n in range(2000)]
    made = heartbeats(*own)
    assert len(made) < 1024
    for address in own:
        assert passes(made, bytes(ETHERNET / IP(dst=address) / UDP(dport=PORT) / b"x"))


def test_filter_of_nothing_passes_nothing() -> None:
    assert not passes(instructions(NOTHING), bytes(ETHERNET / HEARTBEAT), HOST)
