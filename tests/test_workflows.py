"""The workflows of CI and of a release, and our shell scripts: sound, and of nothing that somebody else can change."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.assets.build import build
from lab.assets.cache import cache_directory
from lab.assets.pinned import ACTIONLINT

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
SCRIPTS = sorted(
    path
    for path in [*(ROOT / "scripts").iterdir(), *(ROOT / "examples").rglob("*.sh"), ROOT / ".ci/run"]
    if path.is_file() and re.match(rb"#!.*sh\n", path.read_bytes())
)
SHELLCHECK = Path(sys.executable).with_name("shellcheck")
PINNED = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}")
ids = [path.name for path in WORKFLOWS]


def workflow(path: Path) -> dict[str, Any]:
    loaded = yaml.load(path.read_text(), yaml.BaseLoader)  # texts only: "on" is one
    assert isinstance(loaded, dict)
    return loaded


def steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in workflow(path)["jobs"].values() for step in job["steps"]]


def test_there_are_workflows_and_scripts() -> None:
    assert {"check.yml", "test.yml", "release.yml"} <= {path.name for path in WORKFLOWS}
    assert {"up.sh", "down.sh", "setup", "release", "run"} <= {path.name for path in SCRIPTS}


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_pass_shellcheck(path: Path) -> None:
    done = subprocess.run([SHELLCHECK, "--external-sources", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_workflows_pass_actionlint() -> None:
    """With shellcheck for what their steps run. The first time actionlint is built."""
    directory, _ = build(ACTIONLINT, cache_directory(os.environ), os.environ, lambda _: None)
    command: list[str | Path] = [directory / "actionlint", "-shellcheck", SHELLCHECK, "-no-color", *WORKFLOWS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", WORKFLOWS, ids=ids)
def test_actions_are_pinned_by_commit_and_say_their_version(path: Path) -> None:
    used = re.findall(r"uses:\s*(.*)", path.read_text())
    assert len(used) == len([step for step in steps(path) if "uses" in step])
    for each in used:
        assert re.fullmatch(PINNED.pattern + r" # v\d+(\.\d+)+", each), each


@pytest.mark.parametrize("path", WORKFLOWS, ids=ids)
def test_no_secret_is_used_and_rights_are_the_least(path: Path) -> None:
    """A job that may write says so itself; a checkout leaves no token behind."""
    assert "secrets." not in path.read_text()
    assert workflow(path)["permissions"] == {"contents": "read"}
    for step in steps(path):
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] == "false"


@pytest.mark.parametrize("path", WORKFLOWS, ids=ids)
def test_what_workflows_run_of_ours_is_there(path: Path) -> None:
    for step in steps(path):
        words = re.findall(r"[\w./-]+", step.get("run", ""))
        for word in words:
            if word.startswith(("scripts/", "examples/")):
                assert os.access(ROOT / word, os.X_OK), word
        if "make" in words:
            target = words[words.index("make") + 1]
            subprocess.run(["make", "-n", target], cwd=ROOT, check=True, capture_output=True)
