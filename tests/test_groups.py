"""How the tests are spread over processes."""

from __future__ import annotations

import pytest


@pytest.mark.xdist_group("together")
def test_tests_of_one_group_run_in_one_process(request: pytest.FixtureRequest) -> None:
    """They share a lab, which each process would make anew. Releases of pytest and pytest-xdist that do not go together
    leave the groups aside without a word; where they are respected, they stand in the names of the tests."""
    grouping = request.config.getoption("loadgroup", default=False)
    assert request.node.nodeid.endswith("@together") or not grouping
