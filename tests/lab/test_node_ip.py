"""Node-IP mode as clients meet it: Services on the addresses of nodes, behind a router that maps them 1:1.

One lab for each proxy, with and without speakers. The Service and the Nodes' labels are those of the tutorial in
``examples/seeds``, the pools those of ``examples/node-ip/multicloud.yaml``, all unchanged. Every test leaves the lab as
it found it.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import pytest

from cluster.addresses import Family
from cluster.api.client import SERVICE_L2_STATUSES, SERVICES, ApiClient, Forbidden, NotFound
from cluster.api.reflector import Change, Reflector
from cluster.objects import Service, ServiceStatus
from cluster.resources import NODES
from lab.client import Lab
from lab.controlplane.commands import LEAST_GRACE_S
from lab.layout import Families
from lab.measuring import measure
from lab.objects.fetch import fetch
from lab.objects.manifests import SEEDS, api_of, apply_bodies, apply_files, bodies, ensure_namespace
from lab.objects.workloads import start_workload
from lab.readiness import await_ready
from lab.shipped import ROOT
from lab.shipped.kinds import by_word
from lab.standins.views import PODS
from tests.lab import ssh
from tests.lab.asking import can_get
from tests.lab.conftest import end, make
from tests.lab.following import Follower
from tests.real import kubectl
from tests.waiting import wait_until

POOLS = ROOT / "examples" / "node-ip" / "multicloud.yaml"
LAN = "10.0.0.0/16"  # within the allowedCIDRs of the example
OUTSIDE = "192.0.2.2"
PUBLIC = ["203.0.113.1", "203.0.113.2", "203.0.113.3"]
PRIVATE = ["10.0.0.11", "10.0.0.12", "10.0.0.13"]
LONG_GRACE_S = 60.0
"""Until a silent node is called not Ready: longer than a test lasts, so that it is the speakers who say so."""
JOIN_S = 60.0
"""For a node that was silent to be shown again: it is damped for 20 s."""


def cluster(name: str, **wanted: object) -> object:
    """All tests of one lab go to one process, which makes it once."""
    real = [pytest.mark.real] if wanted["control_plane"] == "kubernetes" else []
    return pytest.param(wanted, id=name, marks=[pytest.mark.xdist_group(f"node-ip-{name}"), *real])


EMBEDDED = {"control_plane": "embedded", "families": Families.DUAL}
REAL = {"control_plane": "kubernetes"}
CLUSTERS = [
    cluster("embedded", **EMBEDDED, node_grace=LONG_GRACE_S),
    cluster("embedded-alone", **EMBEDDED, node_grace=0.5, speakers=False),
    cluster("kubernetes", **REAL, node_grace=LONG_GRACE_S, families=Families.DUAL),
    cluster("kubernetes-iptables-alone", **REAL, node_grace=LEAST_GRACE_S, proxy_mode="iptables", speakers=False),
]
pytestmark = [pytest.mark.lab]
logger = logging.getLogger(__name__)


@pytest.fixture(scope="module", params=CLUSTERS)
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """Three nodes behind NAT, pods of the tutorial's Service on two of them, and the Service."""
    made = make(nodes=3, daemons=True, nat=True, lan=LAN, **request.param)
    if not made.status().speakers:  # as kubeadm has them; where there are speakers, they ask the proxies themselves
        for node in made.status().layout.nodes:
            run_proxy_pod(made, node.name, request.param.get("proxy_mode", "nftables"))
    start_workload(made, "ingress", replicas=2, port=8080, nodes=["node-1", "node-2"])
    apply_files(made, [POOLS, SEEDS / "multicloud-service.yaml"])
    await_addresses(made, "ingress", PUBLIC, 40)
    yield made
    end(made)


@pytest.fixture(scope="module")
def api(lab: Lab) -> ApiClient:
    return client_of(lab)


def run_proxy_pod(lab: Lab, node: str, mode: str, name: str = "kube-proxy") -> None:
    """A Pod as kubeadm's, which says the mode of the node's kube-proxy."""
    container = {"name": "kube-proxy", "image": "kube-proxy", "command": ["kube-proxy", f"--proxy-mode={mode}"]}
    body = {
        "metadata": {"name": f"{name}-{node}", "labels": {"k8s-app": "kube-proxy"}},
        "spec": {"nodeName": node, "containers": [container]},
    }
    api = client_of(lab)
    ensure_namespace(api, "kube-system")

    def made() -> bool:
        with contextlib.suppress(Forbidden):  # before the namespace has its first ServiceAccount
            api.create(PODS, "kube-system", body)
            return True
        return False

    wait_until(made, 20, f"no pod on {node}")


