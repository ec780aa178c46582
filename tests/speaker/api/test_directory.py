"""From Leases and Nodes to where speakers are; what is fresh by what this speaker has seen itself."""

from __future__ import annotations

import itertools
import json

import pytest

from cluster.node_report import REPORT_ANNOTATION
from cluster.objects import Lease, LeaseSpec, Node, NodeAddress, NodeName, NodeStatus, ObjectMeta
from speaker.api.directory import Directory
from speaker.api.own_lease import LINKS_ANNOTATION, RENEW_S, OwnLease, WrittenLease, lease_body, lease_name, read_links
from speaker.directory import (
    MAX_LINK_ADDRESSES,
    MAX_LISTED,
    MAX_LISTED_LINKS,
    DirectoryChange,
    ListedLink,
    ListedSpeaker,
)
from speaker.link import LinkName

ME, B, C = NodeName("node-1"), NodeName("node-2"), NodeName("node-3")
LINK = ListedLink(LinkName("eth0"), b"\2\x42\0\0\0\x0b", ("192.0.2.11/24", "fe80::11/64"))
OTHER = ListedLink(LinkName("eth1"), b"\2\x42\0\0\0\x0c", ("198.51.100.11/24",))


def lease(node: NodeName, renewal: int = 1, *links: ListedLink) -> Lease:
    body = lease_body(node, WrittenLease("uid", links or (LINK,)), f"2026-01-01T00:00:{renewal:02}.000000Z")
    spec = LeaseSpec(holder_identity=node, renew_time=body["spec"]["renewTime"])
    return Lease(ObjectMeta(name=lease_name(node), annotations=body["metadata"]["annotations"]), spec)


def stepped(node: NodeName, hour: int) -> Lease:
    there = lease(node)
    return Lease(there.metadata, LeaseSpec(holder_identity=node, renew_time=f"2026-01-01T{hour:02}:00:00.000000Z"))


class Watched:
    """The directory of node-1, and what the announcer has by it."""

    def __init__(self) -> None:
        self.directory = Directory(ME)
        self.now = 0.0
        self.shown: dict[NodeName, ListedSpeaker] = {}
        self.renewals: dict[NodeName, int] = {}

    def see(self, node: NodeName, renewal: int = 1, *links: ListedLink) -> None:
        self.directory.set_lease(None, lease(node, renewal, *links), self.now)

    def tell(self) -> DirectoryChange | None:
        change = self.directory.take(self.now)
        if change is not None:
            self.shown = {} if change.whole else self.shown
            self.shown.update((speaker.node, speaker) for speaker in change.changed)
            for node in change.removed:
                del self.shown[node]
            for node in change.renewed:
                self.renewals[node] = self.renewals.get(node, 0) + 1
        return change

    def live(self, seconds: float, *renews: NodeName, first: int = 10) -> None:
        """Time passes, in which Leases of these are renewed."""
        for i in range(round(seconds / RENEW_S)):
            self.now += RENEW_S
            for node in renews:
                self.see(node, first + i)
            self.tell()


def test_the_first_change_is_the_whole_directory_and_later_ones_what_changed() -> None:
    world = Watched()
    world.see(ME)
    world.see(B)
    assert world.tell() == DirectoryChange((ListedSpeaker(B, (LINK,), True),), whole=True)
    assert world.tell() is None
    assert world.directory.next_deadline() is None
    world.see(C)
    assert world.tell() is None, "once a second"
    assert world.directory.next_deadline() == 1.0
    world.now = 1.0
    assert world.tell() == DirectoryChange((ListedSpeaker(C, (LINK,), True),), renewed=(C,))
    world.now = 2.0
    world.see(C, 2, OTHER)
    world.directory.set_lease(lease(B), None, world.now)
    assert world.tell() == DirectoryChange((ListedSpeaker(C, (OTHER,), True),), (B,), (C,))


