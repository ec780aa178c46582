"""The data path carries traffic as kube-proxy's does, seen from clients and workloads: kube-proxy's own, and ours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from cluster.api.client import ENDPOINT_SLICES, SERVICES, ApiClient
from cluster.objects import Service
from lab.client import Lab
from lab.controlplane.commands import LEAST_GRACE_S
from lab.layout import Families
from lab.machines.hosts import socket_family
from lab.objects.manifests import api_of
from lab.objects.workloads import start_workload
from lab.standins.views import PODS
from tests.lab import ssh
from tests.lab.asking import can_get, get
from tests.lab.conftest import end, make
from tests.waiting import wait_until

pytestmark = pytest.mark.lab
REAL = {"control_plane": "kubernetes", "node_grace": LEAST_GRACE_S}
OUTCOME_S = 1.5
"""The kernel does not hear a refusal that comes while it sends still, and asks again a second later (RFC 6298 §2)."""
EMBEDDED = {"control_plane": "embedded", "node_grace": 0.5}


def data_path(name: str, **wanted: object) -> object:
    """All tests of one lab go to one process, which makes it once."""
    real = [pytest.mark.real] if wanted["control_plane"] == "kubernetes" else []
    return pytest.param(wanted, id=name, marks=[pytest.mark.xdist_group(f"traffic-{name}"), *real])


DATA_PATHS = [
    data_path("embedded", **EMBEDDED),
    data_path("embedded-ipv6", **EMBEDDED, families=Families.IPV6),
    data_path("kubernetes", **REAL, proxy_mode="nftables"),
    data_path("kubernetes-ipv6", **REAL, families=Families.IPV6),
    data_path("kubernetes-iptables", **REAL, proxy_mode="iptables"),
    data_path("kubernetes-iptables-ipv6", **REAL, families=Families.IPV6, proxy_mode="iptables"),
]


@pytest.fixture(scope="module", params=DATA_PATHS)
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    made = make(nodes=3, **request.param)
    start_workload(made, "web", replicas=4)
    start_workload(made, "lone", replicas=1, nodes=["node-2"])
    yield made
    end(made)


@pytest.fixture(scope="module")
def api(lab: Lab) -> ApiClient:
    return api_of(lab)


def address_of(lab: Lab, host: str) -> str:
    found = lab.status().layout.find(host)
    assert found is not None
    return found.address


def free(lab: Lab, number: int) -> str:
    """An address of the LAN that no host has, of the lab's primary family."""
    separator = ":" if ":" in lab.status().layout.primary.lan else "."
    return lab.status().layout.primary.pool_first.rpartition(separator)[0] + f"{separator}{number}"


def make_service(lab: Lab, api: ApiClient, name: str, address: str, via: str, **spec: Any) -> Service:
    """A Service that answers at an address, which the client reaches by way of one node (there is no speaker here)."""
    body = {"type": "LoadBalancer", "ports": [{"port": 80, "targetPort": "http"}], "selector": {"app": "web"}, **spec}
    api.create(SERVICES, "default", {"metadata": {"name": name}, "spec": body})
    if body["type"] != "LoadBalancer":
        return api.get(SERVICES, "default", name)
    status = {"status": {"loadBalancer": {"ingress": [{"ip": address, "ipMode": "VIP"}]}}}
    service = api.patch(SERVICES, "default", name, status, subresource="status")
    if address != address_of(lab, via):
        lab.run("client", ["ip", "route", "replace", address, "via", address_of(lab, via)], check=True)
    return service


def answers(lab: Lab, host: str, address: str, port: int = 80, times: int = 40) -> list[dict[str, Any]]:
    wait_until(lambda: can_get(lab, host, address, port), message=f"{address}:{port} does not answer {host}")
    return [get(lab, host, address, port) for _ in range(times)]


def test_policy_cluster_uses_every_endpoint_and_hides_the_client(lab: Lab, api: ApiClient) -> None:
    make_service(lab, api, "cluster", free(lab, 1), "node-1")
    found = answers(lab, "client", free(lab, 1))
    assert {answer["pod"] for answer in found} == {"web-1", "web-2", "web-3", "web-4"}
    assert {answer["client"] for answer in found} == {address_of(lab, "node-1")}


def test_policy_local_stays_on_the_node_and_shows_the_client(lab: Lab, api: ApiClient) -> None:
    make_service(lab, api, "local", free(lab, 2), "node-1", externalTrafficPolicy="Local")
    found = answers(lab, "client", free(lab, 2))
    assert {answer["pod"] for answer in found} == {"web-1", "web-4"}
    assert {answer["client"] for answer in found} == {address_of(lab, "client")}


def test_policy_local_drops_where_the_node_has_no_endpoint(lab: Lab, api: ApiClient) -> None:
    local = {"externalTrafficPolicy": "Local", "selector": {"app": "lone"}}
    make_service(lab, api, "lone", free(lab, 3), "node-2", **local)
    assert {answer["client"] for answer in answers(lab, "client", free(lab, 3), times=3)} == {address_of(lab, "client")}
    lab.run("client", ["ip", "route", "replace", free(lab, 3), "via", address_of(lab, "node-1")], check=True)
    with pytest.raises(TimeoutError):
        get(lab, "client", free(lab, 3), timeout=1.0)
    inside = get(lab, "node-1", free(lab, 3))
    assert inside["pod"] == "lone-1", "a node's own processes reach every endpoint"


