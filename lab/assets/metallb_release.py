"""MetalLB itself, for comparison: the controller and the speaker of one pinned release, and the manifest of its users.

The programs are built into the user's cache as those of the control plane are. ``PATH`` is not searched for them, where
programs of such names may be anything. The manifest is read where Go keeps the module's source, of which only the one
with the pinned sum will do.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lab.assets.build import build, find_go
from lab.assets.cache import cache_directory
from lab.assets.pinned import HERE, PinnedRelease
from lab.errors import UnusableError

MODULE = "go.universe.tf/metallb"
SUMS = {
    "0.15.2": "h1:r7KDgJtk3KZe3qb36zRVrVCYHxLR03nPGT+qFXOomJM=",
    "0.15.3": "h1:jmTFharsaP9yBW0p/giOahfuVNTBIvwQqxx2eYxM6fc=",
    "0.16.1": "h1:iVtjCslcUFMOEvuNeAyW2ygZxyW+6YjnNcEuCTOZezc=",
}
"""By version. 0.15.2 has no ConfigurationState."""
FETCH_S = 120.0
METALLB = PinnedRelease(
    name="metallb",
    version="0.15.3",  # the last whose dependencies can all be had as modules
    packages={"controller": f"{MODULE}/controller", "speaker": f"{MODULE}/speaker"},  # type: ignore[dict-item]  # see above
    module=HERE / "metallb",
)


@dataclass(frozen=True)
class MetalLBRelease:
    """Where everything of it is."""

    controller: Path
    speaker: Path
    manifest: Path
    """What its documentation has users apply: definitions, permissions, Deployment, DaemonSet, webhooks."""


def gather_metallb(
    progress: Callable[[str], None] = lambda _: None, environment: Mapping[str, str] | None = None
) -> MetalLBRelease:
    """Have it, which takes minutes the first time. Raises ``UnusableError``."""
    given = os.environ if environment is None else environment
    directory, _ = build(METALLB, cache_directory(given), given, progress)
    return _release_in(directory, given)


def is_built(environment: Mapping[str, str] | None = None) -> bool:
    """Whether ``gather_metallb`` has nothing to build."""
    return (cache_directory(os.environ if environment is None else environment) / METALLB.cache_name).is_dir()


def _release_in(directory: Path, environment: Mapping[str, str]) -> MetalLBRelease:
    manifest = source(METALLB.version, environment) / "config/manifests/metallb-native.yaml"
    return MetalLBRelease(directory / "controller", directory / "speaker", manifest)


def source(version: str, environment: Mapping[str, str]) -> Path:
    """The directory of a version's source, fetched once into Go's cache. Raises ``UnusableError``."""
    go = find_go((1, 21), cache_directory(environment), environment, lambda _: None)
    command = [str(go), "mod", "download", "-json", f"{MODULE}@v{version}"]
    local = {**environment, "GOTOOLCHAIN": "local", "GOFLAGS": ""}
    done = subprocess.run(command, env=local, cwd="/", capture_output=True, text=True, check=False, timeout=FETCH_S)
    if done.returncode != 0:
        raise UnusableError(f"MetalLB {version} cannot be fetched: {(done.stderr or done.stdout).strip()}")
    fetched = json.loads(done.stdout)
    if fetched["Sum"] != SUMS[version]:
        raise UnusableError(f"{MODULE} {version} is another module than the pinned one")
    return Path(fetched["Dir"])


if __name__ == "__main__":  # have it built
    try:
        print(gather_metallb().speaker.parent)
    except UnusableError as error:
        sys.exit(f"lab: {error}")
