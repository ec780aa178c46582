"""A world of nodes for tests of Services that get addresses of nodes."""

from __future__ import annotations

from typing import Any

from tests.controller.world import World

POOL = "metallb.io/address-pool"
FROM = "metallb.io/ip-allocated-from-pool"
HTTP, HTTPS, SSH = [{"port": 80}], [{"port": 443}], [{"port": 22}]
DUAL: dict[str, Any] = {"clusterIPs": ["10.96.0.1", "fd00:96::1"], "ipFamilyPolicy": "RequireDualStack"}
PREFER: dict[str, Any] = {"clusterIPs": ["10.96.0.1", "fd00:96::1"], "ipFamilyPolicy": "PreferDualStack"}
LAN = "192.0.2.0/24"


def cluster(machines: int = 3, pools: dict[str, Any] | None = None, **node_pools: Any) -> World:
    """Nodes ``n1``, ``n2``, … with an address of each family."""
    world = World(pools or {})
    world.configure_nodes(**(node_pools or {"nodes": {}}))
    for number in range(1, machines + 1):
        world.machine(f"n{number}", internal=f"10.0.0.{number} 2001:db8::{number:x}")
    world.start()
    return world


def written(world: World) -> list[str]:
    """Who was written since the last call, each as often as it was."""
    return sorted(write.name for write in world.take_writes())


def pool_of(world: World, name: str) -> str | None:
    return world.view(name).metadata.annotations.get(FROM)
