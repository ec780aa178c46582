"""What the controller says on the configuration objects, driven through the core."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from cluster.addresses import parse_address
from cluster.node_pools import NodeIPPool
from cluster.objects import ConfigurationState, IPAddressPool, L2Advertisement, Node, NodeName, PoolName, decode
from cluster.sharing import Sharer
from controller.allocation.ledger import Ledger
from controller.allocation.releases import Releases
from controller.allocation.reserved import Reservations
from controller.changes import Moment, Read, Write
from controller.nodeip.cluster import NodePools
from controller.pools.reports import Reports
from tests.controller.nodeip.bodies import node
from tests.controller.world import merge

VIEWS: dict[str, Any] = {
    "IPAddressPool": IPAddressPool,
    "NodeIPPool": NodeIPPool,
    "L2Advertisement": L2Advertisement,
    "ConfigurationState": ConfigurationState,
}


class Api:
    """The objects' table, and one Reports that watches it."""

    def __init__(self, *, prunes_conditions: bool = False) -> None:
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.writes: list[Write] = []
        self.time = 1000.0
        self.nodes: dict[str, dict[str, str]] = {}
        self.reservations = Reservations()
        self.node_pools = NodePools()
        self._prunes = prunes_conditions
        self._version = 0
        self.start()

    def start(self) -> None:
        self.reports = Reports("metallb-system", random.Random(1))
        self.ledger = Ledger()
        self.releases = Releases(self.ledger, 3)
        for name, labels in self.nodes.items():
            self.reports.findings.set_node(name, labels)
        for kind, name in self.objects:
            self._tell(kind, name)

    def pool(self, name: str, *addresses: str) -> None:
        self._spec("IPAddressPool", name, {"addresses": list(addresses)})

    def node_pool(self, name: str, **spec: Any) -> None:
        self._spec("NodeIPPool", name, spec)

    def advertisement(self, name: str, **spec: Any) -> None:
        self._spec("L2Advertisement", name, spec)

    def node(
        self, name: str, *addresses: str, pods: tuple[str, ...] = (), labels: dict[str, str] | None = None
    ) -> None:
        """A node; without addresses it is gone."""
        if not addresses:
            del self.nodes[name]
            self.reservations.set_node(name, None)
            self.reports.findings.set_node(name, None)
            return
        status = {"addresses": [{"type": "InternalIP", "address": each} for each in addresses]}
        body = {"metadata": {"name": name}, "spec": {"podCIDRs": pods}, "status": status}
        self.nodes[name] = labels or {}
        self.reservations.set_node(name, decode(msgspec.json.encode(body), Node))
        self.reports.findings.set_node(name, self.nodes[name])

    def speaker(self, node: str, *without: str, says_nothing: bool = False, gone: bool = False) -> None:
        """What the speaker of a node says: these advertisements name interfaces that it lacks."""
        labels = {"metallb.io/component-type": "speaker", "metallb.io/node-name": node}
        status = {} if says_nothing else {"advertisementsWithoutInterface": without}
        body = {"metadata": {"name": f"speaker-{node}", "labels": labels}, "status": status}
        self.reports.findings.set_speaker_state(decode(msgspec.json.encode(body), ConfigurationState), gone=gone)

    def _spec(self, kind: str, name: str, spec: dict[str, Any]) -> None:
        before = self.objects.get((kind, name), {"metadata": {"generation": 0, "uid": name}})
        generation = before["metadata"]["generation"] + 1
        self._store(kind, name, merge(before, {"metadata": {"generation": generation}}) | {"spec": spec})

    def _store(self, kind: str, name: str, body: dict[str, Any]) -> None:
        if body != self.objects.get((kind, name)):  # a write that changes nothing is none
            self._version += 1
            metadata = {"name": name, "namespace": "metallb-system", "resourceVersion": str(self._version)}
            self.objects[kind, name] = merge(body, {"metadata": metadata})
        self._tell(kind, name)

    def _tell(self, kind: str, name: str) -> None:
        if kind != "ConfigurationState":
            self.reports.observe(self.view(kind, name))

    def view(self, kind: str, name: str) -> Any:
        return decode(msgspec.json.encode(self.objects[kind, name]), VIEWS[kind])

    def status(self, kind: str, name: str) -> dict[str, Any]:
        return dict(self.objects[kind, name].get("status", {}))

    def judgement(self, kind: str, name: str) -> tuple[str, str, str]:
        return self.condition(kind, name, "Valid")

    def condition(self, kind: str, name: str, type_: str) -> tuple[str, str, str]:
        (found,) = [each for each in self.status(kind, name)["conditions"] if each["type"] == type_]
        assert found["observedGeneration"] == self.objects[kind, name]["metadata"]["generation"]
        return found["status"], found["reason"], found["message"]

    def turn(self) -> int:
        """One turn of the deciding thread, its changes carried out; how many there were."""
        reloaded = self.reports.reload()
        self.node_pools.set_pools(self.reports.in_force.config.node_pools)
        if reloaded or self.ledger.reserved is not self.reservations.ranges:
            self.ledger.set_pools(self.reports.in_force.config.pools, self.reservations.ranges)
        changes = self.reports.decide(self.ledger, self.releases, self.node_pools, Moment(self.time, self.time))
        for change in changes:
            kind = change.resource.kind
            if isinstance(change, Write):
                self.writes.append(change)
                body = merge(self.objects.get((kind, change.name), {}), change.body)
                if self._prunes and "status" in body:
                    body["status"].pop("conditions", None)
                    body["status"].pop("recentReleases", None)
                self._store(kind, change.name, body)
            there = (kind, change.name) in self.objects
            self.reports.answered(change, self.view(kind, change.name) if there else None)
        return len(changes)

    def rewrite(self, kind: str, name: str, status: dict[str, Any]) -> None:
        """Somebody else writes the object's status."""
        self._store(kind, name, merge(self.objects[kind, name], {"status": status}))

    def settle(self) -> None:
        for _ in range(20):
            while self.turn():
                assert len(self.writes) < 100, "it never comes to rest"
            deadline = self.reports.next_deadline()
            if deadline is None:
                return
            self.time = max(self.time, deadline)