@cache
def client_of(lab: Lab) -> ApiClient:
    """One for all threads: to make one is slow."""
    return api_of(lab)


def status(lab: Lab, name: str) -> ServiceStatus:
    """Of a Service; empty where there is none."""
    try:
        return client_of(lab).get(SERVICES, "default", name).status
    except NotFound:
        return ServiceStatus()


def addresses(lab: Lab, name: str) -> list[str]:
    return [each.ip for each in status(lab, name).load_balancer.ingress]


def await_addresses(lab: Lab, name: str, wanted: Sequence[str], limit: float = 20) -> None:
    wait_until(lambda: addresses(lab, name) == wanted, limit, f"{name} does not get {wanted}", every=0.05)


def is_ready(lab: Lab, node: str) -> bool:
    conditions = client_of(lab).get(NODES, None, node).status.conditions
    return any(each.type == "Ready" and each.status == "True" for each in conditions)


@contextlib.contextmanager
def having(lab: Lab, *objects: dict[str, Any]) -> Iterator[None]:
    """The objects are there for the block, and gone after it."""
    apply_bodies(lab, objects)
    api = client_of(lab)
    try:
        yield
    finally:
        for each in objects:
            meta = each["metadata"]
            api.delete(by_word(each["kind"]), meta.get("namespace", "default"), meta["name"])
        for each in objects:
            wait_until(lambda each=each: is_gone(lab, each), 20, f"{each['metadata']['name']} stays", every=0.05)  # type: ignore[misc]


def is_gone(lab: Lab, body: dict[str, Any]) -> bool:
    meta = body["metadata"]
    found = fetch(lab, by_word(body["kind"]), meta.get("namespace", "default"), None)
    return not any(each["metadata"]["name"].startswith(meta["name"]) for each in found)


def a_service(name: str, port: int, *, pool: str = "public", app: str = "ingress", **spec: Any) -> dict[str, Any]:
    ports = [{"port": port, "targetPort": "http"}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": name,
            "labels": {"use-as-loadbalancer": "public"},
            "annotations": {"metallb.io/address-pool": pool},
        },
        "spec": {"type": "LoadBalancer", "ports": ports, "selector": {"app": app}, **spec},
    }


def a_pool(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "berthlb.io/v1alpha1",
        "kind": "NodeIPPool",
        "metadata": {"name": name, "namespace": "metallb-system"},
        "spec": {"autoAssign": False, **spec},
    }


def page(lab: Lab, host: str, address: str, port: int = 80) -> dict[str, Any]:
    """What a host gets from an address, once it gets anything."""
    return wait_until(lambda: can_get(lab, host, address, port), 20, f"{address}:{port} does not answer {host}")


# ------------------------------------------------------------------------ traffic


def test_each_address_answers_from_outside_and_each_node_s_ssh_goes_on(lab: Lab) -> None:
    """The router sends what is for the public address to the private one, which the companion shows."""
    await_addresses(lab, "ingress-berthlb-delivered", PRIVATE)
    with contextlib.ExitStack() as stack:
        for number, (public, private) in enumerate(zip(PUBLIC, PRIVATE, strict=True), start=1):
            node = f"node-{number}"
            stack.enter_context(ssh.serving(lab, node))
            assert page(lab, "outside", public)["pod"] in {"ingress-1", "ingress-2"}
            assert page(lab, "client", private)["pod"] in {"ingress-1", "ingress-2"}
            assert page(lab, "node-2", public)["pod"] in {"ingress-1", "ingress-2"}, "without the router"
            assert [ssh.greeting(lab, *each) for each in (("outside", public), ("client", private))] == [node, node]
    shown = status(lab, "ingress").load_balancer.ingress
    assert {each.ip_mode or "VIP" for each in shown} == {"VIP"}, "with Proxy kube-proxy would leave them alone"


def test_policy_local_shows_the_nodes_with_a_pod_and_the_pod_sees_who_asks(lab: Lab) -> None:
    start_workload(lab, "lone", replicas=1, nodes=["node-2"])
    with having(lab, a_service("local", 8101, app="lone", externalTrafficPolicy="Local")):
        await_addresses(lab, "local", PUBLIC[1:2])
        answer = page(lab, "outside", PUBLIC[1], 8101)
        assert (answer["node"], answer["client"]) == ("node-2", OUTSIDE)
        start_workload(lab, "lone", replicas=0)
        await_addresses(lab, "local", [])
        start_workload(lab, "lone", replicas=1, nodes=["node-1"])
        await_addresses(lab, "local", PUBLIC[:1])
        answer = page(lab, "outside", PUBLIC[0], 8101)
        assert (answer["node"], answer["client"]) == ("node-1", OUTSIDE)
    start_workload(lab, "lone", replicas=0)


