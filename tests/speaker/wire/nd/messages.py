"""Frames of Neighbour Discovery for the tests of what reads them."""

from __future__ import annotations

from hypothesis import strategies as st

from cluster.objects import AddressText
from speaker.link import Mac
from speaker.wire.addresses import WireAddress
from speaker.wire.nd import frames
from speaker.wire.nd.frames import NeighbourAdvertisement, NeighbourSolicitation


def address(text: str) -> WireAddress:
    return WireAddress.of(AddressText(text))


OWN = Mac(bytes.fromhex("020000000001"))
SECOND = Mac(bytes.fromhex("020000000002"))
CLIENT = Mac(bytes.fromhex("0200000000aa"))
VIP, OTHER, ASKER = address("2001:db8::200"), address("2001:db8::201"), address("2001:db8::50")
OWN_ADDRESS = address("fe80::1")
NONCE, PROOF = b"a nonce!", b"twelveoctets"

macs = st.binary(min_size=6, max_size=6).map(Mac)
octets = st.one_of(
    st.binary(min_size=16, max_size=16),
    st.binary(min_size=1, max_size=2).map(lambda tail: bytes.fromhex("20010db8").ljust(16 - len(tail), b"\0") + tail),
)
hosts = octets.filter(lambda host: host[0] not in {0, 0xFF}).map(WireAddress)
"""Addresses that a host may have."""


def questions(targets: st.SearchStrategy[WireAddress] = hosts) -> st.SearchStrategy[NeighbourSolicitation]:
    """Solicitations of every kind that RFC 4861 and 4862 know."""
    nonces = st.one_of(st.just(b""), st.binary(min_size=8, max_size=8))
    asked = st.builds(frames.solicit, targets, hosts, macs, st.one_of(st.none(), macs), nonces)
    without_option = st.builds(
        lambda target, sender, mac, to: NeighbourSolicitation(to, mac, sender, target, target),
        targets,
        hosts,
        macs,
        macs,
    )
    return st.one_of(asked, without_option, st.builds(frames.probe, targets, macs))


def advertisements(targets: st.SearchStrategy[WireAddress] = hosts) -> st.SearchStrategy[NeighbourAdvertisement]:
    """Advertisements of every kind, whether or not a host would send them."""
    proofs = st.one_of(st.just(b""), st.binary(min_size=12, max_size=12))
    return st.builds(
        NeighbourAdvertisement, macs, macs, hosts, hosts, targets, st.one_of(st.none(), macs),
        st.booleans(), st.booleans(), st.booleans(), proofs,
    )  # fmt: skip


def resummed(frame: bytes | bytearray) -> bytes:
    """The frame with the checksum and the length that belong to what is in it."""
    made = bytearray(frame)
    made[18:20] = (len(made) - 54).to_bytes(2, "big")
    made[56:58] = bytes(2)
    made[56:58] = frames.checksum(bytes(made[22:])).to_bytes(2, "big")
    return bytes(made)
