"""Each fault once, seen from a client on the LAN: who answers for a Service's address, and does it carry traffic.

One lab for all of them; every test leaves it as it found it: three nodes, all speakers ready, one address answered.
"""

from __future__ import annotations

import json
import os
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cluster.api.client import IP_ADDRESS_POOLS, L2_ADVERTISEMENTS, SERVICES, ApiClient
from lab import launch
from lab.client import Lab
from lab.layout import STATUS_PORT, lay_out
from lab.measuring import measure
from lab.measuring.figures import ArpReply, answered_by_two
from lab.objects.manifests import SEEDS, api_of, apply_files
from lab.objects.workloads import start_workload
from lab.readiness import await_ready
from tests.real import real_assets
from tests.waiting import wait_until

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("faults"), pytest.mark.timeout(120)]

ADDRESS = "172.18.255.200"
SETTLED_S = 1.0


@pytest.fixture(scope="module", params=["embedded", pytest.param("kubernetes", marks=pytest.mark.real)])
def cluster(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """Three nodes, and the tutorial's Service at ``ADDRESS``."""
    assets = real_assets() if request.param == "kubernetes" else None
    with serving(launch.Recipe(f"faults-test-{os.getpid()}", lay_out(3), node_grace=2.0, assets=assets)) as lab:
        yield lab


@contextmanager
def serving(recipe: launch.Recipe) -> Iterator[Lab]:
    """A lab whose Service answers at ``ADDRESS``; it ends with the block, and with the process that runs the tests."""
    with launch.up(recipe) as lab:
        with_service(lab)
        yield lab


def with_service(lab: Lab) -> None:
    apply_files(lab, [SEEDS / "kind-metallb-pool.yaml"])
    start_workload(lab, "nginx", replicas=3, namespace="dev", port=80)
    apply_files(lab, [SEEDS / "kind-nginx-service.yaml"])
    api = api_of(lab)
    wait_until(lambda: addresses(api, "nginx-service") == [ADDRESS])
    wait_until(lambda: page_from_client(lab), 20)


def addresses(api: ApiClient, name: str) -> list[str]:
    return [ingress.ip for ingress in api.get(SERVICES, "dev", name).status.load_balancer.ingress]


def mac_of(lab: Lab, node: str) -> str:
    return next(host.mac for host in lab.status().layout.nodes if host.name == node)


def new_mac(watch: measure.ClientWatch, old: str, since: float) -> str:
    """The MAC of another node that alone answers, some time after a fault."""

    def other() -> str | None:
        answers = [a for a in watch.answers() if a.at > since]
        if not answers or answers[-1].at < since + SETTLED_S:
            return None
        recent = {a.mac for a in answers if a.at > answers[-1].at - SETTLED_S}
        return answers[-1].mac if recent == {answers[-1].mac} and answers[-1].mac != old else None

    return wait_until(other, 20, f"nobody took over from {old}") or ""


def still_answers_alone(watch: measure.ClientWatch, mac: str, since: float, seconds: float) -> None:
    """From ``since`` on, for ``seconds`` and until an answer after them, this MAC and no other answers."""

    def answers() -> list[ArpReply]:
        return [a for a in watch.answers() if a.at > since]

    wait_until(lambda: (found := answers()) and found[-1].at > since + seconds, seconds + 5)
    assert {a.mac for a in answers()} == {mac}


def announcing(lab: Lab) -> list[str]:
    """The nodes that say in their metrics that they answer for the address."""
    ours = f'metallb_speaker_announced{{ip="{ADDRESS}"'
    asked = ["curl", "--silent", f"http://127.0.0.1:{STATUS_PORT}/metrics"]
    return [host.name for host in lab.status().layout.nodes if ours in lab.run(host.name, asked).output]


def page_from_client(lab: Lab) -> str:
    """The node whose replica answers a request to the Service, as the client sees it; empty if none does."""
    done = lab.run("client", ["curl", "--silent", "--fail", "--max-time", "2", f"http://{ADDRESS}/"])
    return str(json.loads(done.output)["node"]) if done.code == 0 else ""


def test_power_cut_moves_the_address_and_its_return_does_not(cluster: Lab) -> None:
    with measure.watching(cluster, ADDRESS) as watch:
        old = measure.steady_holder(watch)
        node = measure.node_of(cluster, old)
        cut = time.monotonic()
        cluster.stop_node(node)
        new = new_mac(watch, old, cut)
        wait_until(lambda: page_from_client(cluster) not in {"", node}, 20)
        cluster.start_node(node)
        await_ready(cluster)
        back = time.monotonic()
        still_answers_alone(watch, new, back, 2.0)
        assert answered_by_two(watch.answers(), 0.05) == 0


def test_a_killed_announcer_is_replaced_by_another_node(cluster: Lab) -> None:
    with measure.watching(cluster, ADDRESS) as watch:
        old = measure.steady_holder(watch)
        node = measure.node_of(cluster, old)
        killed = time.monotonic()
        cluster.speaker(node, "kill", "announcer")
        new = new_mac(watch, old, killed)
        still_answers_alone(watch, new, killed + SETTLED_S, 2.0)
    cluster.speaker(node, "start")
    await_ready(cluster)


def test_a_killed_watcher_is_not_noticed_on_the_wire(cluster: Lab) -> None:
    with measure.watching(cluster, ADDRESS) as watch:
        mac = measure.steady_holder(watch)
        killed = time.monotonic()
        cluster.speaker(measure.node_of(cluster, mac), "kill", "watcher")
        still_answers_alone(watch, mac, killed, 2.0)
    await_ready(cluster)


def test_a_stopped_speaker_releases_its_addresses_at_once(cluster: Lab) -> None:
    with measure.watching(cluster, ADDRESS) as watch:
        old = measure.steady_holder(watch)
        node = measure.node_of(cluster, old)
        stopped = time.monotonic()
        cluster.speaker(node, "stop")
        ended = time.monotonic()
        new_mac(watch, old, stopped)
        assert not [a for a in watch.answers() if a.mac == old and a.at > ended]
        assert answered_by_two([a for a in watch.answers() if a.at > ended], 0.05) == 0
    cluster.speaker(node, "start")
    await_ready(cluster)


def test_a_pulled_cable_moves_the_address_and_one_node_answers_when_it_is_back(cluster: Lab) -> None:
    with measure.watching(cluster, ADDRESS) as watch:
        old = measure.steady_holder(watch)
        node = measure.node_of(cluster, old)
        pulled = time.monotonic()
        cluster.pull_link(node)
        new = new_mac(watch, old, pulled)
        wait_until(lambda: announcing(cluster) == [measure.node_of(cluster, new)])
        plugged = time.monotonic()
        cluster.plug_link(node)
        still_answers_alone(watch, new, plugged, 3.0)
    await_ready(cluster)
    wait_until(lambda: page_from_client(cluster), 20)


def test_the_client_s_neighbour_table_follows_the_address(cluster: Lab) -> None:
    """A gratuitous announcement rewrites an entry that the client's kernel believes in."""

    def entry() -> str:
        shown = cluster.run("client", ["cat", "/proc/net/arp"], check=True).output.splitlines()
        return next((line.split()[3] for line in shown if line.startswith(ADDRESS + " ")), "")

    with measure.watching(cluster, ADDRESS) as watch:
        old = measure.steady_holder(watch)
        wait_until(lambda: page_from_client(cluster), 20)
        assert entry() == old
        node = measure.node_of(cluster, old)
        cut = time.monotonic()
        cluster.stop_node(node)
        new = new_mac(watch, old, cut)
        wait_until(lambda: entry() == new)
    cluster.start_node(node)
    await_ready(cluster)


def test_addresses_fail_over_while_the_api_server_is_away(cluster: Lab) -> None:
    """G4: running speakers need no API server."""
    status = cluster.status()
    server = next(process for process in status.processes if process.name == "apiserver")

    def fail(failing: bool) -> None:
        """The real one stands still, as with a disk that does not answer; the embedded one drops every request."""
        if status.control_plane == "kubernetes":
            cluster.run("cp", ["kill", "-STOP" if failing else "-CONT", str(server.pid)], check=True)
            return
        rules = [{"drop": True, "path": "/api"}, {"closeWatches": True}]
        body = json.dumps(rules).encode() if failing else None
        headers, method = {"Content-Type": "application/json"}, "POST" if failing else "DELETE"
        request = urllib.request.Request(f"{status.api_server}/lab/faults", body, headers, method=method)
        urllib.request.urlopen(request, timeout=5).close()

    with measure.watching(cluster, ADDRESS) as watch:
        old = measure.steady_holder(watch)
        node = measure.node_of(cluster, old)
        fail(True)
        try:
            cut = time.monotonic()
            cluster.stop_node(node)
            new = new_mac(watch, old, cut)
            still_answers_alone(watch, new, cut + SETTLED_S, 2.0)
        finally:
            fail(False)
        cluster.start_node(node)
        await_ready(cluster)
        still_answers_alone(watch, new, time.monotonic(), 1.0)


def test_of_two_nodes_without_a_gateway_the_survivor_takes_over() -> None:
    """Nobody else can be heard: carrier is the proof that the survivor is not the isolated one."""
    wanted = launch.Recipe(f"two-test-{os.getpid()}", lay_out(2, gateway=False), node_grace=2.0)
    with serving(wanted) as lab, measure.watching(lab, ADDRESS) as watch:
        old = measure.steady_holder(watch)
        cut = time.monotonic()
        lab.stop_node(measure.node_of(lab, old))
        new_mac(watch, old, cut)


def test_a_deleted_service_is_answered_for_by_nobody(cluster: Lab, tmp_path: Path) -> None:
    second = tmp_path / "second.yaml"
    second.write_text((SEEDS / "kind-nginx-service.yaml").read_text().replace("name: nginx-service", "name: second"))
    apply_files(cluster, [second])
    api = api_of(cluster)
    address = wait_until(lambda: addresses(api, "second"))[0]
    with measure.watching(cluster, address) as watch:
        measure.steady_holder(watch)
        api.delete(SERVICES, "dev", "second")
        wait_until(lambda: watch.answers()[-1].at < time.monotonic() - 1.0)


def test_a_pool_and_its_advertisement_that_are_made_again_are_not_missed_on_the_wire(cluster: Lab) -> None:
    """``kubectl replace --force``, and hooks of Helm and Argo CD, at each upgrade."""
    api = api_of(cluster)
    with measure.watching(cluster, ADDRESS) as watch:
        mac = measure.steady_holder(watch)
        for away in ({"pool"}, {"advertisement"}, {"pool", "advertisement"}):
            if "pool" in away:
                api.delete(IP_ADDRESS_POOLS, "metallb-system", "example")
            if "advertisement" in away:
                api.delete(L2_ADVERTISEMENTS, "metallb-system", "empty")
            gone = time.monotonic()
            still_answers_alone(watch, mac, gone + 1.0, 1.0)
            apply_files(cluster, [SEEDS / "kind-metallb-pool.yaml"])
            still_answers_alone(watch, mac, gone, 3.0)
    assert addresses(api, "nginx-service") == [ADDRESS]


def test_two_labs_do_not_know_of_each_other(cluster: Lab) -> None:
    with (
        serving(launch.Recipe(f"other-test-{os.getpid()}", lay_out(2), node_grace=2.0)) as other,
        measure.watching(cluster, ADDRESS) as ours,
        measure.watching(other, ADDRESS) as theirs,
    ):
        mac = measure.steady_holder(ours)
        measure.steady_holder(theirs)
        other.stop_node("node-1")
        still_answers_alone(ours, mac, time.monotonic(), 2.0)
