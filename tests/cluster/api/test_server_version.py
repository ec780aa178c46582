"""Which API servers are too old, by what they say of themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.api.client import connect
from cluster.api.server_version import VersionCheck, why_too_old
from lab.apiserver.embedded import EmbeddedApi
from tests.waiting import wait_until


@pytest.mark.parametrize(
    ("version", "old"),
    [
        ("v1.29.15", True),
        ("v1.29.4-eks-036c24b", True),
        ("v1.9.0", True),
        ("v0.99.0", True),
        ("v1.30.0", False),
        ("v1.30.0-alpha.1", False),
        ("v1.36.3+k3s1", False),
        ("v2.0.0", False),
        ("", False),
        ("unknown", False),
    ],
)
def test_older_than_1_30_is_too_old_and_what_cannot_be_read_is_not(version: str, old: bool) -> None:
    assert bool(why_too_old(version)) == old
    assert not old or version in why_too_old(version)


def test_who_does_not_say_its_version_is_not_asked_again(embedded_api: EmbeddedApi, tmp_path: Path) -> None:
    embedded_api.inject(path="/version", status=403)
    told: list[str] = []
    check = VersionCheck(connect(embedded_api.kubeconfig(tmp_path / "kubeconfig"), user_agent="test"), told.append)
    check.start()
    wait_until(lambda: not check._thread.is_alive())
    assert told == []
