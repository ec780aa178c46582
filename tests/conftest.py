"""Fixtures that tests of several packages share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import hypothesis
import pytest

from lab.apiserver.embedded import EmbeddedApi
from tests.real import why_not

hypothesis.settings.register_profile("any machine", deadline=None)  # a busy one is no reason to fail
hypothesis.settings.load_profile("any machine")


def pytest_report_header() -> str:
    reason = why_not()
    return f"real control plane: not tested, {reason}" if reason else "real control plane: tested"


def pytest_configure() -> None:
    reason = why_not()
    if reason and os.environ.get("CI"):
        raise pytest.UsageError(f"CI tests on a real control plane, and here {reason}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without a real control plane its tests are left out; the header says why."""
    if why_not() is None:
        return
    left_out = [item for item in items if item.get_closest_marker("real")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


@pytest.fixture
def embedded_api() -> Iterator[EmbeddedApi]:
    """A fresh API server: ``url``, ``kubeconfig(path)``, ``request(…)``, ``inject(…)`` faults, ``clear_faults()``."""
    with EmbeddedApi() as api:
        yield api
