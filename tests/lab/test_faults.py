"""Each fault once, seen from a client on the LAN: who answers for a Service's address, and does it carry traffic.

One lab for all of them in each family, and one that speaks both, whose Service has two addresses: each fault moves both
to one node. Every test leaves its lab as it found it: three nodes, all speakers ready, the addresses answered.
"""

from __future__ import annotations

import json
import logging
import os
import time
import urllib.request
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from ipaddress import ip_address

import pytest

from cluster.api.client import IP_ADDRESS_POOLS, L2_ADVERTISEMENTS, SERVICES, ApiClient
from cluster.objects import Object, find_condition
from cluster.resources import Resource
from cluster.taken import ADDRESS_CONFLICT
from lab import launch
from lab.client import Lab
from lab.layout import STATUS_PORT, Families, lay_out, url_host
from lab.measuring import measure
from lab.measuring.figures import NeighbourAnswer, answered_by_two
from lab.objects import tutorial
from lab.objects.manifests import api_of
from lab.objects.workloads import start_workload
from lab.readiness import await_ready
from tests.real import real_assets
from tests.waiting import wait_until

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("faults")]

logger = logging.getLogger(__name__)


class SeenEvent(Object, frozen=True):
    reason: str = ""
    message: str = ""


EVENTS = Resource("", "v1", "events", "Event", True, SeenEvent)
ADDRESS = "172.18.255.200"
SETTLED_S = 1.0


CLUSTERS = [
    pytest.param(("embedded", Families.IPV4), id="embedded"),
    pytest.param(("embedded", Families.IPV6), id="embedded-ipv6", marks=pytest.mark.xdist_group("ipv6")),
    pytest.param(("embedded", Families.DUAL), id="embedded-dual", marks=pytest.mark.xdist_group("dual")),
    pytest.param(("kubernetes", Families.DUAL), id="kubernetes-dual", marks=pytest.mark.real),
]


