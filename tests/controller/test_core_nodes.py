"""The core and what it knows of the nodes: a restart, and the end of knowing, leave Services alone."""

from __future__ import annotations

import random
from typing import Any

import msgspec

from cluster.api.listwatch import Change as Seen
from cluster.node_pools import NodeIPPool
from cluster.objects import Node, Object, Service, decode
from controller.changes import Write
from controller.core import Core
from tests.controller.test_core import about_services, at, came, decide, leader, service
from tests.controller.world import merge


def node_pool(**spec: Any) -> NodeIPPool:
    metadata = {"name": "nodes", "namespace": "metallb-system", "uid": "uid-nodes", "resourceVersion": "1"}
    body = {"metadata": metadata, "spec": {"allowOtherProxies": True, **spec}}
    return decode(msgspec.json.encode(body), NodeIPPool)


def ready_node(name: str, address: str, *, ready: bool = True, version: int = 1) -> Node:
    conditions = [{"type": "Ready", "status": str(ready), "lastTransitionTime": "2025-12-31T23:00:00Z"}]
    status = {"addresses": [{"type": "InternalIP", "address": address}], "conditions": conditions}
    body = {"metadata": {"name": name, "resourceVersion": str(version)}, "status": status}
    return decode(msgspec.json.encode(body), Node)


def on_nodes(core: Core, *everything: Object) -> Service:
    """A Service that a leader gave the nodes' addresses, as the API shows it then."""
    core.restore(everything, at(0.0))
    core.nodes_read(at(0.0))
    (write,) = about_services(decide(core, 0.0))
    assert isinstance(write, Write)
    body = merge(msgspec.to_builtins(next(each for each in everything if isinstance(each, Service))), write.body)
    return msgspec.convert(merge(body, {"metadata": {"resourceVersion": "2"}}), Service)


def test_a_restart_writes_nothing_before_the_nodes_are_read_and_nothing_after_where_all_is_the_same() -> None:
    nodes = [ready_node("a", "192.0.2.1"), ready_node("b", "192.0.2.2")]
    shown = on_nodes(Core("metallb-system", None, 0, random.Random(1)), node_pool(), *nodes, service())
    assert [each.ip for each in shown.status.load_balancer.ingress] == ["192.0.2.1", "192.0.2.2"]
    core = leader(node_pool(), nodes[0], shown)
    assert core.wants_nodes
    assert about_services(decide(core, 1.0)) == []
    core.take(came(nodes[1]), at(2.0))
    core.nodes_read(at(3.0))
    assert about_services(decide(core, 3.0)) == []
    core.take(Seen("modified", nodes[1], ready_node("b", "192.0.2.2", ready=False, version=2)), at(4.0))
    (write,) = about_services(decide(core, 4.0))
    assert isinstance(write, Write)
    assert write.body["status"]["loadBalancer"] == {"ingress": [{"ip": "192.0.2.1"}]}
    assert about_services(decide(core, 5.0)) == []


def test_who_ceases_to_know_the_nodes_leaves_their_services_alone() -> None:
    """The last pool of nodes may be deleted and made again, and a leader may be deposed and lead again."""
    nodes = [ready_node("a", "192.0.2.1"), ready_node("b", "192.0.2.2")]
    shown = on_nodes(Core("metallb-system", None, 0, random.Random(1)), node_pool(), *nodes, service())
    core = leader(node_pool(), *nodes, shown)
    core.nodes_read(at(1.0))
    assert about_services(decide(core, 1.0)) == []
    core.forget_nodes()
    core.take(Seen("modified", nodes[1], ready_node("b", "192.0.2.2", ready=False, version=2)), at(2.0))
    assert about_services(decide(core, 2.0)) == []
    core.nodes_read(at(3.0))
    assert len(about_services(decide(core, 3.0))) == 1
