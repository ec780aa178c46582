"""What the speakers' Leases report of the nodes: of one of three that loses power, of its return, and of speakers that
end while their nodes live. The speakers are those that announce, and those for liveness alone.

Limits count seconds of an idle machine. The seconds until both others report a power cut are logged.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from cluster.api.client import LEASES
from cluster.node_report import REPORT_ANNOTATION, NodeReport, read_report
from cluster.objects import NodeName
from cluster.resources import NODE_IP_POOLS
from lab import launch
from lab.client import Lab
from lab.control.messages import Action
from lab.layout import lay_out
from lab.objects.manifests import api_of, apply_bodies
from lab.readiness import await_ready
from lab.shipped.installed import LIVENESS_ONLY
from lab.shipped.rights import DaemonName, Rights, rights_of
from speaker.api.own_lease import lease_name
from tests.waiting import Stopwatch, assert_stays, wait_until

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("report")]

NAMESPACE = "metallb-system"
NODES = tuple(NodeName(f"node-{number}") for number in (1, 2, 3))
LOST = NODES[2]
HEARD: list[set[NodeName]] = [set(), set()]
POOL = {
    "apiVersion": "berthlb.io/v1alpha1",
    "kind": "NodeIPPool",
    "metadata": {"name": "nodes", "namespace": NAMESPACE},
    "spec": {"autoAssign": False},
}
KNOWN_S = 2.0
"""An idle speaker of a cluster without a NodeIPPool is suspected no sooner than after 2.4 s."""
SERVER = (
    sys.executable,
    "-c",
    "import socket, time; taken = socket.create_server(('', 2222)); print(flush=True); time.sleep(1000)",
)

logger = logging.getLogger(__name__)


@pytest.fixture(scope="module", params=["announcing", "liveness-only"])
def cluster(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """Three nodes, a NodeIPPool, and a server on the first node."""
    recipe = launch.Recipe(f"report-test-{os.getpid()}", lay_out(3), node_grace=30.0)
    if request.param == "liveness-only":
        rights: dict[DaemonName, Rights] = {"speaker": rights_of("speaker", LIVENESS_ONLY)}
        recipe = replace(recipe, speaker_args=("--liveness-only",), rights=rights)
    with launch.up(recipe) as lab, lab.start(NODES[0], SERVER, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        server.stdout.readline()
        apply_bodies(lab, [POOL])
        yield lab


def texts(lab: Lab) -> list[str | None]:
    """The annotation of each speaker's Lease."""
    api = api_of(lab)
    leases = (api.get(LEASES, NAMESPACE, lease_name(node)) for node in NODES)
    return [lease.metadata.annotations.get(REPORT_ANNOTATION) for lease in leases]


def reports(lab: Lab) -> list[NodeReport]:
    return [read_report({REPORT_ANNOTATION: text or ""}) for text in texts(lab)]


def unheard(lab: Lab) -> list[set[NodeName]]:
    """What the speakers report of the nodes that keep their power."""
    return [set(report.unheard) for report in reports(lab)[:2]]


def test_a_power_cut_is_reported_by_both_others_and_the_return_too(cluster: Lab) -> None:
    assert_stays(lambda: unheard(cluster) == HEARD, 2.0)  # by now each knows how often the others speak
    began, watch = time.monotonic(), Stopwatch()
    cluster.stop_node(LOST)
    wait_until(lambda: unheard(cluster) == [{LOST}, {LOST}], KNOWN_S)
    logger.info("a power cut was reported after %.2f s, %.2f idle", time.monotonic() - began, watch.look())
    cluster.start_node(LOST)
    await_ready(cluster)
    wait_until(lambda: unheard(cluster) == HEARD, 15.0)


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_speaker_that_ends_alone_leaves_its_node_heard(cluster: Lab, end: Action) -> None:
    """One that was told to says so; in the place of one that was killed its kernel answers."""
    wait_until(lambda: unheard(cluster) == HEARD, 15.0)
    cluster.speaker(LOST, end)
    assert_stays(lambda: unheard(cluster) == HEARD, KNOWN_S)
    cluster.speaker(LOST, "start")
    await_ready(cluster)


def test_what_listens_on_a_node_is_reported(cluster: Lab) -> None:
    wait_until(lambda: ("TCP", 2222) in reports(cluster)[0].listening)
    assert all(("TCP", 2222) not in report.listening for report in reports(cluster)[1:])


@pytest.mark.parametrize("cluster", ["announcing"], indirect=True)
def test_nothing_is_reported_without_a_node_pool(cluster: Lab) -> None:
    wait_until(lambda: ("TCP", 2222) in reports(cluster)[0].listening)
    api_of(cluster).delete(NODE_IP_POOLS, NAMESPACE, "nodes")
    wait_until(lambda: texts(cluster) == ["{}"] * 3)
    apply_bodies(cluster, [POOL])
    wait_until(lambda: ("TCP", 2222) in reports(cluster)[0].listening)


@pytest.mark.parametrize("cluster", ["liveness-only"], indirect=True)
def test_speakers_for_liveness_alone_have_no_capability_and_only_ordinary_sockets(cluster: Lab) -> None:
    speakers = [each for each in cluster.status().processes if each.name.startswith("speaker") and each.running]
    assert {each.host for each in speakers} == set(NODES)
    for each in speakers:
        status = cluster.run(each.host, ["cat", f"/proc/{each.pid}/status"]).output.splitlines()
        capabilities = {line.split()[0]: int(line.split()[1], 16) for line in status if line.startswith("Cap")}
        assert set(capabilities.values()) == {0}, each
    for node in NODES:
        assert cluster.run(node, ["cat", "/proc/net/packet"]).output.count("\n") == 1, "its heading alone"
        assert cluster.run(node, ["cat", "/proc/net/raw"]).output.count("\n") == 1