@pytest.fixture
def api() -> Api:
    return Api()


def test_a_pool_in_force_says_so_and_counts(api: Api) -> None:
    api.pool("p", "10.0.0.0/30", "2001:db8::/64")
    api.settle()
    assert api.judgement("IPAddressPool", "p") == ("True", "InForce", "")
    api.ledger.take(parse_address("10.0.0.1"), Sharer("default/web"))
    api.ledger.take(parse_address("2001:db8::1"), Sharer("default/web"))
    api.settle()
    counters = {key: value for key, value in api.status("IPAddressPool", "p").items() if key != "conditions"}
    assert counters == {"assignedIPv4": 1, "availableIPv4": 3, "assignedIPv6": 1, "availableIPv6": 2**63 - 1}


def test_a_pool_that_is_empty_says_so_with_the_numbers(api: Api) -> None:
    api.pool("p", "10.0.0.0/31", "2001:db8::/127")
    api.node("n1", "10.0.0.1")
    api.settle()
    assert api.condition("IPAddressPool", "p", "Exhausted") == ("False", "AddressesAvailable", "")
    api.ledger.take(parse_address("10.0.0.0"), Sharer("default/web"))
    api.settle()
    said = "no free IPv4 address (1 of 2 in use, 1 never given out)"
    assert api.condition("IPAddressPool", "p", "Exhausted") == ("True", "NoFreeAddress", said)
    api.ledger.give_back(parse_address("10.0.0.0"), "default/web")
    api.settle()
    assert api.condition("IPAddressPool", "p", "Exhausted")[0] == "False"


