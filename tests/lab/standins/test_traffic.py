"""The data path carries traffic as kube-proxy's does, seen from clients and workloads: kube-proxy's own, and ours."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any

import pytest

from cluster.api.client import ENDPOINT_SLICES, SERVICES, ApiClient
from cluster.objects import Service
from lab.client import Lab
from lab.controlplane.commands import LEAST_GRACE_S
from lab.objects.manifests import api_of
from lab.objects.workloads import start_workload
from lab.standins.views import PODS
from tests.lab.conftest import end, make
from tests.waiting import wait_until

pytestmark = pytest.mark.lab
CLUSTER_IP = "10.96."  # how each Service's begins
CLIENT, NODE_1, NODE_2 = "172.18.0.3", "172.18.0.11", "172.18.0.12"


REAL = {"control_plane": "kubernetes", "node_grace": LEAST_GRACE_S}
DATA_PATHS = [
    pytest.param({"control_plane": "embedded", "node_grace": 0.5}, id="embedded"),
    pytest.param({**REAL, "proxy_mode": "nftables"}, id="kubernetes", marks=pytest.mark.real),
    pytest.param({**REAL, "proxy_mode": "iptables"}, id="kubernetes-iptables", marks=pytest.mark.real),
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


def get(lab: Lab, host: str, address: str, port: int = 80, timeout: float = 2.0) -> dict[str, Any]:
    """A GET from a host, over a connection of its own. Raises ``OSError``."""
    connection = http.client.HTTPConnection(address, port)
    with lab.open_socket(host) as connection.sock:
        connection.sock.settimeout(timeout)
        connection.sock.connect((address, port))
        connection.request("GET", "/", headers={"Connection": "close"})
        answer: dict[str, Any] = json.loads(connection.getresponse().read())
    return answer


def can_get(lab: Lab, host: str, address: str, port: int = 80) -> dict[str, Any] | None:
    try:
        return get(lab, host, address, port)
    except OSError:
        return None


def make_service(lab: Lab, api: ApiClient, name: str, address: str, via: str, **spec: Any) -> Service:
    """A Service that answers at an address, which the client reaches by way of one node (there is no speaker here)."""
    body = {"type": "LoadBalancer", "ports": [{"port": 80, "targetPort": "http"}], "selector": {"app": "web"}, **spec}
    api.create(SERVICES, "default", {"metadata": {"name": name}, "spec": body})
    if body["type"] != "LoadBalancer":
        return api.get(SERVICES, "default", name)
    status = {"status": {"loadBalancer": {"ingress": [{"ip": address, "ipMode": "VIP"}]}}}
    service = api.patch(SERVICES, "default", name, status, subresource="status")
    lab.run("client", ["ip", "route", "replace", address, "via", via], check=True)
    return service


def answers(lab: Lab, host: str, address: str, port: int = 80, times: int = 40) -> list[dict[str, Any]]:
    wait_until(lambda: can_get(lab, host, address, port), message=f"{address}:{port} does not answer {host}")
    return [get(lab, host, address, port) for _ in range(times)]


def test_policy_cluster_uses_every_endpoint_and_hides_the_client(lab: Lab, api: ApiClient) -> None:
    make_service(lab, api, "cluster", "172.18.255.1", NODE_1)
    found = answers(lab, "client", "172.18.255.1")
    assert {answer["pod"] for answer in found} == {"web-1", "web-2", "web-3", "web-4"}
    assert {answer["client"] for answer in found} == {NODE_1}


def test_policy_local_stays_on_the_node_and_shows_the_client(lab: Lab, api: ApiClient) -> None:
    make_service(lab, api, "local", "172.18.255.2", NODE_1, externalTrafficPolicy="Local")
    found = answers(lab, "client", "172.18.255.2")
    assert {answer["pod"] for answer in found} == {"web-1", "web-4"}
    assert {answer["client"] for answer in found} == {CLIENT}


def test_policy_local_drops_where_the_node_has_no_endpoint(lab: Lab, api: ApiClient) -> None:
    local = {"externalTrafficPolicy": "Local", "selector": {"app": "lone"}}
    make_service(lab, api, "lone", "172.18.255.3", NODE_2, **local)
    assert {answer["client"] for answer in answers(lab, "client", "172.18.255.3", times=3)} == {CLIENT}
    lab.run("client", ["ip", "route", "replace", "172.18.255.3", "via", NODE_1], check=True)
    with pytest.raises(TimeoutError):
        get(lab, "client", "172.18.255.3", timeout=1.0)
    inside = get(lab, "node-1", "172.18.255.3")
    assert inside["pod"] == "lone-1", "a node's own processes reach every endpoint"


def test_node_port_answers_on_every_node(lab: Lab, api: ApiClient) -> None:
    service = make_service(lab, api, "ported", "172.18.255.4", NODE_1)
    port = service.spec.ports[0].node_port
    for node in (NODE_1, NODE_2, "172.18.0.13"):
        found = answers(lab, "client", node, port)
        assert {answer["pod"] for answer in found} == {"web-1", "web-2", "web-3", "web-4"}
        assert {answer["client"] for answer in found} == {node}


def test_cluster_ip_answers_nodes_themselves(lab: Lab, api: ApiClient) -> None:
    service = make_service(lab, api, "inner", "172.18.255.5", NODE_1, type="ClusterIP")
    found = answers(lab, "node-2", service.spec.cluster_ip)
    assert {answer["node"] for answer in found} == {"node-1", "node-2", "node-3"}
    assert {answer["client"] for answer in found} == {NODE_2}
    assert can_get(lab, "client", "172.18.255.5") is None, "a ClusterIP Service has no address outside"


def test_a_service_without_endpoints_refuses_at_once(lab: Lab, api: ApiClient) -> None:
    service = make_service(lab, api, "empty", "172.18.255.6", NODE_1, selector={"app": "nobody"})

    def refuses(host: str, address: str, port: int) -> bool:
        try:
            get(lab, host, address, port)
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
        raise AssertionError("somebody answered")

    wait_until(lambda: refuses("client", "172.18.255.6", 80))
    wait_until(lambda: refuses("client", NODE_1, service.spec.ports[0].node_port))
    wait_until(lambda: refuses("node-3", service.spec.cluster_ip, 80))


def test_session_affinity_keeps_a_client_with_its_endpoint(lab: Lab, api: ApiClient) -> None:
    make_service(lab, api, "sticky", "172.18.255.7", NODE_1, sessionAffinity="ClientIP")
    found = answers(lab, "client", "172.18.255.7", times=20)
    assert len({answer["pod"] for answer in found}) == 1


def test_a_deleted_service_answers_no_more(lab: Lab, api: ApiClient) -> None:
    make_service(lab, api, "brief", "172.18.255.8", NODE_1)
    answers(lab, "client", "172.18.255.8", times=1)
    api.delete(SERVICES, "default", "brief")
    wait_until(lambda: can_get(lab, "client", "172.18.255.8") is None)
    wait_until(lambda: "172.18.255.8" not in lab.run("node-1", ["nft", "list", "ruleset"]).output)


def test_a_deleted_pod_leaves_its_service(lab: Lab, api: ApiClient) -> None:
    start_workload(lab, "short", replicas=2)
    make_service(lab, api, "short", "172.18.255.9", NODE_1, selector={"app": "short"})
    wait_until(lambda: {answer["pod"] for answer in answers(lab, "client", "172.18.255.9")} == {"short-1", "short-2"})
    api.delete(PODS, "default", "short-2")
    wait_until(lambda: not slice_mentions(api, "short", "node-2"))
    wait_until(lambda: whose_answers(lab, "172.18.255.9") == {"short-1"})


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
    name, address = f"faulty-{fault}", f"172.18.255.{10 + len(fault)}"
    make_service(lab, api, name, address, NODE_1)
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
    make_service(lab, api, "remembered", "172.18.255.250", NODE_1)
    lab.run("node-3", ["ip", "addr", "add", "192.0.2.1/32", "dev", "lo"], check=True)
    lab.stop_node("node-3")
    lab.start_node("node-3")
    assert "192.0.2.1" not in lab.run("node-3", ["ip", "addr"]).output
    rules = ["nft", "list", "ruleset"]
    wait_until(lambda: CLUSTER_IP in lab.run("node-3", rules).output, message="its rules come back")


def test_a_pulled_cable_is_a_lost_carrier(lab: Lab) -> None:
    carrier = ["cat", "/sys/class/net/eth0/carrier"]
    assert lab.run("node-3", carrier).output == "1\n"
    lab.pull_link("node-3")
    assert lab.run("node-3", carrier).output == "0\n"
    lab.plug_link("node-3")
    wait_until(lambda: lab.run("node-3", carrier).output == "1\n")
