"""What ``berthlb convert`` writes, as a real API server sees it, and its page of the documentation as written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cli.convert import convert
from cli.yaml_text import written
from tests.kubernetes.control_plane import ROOT, ControlPlane
from tests.pages import commands
from tests.real import program

pytestmark = [pytest.mark.xdist_group("kubernetes"), pytest.mark.slow]

PAGE = ROOT / "docs/how-to/move-from-metallbs-configmap.md"

EVERYTHING = """
address-pools:
- name: Public_1
  protocol: layer2
  addresses: [192.0.2.10 - 192.0.2.20, 198.51.100.77/24, 203.0.113.0/032, "2001:DB8:0::/64"]
  auto-assign: false
  avoid-buggy-ips: yes
- {name: 1e3, protocol: arp, cidr: ["::ffff:10.0.0.0/120", "2001:db8:1::-2001:db8:2::"]}
- {name: 0o17, protocol: layer2, addresses: [169.254.7.0/24], auto-assign: on}
- {name: y, protocol: layer2, addresses: [10.0.2.255-10.0.3.0]}
"""


def test_whatever_is_written_passes_strict_validation(control_plane: ControlPlane) -> None:
    text = written(convert(EVERYTHING).documents)
    control_plane.kubectl("apply", "--validate=strict", "--dry-run=server", "-f", "-", stdin=text)
    shown = control_plane.kubectl("apply", "--dry-run=server", "--output=json", "-f", "-", stdin=text)
    stored = {(each["kind"], each["metadata"]["name"]): each["spec"] for each in json.loads(shown)["items"]}
    assert [name for kind, name in stored if kind == "L2Advertisement"] == ["public-1", "1e3", "0o17", "y"]
    assert stored["IPAddressPool", "public-1"] == {
        "addresses": ["192.0.2.10-192.0.2.20", "198.51.100.0/24", "203.0.113.0/32", "2001:db8::/64"],
        "autoAssign": False,
        "avoidBuggyIPs": True,
    }


def test_what_a_gitops_tool_has_is_taken_too(control_plane: ControlPlane) -> None:
    pools = [{"name": "home", "protocol": "layer2", "addresses": ["192.0.2.240-192.0.2.250"]}]
    spec = {"interval": "5m", "values": {"metallb": {"configInline": {"address-pools": pools}}}}
    release = {
        "apiVersion": "helm.toolkit.fluxcd.io/v2",
        "kind": "HelmRelease",
        "metadata": {"name": "lb"},
        "spec": spec,
    }
    text = written(convert(yaml.safe_dump(release)).documents)
    control_plane.kubectl("apply", "--server-side", "--dry-run=server", "-f", "-", stdin=text)


def test_the_page_works_as_written(control_plane: ControlPlane, tmp_path: Path) -> None:
    """Every command in order, where the cluster has the old ConfigMap and a Service that asks for its pool."""
    pool = {"name": "Public_1", "protocol": "layer2", "addresses": ["192.0.2.10-192.0.2.20"]}
    config_map = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "config", "namespace": "metallb-system"},
        "data": {"config": yaml.safe_dump({"address-pools": [pool]})},
    }
    asks = {"metallb.universe.tf/address-pool": "Public_1"}
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": "dev", "annotations": asks},
        "spec": {"ports": [{"port": 80}]},
    }
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "dev"}}
    before = "\n---\n".join(json.dumps(each) for each in (config_map, namespace, service))
    control_plane.kubectl("apply", "-f", "-", stdin=before)
    try:
        printed = in_a_clone(control_plane, tmp_path)
        assert ["dev", "web", "Public_1"] in [line.split() for line in printed.splitlines()]
        found = json.loads(control_plane.kubectl("get", "-f", str(tmp_path / "pools.yaml"), "-o", "json"))["items"]
        assert [(each["kind"], each["metadata"]["name"]) for each in found] == [
            ("IPAddressPool", "public-1"),
            ("L2Advertisement", "public-1"),
        ]
        web = json.loads(control_plane.kubectl("get", "service", "web", "--namespace=dev", "-o", "json"))
        assert web["metadata"]["annotations"]["metallb.universe.tf/address-pool"] == "public-1"
    finally:
        control_plane.kubectl("delete", "--ignore-not-found", "-f", str(tmp_path / "pools.yaml"))
        control_plane.kubectl("delete", "-f", "-", stdin="\n---\n".join(json.dumps(x) for x in (config_map, service)))


def in_a_clone(control_plane: ControlPlane, directory: Path) -> str:
    """Run the page's commands where ``crds`` is, with ``berthlb`` and ``kubectl`` at hand; what they print."""
    programs = directory / "bin"
    programs.mkdir()
    (programs / "kubectl").symlink_to(program("kubectl"))
    berthlb = programs / "berthlb"
    berthlb.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m cli "$@"\n')
    berthlb.chmod(0o755)
    (directory / "crds").symlink_to(ROOT / "crds")
    environment = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "HOME": str(directory),
        "KUBECONFIG": str(control_plane.kubeconfig()),
    }
    script = "\n".join(["set -eux", *commands(PAGE)])
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
