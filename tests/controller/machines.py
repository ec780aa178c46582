"""The nodes of a cluster as NodeIPPools see them, for driving the controller's decisions: no damping, no watch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from cluster.node_pools import NodePool
from cluster.objects import Node, NodeName, PoolName
from controller.nodeip.choice import nodes_of_pool
from controller.nodeip.guards import ClusterRanges, PortKey, ServiceProxy
from controller.nodeip.nodes import read_node
from controller.nodeip.reasons import LeftOut
from controller.nodeip.view import NodeView
from tests.controller.nodeip.bodies import node_body


class Machines:
    def __init__(self) -> None:
        self.bodies: dict[str, dict[str, Any]] = {}
        """The Nodes as the API has them."""
        self.absences: dict[NodeName, LeftOut] = {}
        self.listeners: dict[NodeName, frozenset[PortKey]] = {}
        self.serving: dict[str, frozenset[NodeName]] = {}
        self.proxy = ServiceProxy.NFTABLES
        self.known = True
        self.view = NodeView()

    def put(self, name: str, **fields: Any) -> None:
        self.bodies[name] = node_body(name, **fields)

    def remove(self, name: str) -> None:
        self.bodies.pop(name, None)

    def listens(self, name: str, *ports: int) -> None:
        """Something on the node listens on these TCP ports."""
        self.listeners = {**self.listeners, NodeName(name): frozenset(PortKey("TCP", port) for port in ports)}

    def serves(self, service: str, *names: str) -> None:
        """These nodes have a ready endpoint of the Service."""
        self.serving = {**self.serving, service: frozenset(map(NodeName, names))}

    def look(self, pools: Mapping[PoolName, NodePool]) -> tuple[NodeView, set[PoolName], set[str]]:
        """The view, the pools that give something else than when this was asked last, and the Services with other
        endpoints."""
        before = self.view
        found = {}
        for name, pool in pools.items():
            offers = [read_node(msgspec.convert(each, Node), pool.all_sources) for each in self.bodies.values()]
            found[name] = nodes_of_pool(pool, offers, self.absences, ClusterRanges())
        now = NodeView(self.known, found, listeners=self.listeners, proxy=self.proxy, serving=self.serving)
        general = [(each.known, each.listeners, each.proxy) for each in (before, now)]
        affected = {
            name
            for name in found.keys() | before.pools.keys()
            if general[0] != general[1] or found.get(name) != before.pools.get(name)
        }
        services = {
            key for key in now.serving.keys() | before.serving.keys() if now.serving.get(key) != before.serving.get(key)
        }
        self.view = now
        return now, affected, services
