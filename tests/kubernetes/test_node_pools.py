"""Pools of nodes on the real API server, which fills in what a hostNetwork Pod takes, and checks what is written."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests.kubernetes.control_plane import ControlPlane
from tests.kubernetes.installation import Installation
from tests.waiting import wait_until

pytestmark = [pytest.mark.xdist_group("kubernetes"), pytest.mark.slow]

LONG_READY = "2026-01-01T00:00:00Z"


class NodeCluster(Installation):
    """With nodes of its own."""

    def node(self, name: str, address: str) -> None:
        body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": self.full(name), "labels": {self.name: "yes"}}}
        self.apply(body)
        self.ready(name, "True", addresses=[{"type": "ExternalIP", "address": address}])

    def full(self, name: str) -> str:
        return f"{self.name}-{name}"

    def ready(self, name: str, status: str, **more: Any) -> None:
        said = {"type": "Ready", "status": status, "lastTransitionTime": LONG_READY}
        patch = json.dumps({"status": {"conditions": [said], **more}})
        self.kubectl("patch", "node", self.full(name), "--subresource=status", "--type=merge", "-p", patch)

    def node_pool(self, name: str, **spec: Any) -> None:
        body = {"apiVersion": "berthlb.io/v1alpha1", "kind": "NodeIPPool", "metadata": {"name": name}}
        selector = {"matchLabels": {self.name: "yes"}}
        self.apply({**body, "spec": {"nodeSelectors": [selector], "allowOtherProxies": True, **spec}})

    def pod(self, name: str, on: str, port: int) -> None:
        """On the host's network, bound to the node."""
        self.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}})
        container = {"name": "main", "image": "none", "ports": [{"containerPort": port}]}
        spec = {"nodeName": self.full(on), "hostNetwork": True, "containers": [container]}
        self.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})

    def until_shown(self, name: str, *addresses: str) -> None:
        shown = ",".join(addresses)
        wait_until(lambda: self.address(name) == shown, message=f"{name} does not show {shown}")

    def status(self, pool: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.kubectl("get", "nodeippool", pool, "-o", "json"))
        return dict(found.get("status", {}))


@pytest.fixture
def cluster(control_plane: ControlPlane) -> Iterator[NodeCluster]:
    cluster = NodeCluster(control_plane, "node-pools")
    with cluster:
        yield cluster
        for name in json.loads(cluster.kubectl("get", "nodes", "-l", cluster.name, "-o", "json"))["items"]:
            cluster.kubectl("delete", "node", name["metadata"]["name"], "--wait=false")


def test_a_service_follows_the_nodes_of_its_pool(cluster: NodeCluster) -> None:
    cluster.node("a", "198.51.100.71")
    cluster.node("b", "198.51.100.72")
    cluster.node_pool("nodes")
    cluster.service("web")
    cluster.until_shown("web", "198.51.100.71", "198.51.100.72")
    assert {each.get("ipMode", "VIP") for each in cluster.get("web")["status"]["loadBalancer"]["ingress"]} == {"VIP"}

    written = "metallb_k8s_client_updates_total"
    before = cluster.metric(written)
    cluster.ready("b", "Unknown")
    cluster.until_shown("web", "198.51.100.71")
    wait_until(lambda: cluster.metric(written) == before + 1)
    wait_until(lambda: cluster.status("nodes").get("usableNodes") == 1)
    assert (cluster.status("nodes")["selectedNodes"], cluster.status("nodes")["assignedServices"]) == (2, 1)
    (matching,) = [each for each in cluster.status("nodes")["conditions"] if each["type"] == "NodesMatch"]
    assert matching["message"] == f'1 of 2 nodes give no address: "{cluster.full("b")}" (NotReady)'

    cluster.ready("b", "True")
    cluster.until_shown("web", "198.51.100.71", "198.51.100.72")  # after its pause
    version = cluster.get("web")["metadata"]["resourceVersion"]
    assert cluster.controller.end(signal.SIGTERM) == 0
    cluster.start()
    cluster.pod("taker", "b", 81)
    cluster.apply({**(body := cluster.manifest("later")), "spec": {**body["spec"], "ports": [{"port": 81}]}})
    cluster.until_shown("later", "198.51.100.71")  # the server said that the Pod's port is the host's
    assert cluster.get("web")["metadata"]["resourceVersion"] == version
