"""What we install in a cluster, as ``deploy/berthlb.yaml`` says, without the custom resources' definitions.

The definitions are most of that file and take seconds to read; ``kinds`` reads them from ``crds/``.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from lab.shipped import ROOT

MANIFEST = ROOT / "deploy/berthlb.yaml"
LIVENESS_ONLY = ROOT / "deploy/liveness-only.yaml"
"""Speakers that announce nothing, in the place of those of ``MANIFEST``."""
_DEFINITION = "\nkind: CustomResourceDefinition\n"


@cache
def installed(manifest: Path = MANIFEST) -> tuple[dict[str, Any], ...]:
    """Every object of the manifest that is no CustomResourceDefinition."""
    documents = (each for each in manifest.read_text().split("\n---\n") if _DEFINITION not in each)
    return tuple(body for each in documents if (body := yaml.safe_load(each)) is not None)  # the first is a comment


def pod_of(daemon: str, manifest: Path = MANIFEST) -> dict[str, Any]:
    """The ``spec`` of one of our daemons' pods."""
    templates = (each["spec"]["template"] for each in installed(manifest) if "template" in each.get("spec", {}))
    pods: Iterator[dict[str, Any]] = (each["spec"] for each in templates)
    return next(pod for pod in pods if pod["containers"][0]["name"] == daemon)