def test_node_port_answers_on_every_node(lab: Lab, api: ApiClient) -> None:
    service = make_service(lab, api, "ported", free(lab, 4), "node-1")
    port = service.spec.ports[0].node_port
    for node in (address_of(lab, f"node-{number}") for number in (1, 2, 3)):
        found = answers(lab, "client", node, port)
        assert {answer["pod"] for answer in found} == {"web-1", "web-2", "web-3", "web-4"}
        assert {answer["client"] for answer in found} == {node}


def test_cluster_ip_answers_nodes_themselves(lab: Lab, api: ApiClient) -> None:
    service = make_service(lab, api, "inner", free(lab, 5), "node-1", type="ClusterIP")
    found = answers(lab, "node-2", service.spec.cluster_ip)
    assert {answer["node"] for answer in found} == {"node-1", "node-2", "node-3"}
    assert {answer["client"] for answer in found} == {address_of(lab, "node-2")}
    assert can_get(lab, "client", free(lab, 5)) is None, "a ClusterIP Service has no address outside"


def test_a_service_without_endpoints_refuses_at_once(lab: Lab, api: ApiClient) -> None:
    service = make_service(lab, api, "empty", free(lab, 6), "node-1", selector={"app": "nobody"})

    def refuses(host: str, address: str, port: int) -> bool:
        try:
            get(lab, host, address, port)
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
        raise AssertionError("somebody answered")

    wait_until(lambda: refuses("client", free(lab, 6), 80))
    wait_until(lambda: refuses("client", address_of(lab, "node-1"), service.spec.ports[0].node_port))
    wait_until(lambda: refuses("node-3", service.spec.cluster_ip, 80))


def test_a_node_s_own_address_in_a_status_answers_on_every_node(lab: Lab, api: ApiClient) -> None:
    """Every node takes what is for the address and the port, the node itself too. Its other ports stay its own."""
    node = address_of(lab, "node-1")
    make_service(lab, api, "on-a-node", node, "node-1", ports=[{"port": 8001, "targetPort": "http"}])
    with ssh.serving(lab, "node-1", family=socket_family(node)):
        for host in ("client", "node-1", "node-2", "node-3"):
            found = answers(lab, host, node, 8001, times=5)
            assert {answer["pod"] for answer in found} <= {"web-1", "web-2", "web-3", "web-4"}, host
            assert ssh.greeting(lab, host, node) == "node-1"


def test_a_service_takes_its_port_from_the_node_s_own_programs(lab: Lab, api: ApiClient) -> None:
    """Where it has no endpoints the port is refused, as if nothing listened there; why ports are guarded."""
    node = address_of(lab, "node-2")
    with ssh.serving(lab, "node-2", 8002, family=socket_family(node)):
        assert ssh.greeting(lab, "client", node, 8002) == "node-2"
        ports = [{"port": 8002, "targetPort": "http"}]
        make_service(lab, api, "empty-on-a-node", node, "node-2", selector={"app": "nobody"}, ports=ports)
        for host in ("client", "node-2"):
            wait_until(lambda host=host: outcome(lab, host, node, 8002) == "refused")  # type: ignore[misc]
        api.patch(SERVICES, "default", "empty-on-a-node", {"spec": {"selector": {"app": "web"}}})
        assert answers(lab, "client", node, 8002, times=1)[0]["pod"].startswith("web-")
        api.delete(SERVICES, "default", "empty-on-a-node")
        wait_until(lambda: outcome(lab, "client", node, 8002) == "node-2")


def test_policy_local_on_nodes_addresses_drops_where_no_endpoint_is(lab: Lab, api: ApiClient) -> None:
    near, far = address_of(lab, "node-2"), address_of(lab, "node-3")
    local = {
        "externalTrafficPolicy": "Local",
        "selector": {"app": "lone"},
        "ports": [{"port": 8003, "targetPort": "http"}],
    }
    make_service(lab, api, "local-on-nodes", near, "node-2", **local)
    ingress = [{"ip": each, "ipMode": "VIP"} for each in (near, far)]
    api.patch(
        SERVICES, "default", "local-on-nodes", {"status": {"loadBalancer": {"ingress": ingress}}}, subresource="status"
    )
    found = answers(lab, "client", near, 8003, times=3)
    assert {(answer["pod"], answer["client"]) for answer in found} == {("lone-1", address_of(lab, "client"))}
    wait_until(lambda: outcome(lab, "client", far, 8003) == "dropped")


def outcome(lab: Lab, host: str, address: str, port: int) -> str:
    """What a connection comes to: ``refused``, ``dropped``, or whom the one who answers says to be."""
    try:
        return ssh.greeting(lab, host, address, port, timeout=OUTCOME_S)
    except ConnectionRefusedError:
        return "refused"
    except TimeoutError:
        return "dropped"
    except OSError as error:
        return str(error)


