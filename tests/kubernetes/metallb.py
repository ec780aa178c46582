"""MetalLB's own definitions of its custom resources, as its Go module has them: what a cluster has that ran MetalLB.

They are fetched once, into Go's module cache, and only the module of the sum that is written here will do.
"""

from __future__ import annotations

import json
import os
import subprocess
from functools import cache
from pathlib import Path

from lab.assets.build import find_go
from lab.assets.cache import cache_directory

MODULE = "go.universe.tf/metallb"
SUMS = {
    "0.15.2": "h1:r7KDgJtk3KZe3qb36zRVrVCYHxLR03nPGT+qFXOomJM=",
    "0.16.1": "h1:iVtjCslcUFMOEvuNeAyW2ygZxyW+6YjnNcEuCTOZezc=",
}
"""By version. 0.15 has no ConfigurationState."""
FETCH_S = 120.0


@cache
def definitions(version: str) -> Path:
    """The directory of that version's CustomResourceDefinitions."""
    environment = {**os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": ""}
    go = find_go((1, 21), cache_directory(os.environ), os.environ, lambda _: None)
    command = [str(go), "mod", "download", "-json", f"{MODULE}@v{version}"]
    done = subprocess.run(
        command, env=environment, cwd="/", capture_output=True, text=True, check=False, timeout=FETCH_S
    )
    assert done.returncode == 0, done.stderr or done.stdout
    fetched = json.loads(done.stdout)
    assert fetched["Sum"] == SUMS[version], f"{MODULE} {version} is another module than the pinned one"
    return Path(fetched["Dir"]) / "config/crd/bases"