def test_a_pool_that_fills_and_empties_all_the_time_says_so_once_a_second(api: Api) -> None:
    api.pool("p", "10.0.0.0/32")
    api.settle()
    api.writes.clear()
    for _ in range(200):
        api.time += 0.01
        api.ledger.take(parse_address("10.0.0.0"), Sharer("default/web"))
        api.turn()
        api.time += 0.01
        api.ledger.give_back(parse_address("10.0.0.0"), "default/web")
        api.turn()
    assert len(api.writes) <= 5


def test_what_a_pool_shares_with_the_cluster_is_named_and_the_pool_stays_in_force(api: Api) -> None:
    api.pool("p", "192.168.1.0/24")
    api.settle()
    assert api.condition("IPAddressPool", "p", "Overlapping") == ("False", "Disjoint", "")
    for number in range(7):
        api.node(f"n{number}", f"192.168.1.1{number}", pods=("192.168.1.128/25",) if number == 6 else ())
    api.settle()
    status, reason, message = api.condition("IPAddressPool", "p", "Overlapping")
    assert (status, reason) == ("True", "NodeAddress")
    assert message.startswith('never given out: 192.168.1.10 is an address of node "n0", 192.168.1.11 is')
    assert message.endswith(" and 3 more; the rest of the pool is")
    assert api.judgement("IPAddressPool", "p") == ("True", "InForce", "")
    assert api.status("IPAddressPool", "p")["availableIPv4"] == 256 - 7 - 128
    for number in range(7):
        api.node(f"n{number}")
    api.settle()
    assert api.condition("IPAddressPool", "p", "Overlapping")[0] == "False"
    assert api.status("IPAddressPool", "p")["availableIPv4"] == 256


def test_news_of_nodes_that_concern_no_pool_write_nothing(api: Api) -> None:
    api.pool("p", "192.168.1.0/24")
    api.advertisement("l2")
    api.node("n1", "10.0.0.1")
    api.settle()
    api.writes.clear()
    api.node("n2", "10.0.0.2", pods=("10.244.0.0/24",))
    api.settle()
    assert api.writes == []


def test_a_pool_of_which_nothing_is_in_force_is_neither_full_nor_free(api: Api) -> None:
    api.pool("p", "bad")
    api.settle()
    unknown = ("Unknown", "NotInForce", "no version of the pool is in force")
    assert api.condition("IPAddressPool", "p", "Exhausted") == unknown
    assert api.condition("IPAddressPool", "p", "Overlapping") == unknown


def test_an_advertisement_names_the_pools_that_do_not_exist(api: Api) -> None:
    api.pool("there", "10.0.0.0/24")
    api.pool("broken", "bad")
    api.advertisement("l2", ipAddressPools=["there", "broken", *(f"gone-{number}" for number in range(7))])
    api.advertisement("selects", ipAddressPoolSelectors=[{"matchLabels": {"tier": "x"}}])
    api.node("n1", "10.9.0.1")
    api.settle()
    names = ", ".join(f'"gone-{number}"' for number in range(5))
    assert api.condition("L2Advertisement", "l2", "PoolsExist") == (
        "False",
        "UnknownPool",
        f"there is no IPAddressPool {names} and 2 more",
    )
    assert api.condition("L2Advertisement", "selects", "PoolsExist")[:2] == ("False", "NoMatchingPool")
    assert api.condition("L2Advertisement", "l2", "NodesMatch") == ("True", "Found", "")
    api.advertisement("l2", ipAddressPools=["late"])
    api.pool("late", "10.0.1.0/24")
    api.settle()
    assert api.condition("L2Advertisement", "l2", "PoolsExist") == ("True", "Found", "")


