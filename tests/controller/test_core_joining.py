"""Nodes behind 1:1 NAT that join: the companion has their delivered addresses before the Service shows them."""

from __future__ import annotations

import random
from typing import Any

import msgspec

from cluster.api.listwatch import Change as Seen
from cluster.objects import Node, Object, Service, decode
from cluster.pods import HostPod
from cluster.slices import EndpointSlice
from controller.changes import Change, Deletion, Moment, Read, Write
from controller.core import ChangeOutcome, Core
from controller.passes import Room
from tests.controller.nodeip.bodies import node_body
from tests.controller.world import merge, node_pool_objects

TERM = 1
BEGAN = 1_767_225_600.0
LONG_READY = "2020-01-01T00:00:00Z"
NAT: dict[str, Any] = {
    "addresses": [{"type": "ExternalIP"}],
    "deliveredAddresses": [{"type": "InternalIP"}],
    "allowOtherProxies": True,
}


class Cluster:
    """The API's Services and Nodes, and the controller's core, with a clock. All that is asked for is done at once."""

    def __init__(self, *, nodes: str = "a", **node_pools: Any) -> None:
        self.at = 0.0
        self.version = 0
        self.bodies: dict[str, Any] = {}
        self.nodes: dict[str, Node] = {}
        self.writes: list[tuple[str, str]] = []
        """Of which Service, and what it showed then."""
        self.core = Core("metallb-system", None, 0, random.Random(1))
        self.core.begin_term()
        self.core.restore(node_pool_objects(node_pools or {"nodes": NAT}), self.now)
        for name in nodes.split():
            self.node(name, since=LONG_READY)
        self.core.nodes_read(self.now)

    @property
    def now(self) -> Moment:
        return Moment(self.at, BEGAN + self.at)

    def take(self, old: Object | None, new: Object) -> None:
        self.core.take(Seen("added" if old is None else "modified", old, new), self.now)

    def node(self, name: str, *, ready: bool = True, **fields: Any) -> None:
        """Node ``a`` has 203.0.113.1, which is delivered at 10.0.0.1, ``b`` those that end in 2, and so on."""
        number = ord(name) - ord("a") + 1
        addresses = {"external": f"203.0.113.{number}", "internal": f"10.0.0.{number}"}
        view = decode(msgspec.json.encode(node_body(name, ready=str(ready), **(addresses | fields))), Node)
        self.take(self.nodes.get(name), view)
        self.nodes[name] = view

    def service(self, name: str = "web", port: int = 80, *, pool: str = "nodes", **spec: Any) -> None:
        body = {
            "metadata": {
                "name": name,
                "namespace": "default",
                "creationTimestamp": f"2026-01-01T00:00:{len(self.bodies):02d}Z",
                "annotations": {"metallb.io/address-pool": pool},
            },
            "spec": {
                "type": "LoadBalancer",
                "clusterIP": "10.96.0.1",
                "clusterIPs": ["10.96.0.1"],
                "selector": {"app": name},
                "ports": [{"port": port, "protocol": "TCP"}],
                **spec,
            },
            "status": {},
        }
        self.take(None, self.store(f"default/{name}", body))

    def serves(self, name: str, *nodes: str) -> None:
        """These nodes have a ready endpoint of the Service."""
        metadata = {"name": name, "namespace": "default", "labels": {"kubernetes.io/service-name": name}}
        endpoints = [{"nodeName": each, "conditions": {"ready": True}} for each in nodes]
        self.take(None, msgspec.convert({"metadata": metadata, "endpoints": endpoints}, EndpointSlice))

    def listens(self, node: str, *ports: int) -> None:
        """A Pod there has these ports of the node."""
        body = {
            "metadata": {"name": f"on-{node}", "namespace": "default"},
            "spec": {"nodeName": node, "containers": [{"ports": [{"hostPort": each} for each in ports]}]},
            "status": {"phase": "Running"},
        }
        self.take(None, msgspec.convert(body, HostPod))

    def store(self, key: str, body: dict[str, Any]) -> Service:
        self.version += 1
        uid = body["metadata"].get("uid") or f"uid-{self.version}"
        self.bodies[key] = merge(body, {"metadata": {"resourceVersion": str(self.version), "uid": uid}})
        return decode(msgspec.json.encode(self.bodies[key]), Service)

    def rest(self) -> None:
        for _ in range(100):
            changes = self.core.decide(Room(100, 100), self.now, states_served=False).changes
            services = [each for each in changes if each.resource.plural == "services"]
            if not services:
                return
            for change in services:
                self.core.take_outcome(ChangeOutcome(TERM, change, self.carry_out(change)), self.now)
        raise AssertionError("it never comes to rest")

    def carry_out(self, change: Change) -> Service | None:
        assert not isinstance(change, Read)
        if isinstance(change, Deletion):
            del self.bodies[change.key]
            return None
        assert isinstance(change, Write)
        body = self.bodies.get(change.key, {"status": {}})
        wanted = {part: what for part, what in change.body.items() if change.subresource or part != "status"}
        view = self.store(change.key, merge(body, wanted))
        self.writes.append((change.name, self.ip(change.name)))
        return view

    def later(self, seconds: float) -> None:
        until = self.at + seconds
        while self.at < until:
            self.at = min(until, self.at + 0.25)
            self.rest()

    def ip(self, name: str = "web") -> str:
        ingress = self.bodies[f"default/{name}"]["status"].get("loadBalancer", {}).get("ingress", ())
        return ",".join(each["ip"] for each in ingress)

    def companion(self, name: str = "web") -> str:
        return self.ip(f"{name}-berthlb-delivered")

    def not_delivered(self, name: str = "web") -> list[str]:
        """Why, by the Service's condition."""
        said = self.bodies[f"default/{name}"]["status"]["conditions"]
        return [each["reason"] for each in said if each["type"] == "berthlb.io/NotDelivered"]

    def take_writes(self) -> list[tuple[str, str]]:
        writes, self.writes = self.writes, []
        return writes


