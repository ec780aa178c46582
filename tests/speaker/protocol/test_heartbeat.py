"""How addresses travel in messages. What is made of whole ones, ``test_datagram`` tries."""

from __future__ import annotations

import pytest

from cluster.objects import AddressText
from speaker.protocol.heartbeat import pack_address, unpack_address


@pytest.mark.parametrize("address", ["192.0.2.7", "2001:db8::7"])
def test_addresses_travel_packed(address: str) -> None:
    assert unpack_address(pack_address(AddressText(address))) == address
