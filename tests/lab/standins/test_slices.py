"""Which EndpointSlices a Service gets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from cluster.objects import Service
from lab.standins.slices import MAX_ENDPOINTS, wanted_slices
from lab.standins.views import Pod


def a_service(**spec: Any) -> Service:
    ports = [{"port": 80, "targetPort": "http"}]
    body = {"selector": {"app": "web"}, "ports": ports, "ipFamilies": ["IPv4"], **spec}
    return msgspec.convert({"metadata": {"name": "web", "namespace": "dev", "uid": "u"}, "spec": body}, Service)


def a_pod(
    name: str, *, ready: bool = True, port: int = 8080, addresses: Sequence[str] = ("10.244.1.2",), **meta: Any
) -> Pod:
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    body = {
        "metadata": {"name": name, "namespace": "dev", "uid": f"uid-{name}", "labels": {"app": "web"}, **meta},
        "spec": {"nodeName": "node-1", "containers": [{"ports": [{"name": "http", "containerPort": port}]}]},
        "status": {"podIPs": [{"ip": address} for address in addresses], "conditions": conditions},
    }
    return msgspec.convert(body, Pod)


def test_a_pod_is_listed_with_its_node_its_readiness_and_its_port() -> None:
    (found,) = wanted_slices(a_service(), [a_pod("web-1"), a_pod("web-2", ready=False)])
    assert [e["conditions"]["ready"] for e in found["endpoints"]] == [True, False]
    assert {e["nodeName"] for e in found["endpoints"]} == {"node-1"}
    assert found["ports"] == [{"name": "", "protocol": "TCP", "port": 8080}]
    assert found["metadata"]["labels"]["kubernetes.io/service-name"] == "web"
    assert found["metadata"]["ownerReferences"][0]["uid"] == "u"


def test_pods_without_an_address_or_with_other_labels_are_not_listed() -> None:
    (found,) = wanted_slices(a_service(), [a_pod("web-1", addresses=()), a_pod("db-1", labels={"app": "db"})])
    assert found["endpoints"] == []


def test_a_pod_that_ends_serves_but_is_not_ready() -> None:
    (found,) = wanted_slices(a_service(), [a_pod("web-1", deletionTimestamp="2026-01-01T00:00:00Z")])
    assert found["endpoints"][0]["conditions"] == {"ready": False, "serving": True, "terminating": True}


def test_not_ready_pods_are_published_where_the_service_says_so() -> None:
    (found,) = wanted_slices(a_service(publishNotReadyAddresses=True), [a_pod("web-1", ready=False)])
    assert found["endpoints"][0]["conditions"]["ready"] is True


def test_different_numbers_of_a_named_port_go_to_different_slices() -> None:
    slices = wanted_slices(a_service(), [a_pod("web-1", port=8080), a_pod("web-2", port=9090)])
    assert [each["ports"][0]["port"] for each in slices] == [8080, 9090]
    assert len({each["metadata"]["name"] for each in slices}) == 2


def test_many_pods_are_spread_over_slices() -> None:
    pods = [a_pod(f"web-{n}") for n in range(MAX_ENDPOINTS + 1)]
    assert sorted(len(each["endpoints"]) for each in wanted_slices(a_service(), pods)) == [1, MAX_ENDPOINTS]


def test_services_without_a_selector_and_external_names_have_no_slices() -> None:
    assert wanted_slices(a_service(selector={}), [a_pod("web-1")]) == []
    assert wanted_slices(a_service(type="ExternalName"), [a_pod("web-1")]) == []


def test_each_family_of_the_service_has_slices_of_its_own() -> None:
    both = a_pod("web-1", addresses=["10.244.1.2", "fd00:10:244:1::2"])
    older = a_pod("web-2", addresses=["10.244.1.3"])
    found = wanted_slices(a_service(ipFamilies=["IPv6", "IPv4"]), [both, older])
    assert [(each["addressType"], [e["addresses"] for e in each["endpoints"]]) for each in found] == [
        ("IPv6", [["fd00:10:244:1::2"]]),
        ("IPv4", [["10.244.1.2"], ["10.244.1.3"]]),
    ]
    assert len({each["metadata"]["name"] for each in found}) == 2
    (empty,) = wanted_slices(a_service(ipFamilies=["IPv6"]), [older])
    assert (empty["addressType"], empty["endpoints"]) == ("IPv6", [])
