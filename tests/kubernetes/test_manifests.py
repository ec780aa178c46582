"""What ``deploy/`` ships, as a real API server sees it: every object valid, one command, pods admitted."""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

import pytest
import yaml

from speaker.options import parse
from tests.kubernetes.control_plane import MANIFEST, ROOT, ControlPlane
from tests.pages import commands

pytestmark = [pytest.mark.xdist_group("kubernetes"), pytest.mark.slow]

OBJECTS: list[dict[str, Any]] = list(yaml.safe_load_all(MANIFEST.read_text()))


def name_of(each: dict[str, Any]) -> str:
    meta = each["metadata"]
    return "/".join(filter(None, (each["kind"], meta.get("namespace"), meta["name"])))


def workload(kind: str) -> dict[str, Any]:
    (found,) = [each for each in OBJECTS if each["kind"] == kind]
    return found


def pod(kind: str, namespace: str) -> str:
    """A pod of our Deployment or DaemonSet, as its controller would make it."""
    template = workload(kind)["spec"]["template"]
    metadata = {**template["metadata"], "name": "example", "namespace": namespace}
    spec = {**template["spec"], "serviceAccountName": "default"}
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})


@pytest.mark.parametrize("each", OBJECTS, ids=name_of)
def test_every_object_passes_strict_validation(control_plane: ControlPlane, each: dict[str, Any]) -> None:
    body = json.dumps(each)
    control_plane.kubectl("apply", "--validate=strict", "--server-side", "--dry-run=server", "-f", "-", stdin=body)


def test_applying_it_again_changes_nothing(control_plane: ControlPlane) -> None:
    before = versions(control_plane)
    assert len(before) == len(OBJECTS)
    control_plane.kubectl("apply", "-f", str(MANIFEST))
    assert versions(control_plane) == before


def versions(control_plane: ControlPlane) -> dict[str, str]:
    """The resourceVersion of each of our objects."""
    found = json.loads(control_plane.kubectl("get", "-f", str(MANIFEST), "-o", "json"))["items"]
    return {name_of(each): each["metadata"]["resourceVersion"] for each in found}


def test_the_server_warns_of_nothing(control_plane: ControlPlane) -> None:
    done = control_plane.try_kubectl("apply", "--warnings-as-errors", "--dry-run=server", "-f", str(MANIFEST))
    assert done.returncode == 0, done.stderr


def test_a_tutorials_pools_are_accepted_unchanged(control_plane: ControlPlane) -> None:
    control_plane.kubectl("apply", "--dry-run=server", "-f", str(ROOT / "examples/seeds/kind-metallb-pool.yaml"))


def test_the_examples_of_node_pools_are_accepted(control_plane: ControlPlane) -> None:
    control_plane.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", str(ROOT / "examples/node-ip"))


def test_the_controllers_pod_is_admitted_where_restricted_is_enforced(control_plane: ControlPlane) -> None:
    enforce(control_plane, "restricted")
    control_plane.kubectl("create", "--dry-run=server", "-f", "-", stdin=pod("Deployment", "pss-restricted"))


def test_the_speakers_pod_needs_privileged_and_says_why(control_plane: ControlPlane) -> None:
    enforce(control_plane, "baseline")
    enforce(control_plane, "privileged")
    refused = control_plane.try_kubectl("create", "--dry-run=server", "-f", "-", stdin=pod("DaemonSet", "pss-baseline"))
    assert "host namespaces (hostNetwork=true)" in refused.stderr
    assert "NET_RAW" in refused.stderr
    control_plane.kubectl("create", "--dry-run=server", "-f", "-", stdin=pod("DaemonSet", "pss-privileged"))


def test_the_speakers_metrics_can_be_opened_as_documented(control_plane: ControlPlane) -> None:
    (command,) = [each for each in commands(ROOT / "docs/how-to/monitor.md") if each.startswith("kubectl")]
    program, *words = shlex.split(command)
    assert program == "kubectl"
    changed = json.loads(control_plane.kubectl(*words, "--dry-run=server", "--output=json"))
    (container,) = changed["spec"]["template"]["spec"]["containers"]
    assert "HOST_IP" in {each["name"] for each in container["env"]}
    fields = {"NODE_NAME": "node-1", "NAMESPACE": "metallb-system", "HOST_IP": "192.0.2.1"}
    arguments = [re.sub(r"\$\((\w+)\)", lambda found: fields[found[1]], each) for each in container["args"]]
    assert parse(arguments).listen == (("127.0.0.1", 7949), ("192.0.2.1", 7949))


def enforce(control_plane: ControlPlane, level: str) -> None:
    """Make a namespace ``pss-LEVEL`` with what else a pod needs where no kube-controller-manager runs."""
    labels = {"pod-security.kubernetes.io/enforce": level}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": f"pss-{level}", "labels": labels}}
    control_plane.kubectl("apply", "-f", "-", stdin=json.dumps(namespace))
    metadata = {"name": "default", "namespace": f"pss-{level}"}
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}
    control_plane.kubectl("apply", "-f", "-", stdin=json.dumps(account))
