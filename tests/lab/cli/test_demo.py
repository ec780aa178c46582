"""``make demo`` as a person runs it: from nothing, to the end, with nothing left."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from lab.control.directory import all_labs
from tests.pages import ROOT

ADDRESSES = {"ipv4": ["172.18.255.200"], "ipv6": ["fd00:b1b::255:200"]}
ADDRESSES["dual"] = ADDRESSES["ipv4"] + ADDRESSES["ipv6"]


@pytest.mark.lab
@pytest.mark.parametrize("families", ADDRESSES)
def test_the_demo_plays_to_its_end_and_leaves_nothing(tmp_path: Path, families: str) -> None:
    figures = tmp_path / "figures.json"
    name = f"demo-test-{families}-{os.getpid()}"
    arguments = f"--json {figures} --name {name} --node-grace 2"
    if families != "ipv4":
        arguments += f" --families {families}"
    played = subprocess.run(
        ["make", "demo", f"DEMO_ARGS={arguments}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=170,
    )
    assert played.returncode == 0, played.stdout + played.stderr
    said = json.loads(figures.read_text())
    assert said["addresses"] == ADDRESSES[families]
    assert said["holder"]
    assert said["new_holder"] not in {"", said["holder"]}
    assert said["power_cut"]["requests"] > said["power_cut"]["lost"]
    assert said["answered_by_two"] == 0
    for address in ADDRESSES[families]:
        assert f"http://{f'[{address}]' if ':' in address else address}:80/ answered by node-" in played.stdout
    assert set(said["checks"]) >= {"LoadBalancer, from the client", "NodePort, from the client", "ExternalName"}
    assert name not in all_labs()


@pytest.mark.lab
def test_a_demo_that_cannot_run_says_so_in_one_line() -> None:
    played = subprocess.run(
        [".venv/bin/python", "-m", "lab", "demo", "--nodes", "0"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert played.returncode == 2
    assert played.stderr.count("\n") == 1
    assert "--nodes" in played.stderr
