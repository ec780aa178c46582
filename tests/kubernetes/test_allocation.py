"""What only a real API server shows of the controller: whose writes they are, and how a refusal looks to kubectl."""

from __future__ import annotations

import json
import signal
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.controller.test_daemon import Controller
from tests.kubernetes.control_plane import ControlPlane
from tests.waiting import wait_until

pytestmark = [pytest.mark.xdist_group("kubernetes"), pytest.mark.slow]


class Cluster:
    """A namespace of the test's own, with a controller that serves it under a class of its own."""

    def __init__(self, control_plane: ControlPlane, name: str) -> None:
        self.control_plane = control_plane
        self.name = name
        control_plane.kubectl("create", "namespace", name)
        self.controller = Controller(control_plane.kubeconfig(), "--namespace", name, "--lb-class", f"{name}.example/a")

    def pool(self, name: str, *addresses: str, **spec: Any) -> None:
        body = {"apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool", "metadata": {"name": name}}
        self._apply({**body, "spec": {"addresses": list(addresses), **spec}})

    def service(self, name: str, **annotations: str) -> None:
        spec = {"type": "LoadBalancer", "loadBalancerClass": f"{self.name}.example/a", "ports": [{"port": 80}]}
        metadata = {"name": name, "annotations": annotations}
        self._apply({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})

    def _apply(self, body: dict[str, Any]) -> None:
        self.kubectl("apply", "-f", "-", stdin=json.dumps(body))

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return self.control_plane.kubectl("-n", self.name, *arguments, stdin=stdin)

    def address(self, name: str) -> str:
        return self.kubectl("get", "service", name, "-o", "jsonpath={.status.loadBalancer.ingress[0].ip}")

    def condition(self, name: str) -> dict[str, str]:
        conditions = json.loads(self.kubectl("get", "service", name, "-o", "json"))["status"].get("conditions", [])
        return next((each for each in conditions if each["type"] == "berthlb.io/AddressAssigned"), {})

    def rewrite(self, name: str, address: str, manager: str) -> None:
        """Write the status as another controller would."""
        patch = json.dumps({"status": {"loadBalancer": {"ingress": [{"ip": address}]}}})
        arguments = ("--subresource=status", "--type=merge", f"--field-manager={manager}")
        self.kubectl("patch", "service", name, *arguments, "-p", patch)


@pytest.fixture
def cluster(control_plane: ControlPlane) -> Iterator[Cluster]:
    cluster = Cluster(control_plane, f"allocation-{uuid.uuid4().hex[:8]}")
    yield cluster
    cluster.controller.end(signal.SIGKILL)
    control_plane.kubectl("delete", "namespace", cluster.name, "--wait=false")


def test_a_rival_is_named_by_the_name_under_which_the_api_knows_it(cluster: Cluster) -> None:
    cluster.pool("pool", "172.18.255.200-172.18.255.250")
    cluster.service("web")
    for _ in range(2):
        wait_until(lambda: cluster.address("web") == "172.18.255.200")
        cluster.rewrite("web", "192.168.1.7", "svclb-controller")
    wait_until(lambda: cluster.address("web") == "172.18.255.200", message="a slip of the hand is corrected")
    managers = json.loads(cluster.kubectl("get", "service", "web", "-o", "json", "--show-managed-fields"))
    ours = [each for each in managers["metadata"]["managedFields"] if each["manager"] == "berthlb-controller"]
    assert [each["subresource"] for each in ours] == ["status"], "what we write is known as ours"
    cluster.rewrite("web", "192.168.1.7", "svclb-controller")
    wait_until(lambda: cluster.condition("web")["reason"] == "Contested")
    assert cluster.condition("web")["message"].startswith('"svclb-controller" keeps replacing')
    assert cluster.address("web") == "192.168.1.7"
    wait_until(lambda: "Contested" in cluster.kubectl("get", "events", "-o", "jsonpath={.items[*].reason}"))


def test_kubectl_shows_why_every_pool_refuses(cluster: Cluster) -> None:
    cluster.pool("full", "172.18.255.1/32")
    cluster.service("holder")
    wait_until(lambda: cluster.address("holder") == "172.18.255.1")
    cluster.pool("manual", "172.18.254.0/24", autoAssign=False)
    cluster.pool("overlap", "172.18.255.0/24")
    cluster.pool("six", "2001:db8::/64")
    cluster.pool("staging", "172.18.253.0/24", serviceAllocation={"namespaces": ["staging"]})
    tier = {"serviceSelectors": [{"matchLabels": {"tier": "front"}}]}
    cluster.pool("tier", "172.18.252.0/24", serviceAllocation=tier)
    wait_until(lambda: "overlaps" in cluster.kubectl("get", "ipaddresspool", "overlap", "-o", "jsonpath={.status}"))
    cluster.service("web")
    wait_until(lambda: cluster.condition("web"))
    reasons = [
        f'pool "staging" is not for namespace "{cluster.name}" (serviceAllocation)',
        'pool "tier" is not for Services with these labels (serviceAllocation.serviceSelectors)',
        'pool "full" has no free IPv4 address (1 of 1 in use)',
        'pool "six" has no IPv4 addresses',
        'pool "manual" gives addresses only to Services that ask for it (autoAssign is false)',
        'pool "overlap" cannot be honoured as it is written; see its status',
    ]
    assert cluster.condition("web")["reason"] == "PoolExhausted"
    said = cluster.condition("web")["message"].split("; pool ")
    assert sorted(each if each.startswith("pool") else f"pool {each}" for each in said) == sorted(reasons)
    wait_until(lambda: "AllocationFailed" in cluster.kubectl("describe", "service", "web"))
    described = cluster.kubectl("describe", "service", "web")
    assert all(reason in described for reason in reasons), described