def test_a_node_that_joins_is_delivered_before_it_is_shown() -> None:
    cluster = Cluster()
    cluster.service()
    cluster.rest()
    assert (cluster.ip(), cluster.companion()) == ("203.0.113.1", "10.0.0.1")
    cluster.node("b")
    cluster.rest()
    assert (cluster.ip(), cluster.companion()) == ("203.0.113.1", "10.0.0.1,10.0.0.2")
    cluster.take_writes()
    cluster.later(11.0)
    assert cluster.take_writes() == [("web", "203.0.113.1,203.0.113.2")]


def test_a_node_that_flaps_is_delivered_as_soon_as_it_waits_again() -> None:
    cluster = Cluster(nodes="a b")
    cluster.service()
    cluster.rest()
    both = ("203.0.113.1,203.0.113.2", "10.0.0.1,10.0.0.2")
    assert (cluster.ip(), cluster.companion()) == both
    for pause in (10.0, 20.0, 40.0):
        cluster.node("b", ready=False)
        cluster.rest()
        assert (cluster.ip(), cluster.companion()) == ("203.0.113.1", "10.0.0.1")
        cluster.node("b")
        cluster.rest()
        assert (cluster.ip(), cluster.companion()) == ("203.0.113.1", "10.0.0.1,10.0.0.2")
        cluster.take_writes()
        cluster.later(pause - 1.0)
        assert cluster.take_writes() == []
        cluster.later(2.0)
        assert (cluster.ip(), cluster.companion()) == both
        assert cluster.take_writes() == [("web", both[0])]


def test_what_a_node_will_not_give_is_not_delivered_ahead() -> None:
    """By where a Service has endpoints, and by what listens on the node; as that changes."""
    cluster = Cluster()
    cluster.service("local", 443, externalTrafficPolicy="Local")
    cluster.service("web", 80)
    cluster.serves("local", "a")
    cluster.listens("b", 80)
    cluster.node("b")
    cluster.rest()
    assert (cluster.companion("local"), cluster.companion("web")) == ("10.0.0.1", "10.0.0.1")
    cluster.serves("local", "a", "b")
    cluster.listens("b")
    cluster.rest()
    assert (cluster.companion("local"), cluster.companion("web")) == ("10.0.0.1,10.0.0.2", "10.0.0.1,10.0.0.2")
    assert cluster.ip("local") == cluster.ip("web") == "203.0.113.1"
    cluster.later(11.0)
    assert cluster.ip("local") == cluster.ip("web") == "203.0.113.1,203.0.113.2"


def test_a_port_that_two_may_have_of_a_node_is_delivered_ahead_for_neither() -> None:
    """One node would send what is for one of them to the other."""
    edge = {"nodeSelectors": [{"matchLabels": {"edge": "yes"}}]}
    cluster = Cluster(nodes="a", wide=NAT, edge=NAT | edge)
    cluster.node("c", since=LONG_READY, labels={"edge": "yes"})
    cluster.service("plain", pool="wide")
    cluster.service("other", 443, pool="wide")
    cluster.service("edge", pool="edge")
    cluster.rest()
    assert (cluster.ip("plain"), cluster.ip("edge")) == ("203.0.113.1,203.0.113.3", "")
    cluster.node("d", labels={"edge": "yes"})
    cluster.rest()
    assert (cluster.companion("plain"), cluster.companion("other")) == (
        "10.0.0.1,10.0.0.3",
        "10.0.0.1,10.0.0.3,10.0.0.4",
    )
    cluster.later(11.0)
    assert (cluster.companion("plain"), cluster.ip("edge")) == ("10.0.0.1,10.0.0.3,10.0.0.4", "")


def test_of_the_nodes_beyond_the_most_only_the_one_that_will_be_shown_is_delivered_ahead() -> None:
    cluster = Cluster(nodes="a", few=NAT | {"maxNodes": 1})
    names = [f"web-{port}" for port in range(8000, 8008)]
    for name in names:
        cluster.service(name, int(name.partition("-")[2]), pool="few")
    cluster.rest()
    cluster.node("b")
    cluster.rest()
    before = [(cluster.ip(each), cluster.companion(each)) for each in names]
    cluster.later(11.0)
    after = [cluster.ip(each) for each in names]
    assert {*after} == {"203.0.113.1", "203.0.113.2"}
    assert before == [("203.0.113.1", "10.0.0.1" if each == "203.0.113.1" else "10.0.0.1,10.0.0.2") for each in after]
    assert [cluster.companion(each) for each in names] == [each.replace("203.0.113.", "10.0.0.") for each in after]


def test_what_keeps_a_node_from_being_delivered_is_told_once_it_is_shown() -> None:
    cluster = Cluster(strict=NAT | {"allowedCIDRs": ["203.0.113.0/24", "10.0.0.1/32"]})
    cluster.service(pool="strict")
    cluster.rest()
    cluster.node("b")
    cluster.rest()
    assert (cluster.companion(), cluster.not_delivered()) == ("10.0.0.1", [])
    cluster.later(11.0)
    assert (cluster.ip(), cluster.companion()) == ("203.0.113.1,203.0.113.2", "10.0.0.1")
    assert cluster.not_delivered() == ["DeliveredAddressForbidden"]
