"""MetalLB's own definitions of its custom resources, as its Go module has them: what a cluster has that ran MetalLB."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from lab.assets.metallb_release import SUMS, source

__all__ = ["SUMS", "definitions"]


@cache
def definitions(version: str) -> Path:
    """The directory of that version's CustomResourceDefinitions."""
    return source(version, os.environ) / "config/crd/bases"