def test_an_advertisement_that_no_node_matches_says_so_until_one_does(api: Api) -> None:
    api.advertisement("l2", nodeSelectors=[{"matchLabels": {"rack": "a"}}])
    api.node("n1", "10.9.0.1", labels={"rack": "b"})
    api.settle()
    said = ("False", "NoMatchingNode", "spec.nodeSelectors match no node: nobody announces")
    assert api.condition("L2Advertisement", "l2", "NodesMatch") == said
    api.node("n2", "10.9.0.2", labels={"rack": "a"})
    api.settle()
    assert api.condition("L2Advertisement", "l2", "NodesMatch") == ("True", "Found", "")
    api.node("n2")
    api.settle()
    assert api.condition("L2Advertisement", "l2", "NodesMatch") == said


def test_interfaces_are_missing_when_every_matching_node_says_so(api: Api) -> None:
    api.advertisement("l2", interfaces=["eth1"], nodeSelectors=[{"matchLabels": {"rack": "a"}}])
    api.advertisement("any")
    for name, rack in (("n1", "a"), ("n2", "a"), ("n3", "b")):
        api.node(name, "10.9.0.1", labels={"rack": rack})
    api.settle()
    assert api.condition("L2Advertisement", "any", "InterfacesExist") == ("True", "AnyInterface", "")
    assert api.condition("L2Advertisement", "l2", "InterfacesExist")[:2] == ("Unknown", "NotReported")
    api.speaker("n1", "l2")
    api.speaker("n3")
    api.settle()
    assert api.condition("L2Advertisement", "l2", "InterfacesExist")[:2] == ("Unknown", "NotReported")
    api.speaker("n2", "l2", "other")
    api.settle()
    assert api.condition("L2Advertisement", "l2", "InterfacesExist") == (
        "False",
        "NoMatchingInterface",
        'no matching node has an interface "eth1" that can announce: nobody announces',
    )
    api.speaker("n2")
    api.settle()
    assert api.condition("L2Advertisement", "l2", "InterfacesExist") == ("True", "Found", "")
    api.writes.clear()
    api.speaker("n1")
    api.settle()
    assert api.writes == []
    api.speaker("n2", gone=True)
    api.speaker("n1", gone=True)
    api.settle()
    assert api.condition("L2Advertisement", "l2", "InterfacesExist")[0] == "Unknown"


def test_a_speaker_of_an_older_version_has_reported_nothing(api: Api) -> None:
    api.advertisement("l2", interfaces=["eth1"])
    api.node("n1", "10.9.0.1")
    api.speaker("n1", says_nothing=True)
    api.settle()
    assert api.condition("L2Advertisement", "l2", "InterfacesExist")[1] == "NotReported"


def test_a_broken_advertisement_is_judged_by_its_version_in_force(api: Api) -> None:
    api.pool("p", "10.0.0.0/24")
    api.advertisement("l2", ipAddressPools=["gone"])
    api.settle()
    api.advertisement("l2", ipAddressPools=["p", "p"])
    api.settle()
    assert api.judgement("L2Advertisement", "l2")[0] == "False"
    assert api.condition("L2Advertisement", "l2", "PoolsExist")[1] == "UnknownPool"


def test_what_is_remembered_of_releases_is_listed_and_read_again(api: Api) -> None:
    api.pool("p", "10.0.0.0/24", "2001:db8::/120")
    api.pool("q", "10.0.1.0/24")
    api.settle()
    for number in range(5):
        addresses = (parse_address(f"10.0.0.{number}"), parse_address(f"2001:db8::{number}"))
        api.releases.remember(PoolName("p"), f"default/s{number}", addresses)
        api.releases.stamp(Moment(api.time, 1_767_225_600.0 + number))
    api.settle()
    listed = api.status("IPAddressPool", "p")["recentReleases"]
    assert [each["service"] for each in listed] == ["default/s4", "default/s3", "default/s2"]
    assert listed[0] == {
        "service": "default/s4",
        "addresses": ("10.0.0.4", "2001:db8::4"),
        "time": "2026-01-01T00:00:04Z",
    }
    assert "recentReleases" not in api.status("IPAddressPool", "q")
    before = len(api.writes)
    api.start()
    api.reports.reload()
    api.releases.restore(api.reports.recorded_releases(), api.reports.in_force.config.pool_of)
    api.settle()
    assert len(api.writes) == before
    for number in range(5):
        api.releases.forget(f"default/s{number}")
    api.settle()
    assert "recentReleases" not in api.status("IPAddressPool", "p")