def test_a_renewal_that_changes_nothing_is_told_as_one() -> None:
    world = Watched()
    world.see(B)
    world.tell()
    world.now = 5.0
    world.see(B)
    assert world.tell() is None, "the same object, listed again"
    world.see(B, 2)
    assert world.tell() == DirectoryChange(renewed=(B,))


def test_a_lease_is_stale_after_five_renewals_of_our_own_without_one_of_the_other() -> None:
    world = Watched()
    for node in (ME, B, C):
        world.see(node)
    world.live(40.0, ME, C)
    assert world.shown[B].fresh
    world.live(10.0, ME, C, first=30)
    assert (world.shown[B].fresh, world.shown[C].fresh) == (False, True)
    world.live(10.0, ME, B, C, first=50)
    assert world.shown[B].fresh, "it is back"


def test_clocks_that_are_stepped_make_nobody_stale_and_keep_nobody_fresh() -> None:
    """A renewal is another time than before, whatever time: the clocks of nodes may be hours apart, and go back."""
    world = Watched()
    hours = itertools.cycle((10, 11, 9, 23))
    for node in (ME, B, C):
        world.see(node)
    for _ in range(10):
        world.now += RENEW_S
        for node in (ME, B):
            world.directory.set_lease(None, stepped(node, next(hours)), world.now)
        world.tell()
    assert (world.shown[B].fresh, world.shown[C].fresh) == (True, False)


def test_nothing_becomes_stale_while_our_own_renewals_are_not_seen() -> None:
    """The API server is away for everybody, or for us; when it is back everybody has as long as ever."""
    world = Watched()
    for node in (ME, B):
        world.see(node)
    world.live(3600.0)
    assert world.shown[B].fresh
    world.live(30.0, ME)
    assert world.shown[B].fresh


def test_renewals_of_our_own_for_a_change_of_links_make_nobody_stale() -> None:
    world = Watched()
    for node in (ME, B):
        world.see(node)
    for i in range(20):
        world.now += 1.0
        world.see(ME, 20 + i)
        world.tell()
    assert world.shown[B].fresh


def test_a_speaker_without_a_lease_is_listed_by_its_node_s_addresses() -> None:
    """As those of the last release are. A node without a speaker is not listed."""
    world = Watched()
    found = (NodeAddress("InternalIP", "192.0.2.12"), NodeAddress("Hostname", "node-2"), NodeAddress("InternalIP", "?"))
    for node in (ME, B, C):
        world.directory.set_node(node, Node(ObjectMeta(name=node), status=NodeStatus(addresses=found)))
    for node in (ME, B):
        world.directory.set_speaker(node, exists=True)
    world.tell()
    by_node = ListedSpeaker(B, (ListedLink(LinkName(""), b"", ("192.0.2.12",)),), False)
    assert world.shown == {B: by_node}
    world.now = 1.0
    world.see(B)
    world.tell()
    assert world.shown == {B: ListedSpeaker(B, (LINK,), True)}
    world.now = 2.0
    world.directory.set_lease(lease(B), None, 2.0)
    world.directory.set_node(B, None)
    world.tell()
    assert world.shown == {}


NONSENSE = [
    "",
    "{",
    "[1]",
    '[{"name": "eth0", "mac": "02:42", "addresses": []}]',
    '[{"name": "eth0", "mac": "02:42:00:00:00:xx", "addresses": []}]',
    '[{"name": "eth0", "mac": "02:42:00:00:00:0b", "addresses": ["192.0.2.300/24"]}]',
    '[{"mac": "02:42:00:00:00:0b"}]',
]


@pytest.mark.parametrize("said", NONSENSE)
def test_a_lease_that_cannot_be_read_lists_no_link(said: str) -> None:
    world = Watched()
    spec = LeaseSpec(holder_identity=B, renew_time="now")
    world.directory.set_lease(None, Lease(ObjectMeta(name="x", annotations={LINKS_ANNOTATION: said}), spec), 0.0)
    world.tell()
    assert world.shown == {B: ListedSpeaker(B, (), True)}


