"""Two control planes for the same tests: the embedded one, and the real one where its programs can be had."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from kubernetes import config

from lab.apiserver.embedded import EmbeddedApi
from tests.kubernetes.access import Access
from tests.kubernetes.control_plane import MANIFEST, ControlPlane
from tests.kubernetes.metallb import definitions
from tests.real import why_not
from tests.wire.network import Wire

REAL = pytest.param("kubernetes", marks=pytest.mark.xdist_group("kubernetes"))
"""All on one worker: the server takes five seconds to start."""


# A test without its control plane is not collected at all; tests/conftest.py's header line says why.
NEED_THE_REAL_ONE = [
    "test_allocation.py",
    "test_apply.py",
    "test_cel.py",
    "test_companions.py",
    "test_conversion.py",
    "test_helm.py",
    "test_manifests.py",
    "test_missing.py",
    "test_new_kinds.py",
    "test_orphans.py",
    "test_permissions.py",
    "test_pools.py",
    "test_rivals.py",
    "test_words.py",
]
collect_ignore = [] if why_not() is None else NEED_THE_REAL_ONE


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "kubeconfig" in metafunc.fixturenames:
        both = why_not() is None and metafunc.definition.get_closest_marker("garbage_collector") is None
        metafunc.parametrize("kubeconfig", ["embedded", *([REAL] if both else [])], indirect=True, scope="session")


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """The real one with our manifests. Tests share it, and share nothing in it."""
    with running(tmp_path_factory.mktemp("kubernetes")) as plane:
        yield plane


@pytest.fixture(scope="session")
def metallbs_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """The real one with the definitions of MetalLB 0.15 instead of ours."""
    with running(tmp_path_factory.mktemp("metallb"), definitions("0.15.2")) as plane:
        yield plane


@contextmanager
def running(
    directory: Path, definitions: Path | None = None, manifest: Path | None = MANIFEST
) -> Iterator[ControlPlane]:
    wire = Wire()
    plane = ControlPlane(wire, directory, definitions=definitions, manifest=manifest)
    try:
        yield plane.start()
    finally:
        plane.end()
        wire.end()


@pytest.fixture(scope="session")
def kubeconfig(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A control plane with our CRDs installed. Tests share it, and share nothing in it."""
    if request.param == "kubernetes":
        yield request.getfixturevalue("control_plane").kubeconfig()
        return
    with EmbeddedApi() as api:
        yield api.kubeconfig(tmp_path_factory.mktemp(request.param) / "kubeconfig")


@pytest.fixture
def access(kubeconfig: Path) -> Iterator[Access]:
    """A namespace of its own, in one of the control planes."""
    with config.new_client_from_config(str(kubeconfig)) as api_client:
        name = f"test-{uuid.uuid4().hex[:8]}"
        access = Access(api_client, name)
        access.made("/api/v1/namespaces", {"metadata": {"name": name}})
        yield access
