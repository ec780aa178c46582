"""What frames that are no heartbeats prove, and of whom."""

from __future__ import annotations

import pytest

from cluster.objects import AddressText
from speaker.link import Mac
from speaker.protocol.effects import NeighbourSeen
from speaker.protocol.peers import NEIGHBOURS
from speaker.protocol.standing import Standing
from speaker.protocol.witnesses import Witnesses
from tests.speaker.protocol.company import (
    ETH0,
    ETH1,
    GATEWAY,
    STRANGER_MAC,
    VIP,
    B,
    Company,
    address_of,
    link_local_of,
    mac_of,
)

ALIVE, SUSPECT, DEAD = Standing


@pytest.mark.parametrize(
    ("standing", "proves"),
    [(None, True), (ALIVE, True), (SUSPECT, False), (DEAD, False)],
)
def test_a_frame_proves_that_we_hear_unless_it_is_a_suspects_own(standing: Standing | None, proves: bool) -> None:
    company = Company()
    link = company.link(ETH0)
    link.alone = True
    if standing is not None:
        company.peer(B, eth0=standing)
    assert Witnesses(company.roster).frame(ETH0, mac_of(B), 5.0) is proves
    assert (link.frame_at == 5.0) is proves
    assert link.alone is not proves


@pytest.mark.parametrize(
    ("sender", "kept"), [(GATEWAY, "gateway"), (AddressText("10.0.0.7"), "neighbour"), (VIP, "neighbour")]
)
def test_an_arp_frame_shows_that_its_sender_is_there(sender: AddressText, kept: str) -> None:
    company = Company()
    link = company.link(ETH0, gateway=GATEWAY)
    Witnesses(company.roster).neighbour(NeighbourSeen(ETH0, sender, STRANGER_MAC, VIP, is_reply=False), 5.0)
    assert (link.gateway_at == 5.0) is (kept == "gateway")
    assert list(link.neighbours.items()) == ([(STRANGER_MAC, (sender, 5.0))] if kept == "neighbour" else [])


@pytest.mark.parametrize(("standing", "look"), [(ALIVE, False), (SUSPECT, True), (DEAD, False)])
def test_suspicions_are_judged_anew_for_a_neighbour_only_while_there_are_any(standing: Standing, look: bool) -> None:
    company = Company()
    company.link(ETH0)
    company.peer(B, eth0=standing)
    seen = NeighbourSeen(ETH0, AddressText("10.0.0.7"), STRANGER_MAC, VIP, is_reply=False)
    assert Witnesses(company.roster).neighbour(seen, 5.0) is look


def test_the_latest_neighbours_are_remembered() -> None:
    company = Company()
    link = company.link(ETH0)
    witnesses = Witnesses(company.roster)
    for number in range(3 * NEIGHBOURS):
        sender = AddressText(f"10.0.1.{number}")
        witnesses.neighbour(
            NeighbourSeen(ETH0, sender, Mac(bytes((2, 0, 0, 0, 1, number))), VIP, is_reply=False), float(number)
        )
    assert [at for _, at in link.neighbours.values()] == [float(n) for n in range(2 * NEIGHBOURS, 3 * NEIGHBOURS)]


@pytest.mark.parametrize(
    ("standing", "on", "to", "counts"),
    [
        (SUSPECT, ETH0, address_of(B), True),
        (SUSPECT, ETH0, link_local_of(B), True),
        (SUSPECT, ETH1, address_of(B), False),
        (SUSPECT, ETH0, GATEWAY, False),
        (ALIVE, ETH0, address_of(B), False),
    ],
)
def test_a_refusal_counts_against_the_suspect_that_was_asked(
    standing: Standing, on: str, to: AddressText, counts: bool
) -> None:
    company = Company()
    sighting = company.peer(B, eth0=standing).sightings[ETH0]
    assert Witnesses(company.roster).refused(ETH0 if on == ETH0 else ETH1, to, 5.0) is counts
    assert (sighting.refused_at == 5.0) is counts


NONCE = b"12345678"


@pytest.mark.parametrize(
    ("standing", "mac", "sender", "proof", "counts"),
    [
        (SUSPECT, mac_of(B), VIP, NONCE, True),
        (SUSPECT, mac_of(B), VIP, b"another", False),
        (SUSPECT, mac_of(B), VIP, b"", False),
        (SUSPECT, mac_of(B), GATEWAY, NONCE, False),
        (SUSPECT, STRANGER_MAC, VIP, NONCE, False),
        (ALIVE, mac_of(B), VIP, NONCE, False),
        (DEAD, mac_of(B), VIP, NONCE, False),
    ],
)
def test_a_proof_of_service_counts_for_a_suspect_that_was_asked(
    standing: Standing, mac: Mac, sender: AddressText, proof: bytes, counts: bool
) -> None:
    """The proof that a question is to get is, here, its nonce."""
    company = Company()
    sighting = company.peer(B, eth0=standing).sightings[ETH0]
    if sighting.suspicion is not None:
        sighting.suspicion.nonces[NONCE] = VIP
    seen = NeighbourSeen(ETH0, sender, mac, VIP, is_reply=True, proof=proof)
    assert Witnesses(company.roster).proved(seen, B, lambda nonce: nonce == seen.proof, 5.0) is counts
    assert (sighting.suspicion is not None and sighting.suspicion.served_at == 5.0) is counts
