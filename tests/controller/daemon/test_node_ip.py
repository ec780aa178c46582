"""Node-IP mode as a process against an API server: what a Service shows follows the nodes, one write each time."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import pytest

from tests.controller.daemon.test_loop import SERVICES, Cluster, ControllerProcess, cluster, start
from tests.waiting import wait_until

__all__ = ["cluster", "start"]

pytestmark = pytest.mark.slow

NODE_IP_POOLS = "/apis/berthlb.io/v1alpha1/namespaces/metallb-system/nodeippools"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/metallb-system/leases"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
PODS = "/api/v1/namespaces/kube-system/pods"
LONG_READY = "2026-01-01T00:00:00Z"
Start = Callable[..., ControllerProcess]


def node_pool(cluster: Cluster, name: str, **spec: Any) -> None:
    metadata = {"name": name, "namespace": "metallb-system"}
    body = {"apiVersion": "berthlb.io/v1alpha1", "kind": "NodeIPPool", "metadata": metadata, "spec": spec}
    cluster.ask("POST", NODE_IP_POOLS, body)


def make_node(cluster: Cluster, name: str, address: str, **labels: str) -> None:
    body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}
    cluster.ask("POST", "/api/v1/nodes", body)
    set_ready(cluster, name, "True", address=address)


def set_ready(cluster: Cluster, name: str, status: str, *, address: str = "") -> None:
    said: dict[str, Any] = {"conditions": [{"type": "Ready", "status": status, "lastTransitionTime": LONG_READY}]}
    if address:
        said["addresses"] = [{"type": "InternalIP", "address": address}]
    cluster.merge(f"/api/v1/nodes/{name}/status", {"status": said})


def kube_proxy(cluster: Cluster, node: str, mode: str) -> None:
    """Its Pod, ready."""
    name = f"kube-proxy-{node}"
    labels = {"k8s-app": "kube-proxy"}
    spec = {"nodeName": node, "containers": [{"name": "kube-proxy", "args": [f"--proxy-mode={mode}"]}]}
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}
    cluster.ask("POST", PODS, body)
    ready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    cluster.merge(f"{PODS}/{name}/status", {"status": ready})


def lease(cluster: Cluster, node: str, *unheard: str) -> dict[str, Any]:
    quoted = ", ".join(f'"{each}"' for each in unheard)
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": f"berthlb-speaker-{node}",
            "labels": {"metallb.io/component-type": "speaker"},
            "annotations": {"berthlb.io/node-report": f'{{"unheard": [{quoted}]}}'},
        },
        "spec": {"holderIdentity": node, "renewTime": "2026-01-01T00:00:00.000000Z"},
    }


def endpoints(of: str, *nodes: str) -> dict[str, Any]:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": of, "labels": {"kubernetes.io/service-name": of}},
        "addressType": "IPv4",
        "endpoints": [
            {"addresses": [f"10.244.0.{number}"], "nodeName": node, "conditions": {"ready": True}}
            for number, node in enumerate(nodes, start=1)
        ],
    }


def shown(cluster: Cluster, name: str) -> list[str]:
    return [each["ip"] for each in cluster.services()[name]["status"]["loadBalancer"].get("ingress", [])]


def until_shown(cluster: Cluster, name: str, *addresses: str) -> None:
    wait_until(lambda: shown(cluster, name) == list(addresses), message=f"{name} does not show {addresses}")


def version(cluster: Cluster, path: str) -> int:
    return int(cluster.ask("GET", path)["metadata"]["resourceVersion"])


def pool_status(cluster: Cluster, name: str) -> dict[str, Any]:
    found: dict[str, Any] = cluster.ask("GET", f"{NODE_IP_POOLS}/{name}").get("status", {})
    return found


def until_counted(cluster: Cluster, name: str, **counts: int) -> None:
    def counted() -> bool:
        status = pool_status(cluster, name)
        return {field: status.get(field) for field in counts} == counts

    wait_until(counted, message=f"{name} does not count {counts}")


def updates(controller: ControllerProcess) -> float:
    """Writes of Service status, as the controller counts them."""
    lines = controller.ask("/metrics")[1].splitlines()
    return next(float(each.split()[1]) for each in lines if each.startswith("metallb_k8s_client_updates_total "))


def until_read(controller: ControllerProcess, pool: str, usable: int) -> None:
    """It has read everything, and decided by it."""
    line = f'berthlb_node_pool_nodes{{pool="{pool}",state="Usable"}} {usable}.0'
    wait_until(lambda: line in controller.ask("/metrics")[1], message=f"not {line}")


def test_a_service_shows_the_nodes_that_are_usable_and_a_restart_writes_nothing(cluster: Cluster, start: Start) -> None:
    for number, name in enumerate("abc", start=1):
        make_node(cluster, name, f"192.0.2.{number}", edge="yes")
        kube_proxy(cluster, name, "nftables")
    make_node(cluster, "inner", "192.0.2.9")
    controller = start().ready()
    node_pool(cluster, "edge", nodeSelectors=[{"matchLabels": {"edge": "yes"}}])
    cluster.service("web")
    until_shown(cluster, "web", "192.0.2.1", "192.0.2.2", "192.0.2.3")
    assert cluster.services()["web"]["metadata"]["annotations"]["metallb.io/ip-allocated-from-pool"] == "edge"
    until_counted(cluster, "edge", selectedNodes=3, usableNodes=3, assignedServices=1)

    written = updates(controller)
    set_ready(cluster, "b", "Unknown")
    until_shown(cluster, "web", "192.0.2.1", "192.0.2.3")
    wait_until(lambda: updates(controller) == written + 1)  # the address leaves with one write
    until_counted(cluster, "edge", selectedNodes=3, usableNodes=2, assignedServices=1)
    conditions = {each["type"]: each for each in pool_status(cluster, "edge")["conditions"]}
    assert conditions["NodesMatch"]["message"] == '1 of 3 nodes give no address: "b" (NotReady)'

    set_ready(cluster, "b", "True")
    until_shown(cluster, "web", "192.0.2.1", "192.0.2.2", "192.0.2.3")  # after its pause
    cluster.merge("/api/v1/nodes/c", {"metadata": {"labels": {"edge": None}}})
    until_shown(cluster, "web", "192.0.2.1", "192.0.2.2")
    until_counted(cluster, "edge", selectedNodes=2, usableNodes=2, assignedServices=1)

    assert controller.end(signal.SIGTERM) == 0
    again = start().ready()
    until_read(again, "edge", 2)
    make_node(cluster, "d", "192.0.2.4", edge="yes")
    kube_proxy(cluster, "d", "nftables")
    until_shown(cluster, "web", "192.0.2.1", "192.0.2.2", "192.0.2.4")
    assert updates(again) == 1  # for the new node


def test_a_restart_without_a_change_writes_nothing(cluster: Cluster, start: Start) -> None:
    make_node(cluster, "a", "192.0.2.1")
    kube_proxy(cluster, "a", "nftables")
    controller = start().ready()
    node_pool(cluster, "nodes")
    cluster.service("web")
    until_shown(cluster, "web", "192.0.2.1")
    until_counted(cluster, "nodes", selectedNodes=1, usableNodes=1, assignedServices=1)
    before = version(cluster, f"{SERVICES}/web")
    assert controller.end(signal.SIGTERM) == 0
    again = start().ready()
    until_read(again, "nodes", 1)
    cluster.service("later", ports=[{"port": 81}])
    until_shown(cluster, "later", "192.0.2.1")
    assert version(cluster, f"{SERVICES}/web") == before


def test_a_companion_shows_where_the_addresses_are_delivered_and_goes_with_its_service(
    cluster: Cluster, start: Start
) -> None:
    make_node(cluster, "a", "10.0.0.1")
    addresses = [
        {"type": kind, "address": each} for kind, each in (("ExternalIP", "203.0.113.1"), ("InternalIP", "10.0.0.1"))
    ]
    cluster.merge("/api/v1/nodes/a/status", {"status": {"addresses": addresses}})
    kube_proxy(cluster, "a", "nftables")
    controller = start().ready()
    node_pool(cluster, "nat", addresses=[{"type": "ExternalIP"}], deliveredAddresses=[{"type": "InternalIP"}])
    cluster.service("web", selector={"app": "web"})
    until_there(cluster, "web", "web-berthlb-delivered")
    until_shown(cluster, "web-berthlb-delivered", "10.0.0.1")
    until_shown(cluster, "web", "203.0.113.1")
    written = version(cluster, f"{SERVICES}/web-berthlb-delivered")
    controller.end(signal.SIGKILL)
    start().ready()
    cluster.service("later", ports=[{"port": 81}], selector={"app": "later"})
    until_there(cluster, "later", "later-berthlb-delivered", "web", "web-berthlb-delivered")
    assert version(cluster, f"{SERVICES}/web-berthlb-delivered") == written
    cluster.merge(
        "/apis/berthlb.io/v1alpha1/namespaces/metallb-system/nodeippools/nat", {"spec": {"deliveredAddresses": None}}
    )
    until_there(cluster, "later", "web")


def until_there(cluster: Cluster, *names: str) -> None:
    """These Services, and no others."""
    wait_until(
        lambda: sorted(set(cluster.services()) - {"kubernetes"}) == sorted(names), message=f"there are not {names}"
    )


def test_speakers_endpoints_and_ports_decide_with_the_nodes(cluster: Cluster, start: Start) -> None:
    for number, name in enumerate("abc", start=1):
        make_node(cluster, name, f"192.0.2.{number}")
        cluster.ask("POST", LEASES, lease(cluster, name))
    kube_proxy(cluster, "a", "nftables")
    node_pool(cluster, "nodes")
    start().ready()
    cluster.ask("POST", SLICES, endpoints("local", "a", "b"))
    cluster.service("local", externalTrafficPolicy="Local")
    cluster.service("wide", ports=[{"port": 81}])
    until_shown(cluster, "local", "192.0.2.1", "192.0.2.2")
    until_shown(cluster, "wide", "192.0.2.1", "192.0.2.2", "192.0.2.3")

    cluster.merge(f"{SLICES}/local", {"endpoints": endpoints("local", "c")["endpoints"]})
    until_shown(cluster, "local", "192.0.2.3")

    spec = {"nodeName": "b", "containers": [{"name": "x", "ports": [{"containerPort": 81, "hostPort": 81}]}]}
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "taker"}, "spec": spec}
    cluster.ask("POST", PODS, body)
    until_shown(cluster, "wide", "192.0.2.1", "192.0.2.3")

    for name in "ab":  # most of the speakers do not hear c
        said = lease(cluster, name, "c")
        cluster.merge(
            f"{LEASES}/berthlb-speaker-{name}", {"metadata": {"annotations": said["metadata"]["annotations"]}}
        )
    until_shown(cluster, "wide", "192.0.2.1")
    wait_until(lambda: not shown(cluster, "local"))


def test_without_a_pool_of_nodes_nothing_of_it_is_read(cluster: Cluster, start: Start) -> None:
    controller = start().ready()
    make_node(cluster, "a", "192.0.2.1")
    kube_proxy(cluster, "a", "nftables")
    cluster.pool("lan", addresses=["198.51.100.0/24"])
    cluster.service("web")
    assert cluster.address("web") == "198.51.100.0"
    listed = {line["resource"] for line in controller.lines if line["message"] == "listed"}
    assert not listed & {"pods", "endpointslices", "configmaps"}
    node_pool(cluster, "nodes")
    cluster.service("on-nodes", annotations={"metallb.io/address-pool": "nodes"})
    until_shown(cluster, "on-nodes", "192.0.2.1")
    cluster.ask("DELETE", f"{NODE_IP_POOLS}/nodes")
    wait_until(lambda: "berthlb_node_pool_nodes{" not in controller.ask("/metrics")[1])
    node_pool(cluster, "nodes", allowOtherProxies=True)
    until_shown(cluster, "on-nodes", "192.0.2.1")
    until_counted(cluster, "nodes", selectedNodes=1, usableNodes=1, assignedServices=1)
