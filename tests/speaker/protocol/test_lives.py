"""Whose silence is proved, and is that of the node itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from cluster.times import LONG_AGO
from speaker.protocol.lives import unheard_nodes
from speaker.protocol.peers import Link, Sighting
from speaker.protocol.standing import Standing
from tests.speaker.protocol.company import ETH0, ETH1, B, C, Company

ALIVE, SUSPECT, DEAD = Standing


@pytest.mark.parametrize(
    ("on_eth0", "on_eth1", "unheard"),
    [
        (ALIVE, ALIVE, False),
        (SUSPECT, SUSPECT, False),
        (DEAD, SUSPECT, False),
        (DEAD, ALIVE, False),
        (DEAD, DEAD, True),
    ],
)
def test_a_node_is_unheard_when_it_is_dead_on_every_link(
    on_eth0: Standing, on_eth1: Standing, *, unheard: bool
) -> None:
    company = Company()
    company.link(ETH0), company.link(ETH1)
    company.peer(B, eth0=on_eth0, eth1=on_eth1)
    company.peer(C, eth0=ALIVE)
    assert unheard_nodes(company.roster) == ({B} if unheard else frozenset())


Change = Callable[[Link, Sighting], None]
NO_WITNESS: dict[str, Change] = {
    "its kernel refused a datagram": lambda _, sighting: setattr(sighting, "refused_at", 1.0),
    "it never was alive": lambda _, sighting: setattr(sighting, "life_at", LONG_AGO),
    "nobody is heard on the link": lambda link, _: setattr(link, "alone", True),
    "the link is down": lambda link, _: setattr(link, "state", replace(link.state, up=False)),
    "we cannot send on the link": lambda link, _: setattr(link, "mute", True),
}


@pytest.mark.parametrize("change", NO_WITNESS)
@pytest.mark.parametrize("dead_elsewhere", [False, True])
def test_a_link_that_tells_nothing_makes_nobody_unheard(change: str, *, dead_elsewhere: bool) -> None:
    company = Company()
    here = company.link(ETH0)
    company.link(ETH1)
    peer = company.peer(B, eth0=DEAD, **({"eth1": DEAD} if dead_elsewhere else {}))
    NO_WITNESS[change](here, peer.sightings[ETH0])
    refused = change == "its kernel refused a datagram"  # which tells that the node lives, wherever it is dead
    assert unheard_nodes(company.roster) == ({B} if dead_elsewhere and not refused else frozenset())


def test_a_refusal_of_before_its_last_sign_of_life_counts_no_more() -> None:
    company = Company()
    company.link(ETH0)
    peer = company.peer(B, eth0=DEAD)
    peer.sightings[ETH0].refused_at = 1.0
    peer.sightings[ETH0].life_at = 2.0
    assert unheard_nodes(company.roster) == {B}
