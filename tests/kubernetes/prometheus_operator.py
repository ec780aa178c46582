"""The Prometheus operator's definitions of its custom resources, as its Go module has them.

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

MODULE = "github.com/prometheus-operator/prometheus-operator@v0.92.1"
SUM = "h1:rHWuFo6SVya4FBSCNg2DCzyc4xAv54zk3eDTzp5mQZc="
KINDS = ("podmonitors", "prometheusrules", "servicemonitors")
FETCH_S = 120.0


@cache
def definitions() -> list[Path]:
    """Of the kinds that our chart makes objects of."""
    environment = {**os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": ""}
    go = find_go((1, 21), cache_directory(os.environ), os.environ, lambda _: None)
    command = [str(go), "mod", "download", "-json", MODULE]
    done = subprocess.run(
        command, env=environment, cwd="/", capture_output=True, text=True, check=False, timeout=FETCH_S
    )
    assert done.returncode == 0, done.stderr or done.stdout
    fetched = json.loads(done.stdout)
    assert fetched["Sum"] == SUM, f"{MODULE} is another module than the pinned one"
    directory = Path(fetched["Dir"]) / "example/prometheus-operator-crd"
    return [directory / f"monitoring.coreos.com_{kind}.yaml" for kind in KINDS]
