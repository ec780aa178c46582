"""What the embedded API server and the real one must both make of each kind: status, Services, custom kinds."""

from __future__ import annotations

from typing import Any

import pytest

from tests.kubernetes.access import Access
from tests.kubernetes.bodies import config_map, node_pool, pool, service

pytestmark = pytest.mark.slow


# ------------------------------------------------------------------------ status


def test_status_is_written_only_through_its_subresource(access: Access) -> None:
    path, address = f"{access.core}/services", {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}
    made = access.made(path, {**service("a", type="LoadBalancer"), "status": address})
    assert made["status"] == {"loadBalancer": {}}
    assert access.merge(f"{path}/a", {"status": address}).body["status"] == {"loadBalancer": {}}
    given = access.merge(f"{path}/a/status", {"status": address, "spec": {"sessionAffinity": "ClientIP"}}).body
    assert given["status"]["loadBalancer"]["ingress"] == [{"ip": "192.0.2.1", "ipMode": "VIP"}]
    assert given["spec"] == made["spec"]
    assert access.get(f"{path}/a/status").body == given
    put = access.ask("PUT", f"{path}/a", {**given, "status": {"loadBalancer": {}}})
    assert put.body["status"] == given["status"]


def test_a_service_s_condition_may_say_much_and_an_ip_mode_that_is_left_out_becomes_vip(access: Access) -> None:
    """The addresses of hundreds of nodes stand in it (decision 0060)."""
    path = f"{access.core}/services/a"
    access.made(f"{access.core}/services", service("a", type="LoadBalancer"))
    said = {
        "type": "berthlb.io/AddressAssigned", "status": "True", "reason": "Assigned", "message": "x" * 32_768,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    ingress = [{"ip": "192.0.2.1", "ipMode": "Proxy"}, {"ip": "192.0.2.2", "ipMode": "Proxy"}]
    status = {"conditions": [said], "loadBalancer": {"ingress": ingress}}
    assert access.merge(f"{path}/status", {"status": status}).body["status"] == status
    assert access.get(path).body["status"]["conditions"] == [said]
    fresh = {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}, {"ip": "192.0.2.2"}]}}
    written = access.merge(f"{path}/status", {"status": fresh}).body["status"]["loadBalancer"]["ingress"]
    assert [each["ipMode"] for each in written] == ["VIP", "VIP"]


def test_status_of_a_built_in_kind_takes_metadata_with_it(access: Access) -> None:
    access.made(f"{access.core}/services", service("a", type="LoadBalancer"))
    annotations = {"metallb.io/ip-allocated-from-pool": "x"}
    status = {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}
    patch = {"metadata": {"annotations": annotations}, "status": status}
    given = access.merge(f"{access.core}/services/a/status", patch).body
    assert given["metadata"]["annotations"] == annotations
    assert access.get(f"{access.core}/services/a").body == given


def test_status_of_a_node_comes_with_its_registration(access: Access) -> None:
    name = f"node-{access.namespace}"
    addresses = [{"type": "InternalIP", "address": "192.0.2.7"}]
    access.made("/api/v1/nodes", {"metadata": {"name": name}, "status": {"addresses": addresses}})
    path = f"/api/v1/nodes/{name}"
    assert access.get(path).body["status"]["addresses"] == addresses
    conditions = [{"type": "Ready", "status": "True"}]
    assert access.merge(path, {"status": {"conditions": conditions}}).body["status"].get("conditions") is None
    assert access.merge(f"{path}/status", {"status": {"conditions": conditions}}).body["status"]["conditions"]
    assert access.delete(path).status == 200


def test_address_that_is_none_is_invalid(access: Access) -> None:
    access.made(f"{access.core}/services", service("a", type="LoadBalancer"))
    patch = {"status": {"loadBalancer": {"ingress": [{"ip": "not-an-address"}]}}}
    answer = access.merge(f"{access.core}/services/a/status", patch)
    assert (answer.status, answer.fields) == (422, ["status.loadBalancer.ingress[0].ip"])


def test_stale_status_conflicts(access: Access) -> None:
    made = access.made(f"{access.core}/services", service("a", type="LoadBalancer"))
    access.merge(f"{access.core}/services/a", {"metadata": {"labels": {"x": "1"}}})
    patch = {
        "metadata": {"resourceVersion": made["metadata"]["resourceVersion"]},
        "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}},
    }
    assert access.merge(f"{access.core}/services/a/status", patch).status == 409


def test_kind_without_status_has_no_such_subresource(access: Access) -> None:
    access.made(f"{access.core}/configmaps", config_map("a"))
    assert access.get(f"{access.core}/configmaps/a/status").status == 404


