"""What can be done on a lab's hosts and to their speakers."""

from __future__ import annotations

import os
import pty
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from lab.client import Lab
from lab.control.messages import ProcessStatus
from lab.errors import LabError
from lab.measuring import measure
from tests.lab.conftest import end, make
from tests.pages import ROOT
from tests.waiting import ended, wait_until

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("hosts")]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """With daemons."""
    made = make(daemons=True)
    yield made
    end(made)


def speaker_processes(lab: Lab) -> list[ProcessStatus]:
    """Announcer and watcher of node-1, as far as they run."""
    return [p for p in lab.status().processes if p.host == "node-1" and p.name.startswith("speaker") and p.running]


def both_processes(lab: Lab) -> list[ProcessStatus]:
    """The announcer and its watcher, once both run."""

    def both() -> list[ProcessStatus] | None:
        found = speaker_processes(lab)
        return found if len(found) == 2 else None

    return wait_until(both, message="node-1's speaker has not both of its processes") or []


def state(lab: Lab, pid: int) -> str:
    """A process' state, in the letters of proc(5)."""
    return lab.run("node-1", ["sh", "-c", f"sed 's/.*) //' /proc/{pid}/stat"]).output[:1]


def test_sockets_are_made_in_the_hosts_network(lab: Lab) -> None:
    with lab.open_socket("client") as sock:
        sock.settimeout(5.0)
        sock.connect(("172.18.0.2", 6443))
        assert sock.getsockname()[0] == "172.18.0.3"
    with lab.open_socket("node-1", socket.AF_PACKET, socket.SOCK_RAW) as packets:
        packets.bind(("eth0", 0x0806))
        assert packets.getsockname()[4] == bytes.fromhex("0242ac12000b")


def test_a_command_ends_with_the_process_that_asked_for_it(lab: Lab) -> None:
    command = lab.start("client", ["sleep", "1000"])
    name = "exec sleep"
    assert any(p.name == name and p.running for p in lab.status().processes)
    command.close()
    wait_until(lambda: not any(p.name == name and p.running for p in lab.status().processes))


def test_a_command_gets_signals_and_its_end_is_told(lab: Lab) -> None:
    with lab.start("client", ["sleep", "1000"]) as command:
        with pytest.raises(TimeoutError):
            command.wait(0.05)
        command.terminate()
        assert ended(command, 5.0) == -signal.SIGTERM


def test_a_command_at_a_terminal_has_one_of_its_own(lab: Lab) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        script = "test -t 0 && tty && stty -a | head -1 && read line && echo got $line; exit 3"
        argv = [sys.executable, "-m", "lab", "exec", "--name", lab.name, "client", "--", "sh", "-c", script]
        os.chdir(ROOT)
        os.execv(argv[0], argv)
    os.write(terminal, b"hello\n")
    seen = b""
    try:
        while True:
            seen += os.read(terminal, 4096)
    except OSError:  # EIO: it has ended
        pass
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
    assert b"/dev/pts/" in seen
    assert b"got hello" in seen


def test_logs_show_what_a_hosts_processes_wrote(lab: Lab) -> None:
    argv = [sys.executable, "-m", "lab", "logs", "--name", lab.name, "node-1", "--process", "speaker"]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, check=True)
    assert all(line.startswith("speaker | ") for line in done.stdout.splitlines())
    assert done.stdout


def test_a_speaker_can_be_stopped_and_started(lab: Lab) -> None:
    lab.speaker("node-1", "stop")
    assert speaker_processes(lab) == []
    with pytest.raises(LabError, match="no speaker runs"):
        lab.speaker("node-1", "stop")
    lab.speaker("node-1", "start")
    with pytest.raises(LabError, match="runs already"):
        lab.speaker("node-1", "start")
    both_processes(lab)


def test_a_killed_announcer_takes_its_watcher_along(lab: Lab) -> None:
    both_processes(lab)
    lab.speaker("node-1", "kill", "announcer")
    wait_until(lambda: speaker_processes(lab) == [])
    ended = next(p for p in lab.status().processes if p.host == "node-1" and p.name == "speaker")
    assert ended.code == -signal.SIGKILL
    lab.speaker("node-1", "start")


def test_a_killed_watcher_is_replaced(lab: Lab) -> None:
    announcer, watcher = both_processes(lab)
    lab.speaker("node-1", "kill", "watcher")
    wait_until(lambda: both_processes(lab)[1].pid != watcher.pid)
    assert both_processes(lab)[0].pid == announcer.pid


def test_a_paused_speaker_stands_still_until_its_time_is_over(lab: Lab) -> None:
    announcer = both_processes(lab)[0]
    lab.speaker("node-1", "pause", "announcer", seconds=2.0)
    wait_until(lambda: state(lab, announcer.pid) == "T")
    wait_until(lambda: state(lab, announcer.pid) != "T")
    lab.speaker("node-1", "pause")
    wait_until(lambda: {state(lab, each.pid) for each in speaker_processes(lab)} == {"T"})
    lab.speaker("node-1", "resume")
    wait_until(lambda: "T" not in {state(lab, each.pid) for each in speaker_processes(lab)})


def test_a_process_of_the_labs_own_can_be_ended_and_started_again(lab: Lab) -> None:
    def controller() -> ProcessStatus:
        return next(p for p in lab.status().processes if p.name == "controller")

    first = controller()
    lab.process("cp", "controller", "pause")
    wait_until(lambda: state(lab, first.pid) == "T")
    lab.process("cp", "controller", "resume")
    lab.process("cp", "controller", "kill")
    assert controller().code == -signal.SIGKILL
    with pytest.raises(LabError, match="cp: no controller runs there"):
        lab.process("cp", "controller", "stop")
    lab.process("cp", "controller", "start")
    assert controller().pid != first.pid
    with pytest.raises(LabError, match="cp: its controller runs already"):
        lab.process("cp", "controller", "start")
    with pytest.raises(LabError, match="cp: the lab runs no etcd there"):
        lab.process("cp", "etcd", "start")


def test_a_node_without_power_refuses_what_needs_it(lab: Lab) -> None:
    lab.stop_node("node-2")
    for act in (
        lambda: lab.stop_node("node-2"),
        lambda: lab.run("node-2", ["true"]),
        lambda: lab.pull_link("node-2"),
        lambda: lab.speaker("node-2", "kill"),
        lambda: lab.open_socket("node-2"),
    ):
        with pytest.raises(LabError, match="node-2 has no power"):
            act()
    lab.start_node("node-2")
    running = wait_until(lambda: [p for p in lab.status().processes if p.host == "node-2" and p.running])
    assert "speaker" in {p.name for p in running}
    for host in ("cp", "client", "gw"):
        with pytest.raises(LabError, match=f"{host} is not a node"):
            lab.stop_node(host)


def test_who_watches_notices_that_the_program_has_gone(lab: Lab) -> None:
    """Its silence would look like the network's."""
    with measure.watching(lab, "172.18.255.200") as watch:
        assert watch.answers() == []
        [program] = [each for each in lab.status().processes if each.name.startswith("exec ") and each.running]
        lab.run("client", ["kill", "-KILL", str(program.pid)], check=True)
        with pytest.raises(LabError, match="ended with -9"):
            wait_until(watch.answers)
