"""ServiceL2Status objects that nobody deletes any more, on a real API server: their speaker died with its node."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from cluster.l2status import status_name
from controller.orphans import ABSENT_S, GRACE_S
from tests.kubernetes.control_plane import ControlPlane
from tests.kubernetes.installation import Installation
from tests.waiting import wait_until

pytestmark = [pytest.mark.xdist_group("kubernetes"), pytest.mark.slow]


@pytest.fixture
def cluster(control_plane: ControlPlane) -> Iterator[Installation]:
    with Installation(control_plane, "orphans", start=False) as cluster:
        yield cluster
        for name in ("alive", "dying", "deleted"):
            control_plane.try_kubectl("delete", "node", f"{cluster.name}-{name}")


def node(cluster: Installation, name: str, ready: str) -> None:
    body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": f"{cluster.name}-{name}"}}
    condition = {"type": "Ready", "status": ready, "reason": "Test"}
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(body))
    arguments = ("--subresource=status", "--type=merge", "-p", json.dumps({"status": {"conditions": [condition]}}))
    cluster.kubectl("patch", "node", f"{cluster.name}-{name}", *arguments)


def announce(cluster: Installation, service: str, on: str) -> str:
    """Have an object say that a node announces the Service; its name."""
    name, of_node = status_name(cluster.get(service)["metadata"]["uid"]), f"{cluster.name}-{on}"
    labels = {
        "metallb.io/node": of_node,
        "metallb.io/service-name": service,
        "metallb.io/service-namespace": cluster.name,
    }
    body = {
        "apiVersion": "metallb.io/v1beta1",
        "kind": "ServiceL2Status",
        "metadata": {"name": name, "labels": labels},
    }
    cluster.apply(body)
    status = {"node": of_node, "serviceName": service, "serviceNamespace": cluster.name}
    arguments = ("--subresource=status", "--type=merge", "-p", json.dumps({"status": status}))
    cluster.kubectl("patch", "servicel2status", name, *arguments)
    return name


def test_what_belongs_to_nobody_is_cleared_and_nothing_else(cluster: Installation) -> None:
    """Before, while and after the controller came to lead; the last one takes as long as a node may be silent."""
    cluster.pool("lan", "10.45.0.0/28")
    for name in ("alive", "dying", "deleted"):
        node(cluster, name, "True")
    services = ("stays", "gone-before", "gone", "on-dying", "on-deleted")
    for name in services:
        cluster.service(name)
    homes = {"on-dying": "dying", "on-deleted": "deleted", "gone": "dying"}
    objects = {name: announce(cluster, name, homes.get(name, "alive")) for name in services}
    cluster.kubectl("delete", "service", "gone-before")
    cluster.start()

    def there() -> set[str]:
        found = set(cluster.kubectl("get", "servicel2statuses", "-o", "jsonpath={.items[*].metadata.name}").split())
        return {name for name, each in objects.items() if each in found}

    wait_until(lambda: all(cluster.address(name) for name in services if name != "gone-before"))
    wait_until(lambda: there() == set(services) - {"gone-before"}, 30.0)
    node(cluster, "dying", "Unknown")
    cluster.kubectl("delete", "node", f"{cluster.name}-deleted")
    cluster.kubectl("delete", "service", "gone")
    wait_until(lambda: there() == {"stays", "on-dying"}, GRACE_S + 20.0)
    wait_until(lambda: there() == {"stays"}, ABSENT_S + 20.0)
    said = [line["object"] for line in cluster.controller.lines if line["message"].startswith("cleared")]
    assert sorted(said) == sorted(each for name, each in objects.items() if name != "stays")
