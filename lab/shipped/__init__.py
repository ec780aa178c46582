"""What this repository gives a cluster, read from its files: ``crds/``, and the manifest in ``deploy/``."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
"""The repository. Python programs that a lab starts find their modules here (``PYTHONPATH``)."""
