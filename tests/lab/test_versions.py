"""A rolling upgrade from the last release to this one, and back: speakers of both releases are one cluster."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from lab import launch
from lab.client import Lab
from lab.layout import STATUS_PORT, lay_out
from lab.machines.container import confined
from lab.measuring import measure
from lab.measuring.figures import answered_by_two
from lab.shipped.rights import rights_of
from tests.lab.test_faults import ADDRESS, announcing, new_mac, page_from_client, serving, still_answers_alone
from tests.pages import ROOT
from tests.speaker.protocol.versions import unpack_last
from tests.waiting import ended, wait_until

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("versions")]

MISUNDERSTOOD = ("malformed", "nonsense", "other_version", "unknown_feature")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Lab]:
    with serving(launch.Recipe(f"versions-test-{os.getpid()}", lay_out(3))) as lab:
        yield lab


class LastRelease:
    """The last release's speakers, on some nodes, instead of the lab's own."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        unpack_last(directory)
        self._lab = lab
        self._directory = directory
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, node: str) -> None:
        """In place of this release's."""
        self._lab.speaker(node, "stop")
        status = self._lab.status()
        (namespace,) = [each.namespace for each in status.hosts if each.host.name == node]
        arguments = [f"--kubeconfig={status.kubeconfig_inside}", f"--node-name={node}"]
        with (self._directory / f"{node}.log").open("ab") as log:
            into = ["nsenter", f"--net={namespace}", *confined(rights_of("speaker"))]  # with this release's lab
            program = ["env", f"--chdir={self._directory}", sys.executable, "-m", "speaker", *arguments]
            self._processes[node] = subprocess.Popen([*into, *program], cwd=ROOT, stderr=log)
        wait_until(lambda: is_ready(self._lab, node), 30, f"{node} is not ready: {self.log(node)}")

    def end(self, node: str) -> None:
        """And this release's again."""
        self._stop(node)
        self._lab.speaker(node, "start")
        wait_until(lambda: is_ready(self._lab, node), 30, f"{node} is not ready")

    def log(self, node: str) -> str:
        return (self._directory / f"{node}.log").read_text()[-2000:]

    def close(self) -> None:
        for node in list(self._processes):
            self._stop(node)

    def _stop(self, node: str) -> None:
        process = self._processes.pop(node)
        process.terminate()
        assert ended(process) == 0


def is_ready(lab: Lab, node: str) -> bool:
    return lab.run(node, ["curl", "--silent", "--fail", f"http://127.0.0.1:{STATUS_PORT}/readyz"]).code == 0


def misunderstood(lab: Lab, node: str) -> list[str]:
    """What a node counts of datagrams that it could not read."""
    page = lab.run(node, ["curl", "--silent", f"http://127.0.0.1:{STATUS_PORT}/metrics"]).output
    dropped = [line for line in page.splitlines() if line.startswith("berthlb_speaker_heartbeats_dropped_total")]
    return [line for line in dropped if any(f'"{reason}"' in line for reason in MISUNDERSTOOD)]


def test_a_rolling_upgrade_and_the_way_back(cluster: Lab, tmp_path: Path) -> None:
    nodes = [host.name for host in cluster.status().layout.nodes]
    last = LastRelease(cluster, tmp_path)
    with ExitStack() as stack:
        stack.callback(last.close)
        watch = stack.enter_context(measure.watching(cluster, ADDRESS))
        for change in (last.start, last.end):
            for node in nodes:
                change(node)
                steady = measure.steady_holder(watch)
                still_answers_alone(watch, steady, time.monotonic(), 1.0)
                assert announcing(cluster) == [measure.node_of(cluster, steady)]
                assert all(not misunderstood(cluster, each) for each in nodes)
        last.start(nodes[0])
        mixed = time.monotonic()
        for _ in range(2):  # a death, of either release at least once
            old = measure.steady_holder(watch)
            node = measure.node_of(cluster, old)
            at = time.monotonic()
            cluster.pull_link(node)
            new_mac(watch, old, at)
            cluster.plug_link(node)
            wait_until(lambda: page_from_client(cluster) != "", 20)
        assert answered_by_two([answer for answer in watch.answers() if answer.at > mixed], 0.05) == 0