@pytest.fixture(scope="module", params=CLUSTERS)
def cluster(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """Three nodes, and the tutorial's Service at the first address of each family's pool."""
    control_plane, families = request.param
    assets = real_assets() if control_plane == "kubernetes" else None
    layout = lay_out(3, families=families)
    with serving(launch.Recipe(f"faults-test-{os.getpid()}", layout, node_grace=2.0, assets=assets)) as lab:
        yield lab


@contextmanager
def serving(recipe: launch.Recipe) -> Iterator[Lab]:
    """A lab whose Service answers at ``tutorial.first_addresses``, in an IPv4 lab ``ADDRESS``; it ends with the block,
    and with the process that runs the tests."""
    with launch.up(recipe) as lab:
        with_service(lab)
        yield lab


def with_service(lab: Lab) -> None:
    tutorial.apply_pool(lab)
    start_workload(lab, "nginx", replicas=3, namespace="dev", port=80)
    tutorial.apply_service(lab)
    api = api_of(lab)
    wait_until(lambda: addresses(api, "nginx-service") == tutorial.first_addresses(lab))
    wait_until(lambda: page_from_client(lab), 20)


def watching(lab: Lab) -> AbstractContextManager[measure.ClientWatch]:
    """Watch every address of the tutorial's Service."""
    return measure.watching(lab, *tutorial.first_addresses(lab))


def addresses(api: ApiClient, name: str) -> list[str]:
    return [ingress.ip for ingress in api.get(SERVICES, "dev", name).status.load_balancer.ingress]


def families_of(lab: Lab) -> Families:
    return next(each for each in Families if each.each == lab.status().layout.families)


def new_mac(watch: measure.ClientWatch, old: str, since: float) -> str:
    """The MAC of another node that alone answers for every address, some time after a fault."""

    def other() -> str | None:
        answers = [a for a in watch.answers() if a.at > since]
        if not answers or answers[-1].at < since + SETTLED_S:
            return None
        recent = [a for a in answers if a.at > answers[-1].at - SETTLED_S]
        alone = {a.mac for a in recent} == {answers[-1].mac} and answers[-1].mac != old
        return answers[-1].mac if alone and {a.address for a in recent} == set(watch.addresses) else None

    return wait_until(other, 20, f"nobody took over from {old}") or ""


def still_answers_alone(watch: measure.ClientWatch, mac: str, since: float, seconds: float) -> None:
    """From ``since`` on, for ``seconds`` and until an answer for each address after them, this MAC and no other
    answers."""

    def answers() -> list[NeighbourAnswer]:
        return [a for a in watch.answers() if a.at > since]

    everything = set(watch.addresses)
    wait_until(lambda: {a.address for a in answers() if a.at > since + seconds} == everything, seconds + 5)
    assert {a.mac for a in answers()} == {mac}


def announcing(lab: Lab) -> list[str]:
    """The nodes that say in their metrics that they answer for all the addresses."""
    ours = [f'metallb_speaker_announced{{ip="{address}"' for address in tutorial.first_addresses(lab)]
    asked = ["curl", "--silent", f"http://127.0.0.1:{STATUS_PORT}/metrics"]

    def says(host: str) -> bool:
        shown = lab.run(host, asked).output
        return all(line in shown for line in ours)

    return [host.name for host in lab.status().layout.nodes if says(host.name)]


def page_from_client(lab: Lab) -> str:
    """The node whose replica answers a request to the Service's last address, as the client sees it; empty if one of
    the addresses does not answer."""
    node = ""
    for address in tutorial.first_addresses(lab):
        asked = ["curl", "--silent", "--fail", "--max-time", "2", f"http://{url_host(address)}/"]
        done = lab.run("client", asked)
        if done.code != 0:
            return ""
        node = str(json.loads(done.output)["node"])
    return node


def test_power_cut_moves_the_address_and_its_return_does_not(cluster: Lab) -> None:
    with watching(cluster) as watch:
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
    with watching(cluster) as watch:
        old = measure.steady_holder(watch)
        node = measure.node_of(cluster, old)
        killed = time.monotonic()
        cluster.speaker(node, "kill", "announcer")
        new = new_mac(watch, old, killed)
        still_answers_alone(watch, new, killed + SETTLED_S, 2.0)
    cluster.speaker(node, "start")
    await_ready(cluster)


def test_a_killed_watcher_is_not_noticed_on_the_wire(cluster: Lab) -> None:
    with watching(cluster) as watch:
        mac = measure.steady_holder(watch)
        killed = time.monotonic()
        cluster.speaker(measure.node_of(cluster, mac), "kill", "watcher")
        still_answers_alone(watch, mac, killed, 2.0)
    await_ready(cluster)


def test_a_stopped_speaker_releases_its_addresses_at_once(cluster: Lab) -> None:
    with watching(cluster) as watch:
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
    with watching(cluster) as watch:
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


def test_the_client_s_neighbour_table_follows_the_addresses(cluster: Lab) -> None:
    """What is sent unasked rewrites the entries that the client's kernel believes in: nobody there asks meanwhile."""
    service = tutorial.first_addresses(cluster)

    def entries() -> dict[str, tuple[str, str]]:
        """MAC and state of each of the addresses."""
        shown = json.loads(
            cluster.run("client", ["ip", "-json", "neighbour", "show", "dev", "eth0"], check=True).output
        )
        return {each["dst"]: (each.get("lladdr", ""), *each["state"]) for each in shown if each["dst"] in service}

    def macs() -> set[str]:
        return {mac for mac, _ in entries().values()}

    with watching(cluster) as watch:
        old = measure.steady_holder(watch)
    wait_until(lambda: page_from_client(cluster), 20)
    assert {address: mac for address, (mac, _) in entries().items()} == dict.fromkeys(service, old)
    logger.info("before the power cut: %s", entries())
    node = measure.node_of(cluster, old)
    cut = time.monotonic()
    cluster.stop_node(node)
    wait_until(lambda: len(macs()) == 1 and old not in macs(), 20)
    logger.info("%.2f s after it: %s", time.monotonic() - cut, entries())
    (new,) = macs()
    assert set(entries()) == set(service)
    with watching(cluster) as watch:
        assert measure.steady_holder(watch) == new
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

    with watching(cluster) as watch:
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


@pytest.mark.parametrize("families", Families)
def test_of_two_nodes_without_a_gateway_the_survivor_takes_over(families: Families) -> None:
    """Nobody else can be heard: carrier is the proof that the survivor is not the isolated one."""
    layout = lay_out(2, gateway=False, families=families)
    wanted = launch.Recipe(f"two-test-{os.getpid()}", layout, node_grace=2.0)
    with serving(wanted) as lab, watching(lab) as watch:
        old = measure.steady_holder(watch)
        cut = time.monotonic()
        lab.stop_node(measure.node_of(lab, old))
        new_mac(watch, old, cut)


def test_a_deleted_service_is_answered_for_by_nobody(cluster: Lab) -> None:
    tutorial.apply_service(cluster, "second")
    api = api_of(cluster)
    with measure.watching(cluster, *wait_until(lambda: addresses(api, "second"))) as watch:
        measure.steady_holder(watch)
        api.delete(SERVICES, "dev", "second")
        wait_until(lambda: watch.answers()[-1].at < time.monotonic() - 1.0)


def test_an_address_that_a_machine_has_is_withheld_until_it_is_free(cluster: Lab) -> None:
    """The Service says so in an Event and in a condition, which name the machine's MAC; both as the API has them."""
    api, networks = api_of(cluster), cluster.status().layout.networks.values()
    taken = [str(ip_address(network.pool_first) + 10) for network in networks]
    machine = next(host for host in cluster.status().layout.hosts if host.name == "gw")
    for address in taken:
        cluster.run("gw", ["ip", "address", "add", address, "dev", "eth0", *(("nodad",) if ":" in address else ())])
    tutorial.apply_service(cluster, "third", **{"metallb.io/loadBalancerIPs": ",".join(taken)})

    def conflict() -> tuple[str, str, str] | None:
        found = find_condition(api.get(SERVICES, "dev", "third").status.conditions, ADDRESS_CONFLICT)
        return (found.status, found.reason, found.message) if found is not None else None

    def said() -> list[str]:
        events = [each for page in api.list_pages(EVENTS, "dev") for each in page.items]
        return [
            each.message for each in events if each.reason == "AddressTaken" and each.metadata.name.startswith("third.")
        ]

    with measure.watching(cluster, *taken) as watch:
        wait_until(lambda: (found := conflict()) and found[:2] == ("True", "Withheld") and machine.mac in found[2], 20)
        wait_until(lambda: any(machine.mac in message for message in said()), 20)
        assert addresses(api, "third") == taken
        wait_until(lambda: {answer.address for answer in watch.answers()} == set(taken))
        assert {answer.mac for answer in watch.answers()} == {machine.mac}
        for address in taken:
            cluster.run("gw", ["ip", "address", "delete", address, "dev", "eth0"])
        wait_until(lambda: conflict() is None, 60)
        assert new_mac(watch, machine.mac, time.monotonic()) in {node.mac for node in cluster.status().layout.nodes}
        api.delete(SERVICES, "dev", "third")
        wait_until(lambda: watch.answers()[-1].at < time.monotonic() - 1.0)


def test_a_pool_and_its_advertisement_that_are_made_again_are_not_missed_on_the_wire(cluster: Lab) -> None:
    """``kubectl replace --force``, and hooks of Helm and Argo CD, at each upgrade."""
    api = api_of(cluster)
    with watching(cluster) as watch:
        mac = measure.steady_holder(watch)
        for away in ({"pool"}, {"advertisement"}, {"pool", "advertisement"}):
            if "pool" in away:
                api.delete(IP_ADDRESS_POOLS, "metallb-system", "example")
            if "advertisement" in away:
                api.delete(L2_ADVERTISEMENTS, "metallb-system", "empty")
            gone = time.monotonic()
            still_answers_alone(watch, mac, gone + 1.0, 1.0)
            tutorial.apply_pool(cluster)
            still_answers_alone(watch, mac, gone, 3.0)
    assert addresses(api, "nginx-service") == tutorial.first_addresses(cluster)


def test_two_labs_do_not_know_of_each_other(cluster: Lab) -> None:
    layout = lay_out(2, families=families_of(cluster))
    with (
        serving(launch.Recipe(f"other-test-{os.getpid()}", layout, node_grace=2.0)) as other,
        watching(cluster) as ours,
        watching(other) as theirs,
    ):
        mac = measure.steady_holder(ours)
        measure.steady_holder(theirs)
        other.stop_node("node-1")
        still_answers_alone(ours, mac, time.monotonic(), 2.0)