# ------------------------------------------------------------------------ Services


def test_service_gets_its_defaults(access: Access) -> None:
    spec = access.made(f"{access.core}/services", service("a", type="LoadBalancer", selector={"x": "1"}))["spec"]
    node_port = spec["ports"][0].pop("nodePort")
    assert 30000 <= node_port <= 32767
    assert spec.pop("clusterIPs") == [spec.pop("clusterIP")]
    assert spec == {
        "type": "LoadBalancer",
        "selector": {"x": "1"},
        "ports": [{"port": 80, "targetPort": 80, "protocol": "TCP"}],
        "sessionAffinity": "None",
        "externalTrafficPolicy": "Cluster",
        "internalTrafficPolicy": "Cluster",
        "allocateLoadBalancerNodePorts": True,
        "ipFamilies": ["IPv4"],
        "ipFamilyPolicy": "SingleStack",
    }


def test_external_name_gets_neither_address_nor_port(access: Access) -> None:
    body = service("a", type="ExternalName", externalName="example.com")
    spec = access.made(f"{access.core}/services", body)["spec"]
    for field in ("clusterIP", "clusterIPs", "ipFamilies", "externalTrafficPolicy", "internalTrafficPolicy"):
        assert field not in spec
    assert "nodePort" not in spec["ports"][0]


def test_headless_service_keeps_none(access: Access) -> None:
    spec = access.made(f"{access.core}/services", service("a", clusterIP="None"))["spec"]
    assert (spec["clusterIP"], spec["clusterIPs"]) == ("None", ["None"])


def test_node_ports_can_be_declined(access: Access) -> None:
    body = service("a", type="LoadBalancer", allocateLoadBalancerNodePorts=False)
    assert "nodePort" not in access.made(f"{access.core}/services", body)["spec"]["ports"][0]


def test_change_to_cluster_ip_gives_back_what_it_does_not_need(access: Access) -> None:
    path = f"{access.core}/services"
    made = access.made(path, service("a", type="LoadBalancer", loadBalancerClass="example.com/x"))
    access.merge(f"{path}/a/status", {"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}})
    changed = access.merge(f"{path}/a", {"spec": {"type": "ClusterIP"}}).body
    assert changed["status"] == {"loadBalancer": {}}
    assert changed["spec"]["clusterIP"] == made["spec"]["clusterIP"]
    for field in ("externalTrafficPolicy", "allocateLoadBalancerNodePorts", "loadBalancerClass"):
        assert field not in changed["spec"]
    port = made["spec"]["ports"][0]["nodePort"]
    taken = access.create(path, service("b", type="NodePort", ports=[{"port": 80, "nodePort": port}]))
    assert taken.status == 201, "the node port is free again"


def test_change_to_external_name_gives_back_the_cluster_address(access: Access) -> None:
    path = f"{access.core}/services"
    address = access.made(path, service("a"))["spec"]["clusterIP"]
    changed = access.merge(f"{path}/a", {"spec": {"type": "ExternalName", "externalName": "example.com"}})
    assert changed.status == 200
    assert "clusterIP" not in changed.body["spec"]
    assert access.create(path, service("b", clusterIP=address)).status == 201


def test_replace_keeps_what_was_allocated(access: Access) -> None:
    path = f"{access.core}/services"
    made = access.made(path, service("a", type="LoadBalancer"))
    replaced = access.ask("PUT", f"{path}/a", service("a", type="LoadBalancer"))
    assert replaced.body["spec"] == made["spec"]


def test_taken_node_port_and_cluster_address_are_refused(access: Access) -> None:
    path = f"{access.core}/services"
    spec = access.made(path, service("a", type="NodePort"))["spec"]
    port = access.create(
        path, service("b", type="NodePort", ports=[{"port": 80, "nodePort": spec["ports"][0]["nodePort"]}])
    )
    assert (port.status, port.fields) == (422, ["spec.ports[0].nodePort"])
    address = access.create(path, service("b", clusterIP=spec["clusterIP"]))
    assert (address.status, address.fields) == (422, ["spec.clusterIPs"])


def test_cluster_address_does_not_change(access: Access) -> None:
    path = f"{access.core}/services"
    access.made(path, service("a"))
    answer = access.merge(f"{path}/a", {"spec": {"clusterIP": "10.96.255.254"}})
    assert (answer.status, answer.fields) == (422, ["spec.clusterIPs[0]"])


def test_one_port_under_two_protocols_has_one_node_port(access: Access) -> None:
    ports = [{"name": "tcp", "port": 53, "protocol": "TCP"}, {"name": "udp", "port": 53, "protocol": "UDP"}]
    spec = access.made(f"{access.core}/services", service("a", type="NodePort", ports=ports))["spec"]
    assert spec["ports"][0]["nodePort"] == spec["ports"][1]["nodePort"]


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"type": "Balancer"}, "spec.type"),
        ({"ports": []}, "spec.ports"),
        ({"ports": [{"port": 0}]}, "spec.ports[0].port"),
        ({"ports": [{"port": 80}, {"port": 81}]}, "spec.ports[0].name"),
        ({"ports": [{"port": 80, "protocol": "ICMP"}]}, "spec.ports[0].protocol"),
        ({"type": "ExternalName"}, "spec.externalName"),
        ({"type": "LoadBalancer", "externalTrafficPolicy": "Global"}, "spec.externalTrafficPolicy"),
        ({"type": "NodePort", "ports": [{"port": 80, "nodePort": 80}]}, "spec.ports[0].nodePort"),
        ({"sessionAffinity": "Sticky"}, "spec.sessionAffinity"),
        ({"loadBalancerClass": "example.com/x"}, "spec.loadBalancerClass"),
    ],
)
def test_invalid_service_is_refused_by_field(access: Access, spec: dict[str, Any], field: str) -> None:
    answer = access.create(f"{access.core}/services", service("a", **spec))
    assert (answer.status, answer.reason) == (422, "Invalid")
    assert field in answer.fields
    assert answer.body["message"].startswith('Service "a" is invalid: ')


