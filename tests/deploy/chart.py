"""The chart, and what Helm makes of it."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import yaml

from tests.real import program

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy/helm/berthlb"
VALUES = Path(__file__).parent / "values"
NAMESPACE = "metallb-system"
HELM_S = 60.0


def helm(*arguments: str, kubeconfig: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run Helm, without what this machine's user has of its files."""
    with tempfile.TemporaryDirectory() as home:
        environment = {"HOME": home, "PATH": os.environ["PATH"], "KUBECONFIG": str(kubeconfig or "/dev/null")}
        return subprocess.run(
            [program("helm"), *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=HELM_S,
            check=False,
        )


def rendered(*arguments: str, release: str = "berthlb") -> list[dict[str, Any]]:
    """The objects that an installation with these arguments has."""
    done = helm("template", release, str(CHART), "--namespace", NAMESPACE, *arguments)
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.safe_load_all(done.stdout) if each]


def without_definitions(*arguments: str, release: str = "berthlb") -> list[dict[str, Any]]:
    """The same without the custom resources' definitions, which take a second to read."""
    return rendered("--set", "crds.enabled=false", *arguments, release=release)


def pods(objects: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Daemon → the template of its pods."""
    templates = [each["spec"]["template"] for each in objects if each["kind"] in {"Deployment", "DaemonSet"}]
    return {each["spec"]["containers"][0]["name"]: each for each in templates}
