"""What tests of the controller's reports share."""

from __future__ import annotations

import pytest

from tests.controller.pools.api import Api


@pytest.fixture
def api() -> Api:
    return Api()
