"""What is pinned: the release, how its programs are built, and which other versions of them will do."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

HERE = Path(__file__).parent

Program = Literal["etcd", "kube-apiserver", "kube-controller-manager", "kube-proxy", "kubectl", "actionlint", "kind"]
Version = tuple[int, ...]

KUBERNETES_VERSION = "1.36.3"
ETCD_VERSION = "3.6.16"
ETCD_LEAST: Version = (3, 5, 13)  # below, the API server refuses watches that begin with sendInitialEvents
GO_REQUIREMENTS = HERE / "go.txt"  # PyPI's Go, for machines without


@dataclass(frozen=True)
class Release:
    """Programs that are built together, in one directory of the cache."""

    name: str
    version: str
    packages: Mapping[Program, str]
    """The Go package of each program."""
    module: Path
    """Directory of the ``go.mod`` and ``go.sum`` that pin everything."""
    link_flags: str = "-s -w"

    @property
    def cache_name(self) -> str:
        """Names the version for people, and everything that the result depends on for us."""
        recipe = hashlib.sha256(platform.machine().encode())
        for name in ("go.mod", "go.sum"):
            recipe.update((self.module / name).read_bytes())
        recipe.update(repr((sorted(self.packages.items()), self.link_flags)).encode())
        return f"{self.name}-{self.version}-{recipe.hexdigest()[:12]}"

    @property
    def least_go(self) -> Version:
        """The Go version that the ``go.mod`` asks for."""
        lines = (self.module / "go.mod").read_text().splitlines()
        return parse_version(next(line.split()[1] for line in lines if line.startswith("go ")))


def parse_version(text: str) -> Version:
    """``1.36.3`` as numbers. Raises ``ValueError``: ``1.37.0-rc.1`` is no version that will do."""
    return tuple(int(part) for part in text.split("."))


def _kubernetes_link_flags(version: str) -> str:
    """Kubernetes' programs know their version only by what the linker writes into them."""
    major, minor, _ = version.split(".")
    said = {
        "gitVersion": f"v{version}",
        "gitMajor": major,
        "gitMinor": minor,
        "gitTreeState": "archive",
        "gitCommit": "unknown",
        "buildDate": "1970-01-01T00:00:00Z",
    }
    words = [f"-X k8s.io/component-base/version.{name}={value}" for name, value in said.items()]
    return " ".join(["-s -w", *words, f"-X k8s.io/client-go/pkg/version.gitVersion=v{version}"])


KUBERNETES = Release(
    name="kubernetes",
    version=KUBERNETES_VERSION,
    packages={
        "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
        "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
        "kube-proxy": "k8s.io/kubernetes/cmd/kube-proxy",
        "kubectl": "k8s.io/kubernetes/cmd/kubectl",
    },
    module=HERE / "kubernetes",
    link_flags=_kubernetes_link_flags(KUBERNETES_VERSION),
)
ETCD = Release(
    name="etcd",
    version=ETCD_VERSION,
    packages={"etcd": "go.etcd.io/etcd/server/v3"},
    module=HERE / "etcd",
)
RELEASES = (KUBERNETES, ETCD)
ACTIONLINT = Release(
    name="actionlint",
    version="1.7.12",
    packages={"actionlint": "github.com/rhysd/actionlint/cmd/actionlint"},
    module=HERE / "actionlint",
)
KIND = Release(name="kind", version="0.33.0", packages={"kind": "sigs.k8s.io/kind"}, module=HERE / "kind")


def will_do(program: Program, version: Version) -> bool:
    """Whether a program of this version may stand for the pinned one.

    The Kubernetes programs must be of the one release; etcd only speaks to kube-apiserver.
    """
    if program == "etcd":
        return version >= ETCD_LEAST
    return version == parse_version(KUBERNETES_VERSION)


def wanted(program: Program) -> str:
    """``will_do`` in words."""
    if program == "etcd":
        return "≥ " + ".".join(map(str, ETCD_LEAST))
    return KUBERNETES_VERSION
