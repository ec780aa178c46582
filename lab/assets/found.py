"""Programs that exist: where they are, and of which version."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lab.assets.pinned import Program, parse_version, wanted, will_do

ASK_S = 20.0  # for a program to say its version; a loaded machine reads 100 MB from disk first
VERSION = re.compile(r"(?:Kubernetes v|etcd Version: |Client Version: v|(?:prometheus|promtool), version |^v)([^\s+]+)")
"""Without what a distribution adds to it, or the commit: ``2.42.0+ds``, ``v4.3.2+g1234567``."""
ASK_BY: Mapping[Program, tuple[str, ...]] = {"kubectl": ("version", "--client"), "helm": ("version", "--short")}

Source = Literal["KUBEBUILDER_ASSETS", "PATH", "cache", "built", "fetched"]


@dataclass(frozen=True)
class Found:
    program: Program
    path: Path
    version: str
    source: Source


@dataclass(frozen=True)
class PassedOver:
    """A program that is there and will not do."""

    program: Program
    path: Path
    reason: str

    def __str__(self) -> str:
        return f"{self.path} is passed over: {self.reason}"


def look_for(program: Program, environment: Mapping[str, str]) -> Iterator[Found | PassedOver]:
    """What ``$KUBEBUILDER_ASSETS`` and ``PATH`` have, in order; after a ``Found`` nothing more is looked at."""
    for source, path in _places(program, environment):
        try:
            version = version_of(program, path)
        except ValueError as error:
            yield PassedOver(program, path, str(error))
            continue
        if _will_do(program, version):
            yield Found(program, path, version, source)
            return
        yield PassedOver(program, path, f"version {version}, {wanted(program)} is wanted")


def version_of(program: Program, path: Path) -> str:
    """What the program says. Raises ``ValueError``, whose text says why, where it does not."""
    argv = [str(path), *ASK_BY.get(program, ("--version",))]
    try:
        said = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=ASK_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ValueError(f"it does not say its version ({error})") from error
    match = VERSION.search(said.stdout)
    if said.returncode != 0 or match is None:
        raise ValueError(f"it does not say its version (exit code {said.returncode})")
    return match[1]


def _will_do(program: Program, version: str) -> bool:
    try:
        return will_do(program, parse_version(version))
    except ValueError:
        return False


def _places(program: Program, environment: Mapping[str, str]) -> Iterator[tuple[Source, Path]]:
    places: list[tuple[Source, str]] = []
    if environment.get("KUBEBUILDER_ASSETS"):
        places.append(("KUBEBUILDER_ASSETS", environment["KUBEBUILDER_ASSETS"]))
    places += [("PATH", directory) for directory in environment.get("PATH", os.defpath).split(":") if directory]
    seen: set[Path] = set()
    for source, directory in places:
        found = shutil.which(program, path=directory)
        if found is not None and (real := Path(found).resolve()) not in seen:
            seen.add(real)
            yield source, Path(found).absolute()
