"""Objects that several tools write in turn, over our definitions and over MetalLB's: one outcome over both.

Flux, Argo CD, Helm 4 and Terraform apply server-side, each under a name of its own; people apply client-side, and
replace. What the last one wrote is what there is: a list is never made of what two of them said.
"""

from __future__ import annotations

import json
import signal
import uuid
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import yaml
from kubernetes import config

from tests.controller.daemon.test_loop import ControllerProcess
from tests.kubernetes.access import Access
from tests.kubernetes.control_plane import ROOT, ControlPlane
from tests.kubernetes.metallb import SUMS, definitions
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

OURS = pytest.param("control_plane", id="ours", marks=pytest.mark.xdist_group("kubernetes"))
METALLBS = pytest.param("metallbs_plane", id="metallb", marks=pytest.mark.xdist_group("metallb"))
API = "metallb.io/v1beta1"

Object = dict[str, Any]


PLURALS = {
    "IPAddressPool": "/apis/metallb.io/v1beta1/namespaces/{}/ipaddresspools",
    "L2Advertisement": "/apis/metallb.io/v1beta1/namespaces/{}/l2advertisements",
    "Service": "/api/v1/namespaces/{}/services",
    "ConfigMap": "/api/v1/namespaces/{}/configmaps",
    "Node": "/api/v1/nodes",
}
SERVER_SIDE = "application/apply-patch+yaml"


class Cluster:
    """A namespace of the test's own on one of the control planes."""

    def __init__(self, plane: ControlPlane, access: Access) -> None:
        self.plane = plane
        self.access = access
        self.namespace = access.namespace

    def write(self, how: str, objects: list[Object]) -> None:
        """``apply``, ``replace``, or the name of somebody who applies server-side and insists: ``argocd`` with kubectl,
        others without."""
        if how in {"apply", "argocd"}:
            options = ["--server-side", "--force-conflicts", f"--field-manager={how}"] if how != "apply" else []
            self.plane.kubectl(f"--namespace={self.namespace}", "apply", *options, "-f", "-", stdin=as_text(objects))
            return
        for each in objects:
            if how == "replace":
                wait_until(partial(self.replaced, each), 10, "something else writes the object again and again")
            else:
                answer = self.access.ask("PATCH", self.path(each), each, SERVER_SIDE, fieldManager=how, force="true")
                assert answer.status in {200, 201}, answer.body["message"]

    def replaced(self, wanted: Object) -> bool:
        """Whether the object is what is ``wanted`` now; not if a controller wrote its status since it was read."""
        known = {"resourceVersion": self.stored(wanted)["metadata"]["resourceVersion"]}
        body = {**wanted, "metadata": {**wanted["metadata"], **known}}
        answer = self.access.ask("PUT", self.path(wanted), body, fieldManager="kubectl-replace")
        assert answer.status in {200, 409}, answer.body["message"]
        return answer.status == 200

    def stored(self, written: Object) -> Object:
        """The object as the server has it."""
        answer = self.access.get(self.path(written))
        assert answer.status == 200, answer.body
        found: Object = answer.body
        return found

    def wait_for(self, service: Object, address: str) -> None:
        """Until the Service shows this address, and the annotation that names its pool."""

        def shown() -> bool:
            stored = self.stored(service)
            ingress = [each["ip"] for each in stored["status"]["loadBalancer"].get("ingress", ())]
            return ingress == [address] and "metallb.io/ip-allocated-from-pool" in stored["metadata"]["annotations"]

        wait_until(shown, 20, f"the address is never {address}")

    def path(self, written: Object) -> str:
        return f"{PLURALS[written['kind']].format(self.namespace)}/{written['metadata']['name']}"


def as_text(objects: list[Object]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})


@pytest.fixture(params=[OURS, METALLBS])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    plane: ControlPlane = request.getfixturevalue(request.param)
    with config.new_client_from_config(str(plane.kubeconfig())) as api_client:
        access = Access(api_client, f"apply-{uuid.uuid4().hex[:8]}")
        access.made("/api/v1/namespaces", {"metadata": {"name": access.namespace}})
        yield Cluster(plane, access)
        access.delete(f"/api/v1/namespaces/{access.namespace}")


def custom(kind: str, **spec: Any) -> Object:
    return {"apiVersion": API, "kind": kind, "spec": spec}


def pool(*addresses: str, **spec: Any) -> Object:
    return custom("IPAddressPool", addresses=list(addresses), **spec)


def allocated(**allocation: Any) -> Object:
    return pool("10.77.9.0/28", serviceAllocation=allocation, autoAssign=False)


def advertisement(**spec: Any) -> Object:
    return custom("L2Advertisement", **spec)