def test_a_service_of_two_families_gets_addresses_of_each(lab: Lab) -> None:
    """By default: of IPv4 the ExternalIPs, of IPv6 the InternalIPs, since no node has an external one."""
    layout = lab.status().layout
    wanted = [*PUBLIC, *(node.addresses[Family.IPV6] for node in layout.nodes if Family.IPV6 in layout.families)]
    with having(
        lab,
        a_pool("all", deliveredAddresses=[{"type": "InternalIP"}]),
        a_service("both", 8102, pool="all", ipFamilyPolicy="PreferDualStack"),
    ):
        await_addresses(lab, "both", wanted)
        await_addresses(lab, "both-berthlb-delivered", PRIVATE)
        for each in wanted:
            assert page(lab, "outside", each, 8102)["pod"] in {"ingress-1", "ingress-2"}


# ------------------------------------------------------------------------ a node dies


def test_a_dead_node_leaves_the_status_and_clients_that_follow_it_go_on(lab: Lab) -> None:
    """With speakers it leaves while its Node is Ready still, without them when it is not Ready any more. It returns
    with its power, damped; and when it is shown again its kube-proxy has had the rules for long."""
    with Follower(lab, "outside", 80, lambda: addresses(lab, "ingress")) as client:
        cut = time.monotonic()
        lab.stop_node("node-3")
        await_addresses(lab, "ingress", PUBLIC[:2], 5 + (0 if lab.status().speakers else lab.status().node_grace))
        left = time.monotonic()
        assert is_ready(lab, "node-3") == lab.status().speakers
        await_addresses(lab, "ingress-berthlb-delivered", PRIVATE[:2])
        wait_until(lambda: client.answered_since(left) > 20, 20)
        assert not client.failed_since(left)
        lab.start_node("node-3")
        await_ready(lab)
        await_addresses(lab, "ingress", PUBLIC, JOIN_S)
        back = time.monotonic()
        assert addresses(lab, "ingress-berthlb-delivered") == PRIVATE
        wait_until(lambda: client.answered_since(back) > 20, 20)
    assert not client.failed_since(left)
    logger.info("power cut: %.2f s until the address left the status; back %.1f s later", left - cut, back - left)


# ------------------------------------------------------------------------ both kinds of pools


def test_a_service_moves_between_the_kinds_of_pool_and_shows_nothing_else_meanwhile(lab: Lab, api: ApiClient) -> None:
    """On the way it has the addresses of the one or the other, and nobody ever answers ARP for a node but the node."""
    lan = {
        "apiVersion": "metallb.io/v1beta1",
        "kind": "IPAddressPool",
        "metadata": {"name": "lan", "namespace": "metallb-system"},
        "spec": {"addresses": ["10.0.255.200-10.0.255.210"], "autoAssign": False},
    }
    advertisement = {**lan, "kind": "L2Advertisement", "spec": {}}
    seen: list[list[str]] = []

    def note(change: Change[Service]) -> None:
        if change.new is not None and change.new.metadata.name == "mover":
            shown = [each.ip for each in change.new.status.load_balancer.ingress]
            if seen[-1:] != [shown]:
                seen.append(shown)

    def move(pool: str) -> None:
        api.patch(SERVICES, "default", "mover", {"metadata": {"annotations": {"metallb.io/address-pool": pool}}})

    services = Reflector(api, SERVICES, on_change=note)
    with (
        having(lab, lan, advertisement, a_service("mover", 8103, pool="lan")),
        measure.watching(lab, *PRIVATE) as watch,
    ):
        await_addresses(lab, "mover", ["10.0.255.200"])
        services.start()
        wait_until(lambda: seen == [["10.0.255.200"]])
        move("public")
        await_addresses(lab, "mover", PUBLIC)
        await_addresses(lab, "mover-berthlb-delivered", PRIVATE)
        assert page(lab, "outside", PUBLIC[2], 8103)["pod"].startswith("ingress-")
        wait_until(lambda: not l2_statuses(api), 20, "a node still announces the Service")
        move("lan")
        await_addresses(lab, "mover", ["10.0.255.200"])
        wait_until(lambda: not has_service(lab, "mover-berthlb-delivered"), 20, "the companion stays")
        services.stop()
        assert seen == [["10.0.255.200"], PUBLIC, ["10.0.255.200"]]
        nodes = {node.address: node.mac for node in lab.status().layout.nodes}
        assert {(each.address, each.mac) for each in watch.answers()} == set(nodes.items())


