"""The daemons with the permissions that we ship and no others, from both sides.

Both run as processes on a wire, with the tokens of their ServiceAccounts, against a real API server; a history makes
them do everything that they ever do. The audit log then tells that nothing was forbidden, and that nothing is allowed
that they never asked for. ``WatchList`` is off in this server, so that they must list as well as watch, as they do with
servers that do not have it.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from kubernetes import config

from cluster.node_report import REPORT_ANNOTATION
from lab.controlplane.audit import ApiRequest
from lab.machines.container import confined
from lab.shipped.installed import LIVENESS_ONLY
from lab.shipped.rights import DaemonName, rights_of
from tests.kubernetes.access import Access
from tests.kubernetes.control_plane import LIVENESS, MANIFEST, MORTAL, ROOT, ControlPlane
from tests.waiting import ended, wait_until
from tests.wire.network import Wire, WireHost

pytestmark = [pytest.mark.xdist_group("permissions"), pytest.mark.slow]

NAMESPACE = "metallb-system"
DAEMONS = ("berthlb-controller", "berthlb-speaker", LIVENESS)
WAIT_S = 40.0


class Permission(NamedTuple):
    """One verb on one resource, as a role grants it."""

    scope: str
    """The namespace of a Role; empty for a ClusterRole."""
    verb: str
    group: str
    resource: str
    name: str
    """Empty: any."""

    def covers(self, request: ApiRequest) -> bool:
        return (
            (self.verb, self.group, self.resource) == (request.verb, request.group, request.resource)
            and (not self.scope or self.scope == request.namespace)
            and (not self.name or self.name == request.name)
        )


def granted(service_account: str) -> list[Permission]:
    """Every permission in the roles of a ServiceAccount, one by one."""
    roles = [
        each
        for each in (*yaml.safe_load_all(MANIFEST.read_text()), *for_liveness_alone())
        if each["kind"] in {"Role", "ClusterRole"} and each["metadata"]["name"] == service_account
    ]
    return [
        Permission(role["metadata"].get("namespace", ""), verb, group, resource, name)
        for role in roles
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        for name in rule.get("resourceNames", [""])
    ]


def for_liveness_alone() -> list[dict[str, Any]]:
    """What ``deploy/liveness-only.yaml`` grants, under that name."""
    text = LIVENESS_ONLY.read_text().replace("berthlb-speaker", LIVENESS)
    return [each for each in yaml.safe_load_all(text) if each["kind"] != "DaemonSet"]


class DaemonProcess:
    """A daemon as a process on a host, with the rights of its container."""

    def __init__(self, host: WireHost, log: Path, name: DaemonName, *arguments: str, manifest: Path = MANIFEST) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = (*confined(rights_of(name, manifest)), *MORTAL, sys.executable, "-m", name, *arguments)
        with log.open("ab") as stream:
            self.process = host.start(*command, stderr=stream, cwd=ROOT, env=environment)

    def end(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            ended(self.process)
        except AssertionError:
            self.process.kill()
            self.process.wait()


class World:
    """The server, a node that runs the speaker, and what a history does with them."""

    def __init__(self, plane: ControlPlane, node: WireHost, logs: Path) -> None:
        self.plane = plane
        self.node = node
        self.logs = logs
        self.speaker = self._start_speaker()
        self.controller = self._start_controller()
        self.liveness: DaemonProcess | None = None

    def _as(self, account: str) -> tuple[str, ...]:
        return ("--kubeconfig", str(self.plane.kubeconfig(self.plane.token(account), on_the_wire=True)))

    def _start_speaker(self) -> DaemonProcess:
        arguments = (*self._as("berthlb-speaker"), "--node-name", "node-1")
        return DaemonProcess(self.node, self.logs / "speaker.log", "speaker", *arguments)

    def _start_controller(self) -> DaemonProcess:
        arguments = self._as("berthlb-controller")
        return DaemonProcess(self.plane.host, self.logs / "controller.log", "controller", *arguments)

    def start_liveness(self, host: WireHost) -> None:
        arguments = (*self._as(LIVENESS), "--node-name", "node-3", "--liveness-only", "--listen=:7949")
        log = self.logs / "liveness.log"
        self.liveness = DaemonProcess(host, log, "speaker", *arguments, manifest=LIVENESS_ONLY)

    def restart_controller(self) -> None:
        self.controller.end()
        self.controller = self._start_controller()

    def restart_speaker(self) -> None:
        self.speaker = self._start_speaker()

    def end(self) -> None:
        if self.liveness is not None:
            self.liveness.end()
        self.speaker.end()
        self.controller.end()

    def apply(self, *objects: dict[str, Any]) -> None:
        self.plane.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))

    def get(self, *arguments: str) -> Any:
        return json.loads(self.plane.kubectl("get", *arguments, "-o", "json"))

    def asked(self, account: str, verb: str, resource: str) -> int:
        """How often a daemon has asked for something."""
        requests = self.plane.requests(account)
        return sum((request.verb, request.resource) == (verb, resource) for request in requests)


def metallb(kind: str, name: str, **spec: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": "metallb.io/v1beta1", "kind": kind, "metadata": metadata, "spec": spec}


def service(name: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "default"}
    spec = {"type": "LoadBalancer", "ports": [{"port": 80}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}


def endpoints(of: str) -> dict[str, Any]:
    metadata = {"name": of, "namespace": "default", "labels": {"kubernetes.io/service-name": of}}
    ready = {"addresses": ["10.244.1.5"], "nodeName": "node-1", "conditions": {"ready": True}}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": metadata,
        "addressType": "IPv4",
        "endpoints": [ready],
        "ports": [{"port": 80}],
    }


NODE = {
    "apiVersion": "v1",
    "kind": "Node",
    "metadata": {"name": "node-1"},
    "status": {"conditions": [{"type": "Ready", "status": "True"}]},
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    wire, directory = Wire(), tmp_path_factory.mktemp("permissions")
    plane = ControlPlane(wire, directory, "--feature-gates=WatchList=false")
    try:
        plane.start()
        made = World(plane, wire.host("node-1"), directory)
        try:
            live_through_everything(made)
            live_for_liveness_alone(made, wire.host("node-3"))
            yield made
        finally:
            made.end()
    finally:
        plane.end()
        wire.end()


def live_through_everything(world: World) -> None:
    """All that the daemons do, made to happen; each step waits for what it is to bring about."""
    plane = world.plane
    world.apply(
        NODE,
        {**NODE, "metadata": {"name": "node-2"}},
        metallb("IPAddressPool", "lan", addresses=["192.0.2.200-192.0.2.250"]),
    )
    world.apply(metallb("L2Advertisement", "lan"), endpoints("web"), endpoints("other"))
    world.apply(service("web"), service("other"))
    until(lambda: len(records(world)) == 2 and all(each["status"] for each in records(world)), "both are announced")

    # Only the annotation that names the pool is missing: the Service itself is patched.
    plane.kubectl("annotate", "service", "web", "metallb.io/ip-allocated-from-pool-")
    until(lambda: world.asked("berthlb-controller", "patch", "services"), "the annotation is back")
    # It leaves the selection: is it really gone?
    plane.kubectl("patch", "service", "other", "-p", '{"spec":{"type":"ClusterIP"}}')
    until(lambda: world.asked("berthlb-controller", "get", "services"), "the controller looks")
    until(lambda: len(records(world)) == 1, "its record is deleted")

    # A node is deleted, and its speaker could not say that it announces nothing any more.
    labels = {"metallb.io/node": "node-2", "metallb.io/service-name": "web", "metallb.io/service-namespace": "default"}
    left = metallb("ServiceL2Status", "l2-left-behind")
    world.apply({**left, "metadata": {**left["metadata"], "labels": labels}})
    plane.kubectl("delete", "node", "node-2")
    until(lambda: len(records(world)) == 1, "the record of the dead is cleared")

    # While nobody looks the speaker's objects get other labels; the next speaker puts them right.
    world.speaker.end()
    kinds = ("servicel2statuses", "configurationstates")
    for kind in kinds:
        label = {"servicel2statuses": "metallb.io/node", "configurationstates": "metallb.io/component-type"}
        plane.kubectl("label", kind, "--all", "--overwrite", f"--namespace={NAMESPACE}", f"{label[kind]}=wrong")
    world.restart_speaker()
    for kind in kinds:
        until(lambda kind=kind: world.asked("berthlb-speaker", "patch", kind), f"labels of {kind} are right")

    # MetalLB was here: is anybody behind its webhook?
    webhook = {"name": "metallb-webhook-service", "namespace": NAMESPACE}
    configuration = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration"}
    asking = {
        "name": "pools.metallb.io",
        "clientConfig": {"service": webhook},
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "namespaceSelector": {"matchLabels": {"of": "nobody"}},
        "rules": [{"apiGroups": ["metallb.io"], "apiVersions": ["*"], "operations": ["*"], "resources": ["*"]}],
    }
    spec = {"type": "ClusterIP", "ports": [{"port": 443}]}
    world.apply({**service("web"), "metadata": webhook, "spec": spec})
    world.apply({**configuration, "metadata": {"name": "metallb-webhook-configuration"}, "webhooks": [asking]})
    world.restart_controller()
    until(lambda: world.asked("berthlb-controller", "list", "endpointslices"), "the controller looks behind it")

    # Somebody else is always faster: after a conflict the controller looks at what the object has become.
    overtake(world, "ipaddresspools", lambda turn: {"addresses": [f"192.0.2.200-192.0.2.{240 + turn % 10}"]})
    overtake(world, "l2advertisements", lambda turn: {"interfaces": [f"eth{turn % 10}"]})

    # A pool of nodes: what only node-IP mode reads.
    nodes = metallb("NodeIPPool", "lan-nodes", autoAssign=False)
    world.apply({**nodes, "apiVersion": "berthlb.io/v1alpha1"})
    for kind in ("pods", "endpointslices", "configmaps"):
        until(lambda kind=kind: world.asked("berthlb-controller", "watch", kind), f"the controller watches {kind}")
    name = "berthlb.io/v1alpha1", "lan-nodes"
    overtake(world, "nodeippools", lambda turn: {"maxNodes": 1 + turn % 10}, *name)

    # 1:1 NAT before a node: a companion is made, and deleted when nothing is delivered elsewhere any more.
    addresses = [{"type": "ExternalIP", "address": "203.0.113.9"}, {"type": "InternalIP", "address": "10.9.0.9"}]
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    behind = {**NODE, "metadata": {"name": "behind-nat", "labels": {"nat": "yes"}}}
    world.apply(behind)
    said = json.dumps({"status": {"addresses": addresses, "conditions": [ready]}})
    plane.kubectl("patch", "node", "behind-nat", "--subresource=status", "--type=merge", "-p", said)
    of_nat: dict[str, Any] = {
        "nodeSelectors": [{"matchLabels": {"nat": "yes"}}],
        "addresses": [{"type": "ExternalIP"}],
        "deliveredAddresses": [{"type": "InternalIP"}],
        "allowOtherProxies": True,
        "autoAssign": False,
    }
    world.apply({**metallb("NodeIPPool", "nat", **of_nat), "apiVersion": "berthlb.io/v1alpha1"})
    asking = {"name": "nat", "namespace": "default", "annotations": {"metallb.io/address-pool": "nat"}}
    ports = {"type": "LoadBalancer", "ports": [{"port": 80}], "selector": {"app": "nat"}}
    world.apply({**service("nat"), "metadata": asking, "spec": ports})
    until(lambda: world.asked("berthlb-controller", "create", "services"), "a companion is made")
    plane.kubectl("label", "node", "behind-nat", "nat-")
    until(lambda: world.asked("berthlb-controller", "delete", "services"), "it is deleted")


def live_for_liveness_alone(world: World, host: WireHost) -> None:
    world.apply({**NODE, "metadata": {"name": "node-3"}}, *for_liveness_alone())
    world.start_liveness(host)

    def report() -> str:
        found = world.get("leases", f"--namespace={NAMESPACE}")["items"]
        leases = {each["metadata"]["name"]: each["metadata"]["annotations"] for each in found}
        return str(leases.get("berthlb-speaker-node-3", {}).get(REPORT_ANNOTATION, ""))

    until(lambda: "listening" in report(), "it reports what it listens on itself")


def overtake(
    world: World,
    kind: str,
    spec: Callable[[int], dict[str, Any]],
    version: str = "metallb.io/v1beta1",
    name: str = "lan",
) -> None:
    """Change an object, far faster than kubectl could, until one of the controller's writes has met a conflict."""
    turns = itertools.count()
    with config.new_client_from_config(str(world.plane.kubeconfig())) as api_client:
        rival = Access(api_client, NAMESPACE)
        path = f"/apis/{version}/namespaces/{NAMESPACE}/{kind}/{name}"

        def met() -> int:
            for turn in itertools.islice(turns, 50):
                assert rival.merge(path, {"spec": spec(turn)}).status == 200
            return world.asked("berthlb-controller", "get", kind)

        until(met, f"a conflict of {kind}")


