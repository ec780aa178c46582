"""The programs of a real control plane, Helm and Prometheus, for the tests that are marked ``real``."""

from __future__ import annotations

import json
import os
import re
import subprocess
from functools import cache

from lab.assets.gather import Assets, find
from lab.assets.metallb_release import is_built
from lab.assets.pinned import ALL, Program
from lab.client import Lab
from tests.waiting import wait_until


@cache
def _found() -> Assets | None:
    return find(wanted=ALL)


def why_not() -> str | None:
    """Why no real control plane can be run here; None: it can."""
    if os.geteuid() != 0:
        return "root is needed for the network namespaces of these tests"
    return "its programs are not there; `make assets` finds or builds them" if _found() is None else None


def why_no_metallb() -> str | None:
    """Why the real MetalLB cannot be run here; None: it can."""
    return why_not() or (None if is_built() else "MetalLB is not built; `make assets` does that")


def real_assets() -> Assets:
    """All of them. Only where ``why_not`` has no reason."""
    found = _found()
    assert found is not None, why_not()
    return found


def kubectl(lab: Lab, *arguments: str, given: str = "") -> str:
    """What kubectl prints, as the lab's administrator; it must succeed."""
    argv = [program("kubectl"), f"--kubeconfig={lab.kubeconfig}", *arguments]
    done = subprocess.run(argv, input=given, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def delete_service(lab: Lab, name: str, namespace: str = "default") -> None:
    """Deletes a Service and returns once no node has a rule for its addresses: kube-proxy is later than the controller,
    so the next Service that gets one of them could still be served as this one was."""
    shown = kubectl(lab, "get", "service", name, f"--namespace={namespace}", "-o", "json")
    ingress = json.loads(shown)["status"]["loadBalancer"].get("ingress", ())
    kubectl(lab, "delete", "service", name, f"--namespace={namespace}")
    addresses = re.compile("|".join(rf"\b{re.escape(each['ip'])}\b" for each in ingress) or r"(?!)")
    nodes = [node.name for node in lab.status().layout.nodes]

    def forgotten() -> bool:
        rulesets = (lab.run(node, ["nft", "list", "ruleset"], check=True).output for node in nodes)
        return not any(addresses.search(ruleset) for ruleset in rulesets)

    wait_until(forgotten, 20, f"a node still serves {name}", every=0.1)


def program(name: Program) -> str:
    """The path of one."""
    return str(real_assets().path(name))
