"""The fixtures of pytest-docker, told what the cluster of these tests is, and the cluster itself."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.docker.cluster import DAEMONS, Cluster
from tests.engine import build_images, compose_command, environment

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def images() -> dict[str, str]:
    """The id of each daemon's image, built of this checkout."""
    return build_images()


@pytest.fixture(scope="session")
def docker_compose_command() -> Iterator[str]:
    """It finds the engine that all else uses."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", environment()["DOCKER_HOST"])
        yield " ".join(compose_command())


@pytest.fixture(scope="session")
def docker_compose_project_name() -> str:
    """Of this checkout: what a run that was killed has left is ended by the next."""
    return f"berthlb-{hashlib.sha256(bytes(ROOT)).hexdigest()[:8]}"


@pytest.fixture(scope="session")
def described(
    docker_compose_project_name: str, images: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Cluster:
    return Cluster(docker_compose_project_name, tmp_path_factory.mktemp("containers"), images)


@pytest.fixture(scope="session")
def docker_compose_file(described: Cluster) -> str:
    return str(described.file)


@pytest.fixture(scope="session")
def docker_setup() -> list[str]:
    return ["down --timeout 0 --volumes", f"up --detach {' '.join(Cluster.first)}"]


@pytest.fixture(scope="session")
def docker_cleanup() -> list[str]:
    return ["down --timeout 0 --volumes"]


@pytest.fixture(scope="session")
def cluster(described: Cluster, docker_services: Any) -> Cluster:
    """Installed and ready. Tests share it; each leaves all daemons running."""
    described.install()
    docker_services._docker_compose.execute(f"up --detach --no-recreate {' '.join(DAEMONS)}")
    described.await_ready()
    return described