def until(probe: Any, what: str) -> None:
    wait_until(probe, WAIT_S, f"not so within {WAIT_S} s: {what}")


def records(world: World) -> list[Any]:
    found: list[Any] = world.get("servicel2statuses", f"--namespace={NAMESPACE}")["items"]
    return found


@pytest.mark.parametrize("account", DAEMONS)
def test_nothing_that_a_daemon_does_is_forbidden(world: World, account: str) -> None:
    requests = world.plane.requests(account)
    assert requests
    assert [request for request in requests if request.code in {401, 403}] == []


@pytest.mark.parametrize("account", DAEMONS)
def test_nothing_is_allowed_that_a_daemon_never_does(world: World, account: str) -> None:
    requests = world.plane.requests(account)
    unused = [each for each in granted(account) if not any(each.covers(request) for request in requests)]
    assert unused == []


@pytest.mark.parametrize(
    ("account", "verb", "resource", "namespace"),
    [
        ("berthlb-controller", "get", "secrets", NAMESPACE),
        ("berthlb-controller", "list", "secrets", NAMESPACE),
        ("berthlb-controller", "create", "secrets", "default"),
        ("berthlb-controller", "list", "secrets", ""),
        ("berthlb-controller", "update", "services", "default"),
        ("berthlb-controller", "deletecollection", "services", "default"),
        ("berthlb-controller", "list", "leases", ""),
        ("berthlb-controller", "list", "configmaps", "kube-system"),
        ("berthlb-controller", "list", "configmaps/kube-proxy", NAMESPACE),
        ("berthlb-controller", "patch", "pods", "default"),
        ("berthlb-controller", "patch", "nodes", ""),
        ("berthlb-controller", "patch", "leases/kube-scheduler", "kube-system"),
        ("berthlb-controller", "delete", "leases/berthlb-controller", NAMESPACE),
        ("berthlb-speaker", "list", "secrets", NAMESPACE),
        ("berthlb-speaker", "get", "secrets/other", NAMESPACE),
        ("berthlb-speaker", "patch", "services", "default"),
        ("berthlb-speaker", "patch", "nodes", ""),
        ("berthlb-speaker", "create", "pods", NAMESPACE),
        (LIVENESS, "list", "secrets", NAMESPACE),
        (LIVENESS, "list", "services", ""),
        (LIVENESS, "list", "nodeippools.berthlb.io", NAMESPACE),
        (LIVENESS, "create", "events", "default"),
    ],
)
def test_what_a_stolen_token_cannot_do(world: World, account: str, verb: str, resource: str, namespace: str) -> None:
    user = f"--as=system:serviceaccount:{NAMESPACE}:{account}"
    where = f"--namespace={namespace}" if namespace else "--all-namespaces"
    done = world.plane.try_kubectl("auth", "can-i", verb, resource, user, where)
    assert (done.returncode, done.stdout.strip()) == (1, "no")
