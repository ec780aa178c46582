"""Each fault of ``lab.faults.table`` once, seen from a client on the LAN: who answers for a Service's addresses, and do
they carry traffic. How long it takes is what ``make faults`` measures.

The lab speaks both families, and the Service has an address of each: a fault moves both to one node. One lab is for all
faults, and another one, a real control plane, for those in which Kubernetes has a part. Every test leaves its lab as it
found it: three nodes, all speakers ready, the addresses answered. In one family alone the same is in ``test_families``.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from ipaddress import ip_address

import pytest

from cluster.api.client import IP_ADDRESS_POOLS, L2_ADVERTISEMENTS, SERVICE_L2_STATUSES, SERVICES, ApiClient
from cluster.objects import Object, find_condition
from cluster.resources import Resource
from cluster.taken import ADDRESS_CONFLICT
from lab import launch
from lab.client import Lab
from lab.faults.fault import Fault, Movement, Scene
from lab.faults.table import FAULTS, STARTED, UNNOTICED
from lab.layout import STATUS_PORT, Families, lay_out, url_host
from lab.measuring import measure
from lab.measuring.figures import NeighbourAnswer
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


WITH_KUBERNETES = ("power-cut", "api-away", "site-power-cut")
"""The faults in which Kubernetes has a part."""
in_kubernetes_group = pytest.mark.xdist_group("faults-kubernetes")


@pytest.fixture(scope="module")
def embedded() -> Iterator[Lab]:
    """Three nodes, and the tutorial's Service at the first address of each family's pool."""
    layout = lay_out(3, families=Families.DUAL)
    with serving(launch.Recipe(f"faults-test-{os.getpid()}", layout, node_grace=2.0)) as lab:
        yield lab


@pytest.fixture(scope="module")
def kubernetes() -> Iterator[Lab]:
    """The same on a real control plane."""
    layout, assets = lay_out(3, families=Families.DUAL), real_assets()
    with serving(launch.Recipe(f"faults-real-{os.getpid()}", layout, node_grace=2.0, assets=assets)) as lab:
        yield lab


@pytest.fixture(params=["embedded", pytest.param("kubernetes", marks=[pytest.mark.real, in_kubernetes_group])])
def cluster(request: pytest.FixtureRequest) -> Lab:
    """Each of them."""
    lab: Lab = request.getfixturevalue(request.param)
    return lab


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


def answered(watch: measure.ClientWatch, since: float) -> bool:
    """Whether every address was answered for, by anybody, after that time."""
    return {a.address for a in watch.answers() if a.at > since} == set(watch.addresses)


def announcing(lab: Lab) -> list[str]:
    """The nodes that say in their metrics that they answer for all the addresses."""
    return of_all(lab, announced(lab))


def announced(lab: Lab) -> dict[str, set[str]]:
    """The addresses for which each node answers, as its metrics say; where it does not tell, the reason."""
    asked = ["curl", "--silent", "--show-error", f"http://127.0.0.1:{STATUS_PORT}/metrics"]

    def said(host: str) -> set[str]:
        done = lab.run(host, asked)
        found = re.findall(r'^metallb_speaker_announced{ip="([^"]+)"', done.output, re.MULTILINE)
        return set(found) if done.code == 0 else {done.errors.strip()}

    return {host.name: said(host.name) for host in lab.status().layout.nodes}


def of_all(lab: Lab, said: dict[str, set[str]]) -> list[str]:
    """The nodes that answer for all the addresses."""
    return [node for node, theirs in said.items() if theirs.issuperset(tutorial.first_addresses(lab))]


def await_announcing(lab: Lab, node: str, seconds: float) -> None:
    """That this node answers for all the addresses, and no other one does. What each says is logged when it changes."""
    known: list[dict[str, set[str]]] = []

    def alone() -> bool:
        said = announced(lab)
        if said not in known[-1:]:
            known.append(said)
            logger.info("announced: %s", said)
        return of_all(lab, said) == [node]

    wait_until(alone, seconds)


def on_record(lab: Lab) -> set[str]:
    """The nodes that the API names as those that announce the tutorial's Service."""
    found = [
        each.status for page in api_of(lab).list_pages(SERVICE_L2_STATUSES, "metallb-system") for each in page.items
    ]
    return {each.node for each in found if each.service_name == tutorial.SERVICE_NAME}


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


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_one_node_answers_after_each_fault_and_the_same_one_if_nothing_may_move(embedded: Lab, fault: Fault) -> None:
    cause_and_mend(embedded, fault)


@pytest.mark.real
@in_kubernetes_group
@pytest.mark.parametrize("name", WITH_KUBERNETES)
def test_one_node_answers_after_faults_in_which_kubernetes_has_a_part(kubernetes: Lab, name: str) -> None:
    cause_and_mend(kubernetes, next(fault for fault in FAULTS if fault.name == name))


def cause_and_mend(cluster: Lab, fault: Fault) -> None:
    """A fault at whichever node holds the addresses, and what has to be so meanwhile and afterwards."""
    with watching(cluster) as watch:
        old = measure.steady_holder(watch)
        scene = Scene(cluster, measure.node_of(cluster, old), tuple(watch.addresses))
        wait_until(lambda: on_record(cluster) == {scene.holder}, 30)
        began = time.monotonic()
        try:
            fault.cause(scene)
            if fault.promise is UNNOTICED:
                still_answers_alone(watch, old, began, max(fault.lasts_s, 2.0))
            elif fault.promise.move is Movement.MOVES:
                new_mac(watch, old, began)
                wait_until(lambda: page_from_client(cluster), 20)
            else:
                passed = max(fault.lasts_s, SETTLED_S)
                wait_until(lambda: answered(watch, began + passed), passed + 20, "nobody answers")
        finally:
            fault.mend(scene)
        await_ready(cluster)
        if fault.promise is STARTED:  # who takes longer than others to start is given it back within two minutes
            await_announcing(cluster, scene.holder, 150)
        new = measure.steady_holder(watch)
        assert new == old or fault.promise not in (UNNOTICED, STARTED)
    await_announcing(cluster, measure.node_of(cluster, new), 20)
    wait_until(lambda: page_from_client(cluster), 30)


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
    layout = lay_out(2, families=Families.DUAL)
    with (
        serving(launch.Recipe(f"other-test-{os.getpid()}", layout, node_grace=2.0)) as other,
        watching(cluster) as ours,
        watching(other) as theirs,
    ):
        mac = measure.steady_holder(ours)
        measure.steady_holder(theirs)
        other.stop_node("node-1")
        still_answers_alone(ours, mac, time.monotonic(), 2.0)
