"""Neighbour Discovery's filter, responder and frames on a real (virtual) wire, with Linux as the client."""

from __future__ import annotations

import contextlib
import json
import select
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

import pytest

from cluster.objects import AddressText
from speaker.link import LinkName, Mac
from speaker.wire.addresses import WireAddress
from speaker.wire.ethernet import ETHERTYPE_IPV6
from speaker.wire.nd import frames
from speaker.wire.nd.filter import ANSWERS, NdFilter
from speaker.wire.nd.frames import READ_OCTETS, NeighbourAdvertisement, NeighbourSolicitation
from speaker.wire.nd.responder import NdResponder
from speaker.wire.sockets import PacketSocket
from tests.waiting import wait_until
from tests.wire.network import Wire, WireHost
from tests.wire.opened import as_speaker, mac_of, state_of

ETH0 = LinkName("eth0")
VIP, OTHER = (WireAddress.of(AddressText(text)) for text in ("2001:db8::200", "2001:db8::201"))
CLIENT = WireAddress.of(AddressText("2001:db8::2"))

pytestmark = pytest.mark.lab


def nd_socket(host: WireHost, code: bytes) -> PacketSocket:
    state = state_of(host)
    return as_speaker(host, lambda: PacketSocket(state.name, state.index, ETHERTYPE_IPV6, code))


@contextlib.contextmanager
def answering(host: WireHost, *held: WireAddress) -> Iterator[PacketSocket]:
    """A bare loop of socket and responder in a thread."""
    responder = NdResponder(ETH0, mac_of(host))
    for address in held:
        responder.hold(address)
    opened = nd_socket(host, responder.filter.code)
    done = threading.Event()

    def loop() -> None:
        while not done.is_set():
            if select.select([opened.socket], [], [], 0.05)[0]:
                verdict = responder.receive(opened.socket.recv(READ_OCTETS), 0.0)
                if isinstance(verdict, bytes):
                    opened.send(verdict)

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield opened
    finally:
        done.set()
        thread.join()
        opened.close()


def entry(host: WireHost, address: WireAddress) -> tuple[str | None, set[str]]:
    """The MAC and the state in the host's neighbour table."""
    entries = json.loads(host.run("ip", "-json", "-6", "neigh", "show", address.text) or "[]")
    found = entries[0] if entries else {}
    return found.get("lladdr"), set(found.get("state", []))


def test_client_resolves_confirms_and_may_not_take_a_held_address(wire: Wire) -> None:
    node, client = wire.host("node"), wire.host("client")
    wire.with_ipv6()
    with answering(node, VIP):
        assert client.resolve(VIP.text) == node.mac()
        assert entry(client, VIP) == (node.mac(), {"REACHABLE"}), "a solicited answer confirms"
        client.run("ip", "neigh", "change", VIP.text, "dev", "eth0", "lladdr", node.mac(), "nud", "probe")
        wait_until(lambda: entry(client, VIP) == (node.mac(), {"REACHABLE"}), 5, "asked alone, it did not confirm")
        client.run("ip", "address", "add", f"{VIP.text}/64", "dev", "eth0")
        client.run("ip", "address", "add", f"{OTHER.text}/64", "dev", "eth0")
        wait_until(lambda: flags_of(client, VIP) & {"dadfailed"}, 10, "the client took a held address")
        wait_until(lambda: not flags_of(client, OTHER) & {"tentative", "dadfailed"}, 10, "the other is free")


def flags_of(host: WireHost, address: WireAddress) -> set[str]:
    """What is said of an address of a host: ``tentative``, ``dadfailed``."""
    (link,) = json.loads(host.run("ip", "-json", "-6", "address", "show", "dev", "eth0"))
    return {
        flag
        for info in link["addr_info"]
        if info["local"] == address.text
        for flag in ("tentative", "dadfailed")
        if info.get(flag)
    }


STATES = ("reachable", "stale", "delay", "probe")


