"""The chart on a real API server: installed, upgraded and uninstalled with values of three kinds; taking over from a
manifest and from MetalLB."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.assets.pinned import Program
from tests.controller.daemon.test_loop import ControllerProcess
from tests.deploy.chart import CHART, NAMESPACE, VALUES, helm
from tests.kubernetes import metallb, prometheus_operator
from tests.kubernetes.conftest import running
from tests.kubernetes.control_plane import DEFINITION, MANIFEST, ROOT, ControlPlane
from tests.pages import commands
from tests.real import program
from tests.waiting import wait_until

pytestmark = [pytest.mark.xdist_group("helm"), pytest.mark.slow, pytest.mark.real]


KINDS = {
    "defaults": [],
    "metallb": ["--values", str(VALUES / "metallb.yaml")],
    "everything": ["--values", str(VALUES / "everything.yaml")],
}
TAKE_OVER = ("--take-ownership", "--server-side=false")
"""A server-side apply could not remove a field that somebody else has set, such as a webhook."""
UNUSED = {
    *("frrk8s", "speaker.frr", "speaker.memberlist", "controller.webhookMode", "crds.validationFailurePolicy"),
    *("controller.logLevel", "prometheus.prometheusRule.bgpSessionDown"),
    *("controller.image.repository", "controller.image.tag", "speaker.image.repository"),
}
"""What is in the values for MetalLB and means nothing here."""
POOL = """
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: lan, namespace: metallb-system}
spec: {addresses: [192.0.2.1-192.0.2.9]}
"""
SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: %s, namespace: default, labels: {test: helm}}
spec: {type: LoadBalancer, ports: [{port: 80}]}
"""
PEER = """
apiVersion: metallb.io/v1beta2
kind: BGPPeer
metadata: {name: router, namespace: metallb-system}
spec: {myASN: 64512, peerASN: 64513, peerAddress: 192.0.2.254}
"""


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane in which nothing of ours is installed but our namespace."""
    with running(tmp_path_factory.mktemp("helm"), manifest=None) as plane:
        plane.kubectl("create", "namespace", NAMESPACE)
        for path in prometheus_operator.definitions():
            plane.kubectl("create", "-f", str(path))
        yield plane


@pytest.fixture
def plane(bare: ControlPlane) -> Iterator[ControlPlane]:
    """The same; what a test leaves is removed, but for the definitions that Helm would take for its own."""
    others = "--selector=app.kubernetes.io/managed-by!=Helm"
    listed = bare.kubectl("get", "crd", others, "-o", "name").split()
    if unowned := [each for each in listed if each.endswith(".metallb.io")]:
        bare.undefine(*unowned)
    yield bare
    helm("uninstall", "berthlb", "--namespace", NAMESPACE, kubeconfig=bare.kubeconfig())
    rest = [each for each in objects(MANIFEST) if each["kind"] != DEFINITION]
    bare.kubectl("delete", "-f", "-", "--ignore-not-found", "--wait=false", stdin=yaml.safe_dump_all(rest))
    bare.kubectl("delete", "services", "--namespace=default", "--selector=test=helm", "--wait=false")
    bare.try_kubectl("delete", "ipaddresspools,bgppeers", f"--namespace={NAMESPACE}", "--all", "--wait=false")


def objects(manifest: Path) -> list[dict[str, Any]]:
    """All of them but the namespace, which nobody here would bring to its end."""
    return [each for each in yaml.safe_load_all(manifest.read_text()) if each["kind"] != "Namespace"]


@pytest.fixture
def start(plane: ControlPlane) -> Iterator[Callable[..., ControllerProcess]]:
    running: list[ControllerProcess] = []

    def start(*flags: str) -> ControllerProcess:
        running.append(ControllerProcess(plane.kubeconfig(), *flags))
        return running[-1].ready()

    yield start
    for each in running:
        if each.process.poll() is None:
            each.end(signal.SIGKILL)


def run(plane: ControlPlane, *arguments: str) -> str:
    """What Helm says; it must succeed."""
    done = helm(*arguments, "--namespace", NAMESPACE, kubeconfig=plane.kubeconfig())
    assert done.returncode == 0, done.stderr
    return done.stdout


def names(plane: ControlPlane, kind: str) -> set[str]:
    found = plane.kubectl("get", kind, "--all-namespaces", "-o", "jsonpath={.items[*].metadata.name}")
    return set(found.split())


def identity(plane: ControlPlane, kind: str, name: str) -> tuple[str, str]:
    """Of an object in our namespace or in none: its uid, and its generation, which a change of its spec advances."""
    path = "jsonpath={.metadata.uid} {.metadata.generation}"
    uid, generation = plane.kubectl("get", kind, name, f"--namespace={NAMESPACE}", "-o", path).split()
    return uid, generation


OURS = ("Deployments", "DaemonSets", "ServiceAccounts", "Roles", "RoleBindings", "ClusterRoles", "ClusterRoleBindings")


@pytest.mark.parametrize("values", KINDS)
def test_a_life_with_helm(plane: ControlPlane, values: str) -> None:
    before = {kind: names(plane, kind) for kind in OURS}
    notes = run(plane, "install", "berthlb", str(CHART), *KINDS[values])
    assert all(names(plane, kind) > before[kind] for kind in OURS)
    named = {line.removeprefix("- ").partition(":")[0] for line in notes.splitlines() if line.startswith("- ")}
    assert named == (UNUSED if values == "metallb" else set())
    plane.await_definitions()
    plane.kubectl("apply", "-f", "-", stdin=POOL)
    pool = identity(plane, "ipaddresspool", "lan")
    (daemon_set,) = names(plane, "daemonsets")
    uid, generation = identity(plane, "daemonset", daemon_set)

    changed = "crds.enabled=false,speaker.podAnnotations.changed=yes"
    run(plane, "upgrade", "berthlb", str(CHART), *KINDS[values], "--set", changed)
    assert identity(plane, "daemonset", daemon_set) == (uid, str(int(generation) + 1))
    assert identity(plane, "ipaddresspool", "lan") == pool

    run(plane, "uninstall", "berthlb")
    assert {kind: names(plane, kind) for kind in OURS} == before
    assert identity(plane, "ipaddresspool", "lan") == pool

    run(plane, "install", "berthlb", str(CHART), *KINDS[values])
    assert identity(plane, "ipaddresspool", "lan") == pool


@pytest.mark.parametrize("by", ["helm", "kubectl"])
def test_an_upgrade_from_the_last_commits_manifest_moves_no_address(
    plane: ControlPlane, start: Callable[..., ControllerProcess], tmp_path: Path, by: str
) -> None:
    """To the chart, or to the manifest that is rendered from it."""
    last = tmp_path / "last.yaml"
    last.write_text(last_manifest())
    plane.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(objects(last)))
    plane.await_definitions()
    plane.kubectl("apply", "-f", "-", stdin=POOL)
    for each in ("a", "b", "c"):
        plane.kubectl("apply", "-f", "-", stdin=SERVICE % each)
    first = start()
    wait_until(lambda: len(set(addresses(plane).values())) == 3, message="not every Service gets an address")
    wait_until(lambda: first.ask("/metrics")[1].count("berthlb_controller_queue_length 0.0"))
    before = addresses(plane)
    kept = {kind: identity(plane, kind, f"berthlb-{of}")[0] for kind, of in WORKLOADS.items()}
    pool = identity(plane, "ipaddresspool", "lan")

    if by == "helm":
        run(plane, "upgrade", "--install", "berthlb", str(CHART), *TAKE_OVER)
    else:
        plane.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(objects(MANIFEST)))
    first.end(signal.SIGTERM)
    start()

    assert {kind: identity(plane, kind, f"berthlb-{of}")[0] for kind, of in WORKLOADS.items()} == kept
    assert identity(plane, "ipaddresspool", "lan") == pool
    plane.kubectl("apply", "-f", "-", stdin=SERVICE % "later")  # when it has an address, the others have been judged
    wait_until(lambda: "later" in addresses(plane), message="no address any more")
    assert {name: each for name, each in addresses(plane).items() if name != "later"} == before


WORKLOADS = {"deployment": "controller", "daemonset": "speaker"}


def addresses(plane: ControlPlane) -> dict[str, str]:
    """Service → its address; those without one are left out."""
    found: dict[str, Any] = json.loads(
        plane.kubectl("get", "services", "--namespace=default", "--selector=test=helm", "-o", "json")
    )
    ingress = {each["metadata"]["name"]: each["status"]["loadBalancer"].get("ingress") for each in found["items"]}
    return {name: each[0]["ip"] for name, each in ingress.items() if each}


def last_manifest() -> str:
    """deploy/berthlb.yaml as it was before the last change of it."""
    now = MANIFEST.read_text()
    for commit in git("log", "--format=%H", "--", str(MANIFEST)).split():
        then = git("show", f"{commit}:deploy/berthlb.yaml")
        if then != now:
            return then
    return now  # a clone without history


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_metallbs_definitions_are_taken_over_with_every_object(plane: ControlPlane) -> None:
    """Also the conversion webhook goes, which nobody would answer any more."""
    definitions = str(metallb.definitions("0.15.2"))
    plane.undefine("-f", str(ROOT / "crds"))
    plane.kubectl("create", "-f", definitions)
    plane.await_definitions()
    plane.kubectl("apply", "-f", "-", stdin=POOL)
    webhook = {"clientConfig": {"url": "https://127.0.0.1:1/convert"}, "conversionReviewVersions": ["v1beta1"]}
    patch = {"spec": {"conversion": {"strategy": "Webhook", "webhook": webhook}}}
    plane.kubectl("patch", "crd", "bgppeers.metallb.io", "--type=merge", "-p", json.dumps(patch))
    pool = identity(plane, "ipaddresspool", "lan")[0]

    refused = helm("install", "berthlb", str(CHART), "--namespace", NAMESPACE, kubeconfig=plane.kubeconfig())
    assert "bfdprofiles.metallb.io" in refused.stderr
    run(plane, "install", "berthlb", str(CHART), *TAKE_OVER)

    conversion = json.loads(plane.kubectl("get", "crd", "bgppeers.metallb.io", "-o", "jsonpath={.spec.conversion}"))
    assert conversion == {"strategy": "None"}
    wait_until(lambda: plane.try_kubectl("apply", "-f", "-", stdin=PEER).returncode == 0, message="it is not served")
    read = ("get", "bgppeers.v1beta1.metallb.io", "router", f"--namespace={NAMESPACE}")
    wait_until(lambda: plane.try_kubectl(*read).returncode == 0, message="it is not converted")
    assert identity(plane, "ipaddresspool", "lan")[0] == pool


def test_kustomize_makes_the_same_of_it(plane: ControlPlane) -> None:
    plane.kubectl("apply", "-k", str(ROOT / "deploy"), "--dry-run=server")
    shown = plane.kubectl("kustomize", str(ROOT / "deploy"))
    key = lambda each: (each["kind"], each["metadata"].get("namespace", ""), each["metadata"]["name"])  # noqa: E731
    assert sorted(yaml.safe_load_all(shown), key=key) == sorted(yaml.safe_load_all(MANIFEST.read_text()), key=key)


def test_a_wrong_value_is_refused_before_anything_is_installed(plane: ControlPlane) -> None:
    wrong = ("--set", "speaker.tolerateMastr=true")
    done = helm("install", "berthlb", str(CHART), *wrong, "--namespace", NAMESPACE, kubeconfig=plane.kubeconfig())
    assert "tolerateMastr" in done.stderr
    assert helm("list", "--short", "--all-namespaces", kubeconfig=plane.kubeconfig()).stdout == ""


@pytest.mark.parametrize("page", ["install-with-helm.md", "monitor.md"])
def test_a_page_works_as_written(plane: ControlPlane, tmp_path: Path, page: str) -> None:
    """Every command of it in order, where the namespace is there already."""
    programs: tuple[Program, ...] = ("helm", "kubectl")
    for name in programs:
        (tmp_path / name).symlink_to(program(name))
    (tmp_path / "deploy").symlink_to(ROOT / "deploy")
    shutil.copy(VALUES / "metallb.yaml", tmp_path / "values.yaml")
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    environment["KUBECONFIG"] = str(plane.kubeconfig())
    said = ""
    for command in commands(ROOT / "docs/how-to" / page):
        if command == f"kubectl create namespace {NAMESPACE}":
            continue
        told = ("bash", "-c", command)
        done = subprocess.run(
            told, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, (command, done.stderr)
        said += done.stdout
        if command.startswith("helm install"):
            plane.await_definitions()
            plane.kubectl("apply", "-f", "-", stdin=POOL)
    assert "STATUS: deployed" in said
    if page == "install-with-helm.md":
        assert said.splitlines()[-1].startswith("lan"), "the pool is still there"
