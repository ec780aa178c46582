"""Our daemons as the first processes of their containers: how they begin and end, on little CPU and without a log."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.client import Lab
from lab.layout import STATUS_PORT
from lab.machines.container import confined
from lab.shipped.rights import DaemonName, rights_of
from tests.cpu import group_name, share_of_a_core
from tests.lab.conftest import end, make
from tests.waiting import ended, wait_until

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("daemons")]

ROOT = Path(__file__).parents[2]
HOST: dict[DaemonName, str] = {"speaker": "node-1", "controller": "node-2"}
KIND: dict[DaemonName, str] = {"speaker": "DaemonSet", "controller": "Deployment"}
LITTLE = 0.05  # of a core: half of what a start has to get by with
NO_RULES_YET = """
table ip boot {
  chain out {
    type filter hook output priority 0
    tcp dport 6443 counter name refused drop
  }
  counter refused {}
}
"""


Prefix = tuple[str, ...]
"""The beginning of a command line."""


def installed(daemon: DaemonName) -> dict[str, Any]:
    """The pod that our manifest makes."""
    objects = yaml.safe_load_all((ROOT / "deploy/berthlb.yaml").read_text())
    (pod,) = [each["spec"]["template"]["spec"] for each in objects if each["kind"] == KIND[daemon]]
    assert isinstance(pod, dict)
    return pod


class RunningContainer:
    """A daemon that is the first process of a PID namespace, as in a container, with the rights of its manifest."""

    def __init__(
        self,
        lab: Lab,
        daemon: DaemonName,
        directory: Path,
        *,
        limit: Prefix = (),
        within: Prefix = (),
        stderr: int | None = None,
    ) -> None:
        """``limit`` begins the whole command line, ``within`` that of the daemon itself. Its log is in ``directory``,
        if not in ``stderr``."""
        self.lab, self.host, self.pod = lab, HOST[daemon], installed(daemon)
        self.log = directory / f"{daemon}.log"
        (namespace,) = [each.namespace for each in lab.status().hosts if each.host.name == self.host]
        arguments = [f"--kubeconfig={lab.status().kubeconfig_inside}"]
        if daemon == "speaker":
            key = directory / "key"
            key.write_bytes(bytes(range(32)))
            arguments += [f"--node-name={self.host}", f"--key-file={key}"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*limit, "nsenter", f"--net={namespace}", "unshare", "--pid", "--fork", "--kill-child", "--mount-proc",
                 *confined(rights_of(daemon)), *within, sys.executable, "-m", daemon, *arguments],
                cwd=ROOT,
                stderr=log if stderr is None else stderr,
            )  # fmt: skip

    def first_process(self) -> int | None:
        """Its process id, as seen from outside of its namespace."""
        children = children_of(self.process.pid)
        return children[0] if children else None

    def wait_for(self, path: str, timeout: float) -> None:
        """Until a probe succeeds."""
        wait_until(lambda: self.answers(path), timeout, f"{self.host}: {path} does not succeed")

    def answers(self, path: str) -> bool:
        """Whether a probe succeeds now."""
        connection = http.client.HTTPConnection("127.0.0.1", STATUS_PORT, timeout=30)
        with self.lab.open_socket(self.host) as connection.sock:
            connection.sock.settimeout(3)
            try:
                connection.sock.connect(("127.0.0.1", STATUS_PORT))
                connection.request("GET", path)
                return connection.getresponse().status == 200
            except (OSError, http.client.HTTPException):
                return False

    def send(self, number: int) -> None:
        process = self.first_process()
        assert process is not None
        os.kill(process, number)

    def end(self) -> int:
        """As kubelet ends it; the exit code, within the pod's grace period."""
        self.send(signal.SIGTERM)
        return ended(self.process, self.pod["terminationGracePeriodSeconds"])

    def close(self) -> None:
        if self.process.poll() is None:
            with contextlib.suppress(AssertionError, ProcessLookupError):
                self.send(signal.SIGKILL)
            self.process.kill()
            ended(self.process)


def children_of(pid: int) -> list[int]:
    with contextlib.suppress(FileNotFoundError):
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    if os.geteuid() != 0:
        pytest.skip("an ordinary user cannot enter a lab's namespaces from outside")
    made = make(nodes=2, daemons=False)
    yield made
    end(made)


