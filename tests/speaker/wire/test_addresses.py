"""Addresses between their texts and the octets of frames, in both families."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.addresses import Family
from speaker.wire.addresses import OwnAddress, WireAddress, nearest
from tests.arp_frames import on_wire

octets = st.one_of(st.binary(min_size=4, max_size=4), st.binary(min_size=16, max_size=16))


@given(octets=octets)
def test_address_and_text_are_each_others_and_name_the_family(octets: bytes) -> None:
    address = WireAddress(octets)
    known = ipaddress.ip_address(octets)
    assert address.text == str(known)
    assert WireAddress.of(address.text) == address
    assert address.family is Family(known.version)
    assert address.number == int(known)


@given(octets=octets)
def test_address_finds_what_is_kept_under_the_octets_of_a_frame(octets: bytes) -> None:
    table: dict[bytes, str] = {WireAddress(octets): "held"}
    assert table[octets] == "held"


@pytest.mark.parametrize(
    "text", ["192.0.2", "192.0.2.256", "192.0.2.x", "192.0.2.1.5", "", "-1.0.0.0", "2001:db8::x", "1:2:3"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        on_wire(text)


@given(own=octets, other=octets, data=st.data())
def test_subnet_is_the_standard_librarys(own: bytes, other: bytes, data: st.DataObject) -> None:
    length = data.draw(st.integers(0, 8 * len(own)))
    interface = ipaddress.ip_interface((own, length))
    mine = OwnAddress.of(str(interface))
    assert mine == OwnAddress(WireAddress(own), length)
    assert mine.text == str(interface)
    assert mine.connects(WireAddress(other)) == (ipaddress.ip_address(other) in interface.network)


def test_nearest_is_on_the_others_subnet_or_else_the_first() -> None:
    own = [OwnAddress.of(prefix) for prefix in ("192.0.2.11/24", "198.51.100.11/24", "2001:db8::11/64")]
    assert nearest(own, on_wire("198.51.100.7")) == on_wire("198.51.100.11")
    assert nearest(own, on_wire("2001:db8::7")) == on_wire("2001:db8::11")
    assert nearest(own, on_wire("203.0.113.7")) == on_wire("192.0.2.11")
