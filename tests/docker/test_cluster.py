"""Both images do their work as they are installed, and end and begin as an engine has them do."""

from __future__ import annotations

import json
import re

import pytest

from tests.docker.cluster import DAEMONS, NODES, SPEAKERS, Cluster
from tests.engine import docker
from tests.waiting import wait_until

pytestmark = [
    pytest.mark.docker,
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.xdist_group("docker"),
]
NET_RAW = 1 << 13


def test_a_client_reaches_the_address_through_the_node_that_answers_for_it(cluster: Cluster) -> None:
    address = cluster.address("web")
    answered_by = wait_until(lambda: cluster.answer(address), 30)
    assert cluster.neighbour(address) == answered_by
    wait_until(lambda: cluster.announcers(address) == [answered_by], 30, "the speakers do not hear each other")


@pytest.mark.parametrize("daemon", DAEMONS)
def test_a_container_has_what_the_manifest_gives_it_and_nothing_more(cluster: Cluster, daemon: str) -> None:
    seen = docker("exec", cluster.container(daemon), "python", "-c", "print(open('/proc/1/status').read())")
    (capabilities,) = re.findall(r"^CapBnd:\s*(\w+)$", seen, re.MULTILINE)
    (user,) = re.findall(r"^Uid:\s*(\d+)", seen, re.MULTILINE)
    given = (int(capabilities, 16), int(user), "NoNewPrivs:\t1" in seen)
    assert given == ((0, 65532, True) if daemon == "controller" else (NET_RAW, 0, True))
    for directory in ("/", "/tmp", "/opt/berthlb"):
        write = f"open('{directory}/new', 'w')"
        said = docker("exec", cluster.container(daemon), "python", "-c", write, check=False, errors_too=True)
        assert "Read-only file system" in said


@pytest.mark.parametrize("daemon", DAEMONS)
def test_image_log_and_metric_tell_the_same_build(cluster: Cluster, daemon: str) -> None:
    labels = json.loads(docker("inspect", "--format", "{{json .Config.Labels}}", cluster.container(daemon)))
    version, commit = (labels[f"org.opencontainers.image.{each}"] for each in ("version", "revision"))
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", commit)
    first = json.loads(cluster.log(daemon)[0])
    assert (first["message"], first["version"], first["commit"]) == ("starting", version, commit)
    assert f'berthlb_build_info{{commit="{commit}",version="{version}"}} 1.0' in cluster.status(daemon, "/metrics")


def test_when_the_owners_speaker_is_killed_nothing_moves(cluster: Cluster) -> None:
    """The node's kernel lives, and another speaker stands in until the container is started again."""
    address = cluster.address("web")
    owner = wait_until(lambda: cluster.answer(address), 30)
    (other,) = set(NODES) - {owner}
    before = stand_ins(cluster, other)
    docker("kill", cluster.container(SPEAKERS[owner]))
    wait_until(lambda: stand_ins(cluster, other) > before, 30, "nobody stands in")
    assert (cluster.answer(address), cluster.neighbour(address)) == (owner, owner)
    docker("start", cluster.container(SPEAKERS[owner]))
    cluster.await_ready()
    wait_until(lambda: cluster.announcers(address) == [owner], 30)
    assert (cluster.answer(address), cluster.neighbour(address)) == (owner, owner)


def stand_ins(cluster: Cluster, node: str) -> int:
    """How often the node's speaker has begun to stand in for another."""
    return sum(json.loads(line)["message"] == "StandsIn" for line in cluster.log(SPEAKERS[node]))


def test_when_the_owner_dies_the_clients_neighbour_table_moves(cluster: Cluster) -> None:
    address = cluster.address("web")
    owner = wait_until(lambda: cluster.answer(address), 30)
    (other,) = set(NODES) - {owner}
    cluster.cut_power(owner)
    wait_until(lambda: cluster.neighbour(address) == other, 30)
    assert cluster.answer(address) == other
    wait_until(lambda: cluster.announcers(address) == [other], 30)
    cluster.restore_power(owner)
    cluster.await_ready()
    assert wait_until(lambda: cluster.answer(address), 30) == cluster.neighbour(address)


@pytest.mark.parametrize("daemon", DAEMONS)
def test_after_a_restart_everything_goes_on(cluster: Cluster, daemon: str) -> None:
    address = cluster.address("web")
    docker("restart", cluster.container(daemon))
    cluster.await_ready()
    assert cluster.address("web") == address
    assert wait_until(lambda: cluster.answer(address), 30)
    cluster.add_service(f"after-{daemon}")
    assert wait_until(lambda: cluster.answer(cluster.address(f"after-{daemon}")), 30)
    cluster.kubectl("delete", "service", f"after-{daemon}")


@pytest.mark.parametrize("daemon", DAEMONS)
def test_who_is_told_to_end_does_so_by_itself(cluster: Cluster, daemon: str) -> None:
    """Within the grace period of the manifest: after it docker kills, and the exit code is 137."""
    docker("stop", cluster.container(daemon))
    state = json.loads(docker("inspect", "--format", "{{json .State}}", cluster.container(daemon)))
    docker("start", cluster.container(daemon))
    assert (state["Status"], state["ExitCode"]) == ("exited", 0)
    cluster.await_ready()
