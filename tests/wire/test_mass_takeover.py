"""Thousands of addresses at once, on a real (virtual) wire: taking them over is no reason to be taken for dead."""

from __future__ import annotations

import select
import signal
import socket
from collections.abc import Iterable
from contextlib import ExitStack

import pytest

from cluster.objects import AddressText, NodeName
from speaker.plan import Bundle, BundleId, Candidate
from speaker.wire.addresses import WireAddress
from speaker.wire.arp.frames import ETHERTYPE_ARP
from tests.arp_frames import request
from tests.waiting import wait_until
from tests.wire.network import Wire, WireHost
from tests.wire.opened import mac_of
from tests.wire.speakers import Speaker

pytestmark = pytest.mark.lab

PATIENCE_S = 60.0
ADDRESSES = [AddressText(f"10.7.{n >> 8}.{n & 255}") for n in range(2000)]


def bundles() -> list[Bundle]:
    """Each address prefers node-1, and then node-2 and node-3 in turns."""
    made = []
    for number, address in enumerate(ADDRESSES):
        then = ("node-2", "node-3") if number % 2 else ("node-3", "node-2")
        candidates = (Candidate(NodeName("node-1"), 0, 0), *(Candidate(NodeName(node), 1, 0) for node in then))
        made.append(Bundle(BundleId(f"{number:06}"), (address,), (f"test/{number}",), candidates))
    return made


class AnswersSeen:
    """Who answers for which address, asked by a client until everybody has."""

    def __init__(self, client: WireHost, addresses: Iterable[AddressText]) -> None:
        mac = mac_of(client)
        asker = AddressText("192.0.2.4")
        self._questions: dict[bytes, bytes] = {
            WireAddress.of(each): request(each, asker, mac).encode() for each in addresses
        }
        self._socket = client.call(_arp_socket)
        self.macs: dict[bytes, set[str]] = {octets: set() for octets in self._questions}

    def complete(self) -> bool:
        """Ask for what was not answered yet; whether all is."""
        for octets in [octets for octets, macs in self.macs.items() if not macs][:200]:
            self._socket.send(self._questions[octets])
        self.listen()
        return all(self.macs.values())

    def listen(self) -> None:
        while select.select([self._socket], [], [], 0.05)[0]:
            frame = self._socket.recv(64)
            if frame[20:22] == b"\0\2" and frame[28:32] in self.macs:
                self.macs[frame[28:32]].add(frame[22:28].hex(":"))

    def close(self) -> None:
        self._socket.close()


def _arp_socket() -> socket.socket:
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    opened.bind(("eth0", ETHERTYPE_ARP))
    return opened


def answering(speaker: Speaker) -> set[AddressText]:
    claims = dict(speaker.claims)
    return {address for address, holding in claims.items() if holding.links}


def test_two_thousand_addresses_move_and_nobody_who_lives_is_taken_for_dead(wire: Wire, stack: ExitStack) -> None:
    speakers = []
    for host in [wire.host(name) for name in ("node-1", "node-2", "node-3")]:
        speakers.append(Speaker(host))
        stack.callback(speakers[-1].end)
    first, *others = speakers
    client = wire.host("client")
    first.plan(1, *bundles())  # alone: on a busy machine others would take what it does not claim in its turn
    wait_until(lambda: answering(first) == set(ADDRESSES), PATIENCE_S, "node-1 does not hold everything")
    for other in others:
        other.plan(1, *bundles())
    wait_until(lambda: all(other.ready for other in others), PATIENCE_S, "the others are not ready")
    wire.cable(first.host, "down")
    first.signal(signal.SIGKILL)

    def all_moved() -> bool:
        held = [answering(speaker) for speaker in others]
        return not held[0] & held[1] and held[0] | held[1] == set(ADDRESSES)

    wait_until(all_moved, PATIENCE_S, "not every address has one holder again")
    answers = AnswersSeen(client, ADDRESSES)
    stack.callback(answers.close)
    wait_until(answers.complete, PATIENCE_S, "not every address is answered")
    for speaker in others:
        for address in answering(speaker):
            assert answers.macs[WireAddress.of(address)] == {speaker.host.mac()}, "who claims it answers, and no other"
        dead = {decision.fields["node"] for decision in speaker.decisions if decision.reason == "PeerDead"}
        assert dead == {"node-1"}
