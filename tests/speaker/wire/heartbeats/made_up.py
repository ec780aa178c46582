"""Datagrams in frames, as hypothesis makes them up, and the two ends of the example; the same for both families."""

from __future__ import annotations

from hypothesis import strategies as st

from speaker.link import Mac
from speaker.wire.addresses import WireAddress
from speaker.wire.heartbeats.encapsulation import UdpFrame

OWN, PEER = Mac(bytes.fromhex("020000000001")), Mac(bytes.fromhex("020000000002"))

_macs = st.binary(min_size=6, max_size=6).map(Mac)
_ports = st.integers(0, 0xFFFF)


def udp_frames(address_octets: int) -> st.SearchStrategy[UdpFrame]:
    """With addresses of so many octets."""
    addresses = st.binary(min_size=address_octets, max_size=address_octets).map(WireAddress)
    return st.builds(
        UdpFrame,
        to_mac=_macs,
        mac=_macs,
        to=addresses,
        source=addresses,
        to_port=_ports,
        port=_ports,
        hops=st.integers(0, 255),
        data=st.binary(max_size=1500),
    )
