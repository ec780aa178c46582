"""Which build it is: an image says so in its environment, a checkout has only its own version."""

from __future__ import annotations

import pytest

from cluster.daemon.build import VERSION, this_build


@pytest.mark.parametrize(
    ("environment", "build"),
    [
        ({}, (VERSION, "unknown")),
        ({"BERTHLB_VERSION": "1.2.3-rc.1", "BERTHLB_COMMIT": "abc"}, ("1.2.3-rc.1", "abc")),
        ({"BERTHLB_VERSION": "", "BERTHLB_COMMIT": ""}, (VERSION, "unknown")),
    ],
)
def test_the_environment_says_which(
    environment: dict[str, str], build: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("BERTHLB_VERSION", "BERTHLB_COMMIT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert this_build() == build
