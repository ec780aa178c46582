"""The container engine, for the tests that are marked ``docker``."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tarfile
import tempfile
import zlib
from functools import cache
from pathlib import Path
from typing import IO

SCRIPT = Path(__file__).parents[1] / "scripts/engine"
FIRST_BUILD_S = 600.0
PATIENCE_S = 120.0  # for one command; a machine with eight busy processes takes some seconds to end a container


@cache
def _host() -> subprocess.CompletedProcess[str]:
    return subprocess.run([SCRIPT, "host"], capture_output=True, text=True, check=False, timeout=60)


def why_not() -> str | None:
    """Why no engine can be used here; None: one can."""
    found = _host()
    return None if found.returncode == 0 else found.stderr.strip().removeprefix("engine: ")


def environment() -> dict[str, str]:
    """Of a process that talks to the engine."""
    return {**os.environ, "DOCKER_HOST": _host().stdout.strip()}


def docker(*arguments: str, check: bool = True, errors_too: bool = False) -> str:
    """What docker prints, on the standard error too if asked for. It must succeed, or with ``check`` false need not."""
    done = subprocess.run(
        ["docker", *arguments], env=environment(), capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )
    assert done.returncode == 0 or not check, f"docker {' '.join(arguments)}: {done.stderr or done.stdout}"
    return done.stdout + (done.stderr if errors_too else "")


def compose_command() -> list[str]:
    """A part of the client, or a program of its own, as Debian's is."""
    part = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
    return ["docker", "compose"] if part.returncode == 0 else ["docker-compose"]


def build_images() -> dict[str, str]:
    """The id of each daemon's image, built of this checkout if it is not there."""
    built = subprocess.run(
        [SCRIPT.with_name("images")], capture_output=True, text=True, check=False, timeout=FIRST_BUILD_S
    )
    assert built.returncode == 0, built.stderr
    lines = (line.split() for line in built.stdout.splitlines())
    return {name.split("/")[-1].split(":")[0]: identity for name, identity in lines}


def base_image() -> str:
    """What the images that ``build_images`` builds stand on."""
    dockerfile = SCRIPT.parents[1] / "Dockerfile.speaker"
    (default,) = re.findall(r"^ARG BASE_IMAGE=(\S+)", dockerfile.read_text(), re.MULTILINE)
    return os.environ.get("BASE_IMAGE") or str(default)


def packed(image: str, beside: str | None = None) -> int:
    """Octets of an image's layers, each compressed as a registry keeps it; without those of the image ``beside``."""
    known = set(json.loads(docker("inspect", "--format", "{{json .RootFS.Layers}}", beside))) if beside else set()
    layers = json.loads(docker("inspect", "--format", "{{json .RootFS.Layers}}", image))
    with tempfile.TemporaryFile() as file:
        subprocess.run(["docker", "save", image], env=environment(), stdout=file, check=True, timeout=PATIENCE_S)
        file.seek(0)
        with tarfile.open(fileobj=file) as saved:
            (manifest,) = json.load(_member(saved, "manifest.json"))
            paths = [path for path, layer in zip(manifest["Layers"], layers, strict=True) if layer not in known]
            return sum(len(zlib.compress(_member(saved, path).read(), 6)) for path in paths)


def _member(saved: tarfile.TarFile, path: str) -> IO[bytes]:
    found = saved.extractfile(path)
    assert found is not None, path
    return found