@pytest.mark.parametrize("state", STATES)
def test_unsolicited_advertisement_moves_every_entry_at_once(wire: Wire, stack: ExitStack, state: str) -> None:
    """Also one that was updated a moment ago; there is no locktime as ARP has it."""
    node, client = wire.host("node"), wire.host("client")
    wire.with_ipv6()
    sender = nd_socket(node, ANSWERS)
    stack.callback(sender.close)
    before = "02:00:00:00:00:99"
    client.run("ip", "neigh", "replace", VIP.text, "dev", "eth0", "lladdr", before, "nud", state)
    assert sender.send(frames.unsolicited(VIP, mac_of(node)).encode()) == 0
    wait_until(lambda: entry(client, VIP)[0] == node.mac(), 2, "the client goes on sending to the former MAC")


@pytest.mark.parametrize(
    ("override", "option"),
    [(False, True), (True, False)],
    ids=["without Override", "without the option"],
)
def test_linux_takes_no_other_mac_in_another_form_than_ours(
    wire: Wire, stack: ExitStack, override: bool, option: bool
) -> None:
    """It is followed by one of another address that Linux takes: what is judged then is not still under way."""
    node, client = wire.host("node"), wire.host("client")
    wire.with_ipv6()
    sender = nd_socket(node, ANSWERS)
    stack.callback(sender.close)
    before = "02:00:00:00:00:99"
    for address in (VIP, OTHER):
        client.run("ip", "neigh", "replace", address.text, "dev", "eth0", "lladdr", before, "nud", "stale")
    mac = mac_of(node)
    said = replace(frames.unsolicited(VIP, mac), override=override, target_mac=mac if option else None)
    for message in (said, frames.unsolicited(OTHER, mac)):
        assert sender.send(message.encode()) == 0
    wait_until(lambda: entry(client, OTHER)[0] == node.mac(), 2)
    assert entry(client, VIP)[0] == before


def test_kernel_passes_what_concerns_held_addresses_and_nothing_else(wire: Wire, stack: ExitStack) -> None:
    node, client = wire.host("node"), wire.host("client")
    wire.with_ipv6()
    held, answers = nd_socket(node, NdFilter([VIP]).code), nd_socket(node, ANSWERS)
    rival = nd_socket(client, ANSWERS)
    for opened in (held, answers, rival):
        stack.callback(opened.close)
    mac, own = mac_of(client), mac_of(node)
    answer = frames.answer_to(frames.solicit(OTHER, WireAddress.of(AddressText("2001:db8::1")), own), mac)
    wanted: list[NeighbourSolicitation | NeighbourAdvertisement] = [
        frames.solicit(VIP, CLIENT, mac),
        frames.solicit(VIP, CLIENT, mac, to=own),
        frames.probe(VIP, mac),
        frames.unsolicited(VIP, mac),
        frames.solicit(OTHER, VIP, mac),
    ]
    unwanted: list[NeighbourSolicitation | NeighbourAdvertisement] = [
        frames.solicit(OTHER, CLIENT, mac),
        replace(frames.solicit(VIP, CLIENT, mac), destination=replace_last(own)),
        frames.unsolicited(OTHER, mac),
        answer,
    ]
    for message in (*unwanted, *wanted):
        assert rival.send(message.encode()) == 0
    assert held.send(frames.unsolicited(VIP, own).encode()) == 0, "our own, which must not come back"
    assert collected(held, len(wanted)) == [message.encode() for message in wanted]
    assert answer.encode() in collected(answers, 1)


def replace_last(mac: Mac) -> Mac:
    return Mac(mac[:5] + bytes([mac[5] ^ 0x55]))


def collected(opened: PacketSocket, least: int) -> list[bytes]:
    """What a socket receives until it is so much."""
    heard: list[bytes] = []

    def enough() -> bool:
        while select.select([opened.socket], [], [], 0)[0]:
            heard.append(opened.socket.recv(READ_OCTETS))
        return len(heard) >= least

    wait_until(enough)
    return heard
