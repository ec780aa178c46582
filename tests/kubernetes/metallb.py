"""MetalLB's own definitions of its custom resources, its chart and its manifest, as its Go module has them: what a
cluster has that ran MetalLB."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from lab.assets.metallb_release import SUMS, source

__all__ = ["SUMS", "chart", "definitions", "manifest"]


@cache
def _source(version: str) -> Path:
    return source(version, os.environ)


def definitions(version: str) -> Path:
    """The directory of that version's CustomResourceDefinitions."""
    return _source(version) / "config/crd/bases"


def chart(version: str) -> Path:
    """That version's chart, without the charts that it depends on."""
    return _source(version) / "charts/metallb"


def manifest(version: str) -> Path:
    """What it tells people to apply who have no Helm."""
    return _source(version) / "config/manifests/metallb-native.yaml"