def test_a_pool_that_cannot_be_read_keeps_its_list(api: Api) -> None:
    api.pool("p", "10.0.0.0/24")
    api.settle()
    api.releases.remember(PoolName("p"), "default/web", (parse_address("10.0.0.1"),))
    api.releases.stamp(Moment(api.time, api.time))
    api.settle()
    api.pool("p", "bad")
    api.start()
    api.settle()
    assert [each["service"] for each in api.status("IPAddressPool", "p")["recentReleases"]] == ["default/web"]


def test_a_thousand_allocations_are_not_a_thousand_writes(api: Api) -> None:
    api.pool("p", "10.0.0.0/16")
    api.settle()
    api.writes.clear()
    api.time += 10
    for number in range(100):
        api.ledger.take(parse_address(f"10.0.{number // 250}.{number % 250}"), Sharer(f"default/{number}"))
        api.turn()
    assert len(api.writes) == 1
    api.settle()
    assert len(api.writes) == 2
    assert api.status("IPAddressPool", "p")["assignedIPv4"] == 100


def test_a_broken_pool_says_what_is_wrong_and_what_stays(api: Api) -> None:
    api.pool("p", "10.0.0.0/30")
    api.settle()
    api.pool("p", "10.0.0.1")
    api.settle()
    reason = 'spec.addresses[0]: "10.0.0.1" is a single address; write "10.0.0.1/32"'
    assert api.judgement("IPAddressPool", "p") == (
        "False",
        "Invalid",
        f"{reason}; the last good version stays in force",
    )
    assert [problem.text for problem in api.reports.in_force.take_new_problems()] == [f"IPAddressPool p: {reason}"]
    state = api.status("ConfigurationState", "controller")
    assert (state["result"], state["errorSummary"]) == ("Invalid", f"IPAddressPool p: {reason}")
    assert {each["type"]: (each["status"], each["reason"]) for each in state["conditions"]} == {
        "configReconcilerValid": ("False", "ConfigurationError"),
        "poolReconcilerValid": ("False", "ConfigurationError"),
    }
    api.pool("p", "10.0.0.1/32")
    api.settle()
    assert api.judgement("IPAddressPool", "p")[0] == "True"
    assert api.status("ConfigurationState", "controller")["result"] == "Valid"
    assert api.reports.in_force.take_new_problems() == []


def test_overlap_and_a_bad_advertisement_are_told_apart(api: Api) -> None:
    api.pool("a", "10.0.0.0/24")
    api.pool("b", "10.0.0.128/25")
    api.advertisement("l2", interfaces=["eth0", "eth0"])
    api.settle()
    assert api.judgement("IPAddressPool", "b")[:2] == ("False", "Overlap")
    reason = '10.0.0.128-10.0.0.255 overlaps 10.0.0.0-10.0.0.255 of pool "a", which stays in force'
    assert api.condition("IPAddressPool", "b", "Overlapping") == ("True", "Pool", reason)
    assert api.condition("IPAddressPool", "a", "Overlapping")[0] == "False"
    assert api.judgement("L2Advertisement", "l2") == ("False", "Invalid", 'spec.interfaces[1]: repeats "eth0"')


def test_a_restart_says_nothing_anew(api: Api) -> None:
    api.pool("a", "10.0.0.0/24")
    api.pool("b", "bad")
    api.advertisement("l2")
    api.settle()
    before = len(api.writes)
    api.start()
    api.settle()
    assert len(api.writes) == before


