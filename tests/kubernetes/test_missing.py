"""What is missing in a cluster, and what goes on without it: definitions, the namespace, another controller's class.

``/readyz`` and the log name what is missing, and when it comes nothing has to be restarted.
"""

from __future__ import annotations

import json
import signal
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.controller.daemon.test_loop import ControllerProcess
from tests.kubernetes.control_plane import ROOT, ControlPlane
from tests.waiting import wait_until

pytestmark = pytest.mark.slow
on_ours = pytest.mark.xdist_group("kubernetes")
on_metallbs = pytest.mark.xdist_group("metallb")

Start = Callable[..., ControllerProcess]


@pytest.fixture
def start() -> Iterator[Start]:
    running: list[ControllerProcess] = []

    def start(plane: ControlPlane, *flags: str) -> ControllerProcess:
        running.append(ControllerProcess(plane.kubeconfig(), *flags))
        return running[-1]

    yield start
    for each in running:
        each.end(signal.SIGKILL)


@pytest.fixture
def name() -> str:
    """Of the namespace that the test makes, or does not."""
    return f"missing-{uuid.uuid4().hex[:8]}"


def make(plane: ControlPlane, *objects: dict[str, Any]) -> None:
    plane.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))


def namespace(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def pool(where: str, *addresses: str) -> dict[str, Any]:
    metadata = {"name": "lan", "namespace": where}
    spec = {"addresses": addresses}
    return {"apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool", "metadata": metadata, "spec": spec}


def service(where: str, name: str, **spec: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": where}
    spec = {"type": "LoadBalancer", "ports": [{"port": 80}], "selector": {"app": name}, **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}


def address(plane: ControlPlane, where: str, name: str) -> str:
    path = "jsonpath={.status.loadBalancer.ingress[0].ip}"
    return wait_until(lambda: plane.kubectl("get", "service", name, "-n", where, "-o", path), 20)


def said(controller: ControllerProcess, text: str) -> list[dict[str, Any]]:
    return [line for line in controller.lines if text in json.dumps(line)]


@on_metallbs
def test_without_a_kind_that_metallb_0_15_did_not_have_services_are_served(
    metallbs_plane: ControlPlane, start: Start, name: str
) -> None:
    """ConfigurationState. It is used as soon as its definition is there."""
    plane, definition = metallbs_plane, str(ROOT / "crds/metallb.io_configurationstates.yaml")
    make(plane, namespace(name), pool(name, "10.40.0.0/28"))
    controller = start(plane, "--namespace", name, "--lb-class", f"{name}.example/a")
    make(plane, service(name, "web", loadBalancerClass=f"{name}.example/a"))
    assert address(plane, name, "web") == "10.40.0.0"
    controller.ready()
    (line,) = said(controller, "configurationstates.metallb.io")
    assert line["message"] == "the server has no such kind"
    assert "apply its definition" in line["advice"]
    assert not said(controller, "write failed")
    try:
        plane.kubectl("apply", "-f", definition)
        plane.await_definitions()
        result = (
            "get",
            "configurationstate",
            "controller",
            "-n",
            name,
            "--ignore-not-found",
            "-o",
            "jsonpath={.status}",
        )
        wait_until(lambda: '"result":"Valid"' in plane.kubectl(*result), 60)
    finally:
        plane.undefine("-f", definition)
    assert address(plane, name, "web") == "10.40.0.0"


@on_ours
def test_a_namespace_that_is_not_there_is_named_and_may_come_later(
    control_plane: ControlPlane, start: Start, name: str
) -> None:
    lb_class = f"{name}.example/a"
    controller = start(control_plane, "--namespace", name, "--lb-class", lb_class)
    wait_until(lambda: controller.ask("/readyz") == (503, f'there is no namespace "{name}" (--namespace)\n'), 20)
    wait_until(lambda: said(controller, f'namespaces \\"{name}\\" not found'))
    make(control_plane, namespace(name), pool(name, "10.40.1.0/28"))
    make(control_plane, service(name, "web", loadBalancerClass=lb_class))
    assert address(control_plane, name, "web") == "10.40.1.0"
    controller.ready()
    assert len(said(controller, f'namespaces \\"{name}\\" not found')) == 1, "said once, however long it is missing"


@on_ours
def test_controllers_of_two_classes_serve_one_namespace(control_plane: ControlPlane, start: Start, name: str) -> None:
    """And each has a standby of its own class."""
    one, other = f"{name}.example/one", f"{name}.example/Other_1"
    make(control_plane, namespace(name), pool(name, "10.41.0.0/28"))
    for lb_class in (one, one, other):
        start(control_plane, "--namespace", name, "--lb-class", lb_class).ready()
    for number, lb_class in enumerate((one, other)):
        make(control_plane, service(name, f"web-{number}", loadBalancerClass=lb_class))
        assert address(control_plane, name, f"web-{number}") == f"10.41.0.{number}"
    leases = json.loads(control_plane.kubectl("get", "leases", "-n", name, "-o", "json"))["items"]
    assert len([each for each in leases if each["metadata"]["name"].startswith("berthlb-controller-")]) == 2
