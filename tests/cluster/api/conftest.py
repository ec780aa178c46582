"""What tests of list and watch share."""

from __future__ import annotations

import pytest

from tests.cluster.api.driver import Driver


@pytest.fixture
def driver() -> Driver:
    return Driver()
