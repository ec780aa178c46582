"""Manifests that people already have, applied unchanged with kubectl to a real cluster, and what comes of them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from lab.client import Lab
from lab.measuring import measure
from lab.objects.manifests import SEEDS
from lab.objects.workloads import start_workload
from tests.lab.conftest import end, make
from tests.real import delete_service, kubectl
from tests.waiting import wait_until

pytestmark = [pytest.mark.lab, pytest.mark.real, pytest.mark.xdist_group("seeds")]
CLIENT = "172.18.0.3"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Two nodes, our daemons, and the kind tutorial's pool."""
    made = make(control_plane="kubernetes", nodes=2, node_grace=4.0, daemons=True)
    kubectl(made, "create", "namespace", "dev")
    apply(made, "kind-metallb-pool.yaml")
    yield made
    end(made)


def apply(lab: Lab, seed: str) -> None:
    kubectl(lab, "apply", "-f", str(SEEDS / seed))


def service(lab: Lab, name: str, namespace: str = "default") -> Any:
    return json.loads(kubectl(lab, "get", "service", name, "-n", namespace, "-o", "json"))


def address(lab: Lab, name: str, namespace: str = "default") -> str:
    def given() -> str:
        ingress = service(lab, name, namespace)["status"]["loadBalancer"].get("ingress") or [{}]
        return str(ingress[0].get("ip", ""))

    found = wait_until(given, 30)
    assert "172.18.255.200" <= found <= "172.18.255.250"
    return found


def page(lab: Lab, host: str, url: str) -> Any:
    """What a host gets from a URL, once it gets anything."""

    def answer() -> Any:
        done = lab.run(host, ["curl", "--silent", "--fail", "--max-time", "2", url])
        return json.loads(done.output) if done.code == 0 else None

    return wait_until(answer, 30, f"{url} does not answer {host}")


def test_the_kind_tutorial_answers_at_every_layer(lab: Lab) -> None:
    start_workload(lab, "nginx", replicas=2, namespace="dev")
    apply(lab, "kind-nginx-service.yaml")
    found = address(lab, "nginx-service", "dev")
    spec = service(lab, "nginx-service", "dev")["spec"]
    assert page(lab, "client", f"http://{found}/")["pod"].startswith("nginx-")
    assert page(lab, "client", f"http://172.18.0.11:{spec['ports'][0]['nodePort']}/")["pod"].startswith("nginx-")
    assert page(lab, "node-1", f"http://{spec['clusterIP']}/")["pod"].startswith("nginx-")
    assert found in kubectl(lab, "get", "service", "nginx-service", "-n", "dev").split()


def test_an_external_name_is_left_alone(lab: Lab) -> None:
    apply(lab, "kind-external-name.yaml")
    apply(lab, "docs-example-service.yaml")
    address(lab, "example-service")  # by now the controller has seen both
    found = service(lab, "my-external-service", "dev")
    assert found["status"] == {"loadBalancer": {}}
    assert "metallb.io/ip-allocated-from-pool" not in found["metadata"].get("annotations", {})
    about = "involvedObject.name=my-external-service"
    assert kubectl(lab, "get", "events", "-n", "dev", f"--field-selector={about}", "-o", "name") == ""
    delete_service(lab, "example-service")


def test_kubernetes_own_example_is_described_with_its_address(lab: Lab) -> None:
    start_workload(lab, "example", replicas=2, port=9376)
    apply(lab, "docs-example-service.yaml")
    found = address(lab, "example-service")
    described = kubectl(lab, "describe", "service", "example-service")
    line = next(line for line in described.splitlines() if line.startswith("LoadBalancer Ingress:"))
    assert found in line
    assert "IPAllocated" in described
    assert page(lab, "client", f"http://{found}:8765/")["pod"].startswith("example-")
    delete_service(lab, "example-service")


def test_with_policy_local_only_nodes_with_an_endpoint_announce_and_the_client_is_seen(lab: Lab) -> None:
    start_workload(lab, "example", replicas=0)
    start_workload(lab, "example", replicas=1, port=9376, nodes=["node-2"])
    apply(lab, "docs-example-service-local.yaml")
    found = address(lab, "example-service")
    answer = page(lab, "client", f"http://{found}:8765/")
    assert (answer["node"], answer["pod"], answer["client"]) == ("node-2", "example-1", CLIENT)
    with measure.watching(lab, found) as watch:
        assert measure.node_of(lab, measure.steady_holder(watch)) == "node-2"
    assert service(lab, "example-service")["spec"]["healthCheckNodePort"] > 0
    delete_service(lab, "example-service")


def test_a_lectures_session_affinity_is_untouched(lab: Lab) -> None:
    start_workload(lab, "my-app", replicas=2, port=8080)
    apply(lab, "lecture-service.yaml")
    found = address(lab, "my-service")
    spec = service(lab, "my-service")["spec"]
    assert spec["sessionAffinity"] == "ClientIP"
    assert spec["sessionAffinityConfig"] == {"clientIP": {"timeoutSeconds": 10800}}
    pods = {page(lab, "client", f"http://{found}/")["pod"] for _ in range(10)}
    assert len(pods) == 1


def test_the_legacy_configuration_is_converted_and_its_old_annotation_selects_the_pool(lab: Lab) -> None:
    convert = [sys.executable, "-m", "cli", "convert", str(SEEDS / "legacy-configmap.yaml")]
    converted = subprocess.run(convert, capture_output=True, text=True, timeout=30, check=True).stdout
    kubectl(lab, "apply", "-f", "-", given=converted)
    wanted = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "legacy", "annotations": {"metallb.universe.tf/address-pool": "default"}},
        "spec": {"type": "LoadBalancer", "ports": [{"port": 80}], "selector": {"app": "nginx"}},
    }
    kubectl(lab, "apply", "-f", "-", given=json.dumps(wanted))
    wait_until(lambda: "192.168.1.100" in kubectl(lab, "get", "service", "legacy"), 30)
    delete_service(lab, "legacy")
