"""Companions on a real API server: what it makes of what is asked, who else deletes them, and whose they are."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.kubernetes.control_plane import ControlPlane
from tests.kubernetes.installation import Installation
from tests.waiting import wait_until

pytestmark = [pytest.mark.xdist_group("kubernetes"), pytest.mark.slow]

WAIT_S = 40.0
COMPANION = "web-berthlb-delivered"
PUBLIC, PRIVATE = ["203.0.113.71", "203.0.113.72"], ["10.77.0.1", "10.77.0.2"]


@pytest.fixture
def cluster(control_plane: ControlPlane) -> Iterator[Installation]:
    with Installation(control_plane, "nat", start=False) as cluster:
        for number, (public, private) in enumerate(zip(PUBLIC, PRIVATE, strict=True)):
            node(cluster, f"{cluster.name}-{number}", public, private)
        node_pool(cluster)
        cluster.start()
        yield cluster
        control_plane.try_kubectl("delete", "node", "--selector", f"of={cluster.name}")


def node(cluster: Installation, name: str, public: str, private: str) -> None:
    meta = {"name": name, "labels": {"of": cluster.name}}
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "Node", "metadata": meta}))
    addresses = [{"type": "ExternalIP", "address": public}, {"type": "InternalIP", "address": private}]
    ready = {"type": "Ready", "status": "True", "reason": "Test", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    patch = json.dumps({"status": {"conditions": [ready], "addresses": addresses}})
    cluster.kubectl("patch", "node", name, "--subresource=status", "--type=merge", "-p", patch)


def node_pool(cluster: Installation) -> None:
    spec = {
        "nodeSelectors": [{"matchLabels": {"of": cluster.name}}],
        "addresses": [{"type": "ExternalIP"}],
        "deliveredAddresses": [{"type": "InternalIP"}],
        "allowOtherProxies": True,
    }
    meta = {"name": f"{cluster.name}-nat"}
    cluster.apply({"apiVersion": "berthlb.io/v1alpha1", "kind": "NodeIPPool", "metadata": meta, "spec": spec})


def web(cluster: Installation, **spec: Any) -> None:
    body = cluster.manifest("web")
    cluster.apply({**body, "spec": {**body["spec"], "selector": {"app": "web"}, **spec}})


def endpoints(cluster: Installation) -> None:
    """Of ``web``, on both nodes: nothing makes any on that server."""
    body = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "web", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "ports": [{"port": 80}],
        "endpoints": [
            {
                "addresses": [f"10.244.0.{number + 1}"],
                "nodeName": f"{cluster.name}-{number}",
                "conditions": {"ready": True},
            }
            for number in range(len(PUBLIC))
        ],
    }
    cluster.apply(body)


def patch(cluster: Installation, name: str, body: dict[str, Any], *flags: str) -> None:
    cluster.kubectl("patch", "service", name, "--type=merge", "-p", json.dumps(body), *flags)


def companion(cluster: Installation) -> dict[str, Any] | None:
    """None: there is none at present."""
    answer = cluster.kubectl("get", "service", COMPANION, "--ignore-not-found", "-o", "json")
    found: dict[str, Any] | None = json.loads(answer) if answer.strip() else None
    return found


def until(cluster: Installation, probe: Callable[[dict[str, Any]], object], what: str) -> dict[str, Any]:
    """Wait for a companion of which ``probe`` is true; it may be deleted and made again meanwhile."""

    def look() -> dict[str, Any] | None:
        found = companion(cluster)
        return found if found is not None and probe(found) else None

    return wait_until(look, WAIT_S, f"{COMPANION}: not so: {what}")


def until_it_shows(cluster: Installation, *addresses: str) -> dict[str, Any]:
    def shows(found: dict[str, Any]) -> bool:
        return [each["ip"] for each in found["status"]["loadBalancer"].get("ingress", ())] == list(addresses)

    return until(cluster, shows, f"it shows {addresses}")


def until_gone(cluster: Installation) -> None:
    wait_until(lambda: companion(cluster) is None, WAIT_S, f"{COMPANION} is still there")


def until_spec(cluster: Installation, **fields: Any) -> dict[str, Any]:
    def has(found: dict[str, Any]) -> bool:
        return all(found["spec"].get(name) == value for name, value in fields.items())

    return until(cluster, has, f"it has {fields}")


def test_a_companion_is_made_follows_is_put_right_and_goes(cluster: Installation) -> None:
    web(cluster)
    body = until_it_shows(cluster, *PRIVATE)
    assert body["spec"]["allocateLoadBalancerNodePorts"] is False
    assert "nodePort" not in body["spec"]["ports"][0]
    assert body["metadata"]["ownerReferences"][0]["uid"] == cluster.get("web")["metadata"]["uid"]
    assert [each["ipMode"] for each in body["status"]["loadBalancer"]["ingress"]] == ["VIP", "VIP"]
    described = cluster.kubectl("describe", "service", COMPANION)
    assert "berthlb.io/companion-of=web" in described
    assert "Made by BerthLB for the Service web" in described

    endpoints(cluster)
    # Everything that it follows, there and back, as the server takes it: a health check port comes and goes, too.
    change: dict[str, Any] = {
        "selector": {"app": None, "name": "new"},
        "ports": [{"name": "a", "port": 81, "protocol": "TCP"}, {"name": "b", "port": 81, "protocol": "UDP"}],
        "externalTrafficPolicy": "Local",
        "internalTrafficPolicy": "Local",
        "sessionAffinity": "ClientIP",
        "loadBalancerSourceRanges": ["192.0.2.0/24"],
        "publishNotReadyAddresses": True,
        "trafficDistribution": "PreferClose",
        "ipFamilyPolicy": "PreferDualStack",
    }
    patch(cluster, "web", {"spec": change})
    followed = until_spec(
        cluster,
        selector={"name": "new"},
        externalTrafficPolicy="Local",
        internalTrafficPolicy="Local",
        sessionAffinity="ClientIP",
        sessionAffinityConfig={"clientIP": {"timeoutSeconds": 10800}},
        loadBalancerSourceRanges=["192.0.2.0/24"],
        publishNotReadyAddresses=True,
        trafficDistribution="PreferClose",
        ipFamilyPolicy="PreferDualStack",
        ipFamilies=["IPv4", "IPv6"],
    )
    spec = followed["spec"]
    assert spec["healthCheckNodePort"] != cluster.get("web")["spec"]["healthCheckNodePort"]
    assert [(each["name"], each["port"], each["protocol"]) for each in spec["ports"]] == [
        ("a", 81, "TCP"),
        ("b", 81, "UDP"),
    ]
    back = dict.fromkeys(change) | {
        "selector": {"name": None, "app": "web"},
        "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
        "externalTrafficPolicy": "Cluster",
        "internalTrafficPolicy": "Cluster",
        "ipFamilyPolicy": "SingleStack",
    }
    patch(cluster, "web", {"spec": back})
    until_spec(
        cluster,
        **{name: body["spec"].get(name) for name in (*change, "sessionAffinityConfig", "healthCheckNodePort", "ports")},
        ipFamilies=["IPv4"],
        clusterIPs=body["spec"]["clusterIPs"],
    )
    until_it_shows(cluster, *PRIVATE)

    # Somebody edits it.
    patch(cluster, COMPANION, {"spec": {"type": "ClusterIP"}})
    until_it_shows(cluster, *PRIVATE)
    patch(cluster, COMPANION, {"spec": {"allocateLoadBalancerNodePorts": True}})
    until_spec(cluster, allocateLoadBalancerNodePorts=False, ports=body["spec"]["ports"])
    patch(cluster, COMPANION, {"metadata": {"ownerReferences": None}})
    until(cluster, lambda found: found["metadata"].get("ownerReferences"), "it has an owner")
    patch(cluster, COMPANION, {"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.9"}]}}}, "--subresource=status")
    until_it_shows(cluster, *PRIVATE)
    cluster.kubectl("delete", "service", COMPANION)
    until_it_shows(cluster, *PRIVATE)

    # A node and the Service change.
    cluster.kubectl("label", "node", f"{cluster.name}-1", "node.kubernetes.io/exclude-from-external-load-balancers=")
    until_it_shows(cluster, PRIVATE[0])
    patch(cluster, "web", {"spec": {"type": "ClusterIP"}})
    until_gone(cluster)
    again = {"type": "LoadBalancer", "loadBalancerClass": cluster.load_balancer_class}
    patch(cluster, "web", {"spec": again})
    until_it_shows(cluster, PRIVATE[0])
    cluster.kubectl("delete", "service", "web")  # and nothing collects garbage
    until_gone(cluster)


def test_with_a_garbage_collector_it_goes_once_and_without_a_controller_too(cluster: Installation) -> None:
    with cluster.control_plane.garbage_collector():
        for cascade in ("background", "foreground"):
            web(cluster)
            until_it_shows(cluster, *PRIVATE)
            cluster.kubectl("delete", "service", "web", f"--cascade={cascade}")
            until_gone(cluster)
        web(cluster)
        until_it_shows(cluster, *PRIVATE)
        cluster.kubectl("delete", "service", "web", "--cascade=orphan")
        until_gone(cluster)
        web(cluster)
        until_it_shows(cluster, *PRIVATE)
        cluster.controller.end(signal.SIGKILL)
        cluster.kubectl("delete", "service", "web")
        until_gone(cluster)


def test_what_became_of_its_service_while_no_controller_ran_is_seen_afterwards(cluster: Installation) -> None:
    """Deleted, and deleted and made again, on a server where nothing collects garbage."""
    web(cluster)
    first = until_it_shows(cluster, *PRIVATE)["metadata"]["uid"]
    cluster.controller.end(signal.SIGKILL)
    cluster.kubectl("delete", "service", "web")
    web(cluster)
    cluster.start()
    until(cluster, lambda found: found["metadata"]["uid"] != first, "it is another one")
    until_it_shows(cluster, *PRIVATE)
    cluster.controller.end(signal.SIGKILL)
    cluster.kubectl("delete", "service", "web")
    cluster.start()
    until_gone(cluster)


def test_somebody_s_own_service_of_the_name_is_not_touched_and_the_service_says_so(cluster: Installation) -> None:
    own = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": COMPANION}, "spec": {"ports": [{"port": 80}]}}
    cluster.apply(own)
    before = cluster.get(COMPANION)
    web(cluster)

    def said() -> dict[str, Any]:
        conditions = cluster.get("web")["status"].get("conditions", [])
        return next((each for each in conditions if each["type"] == "berthlb.io/NotDelivered"), {})

    wait_until(lambda: said().get("reason") == "CompanionNameTaken", WAIT_S, "nothing is said of the name")
    assert f"{cluster.name}/{COMPANION}" in said()["message"]
    wait_until(lambda: "CompanionNameTaken" in cluster.events(), WAIT_S, "there is no Event")
    assert cluster.address("web") == ",".join(PUBLIC)
    cluster.kubectl("delete", "service", "web")
    assert cluster.get(COMPANION) == before
