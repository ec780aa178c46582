"""The daemons run from a clone of the repository as the README says, on a machine where nothing is installed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from lab.layout import CONTROL_PLANE
from lab.measuring import measure
from lab.objects.manifests import SEEDS, apply_files
from lab.objects.workloads import start_workload
from tests.lab.conftest import MakeLab
from tests.pages import README, ROOT, block_with

NODE = "node-1"


def clone(directory: Path) -> Path:
    """What a clone of this state of the repository would have in it."""
    argv = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(argv, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            (directory / name).write_bytes((ROOT / name).read_bytes())
            (directory / name).chmod((ROOT / name).stat().st_mode)
    return directory


@pytest.mark.lab
def test_daemons_of_a_clone_give_a_service_its_address_and_answer_for_it(make_lab: MakeLab, tmp_path: Path) -> None:
    here = clone(tmp_path / "clone")
    setup, controller, speaker = block_with(README, "-m controller")
    bare = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"]} | {
        name: value for name, value in os.environ.items() if name == "PYTHON" or name.startswith("PIP_")
    }
    subprocess.run(setup.split(), cwd=here, env=bare, check=True, timeout=300)
    helped = [".venv/bin/python", "-m", "cli", "--help"]
    assert "migrate" in subprocess.run(helped, cwd=here, env=bare, check=True, capture_output=True, text=True).stdout
    lab = make_lab(nodes=1)
    kubeconfig = lab.status().kubeconfig_inside

    def written(command: str) -> list[str]:
        return ["sh", "-c", f"cd {here} && exec {command.replace('FILE', kubeconfig).replace('NODE', NODE)}"]

    with (
        lab.start(CONTROL_PLANE, written(controller), environment=bare),
        lab.start(NODE, written(speaker), environment=bare),
    ):
        apply_files(lab, [SEEDS / "kind-metallb-pool.yaml", SEEDS / "kind-nginx-service.yaml"])
        start_workload(lab, "nginx", replicas=1, namespace="dev")
        with measure.watching(lab, "172.18.255.200") as watch:
            assert measure.node_of(lab, measure.steady_holder(watch)) == NODE
