"""What the tables answer about peers and links."""

from __future__ import annotations

import pytest

from cluster.addresses import Family
from cluster.objects import AddressText
from cluster.times import LONG_AGO
from speaker.link import LinkName
from speaker.protocol.claims import Claim
from speaker.protocol.fencing import Fence
from speaker.protocol.heartbeat import BY_GROUP, RETURNED, SUSPECTED
from speaker.protocol.peers import LinkFamily
from speaker.protocol.standing import Standing
from tests.speaker.protocol.company import ETH0, ETH1, VIP, B, C, Company, address_of, link_local_of, mac_of

ALIVE, SUSPECT, DEAD = Standing
BOTH, IPV4 = frozenset(Family), frozenset({Family.IPV4})
VIP6 = AddressText("2001:db8::9:1")


@pytest.mark.parametrize(
    ("standing", "able_since", "starting", "named", "counts_starting", "able"),
    [
        (ALIVE, 3.0, False, (), False, 3.0),
        (ALIVE, 3.0, False, (ETH0,), False, 3.0),
        (ALIVE, 3.0, False, (ETH1,), False, None),  # it is there by another of its interfaces
        (SUSPECT, 3.0, False, (), False, None),
        (DEAD, 3.0, False, (), False, None),
        (ALIVE, None, True, (), False, None),
        (ALIVE, None, True, (), True, 0.0),
        (ALIVE, None, False, (), True, None),
    ],
)
def test_able_is_who_lives_and_says_so(
    *,
    standing: Standing,
    able_since: float | None,
    starting: bool,
    named: tuple[LinkName, ...],
    counts_starting: bool,
    able: float | None,
) -> None:
    company = Company()
    sighting = company.peer(B, eth0=standing).sightings[ETH0]
    sighting.able_since, sighting.starting = able_since, starting
    assert company.roster.able_since(B, [LinkFamily(ETH0, Family.IPV4)], named, counts_starting) == able
    assert company.roster.able_since(B, [LinkFamily(ETH1, Family.IPV4)], named, counts_starting) is None
    assert company.roster.able_since(B, [LinkFamily(ETH0, Family.IPV6)], named, counts_starting) is None
    sighting.families = BOTH
    assert company.roster.able_since(B, [LinkFamily(ETH0, Family.IPV6)], named, counts_starting) == able


@pytest.mark.parametrize(
    ("address", "families", "links", "by", "counts"),
    [
        (VIP, IPV4, (), ETH0, True),
        (VIP6, IPV4, (), ETH0, False),
        (VIP6, BOTH, (), ETH0, True),
        (VIP, BOTH - IPV4, (), ETH0, False),
        (VIP, IPV4, (ETH0, ETH1), ETH1, True),
        (VIP, IPV4, (ETH1,), ETH0, False),  # the claim is for other links of its node
    ],
)
def test_a_claim_counts_where_its_node_can_answer(
    *,
    address: AddressText,
    families: frozenset[Family],
    links: tuple[LinkName, ...],
    by: LinkName,
    counts: bool,
) -> None:
    company = Company()
    peer = company.peer(B, eth0=DEAD)
    claim = peer.mirror.claims[address] = Claim(2, 0, links)
    peer.sightings[ETH0].families, peer.sightings[ETH0].link = families, by
    assert company.roster.claim_on(peer, address, ETH0) == (claim if counts else None)
    assert company.roster.claim_on(peer, address, ETH1) is None


@pytest.mark.parametrize(
    ("up", "mute", "fence", "listening_until", "unproven", "may_claim"),
    [
        (True, False, Fence.OPEN, LONG_AGO, False, True),
        (True, False, Fence.QUIET, LONG_AGO, False, True),
        (True, False, Fence.OPEN, 1.0, False, True),
        (False, False, Fence.OPEN, LONG_AGO, False, False),
        (True, True, Fence.OPEN, LONG_AGO, False, False),
        (True, False, Fence.STALLED, LONG_AGO, False, False),
        (True, False, Fence.NEW, LONG_AGO, False, False),
        (True, False, Fence.OPEN, 1.1, False, False),
        (True, False, Fence.OPEN, LONG_AGO, True, False),
    ],
)
def test_something_new_is_claimed_only_where_nothing_speaks_against_it(
    *, up: bool, mute: bool, fence: Fence, listening_until: float, unproven: bool, may_claim: bool
) -> None:
    company = Company()
    link = company.link(ETH0, up=up)
    link.mute, link.unproven = mute, unproven
    link.fencing.state, link.fencing.listening_until = fence, listening_until
    assert company.roster.may_claim(ETH0, 1.0) is may_claim
    assert company.roster.judges(ETH0) is (up and not mute)
    assert not company.roster.may_claim(ETH1, 1.0)


