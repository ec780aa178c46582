"""Who should be heard by the directory, and is not: whom of them to ask, how often, and what a start waits for."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from cluster.objects import AddressText, NodeName
from speaker.directory import MAX_LISTED, DirectoryChange, ListedLink, ListedSpeaker
from speaker.link import LinkName, Mac
from speaker.protocol.effects import AskAddress, NeighbourSeen
from speaker.protocol.expected import AT_ONCE, FIRST_S, START_BOUND_S, Expected
from speaker.protocol.standing import Standing
from tests.speaker.protocol.company import ETH0, ETH1, B, C, Company, address_of, mac_of

OWN = "10.0.0.97/24"


def listed(node: NodeName, *addresses: str, mac: bytes | None = None, fresh: bool = True) -> ListedSpeaker:
    places = addresses or (f"{address_of(node)}/24",)
    return ListedSpeaker(node, (ListedLink(LinkName("ens3"), mac_of(node) if mac is None else mac, places),), fresh)


class Waiting:
    """Node ``a`` with one link, or several, and who is expected there."""

    def __init__(self, *links: tuple[LinkName, str], speakers: tuple[ListedSpeaker, ...] = ()) -> None:
        self.company = Company()
        for name, prefix in links or ((ETH0, OWN),):
            self.company.link(name, prefix)
        self.expected = Expected(self.company.roster)
        if speakers:
            self.expected.change(DirectoryChange(speakers, whole=True), 0.0)

    def asked(self, until: float, link: LinkName = ETH0, *, since: float = 0.0) -> dict[AddressText, list[float]]:
        """Who is written to with the heartbeats of a link, ten a second, and when."""
        found: dict[AddressText, list[float]] = {}
        for beat in range(round(since * 10), round(until * 10)):
            now = beat / 10
            self.expected.review(now)
            for address, _ in self.expected.due(link, now):
                found.setdefault(address, []).append(now)
        return found


def test_one_that_is_missing_is_written_to_twice_and_then_ever_more_seldom() -> None:
    waiting = Waiting(speakers=(listed(B),))
    times = waiting.asked(20.0)[address_of(B)]
    assert times[0] >= FIRST_S, "who hears the group needs nothing else"
    gaps = [later - before for before, later in itertools.pairwise(times)]
    assert gaps == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, *[2.0] * (len(gaps) - 5)], abs=0.11), "within a heartbeat"


def test_one_whose_lease_is_not_renewed_is_written_to_each_half_minute() -> None:
    waiting = Waiting(speakers=(listed(B, fresh=False),))
    assert len(waiting.asked(600.0, since=100.0)[address_of(B)]) <= 17 + 9


def test_nobody_who_is_heard_is_written_to() -> None:
    waiting = Waiting(speakers=(listed(B), listed(C)))
    waiting.company.peer(B, eth0=Standing.ALIVE)
    waiting.company.peer(C, eth0=Standing.SUSPECTED)
    assert waiting.asked(2.9) == {}
    waiting.company.roster.peers[B].sightings[ETH0].standing = Standing.DEAD
    waiting.company.peer(C, eth0=Standing.ALIVE)
    assert waiting.asked(8.0, since=5.0).keys() == {address_of(B)}


EXPECTED_ON = [
    (((ETH0, OWN),), ("10.0.0.98/24",), {ETH0}),
    (((ETH0, OWN),), ("10.0.0.98/16",), {ETH0}),
    (((ETH0, OWN),), ("10.0.1.98/24",), set()),
    (((ETH0, OWN), (ETH1, "10.1.0.97/24")), ("10.1.0.98/24",), {ETH1}),
    (((ETH0, OWN),), ("10.0.0.97/24",), set()),
    (((ETH0, OWN),), ("fd00::98/64",), set()),
]


@pytest.mark.parametrize(
    ("links", "addresses", "expected"),
    EXPECTED_ON,
    ids=["same subnet", "other length", "another subnet", "the second link", "our own address", "another family"],
)
def test_on_which_link_a_speaker_is_expected(
    links: tuple[tuple[LinkName, str], ...], addresses: tuple[str, ...], expected: set[LinkName]
) -> None:
    waiting = Waiting(*links, speakers=(listed(B, *addresses),))
    assert {name for name, _ in links if waiting.asked(2.0, name)} == expected


def test_where_no_mac_is_known_it_is_asked_for() -> None:
    waiting = Waiting(speakers=(listed(B, mac=b"", fresh=False),))
    assert waiting.asked(1.0) == {}
    assert AskAddress(ETH0, address_of(B)) in waiting.company.effects
    waiting.expected.learn(NeighbourSeen(ETH0, address_of(B), mac_of(B), AddressText("10.0.0.97"), True))
    assert waiting.expected.due(ETH0, 60.0) == [(address_of(B), mac_of(B))]


def test_a_hundred_that_are_missing_are_written_to_in_turn_a_few_at_once() -> None:
    names = [NodeName(f"node-{i}") for i in range(100)]
    speakers = tuple(listed(name, f"10.0.0.{i + 100}/24", mac=bytes(6)) for i, name in enumerate(names))
    waiting = Waiting(speakers=speakers)
    found = [waiting.expected.due(ETH0, 10 + beat / 10) for beat in range(100)]
    assert max(map(len, found)) <= AT_ONCE
    assert len({address for beat in found[:7] for address, _ in beat}) == 100
    assert sum(map(len, found[50:])) <= 5 * 100, "each about twice a second by then"


def test_the_directory_is_bounded() -> None:
    many = tuple(
        listed(NodeName(f"node-{i}"), f"10.0.{i // 200}.{i % 200}/16", mac=bytes(6)) for i in range(MAX_LISTED + 100)
    )
    waiting = Waiting((ETH0, "10.0.250.1/16"), speakers=many)
    assert len(waiting.asked(30.0)) == MAX_LISTED


def test_who_left_the_directory_is_expected_no_more() -> None:
    waiting = Waiting(speakers=(listed(B), listed(C)))
    waiting.expected.change(DirectoryChange(removed=(B,)), 1.0)
    assert waiting.asked(5.0, since=1.0).keys() == {address_of(C)}
    waiting.expected.change(DirectoryChange((listed(B),), whole=True), 5.0)
    assert waiting.asked(9.0, since=5.0).keys() == {address_of(B)}, "all that a new watcher knows"


def test_a_link_that_comes_or_goes_is_asked_on_or_no_more() -> None:
    waiting = Waiting((ETH0, OWN), speakers=(listed(B),))
    waiting.company.link(ETH0, OWN, up=False)
    waiting.expected.links_changed(1.0)
    assert waiting.asked(3.0, since=1.0) == {}
    waiting.company.link(ETH0, OWN)
    waiting.expected.links_changed(3.0)
    assert waiting.asked(5.0, since=3.0).keys() == {address_of(B)}


def test_a_start_waits_for_answers_of_those_whose_leases_are_fresh_and_not_for_ever() -> None:
    waiting = Waiting(speakers=(listed(B), listed(C, fresh=False)))
    assert waiting.expected.awaited(0.5), "not written to yet"
    waiting.asked(0.5)
    assert not waiting.expected.awaited(0.5), "written to twice, and no answer"
    waiting = Waiting(speakers=(listed(B),))
    assert waiting.expected.awaited(START_BOUND_S - 0.1)
    assert not waiting.expected.awaited(START_BOUND_S), "nothing could be sent"
    waiting = Waiting(speakers=(listed(B),))
    waiting.company.peer(B, eth0=Standing.ALIVE)
    assert not waiting.expected.awaited(0.1), "heard"
    assert not Waiting().expected.awaited(0.1), "there is no directory"


def test_the_directory_knows_whose_a_mac_is() -> None:
    waiting = Waiting(speakers=(listed(B),))
    assert waiting.expected.whose(mac_of(B)) == B
    assert waiting.expected.whose(Mac(b"\2\0\0\0\0\1")) is None


def blocked_at(waiting: Waiting, now: float) -> frozenset[NodeName]:
    waiting.asked(now, since=max(now - 1.5, 0.0))
    waiting.expected.review(now, at_once=True)
    return waiting.company.roster.links[ETH0].blocked


def renewed(waiting: Waiting, now: float, *nodes: NodeName) -> None:
    waiting.expected.change(DirectoryChange(renewed=nodes), now)


def test_one_that_was_never_heard_is_blocked_once_it_was_asked_in_vain_until_its_lease_is_stale() -> None:
    waiting = Waiting(speakers=(listed(B), listed(C, fresh=False)))
    assert blocked_at(waiting, 0.3) == set()
    assert blocked_at(waiting, 0.6) == {B}
    assert waiting.expected.proved() == {}, "it may be a node that is down"
    renewed(waiting, 8.0, B)
    assert blocked_at(waiting, 8.0) == {B}
    assert waiting.expected.proved() == {ETH0: (B,)}
    waiting.expected.change(DirectoryChange((listed(B, fresh=False),)), 60.0)
    assert blocked_at(waiting, 60.0) == set()
    assert waiting.company.decisions() == ["RecordDecides", "WireDecides"]


def test_one_that_died_or_restarts_is_not_blocked_until_its_lease_is_renewed_much_later_and_it_is_not_heard() -> None:
    waiting = Waiting(speakers=(listed(B),))
    peer = waiting.company.peer(B, eth0=Standing.ALIVE)
    assert blocked_at(waiting, 10.0) == set()
    peer.sightings[ETH0].standing = Standing.DEAD
    renewed(waiting, 12.0, B)
    assert blocked_at(waiting, 25.0) == set(), "what was renewed as it died"
    renewed(waiting, 30.0, B)
    assert blocked_at(waiting, 31.0) == set(), "it may have started, and be heard in a moment"
    assert blocked_at(waiting, 33.0) == {B}
    peer.sightings[ETH0].standing = Standing.ALIVE
    assert blocked_at(waiting, 34.0) == set()


def test_a_suspect_that_lives_by_its_answers_is_blocked_until_it_dies() -> None:
    waiting = Waiting(speakers=(listed(B),))
    peer = waiting.company.peer(B, eth0=Standing.SUSPECTED)
    assert blocked_at(waiting, 2.9) == set()
    assert blocked_at(waiting, 3.0) == {B}
    assert waiting.expected.proved() == {ETH0: (B,)}
    renewed(waiting, 20.0, B)
    assert blocked_at(waiting, 20.0) == {B}
    sighting = peer.sightings[ETH0]
    sighting.standing, sighting.suspicion = Standing.DEAD, None
    assert blocked_at(waiting, 20.1) == set(), "its death is proved on the wire, whatever its Lease says"


def test_a_speaker_is_written_to_in_each_family_of_the_link_by_its_link_local_address_in_ipv6() -> None:
    both = listed(B, "10.0.0.98/24", "fd00::98/64", "fe80::98/64")
    waiting = Waiting(speakers=(both, listed(C, "fd00::99/64", "fe80::99/64")))
    now = 0.0
    for prefixes, expected in (
        ((OWN,), {B: ["10.0.0.98"]}),
        ((OWN, "fd00::97/64"), {B: ["10.0.0.98", "fe80::98"], C: ["fe80::99"]}),
        (("fd00::97/64",), {B: ["fe80::98"], C: ["fe80::99"]}),
    ):
        link = waiting.company.link(ETH0, *prefixes)
        link.state = replace(link.state, link_local=AddressText("fe80::97") if len(expected) > 1 else None)
        now += 100.0
        waiting.expected.links_changed(now)
        found = waiting.expected.due(ETH0, now + 50.0)
        wanted = [(address, mac_of(node)) for node, addresses in expected.items() for address in addresses]
        assert sorted(found) == sorted(wanted)


def test_where_the_kernel_routes_a_speaker_is_expected_at_each_of_its_addresses_whatever_its_subnet() -> None:
    waiting = Waiting()
    link = waiting.company.link(ETH0, OWN)
    link.state = replace(link.state, routed=True)
    elsewhere = ("203.0.113.7", "198.51.100.7", "2001:db8::7")
    waiting.expected.change(DirectoryChange((listed(B, *elsewhere, mac=b""),), whole=True), 0.0)
    assert waiting.asked(1.0).keys() == set(elsewhere)
    assert not any(isinstance(effect, AskAddress) for effect in waiting.company.effects), "the kernel finds the way"
    waiting.expected.review(3.0)
    assert link.blocked == {B}
    assert waiting.company.decisions() == [], "nothing is claimed there, so no record decides"