def test_a_server_whose_crds_know_no_conditions_is_not_told_for_ever() -> None:
    api = Api(prunes_conditions=True)
    api.pool("p", "10.0.0.0/24")
    api.advertisement("l2")
    api.settle()
    api.releases.remember(PoolName("p"), "default/web", (parse_address("10.0.0.1"),))
    api.releases.stamp(Moment(api.time, api.time))
    api.settle()
    assert api.status("IPAddressPool", "p")["availableIPv4"] == 256


def test_a_state_that_somebody_deleted_is_made_again_with_the_next_news(api: Api) -> None:
    api.pool("p", "10.0.0.0/24")
    api.settle()
    state = api.objects.pop(("ConfigurationState", "controller"))
    assert state["metadata"]["labels"] == {"metallb.io/component-type": "controller"}
    api.pool("p", "bad")
    if api.reports.reload():
        raise AssertionError("a bad edit must not change what is in force")
    (patch, *_) = [
        change
        for change in api.reports.decide(api.ledger, api.releases, api.node_pools, Moment(api.time, api.time))
        if change.resource.kind == "ConfigurationState"
    ]
    assert not isinstance(patch, Read)
    api.reports.answered(patch, None)
    api.settle()
    assert api.status("ConfigurationState", "controller")["result"] == "Invalid"


def test_a_failed_report_is_repeated_after_a_pause(api: Api) -> None:
    api.pool("p", "10.0.0.0/24")
    api.reports.reload()
    api.ledger.set_pools(api.reports.in_force.config.pools)
    for change in api.reports.decide(api.ledger, api.releases, api.node_pools, Moment(api.time, api.time)):
        api.reports.failed(change, 0.0, Moment(api.time, api.time))
    assert api.turn() == 0
    deadline = api.reports.next_deadline()
    assert deadline is not None
    assert deadline >= api.time + 0.25
    api.settle()
    assert api.judgement("IPAddressPool", "p")[0] == "True"


def test_a_report_that_somebody_forestalled_is_made_on_the_newer_object(api: Api) -> None:
    api.pool("p", "10.0.0.0/24")
    api.reports.reload()
    api.ledger.set_pools(api.reports.in_force.config.pools)
    now = Moment(api.time, api.time)
    changes = api.reports.decide(api.ledger, api.releases, api.node_pools, now)
    api.pool("p", "10.0.0.0/25")
    for change in changes:
        there = (change.resource.kind, change.name) in api.objects
        api.reports.superseded(change, api.view(change.resource.kind, change.name) if there else None, now)
    api.settle()
    assert api.judgement("IPAddressPool", "p")[0] == "True"
    assert api.status("IPAddressPool", "p")["availableIPv4"] == 128


@pytest.mark.parametrize(
    "rival",
    [
        {"conditions": None},
        {"assignedIPv4": 7},
        {"recentReleases": [{"service": "a/b", "addresses": ["10.0.0.3"], "time": "2026-01-01T00:00:00Z"}]},
    ],
)
def test_what_somebody_else_keeps_replacing_is_written_ever_more_seldom(api: Api, rival: dict[str, Any]) -> None:
    """A second controller of another class in the same namespace, for instance, which remembers other releases."""
    api.pool("p", "10.0.0.0/30")
    api.settle()
    api.writes.clear()
    for _ in range(36_000):
        api.time += 0.1
        api.rewrite("IPAddressPool", "p", rival)
        api.turn()
    assert 10 <= len([each for each in api.writes if each.name == "p"]) <= 25, "in an hour"
    api.pool("p", "10.0.0.4/30")
    api.turn()
    assert api.judgement("IPAddressPool", "p") == ("True", "InForce", ""), "what is new is said at once"


# ------------------------------------------------------------------------ pools of nodes


NODES = {"selectedNodes": 0, "usableNodes": 0, "assignedServices": 0}


def counters(api: Api, name: str) -> dict[str, int]:
    return {field: api.status("NodeIPPool", name)[field] for field in NODES}