@pytest.mark.parametrize(
    ("heard", "since", "expected"),
    [
        ("gateway_at", 0.9, True),
        ("gateway_at", 1.0, False),
        ("frame_at", 0.9, True),
        ("frame_at", 1.0, False),
        ("neighbour", 0.9, True),
        ("peer", 0.9, True),
        ("peer", 1.0, False),
        ("", LONG_AGO, False),
    ],
)
def test_a_third_party_is_anybody_who_was_heard_since(heard: str, since: float, expected: bool) -> None:
    company = Company()
    link = company.link(ETH0)
    if heard == "peer":
        company.peer(B, eth0=DEAD).sightings[ETH0].heard_at = 1.0
    elif heard == "neighbour":
        link.neighbours[mac_of(C)] = (address_of(C), 1.0)
    elif heard:
        setattr(link, heard, 1.0)
    assert company.roster.third_party_since(ETH0, since) is expected


@pytest.mark.parametrize(
    ("standing", "by_group_at", "returned_at", "said"),
    [
        (ALIVE, LONG_AGO, LONG_AGO, 0),
        (ALIVE, 0.0, LONG_AGO, BY_GROUP),
        (ALIVE, 0.0, 0.0, BY_GROUP | RETURNED),
        (SUSPECT, LONG_AGO, LONG_AGO, SUSPECTED),
        (DEAD, 0.0, 0.0, None),
    ],
)
def test_a_heartbeat_says_how_each_peer_is_heard(
    standing: Standing, by_group_at: float, returned_at: float, said: int | None
) -> None:
    company = Company()
    company.link(ETH0)
    peer = company.peer(B, eth0=standing)
    peer.sightings[ETH0].by_group_at, peer.sightings[ETH0].returned_at = by_group_at, returned_at
    assert company.roster.heard(ETH0, 0.2) == ([] if said is None else [(peer.session, 200 | said)])


@pytest.mark.parametrize(("hears_group_at", "deaf"), [(1.0, False), (0.0, True)])
def test_whom_the_group_does_not_reach_is_spoken_to_alone(hears_group_at: float, deaf: bool) -> None:
    company = Company()
    sighting = company.peer(B, eth0=ALIVE).sightings[ETH0]
    sighting.hears_group_at = hears_group_at
    contacts = [(address, mac_of(B)) for address in (address_of(B), link_local_of(B))]
    assert company.roster.deaf_to_us(ETH0, 1.0, interval=0.1) == (contacts if deaf else [])


@pytest.mark.parametrize(
    ("standing", "behind_since", "doubted", "asks"),
    [
        (ALIVE, None, False, False),
        (ALIVE, 0.9, False, True),
        (ALIVE, 0.99, False, False),  # the step may be on its way
        (ALIVE, 0.99, True, True),  # answers wait for it
        (DEAD, 0.9, False, False),
    ],
)
def test_claims_that_are_lacking_are_asked_for(
    standing: Standing, behind_since: float | None, doubted: bool, asks: bool
) -> None:
    company = Company()
    link, peer = company.link(ETH0), company.peer(B, eth0=standing)
    peer.behind_since = behind_since
    if doubted:
        link.fencing.doubt(peer.session, 0.99)
    assert company.roster.to_ask(1.0) == ([peer] if asks else [])


def test_whoever_claims_is_known_by_the_address_until_the_last_one_claims_no_more() -> None:
    company = Company()
    roster, peers = company.roster, [company.peer(node) for node in (B, C)]
    for peer in peers:
        company.claims(peer)
    for peer, left in zip(peers, ([C], []), strict=True):
        peer.mirror.clear()
        roster.note_claimant(VIP, peer.node)
        assert list(roster.claimants.get(VIP, ())) == left
