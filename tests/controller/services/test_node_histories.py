"""Any history of ``test_histories``, with pools of nodes and nodes that come, go and change in between."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import rule, run_state_machine_as_test

from tests.controller.node_validity import pool_of
from tests.controller.services.test_histories import ANY, CLASSES, KEYS, POOLS, PREFIX, Histories
from tests.controller.validity import ours

EDGE = [{"matchLabels": {"edge": "yes"}}]
NODE_POOLS: list[dict[str, Any]] = [
    {},
    {"nodes": {}},
    {"nodes": {"maxNodes": 1}},
    {"nodes": {"families": ["IPv4"], "allowPorts": [53]}, "edge": {"nodeSelectors": EDGE, "autoAssign": False}},
    {
        "nodes": {"serviceAllocation": {"priority": 4, "namespaces": ["dev"]}},
        "edge": {
            "addresses": [{"type": "Label", "key": "node-public-ip"}, {"type": "InternalIP"}],
            "allowedCIDRs": ["10.0.1.0/24", "2001:db8:1::/64"],
            "serviceAllocation": {"serviceSelectors": [{"matchLabels": {"tier": "x"}}]},
        },
    },
]
MACHINES = st.sampled_from(["m1", "m2", "m3"])
INTERNAL = {"m1": "10.0.1.1 2001:db8:1::1", "m2": "10.0.1.2", "m3": "10.0.1.3 2001:db8:1::3"}
CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "ready": st.sampled_from(["False", "Unknown"]),
        "labels": st.sampled_from([{"edge": "yes"}, {"node.kubernetes.io/exclude-from-external-load-balancers": ""}]),
        "label": st.sampled_from(["10.0.1.11", "10.0.1.1", "198.51.100.1"]),
        "internal": st.sampled_from(["10.0.1.1", "10.0.1.9 2001:db8:1::9", ""]),
    },
)


class NodeHistories(Histories):
    def __init__(self) -> None:
        super().__init__()
        self.sharers = {"default/u", "default/v", "default/w", "default/x", "dev/y", "dev/z"}
        """On a node any of them shares."""
        for name in INTERNAL:
            self.machine_changes(name, {})
        for whose in (None, "their"):
            self.configure_nodes(whose, NODE_POOLS[1])

    @rule(whose=CLASSES, pools=st.sampled_from(NODE_POOLS))
    def configure_nodes(self, whose: str | None, pools: dict[str, Any]) -> None:
        self.worlds[whose].configure_nodes(**pools)
        self._note_evicted()

    @rule(whose=CLASSES, pools=st.sampled_from([POOLS[0], {"a": "10.0.0.1/32", "n": "10.0.1.2-10.0.1.3"}, {}]))
    def configure_around_nodes(self, whose: str | None, pools: dict[str, Any]) -> None:
        self.configure(whose, pools)

    @rule(name=MACHINES, change=CHANGES)
    def machine_changes(self, name: str, change: dict[str, Any]) -> None:
        for world in self.worlds.values():
            world.machine(name, **{"internal": INTERNAL[name], **change})
        self._note_evicted()

    @rule(name=MACHINES)
    def machine_is_well_again(self, name: str) -> None:
        self.machine_changes(name, {})

    @rule(name=MACHINES)
    def machine_goes(self, name: str) -> None:
        for world in self.worlds.values():
            world.machine_goes(name)

    @rule(name=MACHINES, ports=st.sampled_from([(), (80,), (443, 80)]))
    def machine_listens(self, name: str, ports: tuple[int, ...]) -> None:
        for world in self.worlds.values():
            world.machines.listens(name, *ports)
            world.tell_nodes()

    @rule(key=KEYS, names=st.sets(MACHINES))
    def endpoints_move(self, key: str, names: set[str]) -> None:
        for world in self.worlds.values():
            world.machines.serves(key, *names)
            world.tell_nodes()

    @rule(key=KEYS, pool=st.sampled_from(["nodes", "nodes", "edge", "a", None]))
    def ask_for_a_pool(self, key: str, pool: str | None) -> None:
        self.annotate(key, {f"{PREFIX}address-pool": pool, f"{PREFIX}loadBalancerIPs": None})

    @rule(
        keys=st.lists(KEYS, min_size=2, max_size=4, unique=True), ports=st.sampled_from([(80, 80), (80, 443, 80, 81)])
    )
    def share_nodes(self, keys: list[str], ports: tuple[int, ...]) -> None:
        """Several that would have all nodes, as far as their ports differ."""
        for key, port in zip(keys, ports, strict=False):
            self.put_one(key, {f"{PREFIX}address-pool": "nodes"}, {"ports": [{"port": port}]}, "SingleStack", None)

    @rule(key=KEYS, ports=st.sampled_from([[{"port": 22}], [{"port": 80}, {"port": 53, "protocol": "UDP"}]]))
    def want_guarded_ports(self, key: str, ports: list[Any]) -> None:
        self.change_ports(key, ports)

    @rule(key=KEYS, mode=st.sampled_from(["Proxy", "VIP"]))
    def set_the_mode(self, key: str, mode: str) -> None:
        present = self.world.services.get(key)
        if present is None or present["spec"]["type"] != "LoadBalancer":
            return
        ingress = present["status"].get("loadBalancer", {}).get("ingress") or []
        self._write(key, status={"loadBalancer": {"ingress": [{**each, "ipMode": mode} for each in ingress]}})

    @rule()
    def rest_on_nodes(self) -> None:
        self.rest()
        for world in self.worlds.values():
            for service in ours(world):
                if pool_of(world, service) is not None and service["metadata"].get("deletionTimestamp") is None:
                    assert "Proxy" not in [each["ipMode"] for each in service["status"]["loadBalancer"]["ingress"]]


def test_a_pool_that_is_made_around_shared_nodes_parts_those_who_share_them_when_that_is_decided() -> None:
    history = NodeHistories()
    history.writers_have_room(room=1)
    history.share_nodes(keys=["default/u", "default/v"], ports=(80, 443))
    history.rest_on_nodes()
    history.no_address_is_shown_twice()
    history.configure_around_nodes(whose=None, pools={"a": "10.0.0.1/32", "n": "10.0.1.2-10.0.1.3"})
    history.no_address_is_shown_twice()
    history.a_moment_passes()
    history.teardown()


QUICK = settings(ANY, max_examples=100, stateful_step_count=30, derandomize=True)
LONG = settings(ANY, max_examples=30_000, stateful_step_count=80)


@pytest.mark.slow
def test_any_history_with_nodes_ends_well() -> None:
    run_state_machine_as_test(NodeHistories, settings=QUICK)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_thousands_of_histories_with_nodes_end_well() -> None:
    run_state_machine_as_test(NodeHistories, settings=LONG)
