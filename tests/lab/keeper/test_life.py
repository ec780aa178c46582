"""A lab comes up, keeps to itself, and leaves nothing behind, however it ends."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

import pytest

from lab import launch
from lab.client import Lab
from lab.control.directory import is_alive, lab_directory
from lab.errors import LabError
from lab.launch import Recipe
from lab.layout import lay_out
from lab.readiness import NotReadyError
from tests.lab.conftest import MakeLab, new_name
from tests.lab.footprint import Footprint, is_guarded
from tests.pages import ROOT
from tests.waiting import ended, wait_until

pytestmark = pytest.mark.lab
NET_RAW = 1 << 13
NOBODY = 65534


def command(*words: str, **more: Any) -> subprocess.Popen[str]:
    """A ``lab`` command that hears SIGINT as in a terminal: a shell has what it runs in the background ignore it."""
    return subprocess.Popen(
        ["env", "--default-signal=INT", sys.executable, "-m", "lab", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        **more,
    )


def outside_pid(lab: Lab, inside: int) -> int:
    """A process id of the lab, as the machine sees it."""
    wanted = Path(f"/proc/{lab.status().keeper_pid}/ns/pid").readlink()
    for process in Path("/proc").iterdir():
        try:
            if not process.name.isdigit() or (process / "ns" / "pid").readlink() != wanted:
                continue
            status = (process / "status").read_text()
        except OSError:
            continue
        line = next(line for line in status.splitlines() if line.startswith("NSpid:"))
        if int(line.split()[-1]) == inside:
            return int(process.name)
    raise AssertionError(f"no process {inside} in the lab")


def test_down_leaves_nothing(make_lab: MakeLab) -> None:
    lab = make_lab()
    lab.run("node-1", ["sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 &"], check=True)
    footprint = Footprint(lab)
    lab.down()
    footprint.assert_nothing_is_left()


def test_killing_the_keeper_ends_everything(make_lab: MakeLab) -> None:
    lab = make_lab()
    lab.run("client", ["sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 &"], check=True)
    footprint = Footprint(lab)
    os.kill(lab.status().keeper_pid, signal.SIGKILL)
    footprint.assert_nothing_is_left()
    assert not is_alive(lab.directory)


def test_killing_the_guard_ends_everything(make_lab: MakeLab) -> None:
    lab = make_lab()
    footprint = Footprint(lab)
    os.kill(footprint.guard, signal.SIGKILL)
    footprint.assert_nothing_is_left()


@pytest.mark.parametrize("process", ["apiserver", "stand-ins"])
def test_a_killed_process_is_reported_and_the_lab_can_still_be_taken_down(make_lab: MakeLab, process: str) -> None:
    lab = make_lab()
    footprint = Footprint(lab)
    victim = next(each for each in lab.status().processes if each.name == process)
    os.kill(outside_pid(lab, victim.pid), signal.SIGKILL)
    ended = wait_until(lambda: [p for p in lab.status().processes if p.name == process and not p.running])
    assert ended[0].code == -signal.SIGKILL
    lab.down()
    footprint.assert_nothing_is_left()


def test_remains_of_a_lab_killed_together_with_its_guard_do_not_hinder_the_next(make_lab: MakeLab) -> None:
    lab = make_lab()
    footprint = Footprint(lab)
    os.kill(footprint.guard, signal.SIGSTOP)
    os.kill(lab.status().keeper_pid, signal.SIGKILL)
    os.kill(footprint.guard, signal.SIGKILL)
    wait_until(lambda: not is_alive(lab.directory))
    assert lab.directory.exists()
    with launch.up(Recipe(lab.name, lay_out(1), daemons=False)) as again:
        assert again.run("node-1", ["true"]).code == 0
    footprint.assert_nothing_is_left()


def test_interrupting_a_foreground_lab_ends_it() -> None:
    name = new_name()
    with command("up", "--nodes", "1", "--no-daemons", "--foreground", "--json", "--name", name) as running:
        assert running.stdout is not None
        lines = ""
        while not lines.endswith("\n}\n") and (line := running.stdout.readline()):
            lines += line
        assert json.loads(lines)["name"] == name
        footprint = Footprint(Lab.connect(name))
        running.send_signal(signal.SIGINT)
        assert ended(running) == 0
    footprint.assert_nothing_is_left()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_ending_the_command_that_brings_a_lab_up_ends_the_lab(number: int) -> None:
    name = new_name()
    directory = lab_directory(name)
    with command("up", "--nodes", "1", "--no-daemons", "--name", name) as running:
        wait_until(lambda: is_guarded(directory))
        running.send_signal(number)
        assert ended(running) != 0
    wait_until(lambda: not is_alive(directory))
    assert not directory.exists()


def test_two_labs_side_by_side_do_not_meet(make_lab: MakeLab) -> None:
    one, other = make_lab(nodes=1), make_lab(nodes=2)
    address = other.status().layout.nodes[1].address
    ask = ["arping", "-f", "-w3", "-I", "eth0", address]
    assert other.run("client", ask).code == 0
    assert one.run("client", ask).code != 0
    one.down()
    assert other.run("client", ask).code == 0


def test_a_name_is_taken_once(make_lab: MakeLab) -> None:
    lab = make_lab(nodes=1)
    with command("up", "--name", lab.name) as second:
        out, err = second.communicate(timeout=20)
    assert second.returncode == 2
    assert out == ""
    assert err.count("\n") == 1
    assert f"lab {lab.name} is already up" in err
    assert lab.run("node-1", ["true"]).code == 0


def test_of_two_that_come_at_once_one_gets_the_name() -> None:
    name = new_name()
    words = ("up", "--nodes", "1", "--no-daemons", "--name", name)
    with command(*words) as one, command(*words) as other:
        codes = sorted([ended(one, 30.0), ended(other, 30.0)])
    assert codes == [0, 2]
    Lab.connect(name).down()


def test_what_does_not_become_ready_is_named_with_its_last_words() -> None:
    name = new_name()
    with pytest.raises(NotReadyError, match=r"(?s)controller on cp has ended with 2\n.*no-such-option"):
        launch.up(Recipe(name, lay_out(1), controller_args=("--no-such-option",)))
    assert not lab_directory(name).exists()


def python_for(become: list[str], environment: dict[str, str]) -> str | None:
    """An interpreter that another user can run this checkout with: our own may be in a home directory."""
    probe = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import lab.client, pyroute2'], check=True)"
    for python in (sys.executable, "/usr/bin/python3"):
        done = subprocess.run(
            [*become, python, "-c", probe], cwd="/", env=environment, capture_output=True, check=False
        )
        if done.returncode == 0:
            return python
    return None


def test_an_ordinary_user_can_run_a_lab() -> None:
    if os.geteuid() != 0:
        pytest.skip("every test here is an ordinary user's already")
    home = Path(tempfile.mkdtemp(prefix="berthlb-test-"))
    os.chown(home, NOBODY, NOBODY)
    become = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    modules = f"{ROOT}:{sysconfig.get_path('purelib')}"
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "TMPDIR": str(home), "PYTHONPATH": modules}
    python = python_for(become, environment)
    if python is None:
        pytest.skip("no other user can read this checkout, or run its interpreter")

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        argv = [*become, str(python), "-m", "lab", *words]
        return subprocess.run(argv, capture_output=True, text=True, cwd="/", env=environment, timeout=60, check=False)

    try:
        made = run("up", "--nodes", "2", "--json")
        assert made.returncode == 0, made.stderr
        keeper = json.loads(made.stdout)["keeperPid"]
        capabilities = {
            each["name"]: run(
                "exec", each["host"], "--", "grep", "CapEff", f"/proc/{each['pid']}/status"
            ).stdout.split()[1]
            for each in json.loads(made.stdout)["processes"]
            if each["name"].startswith(("controller", "speaker"))
        }
        assert {name: int(found, 16) for name, found in capabilities.items()} == {
            "controller": 0,
            "speaker": NET_RAW,
            "speaker watcher": NET_RAW,
        }
        assert Path(f"/proc/{keeper}").stat().st_uid == NOBODY
        assert run("exec", "client", "--", "arping", "-f", "-w5", "-I", "eth0", "172.18.0.12").returncode == 0
        rules = run("exec", "node-1", "--", "nft", "list", "tables")
        assert "lab-proxy" in rules.stdout, rules.stderr
        assert run("down").returncode == 0
        wait_until(lambda: not Path(f"/proc/{keeper}").exists())
        assert list((home / f"berthlb-lab-{NOBODY}").iterdir()) == []
    finally:
        run("down")
        shutil.rmtree(home)


def test_where_namespaces_are_refused_one_line_says_what_to_do() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can forbid namespaces to a child")
    name = new_name()
    limit = "import os, resource, sys; open('/proc/sys/user/max_net_namespaces', 'w').write('0');"
    script = f"{limit} os.execv(sys.executable, [sys.executable, '-m', 'lab', 'up', '--name', '{name}'])"
    # The limit is that of a user namespace of its own, so nobody else notices.
    with subprocess.Popen(
        ["unshare", "--user", "--map-root-user", "--mount-proc", "--fork", "--pid", sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as running:
        out, err = running.communicate(timeout=20)
    assert running.returncode == 2, err
    assert out == ""
    assert err.startswith("lab: this machine does not let you make namespaces")
    assert err.count("\n") == 1
    assert not lab_directory(name).exists()


def test_a_missing_program_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "SBIN", "/nowhere")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(LabError, match="install the package nftables"):
        launch.up(Recipe(new_name(), lay_out(1)))
