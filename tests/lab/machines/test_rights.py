"""Our daemons in a lab, a test or a benchmark may do what their containers may do in a cluster, and nothing else."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.client import Lab
from lab.control.messages import ProcessStatus
from lab.machines.container import confined
from lab.shipped.rights import rights_of
from tests.lab.conftest import end, make
from tests.pages import ROOT

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("rights")]

CAPABILITIES = {"NET_RAW": 1 << 13}
EIGHT_MIB = 8 << 20
NOBODY = 65534


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    made = make(nodes=1, daemons=True)
    yield made
    end(made)


def container(kind: str) -> dict[str, Any]:
    """The securityContext of our Deployment's or DaemonSet's container, as it is installed."""
    objects = yaml.safe_load_all((ROOT / "deploy/berthlb.yaml").read_text())
    (pod,) = [each["spec"]["template"]["spec"] for each in objects if each["kind"] == kind]
    return {**pod["securityContext"], **pod["containers"][0]["securityContext"]}


def processes(lab: Lab, name: str) -> list[ProcessStatus]:
    return [each for each in lab.status().processes if each.name in {name, f"{name} watcher"}]


def seen(lab: Lab, process: ProcessStatus, file: str) -> str:
    """A file of /proc about a process."""
    return lab.run(process.host, ["cat", f"/proc/{process.pid}/{file}"], check=True).output


@pytest.mark.parametrize(("kind", "name", "count"), [("DaemonSet", "speaker", 2), ("Deployment", "controller", 1)])
def test_a_daemon_has_the_rights_of_its_container(lab: Lab, kind: str, name: str, count: int) -> None:
    wanted = container(kind)
    capabilities = sum(CAPABILITIES[each] for each in wanted["capabilities"].get("add", []))
    found = processes(lab, name)
    assert len(found) == count
    for process in found:
        status = dict(re.findall(r"^(\w+):\s*(.*)$", seen(lab, process, "status"), re.MULTILINE))
        for held in ("CapBnd", "CapPrm", "CapEff"):
            assert int(status[held], 16) == capabilities, (process.name, held)
        for never in ("CapInh", "CapAmb"):
            assert int(status[never], 16) == 0, (process.name, never)
        assert status["NoNewPrivs"] == "1"
        assert seen(lab, process, "uid_map").split()[0] == str(wanted["runAsUser"])
        assert seen(lab, process, "gid_map").split()[0] == str(wanted.get("runAsGroup", 0))
        fields = seen(lab, process, "stat").rpartition(")")[2].split()
        nice, real_time, policy = (int(fields[at - 3]) for at in (19, 40, 41))  # their numbers in proc_pid_stat(5)
        assert (nice, real_time, policy) == (0, 0, os.SCHED_OTHER)
        locked = re.search(r"^Max locked memory\s+\S+\s+(\d+)", seen(lab, process, "limits"), re.MULTILINE)
        assert locked is not None
        assert int(locked[1]) <= EIGHT_MIB
        mounts = seen(lab, process, "mountinfo").splitlines()
        assert [each for each in mounts if "ro" not in each.split()[5].split(",")] == []


def test_what_a_cluster_does_not_grant_the_speaker_of_a_lab_does_not_get(lab: Lab) -> None:
    assert '"scheduling":"ordinary","memory":"pageable"' in lab.log("node-1", "speaker").read_text()


def test_programs_in_a_directory_that_only_its_owner_may_enter_can_be_run() -> None:
    """As those of a checkout in somebody's home, of which root makes a lab: a container's root has no capability that
    would let it in there."""
    if os.geteuid() != 0:
        pytest.skip("only root can be kept out of its own lab")
    with tempfile.TemporaryDirectory() as base:
        home = Path(base, "home")
        modules = home / "checkout/modules"
        modules.mkdir(parents=True)
        (modules / "kept_at_home.py").write_text("print('found')")
        (home / "diary").write_text("")
        os.chown(home, NOBODY, NOBODY)
        home.chmod(0o700)
        Path(base).chmod(0o755)
        source = f"import kept_at_home, os; print(os.listdir({str(home)!r}), os.access({str(modules)!r}, os.W_OK))"
        for daemon in ("controller", "speaker"):
            done = subprocess.run(
                [*confined(rights_of(daemon)), sys.executable, "-c", source],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(modules)},
                capture_output=True,
                text=True,
                check=False,
            )
            assert (done.stdout, done.stderr) == ("found\n['checkout'] False\n", "")
        assert sorted(os.listdir(home)) == ["checkout", "diary"], "nobody else sees it so"  # noqa: PTH208