def test_class_of_a_load_balancer_does_not_change(access: Access) -> None:
    path = f"{access.core}/services"
    access.made(path, service("a", type="LoadBalancer"))
    answer = access.merge(f"{path}/a", {"spec": {"loadBalancerClass": "example.com/x"}})
    assert (answer.status, answer.fields) == (422, ["spec.loadBalancerClass"])


# ------------------------------------------------------------------------ other kinds


def test_events_are_found_by_what_they_are_about(access: Access) -> None:
    about = {"kind": "Service", "name": "a", "namespace": access.namespace}
    body = {"metadata": {"name": "a"}, "involvedObject": about, "reason": "IPAllocated", "type": "Normal"}
    access.made(f"{access.core}/events", body)
    assert access.names(f"{access.core}/events", fieldSelector="involvedObject.name=a,reason=IPAllocated") == ["a"]
    assert access.names(f"{access.core}/events", fieldSelector="involvedObject.name=b") == []


def test_endpoint_slice_counts_its_generations(access: Access) -> None:
    path = f"/apis/discovery.k8s.io/v1/namespaces/{access.namespace}/endpointslices"
    endpoints = [{"addresses": ["10.244.0.5"], "conditions": {"ready": True}}]
    made = access.made(path, {"metadata": {"name": "a"}, "addressType": "IPv4", "endpoints": endpoints, "ports": []})
    assert made["metadata"]["generation"] == 1
    changed = access.merge(f"{path}/a", {"endpoints": []}).body
    assert changed["metadata"]["generation"] == 2


# ------------------------------------------------------------------------ custom kinds


def test_custom_object_gets_its_defaults(access: Access) -> None:
    spec = access.made(access.pools, pool("a", "10.0.0.0/24"))["spec"]
    assert spec["autoAssign"] is True
    assert spec["avoidBuggyIPs"] is False


def test_unknown_field_of_a_custom_object_is_dropped(access: Access) -> None:
    body = pool("a", "10.0.0.0/24", adresses=["10.0.1.0/24"])
    assert "adresses" not in access.made(access.pools, body)["spec"]


def test_custom_object_without_a_required_field_is_invalid(access: Access) -> None:
    body = {"apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool", "metadata": {"name": "a"}, "spec": {}}
    answer = access.create(access.pools, body)
    assert (answer.status, answer.reason) == (422, "Invalid")
    assert answer.fields == ["spec.addresses"]
    assert answer.body["message"].startswith('IPAddressPool.metallb.io "a" is invalid: ')
    assert "spec.addresses: Required value" in answer.body["message"]


def test_custom_object_of_the_wrong_type_is_invalid(access: Access) -> None:
    answer = access.create(access.pools, pool("a", "10.0.0.0/24", autoAssign="yes"))
    assert (answer.status, answer.fields) == (422, ["spec.autoAssign"])


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"addresses": []}, "addresses"),
        ({"addresses": [""]}, "addresses[0]"),
        ({"serviceAllocation": {"namespaces": ["n" * 64]}}, "serviceAllocation.namespaces[0]"),
        (
            {"serviceAllocation": {"serviceSelectors": [{"matchLabels": {"a": "-"}}]}},
            "serviceAllocation.serviceSelectors[0].matchLabels.a",
        ),
        (
            {"serviceAllocation": {"serviceSelectors": [{"matchExpressions": [{"key": "a", "operator": "Near"}]}]}},
            "serviceAllocation.serviceSelectors[0].matchExpressions[0].operator",
        ),
    ],
)
def test_value_that_a_schema_does_not_allow_is_invalid(access: Access, spec: dict[str, Any], field: str) -> None:
    body = pool("a", "10.0.0.0/24")
    body["spec"] |= spec
    answer = access.create(access.pools, body)
    assert (answer.status, answer.fields) == (422, [f"spec.{field}"])