def service(*, asks: str | None = None, **parts: Any) -> Object:
    """``asks`` for an address; of the class that no controller serves unless ``parts`` say so."""
    annotations = {"metallb.io/loadBalancerIPs": asks} if asks else {"example.com/team": "blue"}
    spec = {"type": "LoadBalancer", "loadBalancerClass": "apply.example/none", "ports": [{"port": 80}], **parts}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"annotations": annotations}, "spec": spec}


def by_zone(*values: str) -> Object:
    return {"matchExpressions": [{"key": "zone", "operator": "In", "values": list(values)}]}


BLUE, GREEN = {"matchLabels": {"team": "blue"}}, {"matchLabels": {"team": "green"}}
A, B, C = "10.77.1.0/28", "10.77.2.0/28", "10.77.3.1-10.77.3.9"
HALF = {"matchLabels": {"team": "blue"}, "matchExpressions": by_zone("a")["matchExpressions"]}

TURNS = ("apply", "flux", "argocd", "replace", "flux", "apply", "argocd")
TABLE: dict[str, tuple[Object, ...]] = {
    "ranges": (pool(A, B), pool(B), pool(C, A), pool(B), pool(A, B), pool(C), pool(A)),
    "order": (pool(A, B), pool(B, A), pool(A, B), pool(C, B, A), pool(B, A), pool(A, B), pool(B, A)),
    "namespaces": (
        allocated(namespaces=["a", "b"]),
        allocated(namespaces=["b"]),
        allocated(namespaces=["c", "a"]),
        allocated(namespaces=["b"], priority=1),
        allocated(namespaces=["a"], priority=2),
        allocated(priority=3),
        allocated(namespaces=["c"]),
    ),
    "selectors": (
        allocated(namespaceSelectors=[BLUE, by_zone("a", "b")]),
        allocated(namespaceSelectors=[by_zone("b")]),
        allocated(namespaceSelectors=[GREEN, by_zone("b", "c")], serviceSelectors=[BLUE]),
        allocated(serviceSelectors=[BLUE, GREEN]),
        allocated(serviceSelectors=[GREEN]),
        allocated(namespaceSelectors=[HALF]),
        allocated(namespaceSelectors=[BLUE]),
    ),
    "advertised": (
        advertisement(ipAddressPools=["a", "b"], interfaces=["eth0", "eth1"]),
        advertisement(ipAddressPools=["b"], interfaces=["eth1"]),
        advertisement(ipAddressPools=["c", "b"]),
        advertisement(ipAddressPoolSelectors=[BLUE, by_zone("a", "b")]),
        advertisement(ipAddressPoolSelectors=[by_zone("b")]),
        advertisement(ipAddressPools=["a"]),
        advertisement(interfaces=["eth2"]),
    ),
    "from-nodes": (
        advertisement(nodeSelectors=[BLUE, GREEN]),
        advertisement(nodeSelectors=[GREEN]),
        advertisement(nodeSelectors=[by_zone("a", "b"), GREEN]),
        advertisement(nodeSelectors=[by_zone("b")]),
        advertisement(nodeSelectors=[by_zone("a"), HALF]),
        advertisement(nodeSelectors=[BLUE]),
        advertisement(nodeSelectors=[BLUE, HALF]),
    ),
    "a-service": (
        service(asks="10.77.1.1"),
        service(externalTrafficPolicy="Local"),
        service(asks="10.77.1.2", ports=[{"port": 80, "name": "a"}, {"port": 443, "name": "b"}]),
        service(ports=[{"port": 443}]),
        service(asks="10.77.1.3", ports=[{"port": 443}], selector={"app": "a"}),
        service(ports=[{"port": 443}], selector={"app": "a"}),
        service(ports=[{"port": 443}], selector={"app": "b"}),
    ),
}
"""Of each object what is written at each turn: from one to the next things are added, taken out, exchanged, moved."""


def seeds() -> Iterator[Object]:
    """All of ``examples/seeds``, under names that do not meet."""
    for path in sorted((ROOT / "examples/seeds").glob("*.yaml")):
        for each in yaml.safe_load_all(path.read_text()):
            each["metadata"].pop("namespace", None)
            each["metadata"]["name"] = f"{path.stem}-{each['metadata']['name']}"
            yield each


SEEDS = list(seeds())


def contains(stored: Any, wanted: Any) -> bool:
    """Whether it is what was written, beside what the API server fills into objects."""
    match wanted:
        case dict():
            return isinstance(stored, dict) and all(contains(stored.get(key), each) for key, each in wanted.items())
        case list():
            return isinstance(stored, list) and len(stored) == len(wanted) and all(map(contains, stored, wanted))
        case _:
            return bool(stored == wanted)


