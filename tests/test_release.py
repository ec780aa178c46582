"""``scripts/release``, as far as it pushes nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from cluster.daemon.build import VERSION
from tests.real import program

ROOT = Path(__file__).parents[1]
REGISTRY = "registry.example/berthlb"
DIGEST = "sha256:" + "7" * 64


def release(step: str, tag: str = f"v{VERSION}", root: Path = ROOT, path: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "REGISTRY": REGISTRY, "TAG": tag, "PATH": f"{path}:{os.environ['PATH']}"}
    command = [str(root / "scripts/release"), step]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_a_release_is_of_the_version_that_the_files_have() -> None:
    assert release("check").returncode == 0
    refused = release("check", "v99.0.0")
    assert refused.returncode == 2
    assert refused.stderr == f"release: the tag is v99.0.0, and cluster/daemon/build.py has {VERSION}\n"


def images(text: str) -> set[str]:
    pods = [each for each in yaml.safe_load_all(text) if each and each["kind"] in {"Deployment", "DaemonSet"}]
    return {each["spec"]["template"]["spec"]["containers"][0]["image"] for each in pods}


@pytest.mark.real
@pytest.mark.slow
def test_manifest_and_chart_of_a_release_install_the_images_that_were_signed(tmp_path: Path) -> None:
    """By digest, whatever becomes of the tag; in a copy, with the real Helm."""
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy")
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts/release", tmp_path / "scripts")
    (tmp_path / "build/release").mkdir(parents=True)
    made = {name: f"{REGISTRY}/{name}:{VERSION}" for name in ("controller", "speaker")}
    lines = [f"{name} {image} {DIGEST}\n" for name, image in made.items()]
    (tmp_path / "build/release/images").write_text("".join(lines))
    helm = Path(program("helm"))
    done = release("package", root=tmp_path, path=str(helm.parent))
    assert done.returncode == 0, done.stderr
    signed = {f"{image}@{DIGEST}" for image in made.values()}
    assert images((tmp_path / "build/release/berthlb.yaml").read_text()) == signed
    chart = tmp_path / f"build/release/berthlb-{VERSION}.tgz"
    rendered = subprocess.run([helm, "template", chart], capture_output=True, text=True, check=True).stdout
    assert images(rendered) == signed
