"""The real control plane in the lab, as a person with kubectl meets it. Its data path: test_lab_traffic; its faults:
test_faults."""

from __future__ import annotations

import json
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from lab import launch
from lab.client import Lab
from lab.errors import LabError, UnusableError
from lab.launch import Recipe
from lab.layout import Families, lay_out
from lab.objects.workloads import start_workload
from tests.lab.conftest import end, make, new_name
from tests.real import kubectl, program, real_assets
from tests.waiting import wait_until

pytestmark = [pytest.mark.lab, pytest.mark.real, pytest.mark.xdist_group("controlplane")]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    made = make(control_plane="kubernetes", node_grace=4.0, families=Families.DUAL)
    yield made
    end(made)


def test_nodes_are_ready_and_of_the_lan(lab: Lab) -> None:
    shown = kubectl(lab, "get", "nodes", "-o", "wide", "--no-headers").splitlines()

    assert [line.split()[:2] for line in shown] == [["node-1", "Ready"], ["node-2", "Ready"]]
    assert "172.18.0.11" in shown[0]
    assert "172.18.0.12" in shown[1]


def test_nodes_and_pods_have_addresses_of_each_family_the_primary_one_first(lab: Lab) -> None:
    start_workload(lab, "both", replicas=1, nodes=["node-2"])

    node, pod = (
        json.loads(kubectl(lab, "get", *each, "-o", "json")) for each in (("node", "node-2"), ("pod", "both-1"))
    )
    addresses = [each["address"] for each in node["status"]["addresses"] if each["type"] == "InternalIP"]
    assert addresses == ["172.18.0.12", "fd00:b1b::12"]
    assert node["spec"]["podCIDRs"] == ["10.244.2.0/24", "fd00:10:244:2::/64"]
    assert [each["ip"] for each in pod["status"]["hostIPs"]] == addresses
    pods = [each["ip"] for each in pod["status"]["podIPs"]]
    assert [ip_address(each) in ip_network(of) for each, of in zip(pods, node["spec"]["podCIDRs"], strict=True)] == [
        True
    ] * 2
    assert pod["status"]["podIP"] == pods[0]


def test_the_api_server_is_known_by_each_of_its_addresses(lab: Lab) -> None:
    """By its certificate, also as the Service "kubernetes" of the primary family, which kube-proxy carries to it."""
    for server in ("172.18.0.2:6443", "[fd00:b1b::2]:6443", "10.96.0.1:443"):
        argv = [program("kubectl"), f"--server=https://{server}", "get", "--raw", "/readyz"]
        assert lab.run("node-1", argv, check=True).output == "ok", server


def test_kubectl_works_on_the_labs_hosts(lab: Lab) -> None:
    for host in ("cp", "node-1"):
        assert "metallb-system" in lab.run(host, [program("kubectl"), "get", "namespaces"], check=True).output


def test_custom_kinds_are_served_with_their_rules(lab: Lab) -> None:
    pool = {
        "apiVersion": "metallb.io/v1beta1",
        "kind": "IPAddressPool",
        "metadata": {"name": "bad", "namespace": "metallb-system"},
        "spec": {"addresses": ["nonsense"]},
    }
    argv = [program("kubectl"), f"--kubeconfig={lab.kubeconfig}", "apply", "-f", "-"]
    done = subprocess.run(argv, input=json.dumps(pool), capture_output=True, text=True, timeout=30, check=False)

    assert done.returncode != 0
    assert "spec.addresses" in done.stderr


def test_who_has_no_token_may_nothing(lab: Lab) -> None:
    config = json.loads(lab.kubeconfig.read_text())
    cluster = config["clusters"][0]["cluster"]
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(f"{cluster['server']}/api/v1/nodes", context=context, timeout=5)


def test_kubeconfigs_are_the_users_alone(lab: Lab) -> None:
    assert "insecure" not in lab.kubeconfig.read_text()
    for path in (lab.kubeconfig, Path(lab.status().kubeconfig_inside), *lab.directory.glob("credentials/*")):
        assert path.stat().st_mode & 0o077 == 0 or path.suffix in {".crt", ".pub", ".cnf"}, path


def test_pods_of_a_new_namespace_become_ready(lab: Lab) -> None:
    start_workload(lab, "web", replicas=2, namespace="fresh")

    shown = kubectl(lab, "get", "pods", "-n", "fresh", "-o", "wide", "--no-headers").splitlines()
    assert [line.split()[:3] for line in shown] == [["web-1", "1/1", "Running"], ["web-2", "1/1", "Running"]]


def test_a_deleted_pod_is_gone_when_kubectl_says_so(lab: Lab) -> None:
    start_workload(lab, "brief", replicas=1)

    kubectl(lab, "delete", "pod", "brief-1", "--timeout=10s")

    assert "brief-1" not in kubectl(lab, "get", "pods", "-o", "name")
    assert not any(process.running for process in lab.status().processes if "brief-1" in process.name)


def test_a_node_and_its_pods_are_not_ready_while_it_is_silent(lab: Lab) -> None:
    start_workload(lab, "silent", replicas=1, nodes=["node-2"])

    def says(kind: str, name: str, status: str) -> bool:
        found = json.loads(kubectl(lab, "get", kind, name, "-o", "json"))
        return any(each["type"] == "Ready" and each["status"] == status for each in found["status"]["conditions"])

    lab.pull_link("node-2")
    wait_until(lambda: says("node", "node-2", "Unknown"), 20.0)
    wait_until(lambda: says("pod", "silent-1", "False"), 20.0)
    lab.plug_link("node-2")
    wait_until(lambda: says("node", "node-2", "True"), 20.0)
    wait_until(lambda: says("pod", "silent-1", "True"), 20.0)
    wait_until(lambda: "unreachable" not in kubectl(lab, "get", "node", "node-2", "-o", "json"), 20.0)


def test_a_grace_period_that_busy_machines_break_is_refused() -> None:
    with pytest.raises(LabError, match=r"--node-grace: a real control plane needs 2 s at least"):
        launch.up(Recipe(new_name(), lay_out(1), node_grace=0.5, assets=real_assets()))


@pytest.mark.parametrize(("mode", "missing"), [("iptables", "iptables-restore"), ("nftables", "openssl")])
def test_a_missing_program_is_named_with_its_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mode: str, missing: str
) -> None:
    assets = real_assets()
    (tmp_path / "nft").write_text("#!/bin/sh\n")
    (tmp_path / "nft").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(launch, "SBIN", str(tmp_path))

    with pytest.raises(UnusableError, match=missing.partition("-")[0] + " is missing: install"):
        launch.up(Recipe(new_name(), lay_out(1), assets=assets, proxy_mode=mode))  # type: ignore[arg-type]
