"""The files of ``deploy/`` fit together, with the daemons, and with what these measure."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest

from cluster.daemon.listen import Listen
from cluster.objects import NodeName
from controller import options as controller_options
from controller.daemon.metrics import ControllerCollector
from controller.figures import Snapshot
from speaker import options as speaker_options
from speaker.api.metrics import SpeakerCollector, SpeakerFigures

ROOT = Path(__file__).parents[2]
MANIFEST = ROOT / "deploy/berthlb.yaml"
MONITORING: list[dict[str, Any]] = list(yaml.safe_load_all((ROOT / "deploy/monitoring.yaml").read_text()))
OBJECTS: list[dict[str, Any]] = list(yaml.safe_load_all(MANIFEST.read_text()))


VALUES = {
    "metadata.namespace": "metallb-system",
    "spec.nodeName": "node-1",
    "status.hostIP": "192.0.2.1",
    "status.podIP": "2001:db8::7",
}
"""What a pod's fields are on some node."""


def pod(kind: str) -> dict[str, Any]:
    (found,) = [each for each in OBJECTS if each["kind"] == kind]
    spec = found["spec"]["template"]["spec"]
    assert isinstance(spec, dict)
    return spec


def container(kind: str) -> dict[str, Any]:
    (only,) = pod(kind)["containers"]
    assert isinstance(only, dict)
    return only


def arguments(kind: str) -> list[str]:
    """As the container gets them."""
    values = {each["name"]: VALUES[each["valueFrom"]["fieldRef"]["fieldPath"]] for each in container(kind)["env"]}
    return [re.sub(r"\$\((\w+)\)", lambda found: values[found[1]], each) for each in container(kind)["args"]]


def listens(kind: str) -> tuple[Listen, ...]:
    if kind == "Deployment":
        return controller_options.parse(arguments(kind)).listen
    return speaker_options.parse(arguments(kind)).listen


def test_the_daemons_understand_their_arguments() -> None:
    assert controller_options.parse(arguments("Deployment")).namespace == "metallb-system"
    assert speaker_options.parse(arguments("DaemonSet")).node == "node-1"


@pytest.mark.parametrize("kind", ["Deployment", "DaemonSet"])
def test_what_is_served_can_be_reached_by_the_probes_and_not_by_the_whole_lan(kind: str) -> None:
    spec = pod(kind)
    (port,) = [each["containerPort"] for each in container(kind)["ports"] if each["name"] == "monitoring"]
    own = VALUES["status.hostIP" if spec.get("hostNetwork") else "status.podIP"]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        asked = container(kind)[probe]["httpGet"]
        assert asked["port"] == "monitoring"
        assert (asked.get("host", own), port) in listens(kind), probe
    if spec.get("hostNetwork"):
        assert {each.host for each in listens(kind)} == {"127.0.0.1"}
    else:
        assert {each.host for each in listens(kind)} == {own}


@pytest.mark.parametrize("kind", ["Deployment", "DaemonSet"])
def test_a_start_and_an_end_have_the_time_that_a_loaded_node_takes(kind: str) -> None:
    """Four times what they take with a twentieth of a core and an API server that does not answer, which is what
    tests/lab/test_daemons.py does."""
    startup = container(kind)["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 60
    assert pod(kind)["terminationGracePeriodSeconds"] >= 30


@pytest.mark.parametrize("kind", ["Deployment", "DaemonSet"])
def test_containers_take_no_more_than_they_need(kind: str) -> None:
    context = container(kind)["securityContext"]
    added = {"Deployment": [], "DaemonSet": ["NET_RAW"]}[kind]
    assert context["capabilities"].get("add", []) == added
    assert context["capabilities"]["drop"] == ["ALL"]
    assert context["readOnlyRootFilesystem"] is True
    assert context["allowPrivilegeEscalation"] is False


@pytest.mark.parametrize("kind", ["Deployment", "DaemonSet"])
def test_pods_are_found_as_metallbs_are_but_not_by_its_webhook_service(kind: str) -> None:
    """Its tutorial waits for ``app=metallb``, its webhook Service sends to ``component: controller``."""
    (workload,) = [each for each in OBJECTS if each["kind"] == kind]
    labels = workload["spec"]["template"]["metadata"]["labels"]
    assert labels["app"] == "metallb"
    assert "component" not in labels
    assert container(kind)["name"] == {"Deployment": "controller", "DaemonSet": "speaker"}[kind]


def test_speakers_for_liveness_alone_replace_the_others_and_may_do_nothing_else() -> None:
    """Each object of theirs has the name of one that is installed, so that applying them takes rights away."""
    objects = list(yaml.safe_load_all((ROOT / "deploy/liveness-only.yaml").read_text()))
    names = {(each["kind"], each["metadata"]["name"]) for each in objects}
    assert names <= {(each["kind"], each["metadata"]["name"]) for each in OBJECTS if each}
    assert {kind for kind, _ in names} >= {"DaemonSet", "Role", "ClusterRole"}
    (workload,) = [each for each in objects if each["kind"] == "DaemonSet"]
    (only,) = workload["spec"]["template"]["spec"]["containers"]
    assert only["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    values = {each["name"]: VALUES[each["valueFrom"]["fieldRef"]["fieldPath"]] for each in only["env"]}
    said = [re.sub(r"\$\((\w+)\)", lambda found: values[found[1]], each) for each in only["args"]]
    assert speaker_options.parse(said).liveness_only
    rules = [rule for each in objects if each["kind"] in {"Role", "ClusterRole"} for rule in each["rules"]]
    allowed = {(verb, resource) for rule in rules for resource in rule["resources"] for verb in rule["verbs"]}
    assert allowed == {
        *(("list", "nodes"), ("watch", "nodes"), ("get", "namespaces"), ("list", "secrets"), ("watch", "secrets")),
        *(("list", "leases"), ("watch", "leases"), ("create", "leases"), ("patch", "leases")),
    }


def rules() -> list[dict[str, Any]]:
    (found,) = [each for each in MONITORING if each["kind"] == "PrometheusRule"]
    return [rule for group in found["spec"]["groups"] for rule in group["rules"]]


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: str(rule["alert"]))
def test_alerts_look_at_metrics_that_exist(rule: dict[str, Any]) -> None:
    used = set(re.findall(r"\b(?:metallb|berthlb)_\w+", rule["expr"]))
    assert used <= exposed()
    assert used or "up{" in rule["expr"]
    assert {"summary", "description"} <= rule["annotations"].keys()


def exposed() -> set[str]:
    """The names of all metrics of both daemons."""
    controller, speaker = CollectorRegistry(), CollectorRegistry()
    controller.register(ControllerCollector(Snapshot))
    speaker.register(SpeakerCollector(lambda: SpeakerFigures(NodeName("node-1"), None, loop_age_s=0.0)))
    text = (generate_latest(controller) + generate_latest(speaker)).decode()
    return {
        name + suffix
        for name, kind in re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE)
        for suffix in (("_bucket", "_count", "_sum") if kind == "histogram" else ("",))
    }


def test_what_is_scraped_is_what_the_pods_serve() -> None:
    (monitor,) = [each for each in MONITORING if each["kind"] == "PodMonitor"]
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    for workload in (each for each in OBJECTS if each["kind"] in {"Deployment", "DaemonSet"}):
        assert wanted <= workload["spec"]["template"]["metadata"]["labels"].items()
        assert endpoint["port"] in {port["name"] for port in container(workload["kind"])["ports"]}