def test_session_affinity_keeps_a_client_with_its_endpoint(lab: Lab, api: ApiClient) -> None:
    make_service(lab, api, "sticky", free(lab, 7), "node-1", sessionAffinity="ClientIP")
    found = answers(lab, "client", free(lab, 7), times=20)
    assert len({answer["pod"] for answer in found}) == 1


def test_a_deleted_service_answers_no_more(lab: Lab, api: ApiClient) -> None:
    make_service(lab, api, "brief", free(lab, 8), "node-1")
    answers(lab, "client", free(lab, 8), times=1)
    api.delete(SERVICES, "default", "brief")
    wait_until(lambda: can_get(lab, "client", free(lab, 8)) is None)
    wait_until(lambda: free(lab, 8) not in lab.run("node-1", ["nft", "list", "ruleset"]).output)


def test_a_deleted_pod_leaves_its_service(lab: Lab, api: ApiClient) -> None:
    start_workload(lab, "short", replicas=2)
    make_service(lab, api, "short", free(lab, 9), "node-1", selector={"app": "short"})
    wait_until(lambda: {answer["pod"] for answer in answers(lab, "client", free(lab, 9))} == {"short-1", "short-2"})
    api.delete(PODS, "default", "short-2")
    wait_until(lambda: not slice_mentions(api, "short", "node-2"))
    wait_until(lambda: whose_answers(lab, free(lab, 9)) == {"short-1"})


def whose_answers(lab: Lab, address: str) -> set[str | None]:
    """The pods that answer 40 requests of the client; a request that fails is the last one, and counts as None."""
    pods: set[str | None] = set()
    for _ in range(40):
        answer = can_get(lab, "client", address)
        if answer is None:
            return pods | {None}
        pods.add(answer["pod"])
    return pods


def slice_mentions(api: ApiClient, service: str, node: str, *, ready: bool | None = None) -> bool:
    """Whether the Service's slices list an endpoint on a node (of that readiness)."""
    label = f"kubernetes.io/service-name={service}"
    slices = [s for page in api.list_pages(ENDPOINT_SLICES, "default", label_selector=label) for s in page.items]
    endpoints = [endpoint for each in slices for endpoint in each.endpoints or ()]
    return any(e.node_name == node and ready in {None, e.conditions.ready} for e in endpoints)


@pytest.mark.parametrize("fault", ["power", "link"])
def test_a_silent_nodes_endpoints_go_after_the_grace_period_and_come_back(lab: Lab, api: ApiClient, fault: str) -> None:
    name, address = f"faulty-{fault}", free(lab, 10 + len(fault))
    make_service(lab, api, name, address, "node-1")
    answers(lab, "client", address, times=1)
    stop, start = {"power": (lab.stop_node, lab.start_node), "link": (lab.pull_link, lab.plug_link)}[fault]
    stop("node-3")
    assert slice_mentions(api, name, "node-3", ready=True), "nobody can know yet"
    wait_until(lambda: slice_mentions(api, name, "node-3", ready=False))
    wait_until(lambda: whose_answers(lab, address) == {"web-1", "web-2", "web-4"})
    start("node-3")
    wait_until(lambda: slice_mentions(api, name, "node-3", ready=True))
    wait_until(lambda: whose_answers(lab, address) == {"web-1", "web-2", "web-3", "web-4"})


def test_a_node_that_comes_back_remembers_nothing(lab: Lab, api: ApiClient) -> None:
    service = make_service(lab, api, "remembered", free(lab, 250), "node-1")
    lab.run("node-3", ["ip", "addr", "add", "192.0.2.1/32", "dev", "lo"], check=True)
    lab.stop_node("node-3")
    lab.start_node("node-3")
    assert "192.0.2.1" not in lab.run("node-3", ["ip", "addr"]).output
    rules = ["nft", "list", "ruleset"]
    wait_until(lambda: service.spec.cluster_ip in lab.run("node-3", rules).output, message="its rules come back")


def test_a_pulled_cable_is_a_lost_carrier(lab: Lab) -> None:
    carrier = ["cat", "/sys/class/net/eth0/carrier"]
    assert lab.run("node-3", carrier).output == "1\n"
    lab.pull_link("node-3")
    assert lab.run("node-3", carrier).output == "0\n"
    lab.plug_link("node-3")
    wait_until(lambda: lab.run("node-3", carrier).output == "1\n")


def test_the_proxy_says_its_mode_and_that_its_rules_are_installed(lab: Lab) -> None:
    mode = lab.run("node-1", ["curl", "--silent", "--fail", "http://127.0.0.1:10249/proxyMode"], check=True).output
    ruleset = lab.run("node-1", ["nft", "list", "ruleset"], check=True).output
    assert mode == ("iptables" if "KUBE-SERVICES" in ruleset else "nftables")
    lab.run("node-1", ["curl", "--silent", "--fail", "http://127.0.0.1:10256/healthz"], check=True)