Start = Callable[..., RunningContainer]
Little = dict[DaemonName, Prefix]


@pytest.fixture
def little() -> Iterator[Little]:
    """For each daemon what leaves it with little CPU."""
    with contextlib.ExitStack() as limits:
        yield {name: limits.enter_context(share_of_a_core(group_name(name), LITTLE)) for name in HOST}


@pytest.fixture
def start(lab: Lab, little: Little, tmp_path: Path) -> Iterator[Start]:
    """Start a daemon, which ends with the test (and before what limits it)."""
    with contextlib.ExitStack() as started:

        def start_one(daemon: DaemonName, **options: Any) -> RunningContainer:
            made = RunningContainer(lab, daemon, tmp_path, **options)
            started.callback(made.close)
            return made

        yield start_one


def test_on_little_cpu_and_without_the_api_server_they_start_and_end_uneventfully(
    lab: Lab, start: Start, little: Little
) -> None:
    """A node reboots: everything on it starts at once, and kube-proxy has no rules yet that lead to the API server."""
    for host in HOST.values():
        lab.run(host, ["nft", "-f", "-"], input=NO_RULES_YET, check=True)
    containers = [start(daemon, limit=limit) for daemon, limit in little.items()]
    for container in containers:
        probe = container.pod["containers"][0]["startupProbe"]
        container.wait_for(probe["httpGet"]["path"], probe["periodSeconds"] * probe["failureThreshold"])
    for container in containers:
        log = container.log
        wait_until(lambda log=log: "timed out" in log.read_text(), 60, "no connection has timed out")  # type: ignore[misc]
        assert not container.answers("/readyz")
        counted = lab.run(container.host, ["nft", "list", "counter", "ip", "boot", "refused"], check=True).output
        assert int(re.findall(r"packets (\d+)", counted)[0]) > 0
        lab.run(container.host, ["nft", "delete", "table", "ip", "boot"], check=True)
    for container in containers:
        container.wait_for("/readyz", 60)
        assert container.answers("/healthz")
    for container in containers:
        assert container.end() == 0
        lines = [json.loads(line) for line in container.log.read_text().splitlines()]
        assert [line for line in lines if "traceback" in line or line["level"] == "error"] == []
        assert [line for line in lines if line["message"] in {"watcher lost", "watcher failed"}] == []


def imports_its_client(process: int) -> bool:
    return "/_ssl." in Path(f"/proc/{process}/maps").read_text()


def has_forked(process: int) -> bool:
    return bool(children_of(process))


@pytest.mark.parametrize(("daemon", "moment"), [("controller", imports_its_client), ("speaker", has_forked)])
def test_told_to_end_while_it_starts_it_ends_at_once(
    start: Start, little: Little, daemon: DaemonName, moment: Callable[[int], bool]
) -> None:
    """The kernel drops a signal to a container's first process that has no handler for it."""
    container = start(daemon, limit=little[daemon])

    def reached() -> bool:
        process = container.first_process()
        return process is not None and moment(process)

    wait_until(reached, 60)
    assert container.end() == 0


@pytest.fixture(params=["closed", "without a reader", "full"])
def broken_log(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """For a daemon a standard error that takes nothing."""
    reader, writer = os.pipe()
    if request.param == "closed":
        yield {"within": ("sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh")}
    else:
        if request.param == "full":
            os.set_blocking(writer, False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    os.write(writer, bytes(4096))
            os.set_blocking(writer, True)
        else:
            os.close(reader)
        yield {"stderr": writer}
    for each in (reader, writer):
        with contextlib.suppress(OSError):
            os.close(each)


def test_what_becomes_of_its_log_neither_ends_nor_stops_it(start: Start, broken_log: dict[str, Any]) -> None:
    speaker, controller = start("speaker", **broken_log), start("controller", **broken_log)
    speaker.wait_for("/readyz", 30)
    controller.wait_for("/readyz", 30)
    announcer = speaker.first_process()
    assert announcer is not None
    (watcher,) = children_of(announcer)
    os.kill(watcher, signal.SIGKILL)  # and that is said, by an announcer that then forks another
    wait_until(lambda: children_of(announcer) not in ([], [watcher]), 30)
    speaker.wait_for("/readyz", 30)
    assert speaker.end() == 0
    assert controller.end() == 0
