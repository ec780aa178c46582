"""A peer's standing on a link: every sign in every standing, and what a standing means to those who ask."""

from __future__ import annotations

import itertools

import pytest

from cluster.addresses import Family
from speaker.link import LinkName
from speaker.protocol import standing
from speaker.protocol.peers import LinkFamily, Peer
from speaker.protocol.roster import Roster
from speaker.protocol.standing import TRANSITIONS, Sign, Standing, Upshot
from tests.speaker.protocol.company import ETH0, ETH1, VIP, B, Company
from tests.speaker.protocol.tables import table_of

ALIVE, SUSPECTED, DEAD = Standing


def roster_with(**standings: Standing) -> tuple[Roster, Peer]:
    """One peer, and what it is on which links; it claims an address."""
    company = Company()
    peer = company.peer(B, **standings)
    company.claims(peer)
    return company.roster, peer


def test_the_table_says_what_the_docstring_says() -> None:
    said = {
        (before.value, sign.value): (after.value, frozenset(str(each.name).lower() for each in upshot))
        for (before, sign), (after, upshot) in TRANSITIONS.items()
    }
    assert said == table_of(standing)
    assert set(TRANSITIONS) == set(itertools.product(Standing, Sign))


@pytest.mark.parametrize(("before", "sign"), TRANSITIONS)
def test_whoever_is_a_suspect_has_a_suspicion_and_nobody_else(before: Standing, sign: Sign) -> None:
    roster, peer = roster_with(eth0=before)
    roster.change_standing(peer, ETH0, sign, "why", 1.0)
    sighting = peer.sightings[ETH0]
    assert (sighting.standing is SUSPECTED) == (sighting.suspicion is not None) == (peer.session in roster.suspects)


@pytest.mark.parametrize(("before", "sign"), TRANSITIONS)
def test_what_changes_a_standing_is_news_and_nothing_else_is(before: Standing, sign: Sign) -> None:
    roster, peer = roster_with(eth0=before)
    news = roster.change_standing(peer, ETH0, sign, "why", 1.0)
    changes = peer.sightings[ETH0].standing is not before
    assert news.changed is changes
    weighs = {before, peer.sightings[ETH0].standing} & {DEAD} and changes
    assert news.claims == ({VIP: "why"} if weighs else {})


@pytest.mark.parametrize(
    ("standings", "on", "hears"),
    [
        ({"eth0": ALIVE}, ETH0, True),
        ({"eth0": SUSPECTED}, ETH0, True),
        ({"eth0": DEAD}, ETH0, False),
        ({"eth0": ALIVE}, ETH1, False),
        ({"eth0": DEAD, "eth1": ALIVE}, ETH0, False),
        ({"eth0": DEAD, "eth1": ALIVE}, ETH1, True),
    ],
)
def test_a_suspect_is_alive_until_it_is_proved_dead_on_that_link(
    standings: dict[str, Standing], on: LinkName, hears: bool
) -> None:
    roster, _ = roster_with(**standings)
    assert roster.lives(B, [LinkFamily(on, Family.IPV4)]) is hears
    assert roster.lives(B, [LinkFamily(on, Family.IPV6)]) is False


def test_a_peer_that_is_cleared_on_one_link_stays_a_suspect_for_the_other() -> None:
    roster, peer = roster_with(eth0=SUSPECTED, eth1=SUSPECTED)
    roster.change_standing(peer, ETH0, Sign.LIFE, "", 1.0)
    assert roster.suspects == {peer.session: peer}
    roster.change_standing(peer, ETH1, Sign.PROOF, "", 1.0)
    assert not roster.suspects
    assert [sighting.standing for sighting in peer.sightings.values()] == [ALIVE, DEAD]


def test_no_upshot_is_left_out() -> None:
    assert {each for _, upshot in TRANSITIONS.values() for each in upshot} == set(Upshot)