def test_a_directory_is_bounded_in_every_direction() -> None:
    world = Watched()
    wide = ListedLink(LinkName("eth0"), LINK.mac, tuple(f"10.0.0.{i}/24" for i in range(200)))
    for i in range(MAX_LISTED + 50):
        world.see(NodeName(f"node-{i}"), 1, *[wide] * 40)
    world.tell()
    assert len(world.shown) == MAX_LISTED
    assert {len(speaker.links) for speaker in world.shown.values()} == {MAX_LISTED_LINKS}
    assert {len(link.addresses) for each in world.shown.values() for link in each.links} == {MAX_LINK_ADDRESSES}
    said = json.dumps([{"name": "x", "mac": "02:42:00:00:00:0b", "addresses": ["10.0.0.1/24"] * 99}] * 99)
    assert [len(link.addresses) for link in read_links(said)] == [MAX_LINK_ADDRESSES] * MAX_LISTED_LINKS


def test_a_lease_is_renewed_each_ten_seconds_and_at_once_when_the_links_change() -> None:
    own = OwnLease()
    assert (own.next_deadline(), own.take(0.0)) == (None, None)
    own.set_links((LINK,), 1.0)
    assert own.take(1.0) is None, "the Node that it belongs to is not known"
    own.set_node("uid", 2.0)
    assert own.take(2.0) == WrittenLease("uid", (LINK,))
    assert (own.next_deadline(), own.take(11.9)) == (12.0, None)
    own.set_links((LINK,), 11.9)
    assert own.take(11.9) is None
    own.set_links((), 11.9)
    assert own.take(11.9) == WrittenLease("uid")
    assert own.take(21.9) == WrittenLease("uid")
    for report in ("{}", '{"unheard":["node-b"]}'):
        own.set_report(report, 23.0)
        assert own.take(23.0) == WrittenLease("uid", report=report)
        own.set_report(report, 23.0)
        assert own.take(23.0) is None, "nothing changed"


def test_a_lease_belongs_to_its_node_and_has_a_name_that_the_api_takes() -> None:
    body = lease_body(B, WrittenLease("some-uid", (LINK,), "{}"), "now")
    assert body["metadata"]["name"] == "berthlb-speaker-node-2"
    assert body["metadata"]["ownerReferences"] == [
        {"apiVersion": "v1", "kind": "Node", "name": "node-2", "uid": "some-uid"}
    ]
    assert read_links(body["metadata"]["annotations"][LINKS_ANNOTATION]) == (LINK,)
    assert body["metadata"]["annotations"][REPORT_ANNOTATION] == "{}"
    unknown = lease_body(B, WrittenLease("some-uid", (LINK,)), "now")
    assert REPORT_ANNOTATION not in unknown["metadata"]["annotations"], "a merge patch leaves what it does not name"
    assert len(lease_name(NodeName("n" * 253))) <= 253


def test_who_holds_nothing_lists_others_by_their_nodes_addresses() -> None:
    directory = Directory(ME, by_nodes=True)
    directory.set_lease(None, lease(B), 0.0)
    directory.set_node(
        B,
        Node(
            ObjectMeta(name=B),
            status=NodeStatus(
                addresses=(
                    NodeAddress(type="ExternalIP", address="203.0.113.12"),
                    NodeAddress(type="InternalIP", address="198.51.100.12"),
                    NodeAddress(type="InternalIP", address="2001:db8::12"),
                    NodeAddress(type="Hostname", address="node-2"),
                )
            ),
        ),
    )
    directory.set_node(
        C, Node(ObjectMeta(name=C), status=NodeStatus(addresses=(NodeAddress("InternalIP", "10.0.0.1"),)))
    )
    places = ListedLink(LinkName(""), b"", ("198.51.100.12", "2001:db8::12", "203.0.113.12"))
    everybody = directory.take(0.0)
    assert everybody == DirectoryChange((ListedSpeaker(B, (places,), True),), whole=True), "node-3 has no speaker"