def test_what_was_written_last_is_what_there_is(cluster: Cluster) -> None:
    for turn, how in enumerate(TURNS):
        metadata = {name: {"name": name, **column[turn].get("metadata", {})} for name, column in TABLE.items()}
        written = [{**column[turn], "metadata": metadata[name]} for name, column in TABLE.items()]
        cluster.write(how, written)
        manager = {"apply": "kubectl-client-side-apply", "replace": "kubectl-replace"}.get(how, how)
        for each in written:
            stored = cluster.stored(each)
            assert contains(stored, each), (how, stored)
            assert manager in managers_of(stored), (
                "by a definition that cannot be merged nobody is recorded as a writer"
            )


def test_what_people_have_is_taken_from_anybody(cluster: Cluster) -> None:
    for how in ("apply", "flux", "replace", "argocd"):
        cluster.write(how, SEEDS)
        for each in SEEDS:
            assert contains(cluster.stored(each), each), how


def managers_of(stored: Object) -> set[str]:
    return {each["manager"] for each in stored["metadata"].get("managedFields", ())}


SERVED: list[tuple[Object, Object, str]] = [
    (pool("10.77.1.1-10.77.1.14", B), service(), "10.77.1.1"),
    (pool(B), service(), "10.77.2.0"),
    (pool(B, A), service(asks="10.77.1.5"), "10.77.1.5"),
    (pool(A), service(ports=[{"port": 443}]), "10.77.1.5"),
    (pool(A, B), service(ports=[{"port": 443}]), "10.77.1.5"),
    (pool(C), service(ports=[{"port": 443}], selector={"app": "a"}), "10.77.3.1"),
    (pool(A), service(ports=[{"port": 443}], selector={"app": "b"}), "10.77.1.0"),
]
"""At each turn a pool, a Service, and the address that the Service has then."""


def test_an_address_follows_what_was_written_last(cluster: Cluster) -> None:
    lb_class = f"{cluster.namespace}.example/a"
    controller = ControllerProcess(
        cluster.plane.kubeconfig(), "--namespace", cluster.namespace, "--lb-class", lb_class
    ).ready()
    try:
        for how, (its_pool, its_service, address) in zip(TURNS, SERVED, strict=True):
            lan = {**its_pool, "metadata": {"name": "lan"}}
            announced = {**advertisement(ipAddressPools=["lan"], nodeSelectors=[BLUE]), "metadata": {"name": "lan"}}
            web = {
                **its_service,
                "metadata": {"name": "web", **its_service["metadata"]},
                "spec": {**its_service["spec"], "loadBalancerClass": lb_class},
            }
            cluster.write(how, [lan, announced, web])
            cluster.wait_for(web, address)
    finally:
        controller.end(signal.SIGKILL)


def test_who_does_not_insist_is_told_who_has_the_list(cluster: Cluster) -> None:
    written = {**pool(A, B), "metadata": {"name": "disputed"}}
    cluster.write("flux", [written])
    command = (f"--namespace={cluster.namespace}", "apply", "--server-side", "--field-manager=argocd", "-f", "-")
    refused = cluster.plane.try_kubectl(*command, stdin=as_text([{**pool(A), "metadata": {"name": "disputed"}}]))
    assert refused.returncode != 0
    assert 'conflict with "flux"' in refused.stderr
    assert ".spec.addresses" in refused.stderr


# ------------------------------------------------------------------------ the definitions themselves


@pytest.mark.parametrize("version", SUMS)
def test_every_list_merges_as_metallbs_does(version: str) -> None:
    differ = []
    compared = 0
    for path in sorted(definitions(version).glob("*.yaml")):
        ours = yaml.safe_load((ROOT / "crds" / path.name).read_text())
        of_ours = {each["name"]: merging(each["schema"]["openAPIV3Schema"]) for each in ours["spec"]["versions"]}
        for each in yaml.safe_load(path.read_text())["spec"]["versions"]:
            for place, merge in merging(each["schema"]["openAPIV3Schema"]).items():
                compared += 1
                if of_ours[each["name"]].get(place, merge if merge[0] == "object" else ATOMIC) != merge:
                    differ.append((path.stem, each["name"], place, merge))
    assert differ == []
    assert compared > 50


ATOMIC = ("array", "atomic", ())
"""How the server merges a list that a definition takes and does not describe, as ours do with those of BGP."""


def merging(schema: dict[str, Any], place: str = "") -> dict[str, tuple[Any, ...]]:
    """How each list and map of a schema merges."""
    found: dict[str, tuple[Any, ...]] = {}
    match schema.get("type"):
        case "array":
            keys = tuple(schema.get("x-kubernetes-list-map-keys", ()))
            found[place] = ("array", schema.get("x-kubernetes-list-type", "atomic"), keys)
            if found[place][1] != "atomic":
                found |= merging(schema["items"], f"{place}[]")
        case "object":
            found[place] = ("object", schema.get("x-kubernetes-map-type", "granular"), ())
            for name, inner in schema.get("properties", {}).items():
                found |= merging(inner, f"{place}.{name}")
    return found
