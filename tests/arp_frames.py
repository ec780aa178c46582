"""ARP frames as tests write them: with addresses as texts."""

from __future__ import annotations

from cluster.objects import AddressText
from speaker.link import Mac
from speaker.wire.addresses import WireAddress
from speaker.wire.arp import frames
from speaker.wire.arp.frames import ArpFrame, Operation
from speaker.wire.ethernet import BROADCAST


def on_wire(text: str) -> WireAddress:
    return WireAddress.of(AddressText(text))


def request(target: AddressText, sender: AddressText, mac: Mac, to: Mac = BROADCAST, nonce: bytes = b"") -> ArpFrame:
    return frames.request(on_wire(target), on_wire(sender), mac, to, nonce)


def gratuitous(operation: Operation, address: AddressText, mac: Mac) -> ArpFrame:
    return frames.gratuitous(operation, on_wire(address), mac)