def test_specification_of_a_custom_object_counts_generations_and_status_does_not(access: Access) -> None:
    access.made(access.pools, {**pool("a", "10.0.0.0/24"), "status": {"availableIPv4": 1}})
    path = f"{access.pools}/a"
    assert "availableIPv4" not in access.get(path).body.get("status", {})
    status = {"assignedIPv4": 0, "assignedIPv6": 0, "availableIPv4": 7, "availableIPv6": 0}
    patch = {"status": status, "spec": {"autoAssign": False}, "metadata": {"labels": {"x": "1"}}}
    given = access.merge(f"{path}/status", patch).body
    assert given["status"]["availableIPv4"] == 7
    assert given["spec"]["autoAssign"] is True
    assert "labels" not in given["metadata"], "a custom kind's /status takes no metadata"
    assert given["metadata"]["generation"] == 1
    changed = access.merge(path, {"spec": {"autoAssign": False}, "status": {"availableIPv4": 9}}).body
    assert changed["metadata"]["generation"] == 2
    assert changed["status"]["availableIPv4"] == 7


def test_replace_of_a_custom_object_needs_its_version(access: Access) -> None:
    access.made(access.pools, pool("a", "10.0.0.0/24"))
    answer = access.ask("PUT", f"{access.pools}/a", pool("a", "10.0.0.0/24"))
    assert (answer.status, answer.fields) == (422, ["metadata.resourceVersion"])


def test_list_that_is_left_out_gets_its_default_and_one_that_is_there_does_not(access: Access) -> None:
    spec = access.made(access.node_pools, node_pool("a"))["spec"]
    assert spec == {
        "families": ["IPv4", "IPv6"],
        "addresses": [{"type": "ExternalIP"}, {"type": "InternalIP"}],
        "mix": False,
        "allowOtherProxies": False,
        "autoAssign": True,
    }
    spec = access.made(access.node_pools, node_pool("b", families=["IPv6"], addresses=[{"type": "InternalIP"}]))["spec"]
    assert (spec["families"], spec["addresses"]) == (["IPv6"], [{"type": "InternalIP"}])


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"families": ["IPv5"]}, "families[0]"),
        ({"families": []}, "families"),
        ({"addresses": []}, "addresses"),
        ({"addresses": [{}]}, "addresses[0].type"),
        ({"addresses": [{"type": "Hostname"}]}, "addresses[0].type"),
        ({"addresses": [{"type": "Label", "key": "no key"}], "allowedCIDRs": ["10.0.0.0/8"]}, "addresses[0].key"),
        ({"maxNodes": 0}, "maxNodes"),
        ({"maxNodes": "3"}, "maxNodes"),
        ({"allowPorts": [22, 65536]}, "allowPorts[1]"),
        ({"allowPorts": [True]}, "allowPorts[0]"),
    ],
)
def test_value_that_the_schema_of_our_own_kind_does_not_allow_is_invalid(
    access: Access, spec: dict[str, Any], field: str
) -> None:
    answer = access.create(access.node_pools, node_pool("a", **spec))
    assert (answer.status, answer.fields) == (422, [f"spec.{field}"])
    assert answer.body["message"].startswith('NodeIPPool.berthlb.io "a" is invalid: ')


def test_status_of_our_own_kind_is_written_apart_from_its_specification(access: Access) -> None:
    access.made(access.node_pools, {**node_pool("a"), "status": {"usableNodes": 9}})
    path = f"{access.node_pools}/a"
    assert "status" not in access.get(path).body
    given = access.merge(
        f"{path}/status", {"status": {"selectedNodes": 3, "usableNodes": 2}, "spec": {"mix": True}}
    ).body
    assert given["status"] == {"selectedNodes": 3, "usableNodes": 2}
    assert (given["spec"]["mix"], given["metadata"]["generation"]) == (False, 1)
    changed = access.merge(path, {"spec": {"maxNodes": 3}, "status": {"usableNodes": 7}}).body
    assert (changed["status"]["usableNodes"], changed["metadata"]["generation"]) == (2, 2)