def l2_statuses(api: ApiClient) -> list[Any]:
    return [each for one in api.list_pages(SERVICE_L2_STATUSES) for each in one.items]


def has_service(lab: Lab, name: str) -> bool:
    return any(each["metadata"]["name"] == name for each in fetch(lab, by_word("service"), "default", None))


# ------------------------------------------------------------------------ guards


def ports(number: int, protocol: str = "TCP") -> dict[str, Any]:
    return {"ports": [{"port": number, "protocol": protocol, "targetPort": "http"}]}


GUARDED = {
    "ssh": ("public", 22, "PortGuarded", "22/TCP: it is for SSH on every node"),
    "clash": ("public", 80, "PortInUse", "has no node with 80/TCP free; default/ingress has it"),
    "nobody": ("nobody", 8104, "NoNode", "selects no node"),
    "forbidden": ("forbidden", 8104, "AddressNotAllowed", "has no node with an address that may be shown"),
}
"""Pool and port of a Service, and what is said of it."""


def test_what_would_harm_nodes_is_refused_and_says_so(lab: Lab) -> None:
    pools = (
        a_pool("nobody", nodeSelectors=[{"matchLabels": {"use-as-loadbalancer": "nobody"}}]),
        a_pool("forbidden", addresses=[{"type": "Label", "key": "node-public-ip"}], allowedCIDRs=["198.51.100.0/24"]),
    )
    services = [a_service(name, port, pool=pool) for name, (pool, port, _, _) in GUARDED.items()]
    with having(lab, *pools, *services):
        for name, (_, _, reason, words) in GUARDED.items():
            await_refusal(lab, name, reason, words)
    assert addresses(lab, "ingress") == PUBLIC


def await_refusal(lab: Lab, name: str, reason: str, words: str) -> None:
    """The condition and ``kubectl describe`` say it, and the Service gets no address."""

    def refused() -> bool:
        said = next((c for c in status(lab, name).conditions if c.type == "berthlb.io/AddressAssigned"), None)
        if said is None or (said.status, said.reason) != ("False", reason):
            return False
        return words in said.message and words in described(lab, name)

    wait_until(refused, 20, f"{name} is not refused for {reason}", every=0.05)
    assert not addresses(lab, name)


def described(lab: Lab, name: str) -> str:
    """What ``kubectl describe`` shows of a Service; without kubectl, the messages of its Events."""
    if lab.status().control_plane == "kubernetes":
        return kubectl(lab, "describe", "service", name)
    events = fetch(lab, by_word("event"), "default", None)
    return "\n".join(each["message"] for each in events if each["involvedObject"]["name"] == name)


def test_a_proxy_in_ipvs_mode_gets_nothing_once_it_is_known(lab: Lab, api: ApiClient) -> None:
    """A Pod of kube-proxy says so. Where there are speakers, what they hear from the proxies themselves counts."""
    run_proxy_pod(lab, "node-1", "ipvs", "kube-proxy-ipvs")
    with having(lab, a_service("waiting", 8105)):
        if lab.status().speakers:
            await_addresses(lab, "waiting", PUBLIC)
        else:
            await_refusal(lab, "waiting", "ProxyIPVS", "kube-proxy is in IPVS mode")
        api.delete(PODS, "kube-system", "kube-proxy-ipvs-node-1")
        await_addresses(lab, "waiting", PUBLIC)


# ------------------------------------------------------------------------ the tutorial's own nodes


@pytest.mark.parametrize("lab", CLUSTERS[:1], indirect=True)
def test_the_seeds_nodes_are_shown_where_they_are_ready(lab: Lab, api: ApiClient) -> None:
    """They have no machines here, so what their kubelets would say is said for them: a real control plane would take
    it back for want of Leases."""
    seeds = bodies(SEEDS / "multicloud-nodes.yaml")
    names = [each["metadata"]["name"] for each in seeds]
    apply_bodies(lab, seeds)
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    for name in names:
        api.patch(NODES, None, name, {"status": {"conditions": [ready]}}, subresource="status")
    await_addresses(lab, "ingress", ["198.51.100.20", *PUBLIC, "203.0.113.10"], JOIN_S)
    await_addresses(lab, "ingress-berthlb-delivered", [*PRIVATE, "10.0.1.10"])
    for name in names:
        api.delete(NODES, None, name)
    await_addresses(lab, "ingress", PUBLIC)
    await_addresses(lab, "ingress-berthlb-delivered", PRIVATE)