def tell_of_node(api: Api, name: str, **fields: Any) -> None:
    now = Moment(api.time, api.time)
    api.node_pools.set_node(NodeName(name), node(name, since="1970-01-01T00:00:00Z", **fields), now)


def test_a_pool_of_nodes_says_what_it_selects_and_who_gives_nothing(api: Api) -> None:
    api.node_pool("nodes", nodeSelectors=[{"matchLabels": {"edge": "yes"}}])
    api.settle()
    assert api.judgement("NodeIPPool", "nodes") == ("True", "InForce", "")
    assert api.condition("NodeIPPool", "nodes", "NodesMatch")[:2] == ("Unknown", "NotRead")
    api.node_pools.everything_read(Moment(api.time, api.time))
    api.settle()
    assert api.condition("NodeIPPool", "nodes", "NodesMatch") == (
        *("False", "NoMatchingNode"),
        "spec.nodeSelectors match no node: no Service gets an address",
    )
    tell_of_node(api, "a", internal="10.0.0.1", labels={"edge": "yes"})
    tell_of_node(api, "b", internal="10.0.0.2")
    api.settle()
    assert api.condition("NodeIPPool", "nodes", "NodesMatch") == ("True", "Found", "")
    assert counters(api, "nodes") == {"selectedNodes": 1, "usableNodes": 1, "assignedServices": 0}
    tell_of_node(api, "b", internal="10.0.0.2", labels={"edge": "yes"}, ready="False")
    api.settle()
    assert api.condition("NodeIPPool", "nodes", "NodesMatch") == (
        *("True", "Found"),
        '1 of 2 nodes give no address: "b" (NotReady)',
    )
    assert counters(api, "nodes") == {"selectedNodes": 2, "usableNodes": 1, "assignedServices": 0}


def test_a_controller_that_begins_writes_nothing_about_a_pool_of_nodes(api: Api) -> None:
    api.node_pool("nodes")
    tell_of_node(api, "a", internal="10.0.0.1")
    api.node_pools.everything_read(Moment(api.time, api.time))
    api.settle()
    assert counters(api, "nodes")["usableNodes"] == 1
    api.writes.clear()
    api.node_pools = NodePools()
    api.start()
    api.settle()
    tell_of_node(api, "a", internal="10.0.0.1")
    api.node_pools.everything_read(Moment(api.time, api.time))
    api.settle()
    assert [each for each in api.writes if each.resource.kind == "NodeIPPool"] == []


def test_a_hundred_changes_of_nodes_are_few_writes(api: Api) -> None:
    api.node_pool("nodes")
    api.node_pools.everything_read(Moment(api.time, api.time))
    api.settle()
    api.writes.clear()
    for number in range(100):
        tell_of_node(
            api, f"n{number}", internal=f"10.0.{number >> 8}.{number & 255}", ready="True" if number % 3 else "False"
        )
        api.turn()
        api.time += 0.001
    api.settle()
    assert len(api.writes) <= 4
    assert counters(api, "nodes")["selectedNodes"] == 100


def test_a_pool_of_nodes_that_cannot_be_in_force_says_why(api: Api) -> None:
    api.pool("both", "10.0.0.0/24")
    api.node_pool("both")
    api.node_pool("bad", families=["IPv5"])
    api.settle()
    assert api.judgement("NodeIPPool", "both")[:2] == ("False", "Overlap")
    assert api.judgement("IPAddressPool", "both")[0] == "True"
    assert api.judgement("NodeIPPool", "bad") == (
        *("False", "Invalid"),
        'spec.families[0]: "IPv5" is neither IPv4 nor IPv6',
    )
    assert api.condition("NodeIPPool", "bad", "NodesMatch")[:2] == ("Unknown", "NotInForce")
    assert counters(api, "bad") == NODES
    assert "NodeIPPool bad: spec.families[0]" in api.status("ConfigurationState", "controller")["errorSummary"]
