"""Fixtures that tests of several packages share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from hypothesis.database import DirectoryBasedExampleDatabase

from lab.apiserver.embedded import EmbeddedApi
from tests import engine, real
from tests.order import Listed, mixed

hypothesis.settings.register_profile(
    "any machine",
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
    database=DirectoryBasedExampleDatabase(Path(__file__).parent.parent / ".hypothesis" / "examples"),
    print_blob=True,
)
"""A busy machine is no reason to fail. What failed is tried again first, wherever pytest is run from, and is printed so
that it can be repeated elsewhere."""
hypothesis.settings.load_profile("any machine")


NEEDED = {
    "real control plane": ("real", real.why_not),
    "real MetalLB": ("metallb", real.why_no_metallb),
    "container engine": ("docker", engine.why_not),
}
"""What not every machine has, the mark of the tests that need it, and why they cannot be run here."""


def pytest_report_header() -> list[str]:
    reasons = {what: why_not() for what, (_, why_not) in NEEDED.items()}
    return [f"{what}: not tested, {reason}" if reason else f"{what}: tested" for what, reason in reasons.items()]


def pytest_configure() -> None:
    if os.environ.get("CI"):
        for what, (_, why_not) in NEEDED.items():
            if reason := why_not():
                raise pytest.UsageError(f"CI tests on a {what}, and here {reason}")


WAITING = ("docker", "lab", "real", "xdist_group")
"""The marks of tests that wait more than they compute: for a lab, or a server that they share."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What is needed and not here leaves its tests out; the header says why. The rest is in order for several processes
    where there are some."""
    missing = {mark for mark, why_not in NEEDED.values() if why_not()}
    left_out = [item for item in items if any(item.get_closest_marker(mark) for mark in missing)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]
    if config.getoption("loadgroup", default=False):
        items[:] = mixed([Listed(item, unit_of(item), waits(item)) for item in items])


def unit_of(item: pytest.Item) -> str:
    """What xdist gives to one process: the groups of a test, or the test."""
    groups = {str(mark.args[0]) for mark in item.iter_markers("xdist_group")}
    return "_".join(sorted(groups)) or item.nodeid


def waits(item: pytest.Item) -> bool:
    return any(item.get_closest_marker(mark) for mark in WAITING)


@pytest.fixture
def embedded_api() -> Iterator[EmbeddedApi]:
    """A fresh API server: ``url``, ``kubeconfig(path)``, ``request(…)``, ``inject(…)`` faults, ``clear_faults()``."""
    with EmbeddedApi() as api:
        yield api
