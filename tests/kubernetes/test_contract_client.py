"""The official Python client on the embedded API server and on the real one."""

from __future__ import annotations

import ipaddress

import pytest
from kubernetes import client, watch

from tests.kubernetes.access import MERGE_PATCH, Access
from tests.kubernetes.bodies import METALLB, config_map, pool, service

pytestmark = pytest.mark.slow


def test_official_client_lists_watches_and_patches_services(access: Access) -> None:
    core, name = client.CoreV1Api(access.client), access.namespace
    made = core.create_namespaced_service(name, service("web", type="LoadBalancer"))
    listed = core.list_namespaced_service(name)
    assert [item.metadata.name for item in listed.items] == ["web"]
    patch = {"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}}
    patched = core.patch_namespaced_service_status("web", name, patch, _content_type=MERGE_PATCH)
    assert patched.status.load_balancer.ingress[0].ip_mode == "VIP"
    since = listed.metadata.resource_version
    stream = watch.Watch().stream(core.list_namespaced_service, name, resource_version=since, timeout_seconds=1)
    assert [(event["type"], event["object"].metadata.uid) for event in stream] == [("MODIFIED", made.metadata.uid)]
    core.delete_namespaced_service("web", name)
    with pytest.raises(client.ApiException) as refused:
        core.read_namespaced_service("web", name)
    assert (refused.value.status, refused.value.reason) == (404, "Not Found")


def test_a_lease_is_swapped_by_merge_patches_and_released_by_an_empty_holder(access: Access) -> None:
    leases = f"/apis/coordination.k8s.io/v1/namespaces/{access.namespace}/leases"
    spec = {"holderIdentity": "me", "leaseDurationSeconds": 15, "renewTime": "2026-01-01T00:00:00.000000Z"}
    made = access.made(leases, {"metadata": {"name": "a"}, "spec": spec})
    access.made(leases, {"metadata": {"name": "b"}})
    assert access.names(leases, fieldSelector="metadata.name=a") == ["a"]
    version = {"metadata": {"resourceVersion": made["metadata"]["resourceVersion"]}}
    released = access.merge(f"{leases}/a", version | {"spec": {"holderIdentity": ""}})
    assert (released.status, released.body["spec"]) == (200, spec | {"holderIdentity": ""})
    late = access.merge(f"{leases}/a", version | {"spec": {"holderIdentity": "you"}})
    assert (late.status, late.reason) == (409, "Conflict")


def test_a_write_may_say_how_long_it_may_take(access: Access) -> None:
    access.made(f"{access.core}/configmaps", config_map("a"))
    answer = access.ask("PATCH", f"{access.core}/configmaps/a", {"data": {"k": "v"}}, MERGE_PATCH, timeout="9.500s")
    assert answer.status == 200


def test_the_range_of_cluster_ips_is_an_object(access: Access) -> None:
    made = access.made(f"{access.core}/services", service("web"))
    given = access.get("/apis/networking.k8s.io/v1/servicecidrs/kubernetes").body["spec"]["cidrs"]
    address = ipaddress.ip_address(made["spec"]["clusterIP"])
    assert [address in ipaddress.ip_network(each) for each in given].count(True) == 1


def test_official_client_keeps_nodes_slices_and_leases(access: Access) -> None:
    name = f"node-{access.namespace}"
    core = client.CoreV1Api(access.client)
    core.create_node(client.V1Node(metadata=client.V1ObjectMeta(name=name)))
    assert name in [node.metadata.name for node in core.list_node().items]
    core.delete_node(name)
    discovery = client.DiscoveryV1Api(access.client)
    port = client.DiscoveryV1EndpointPort(port=80)
    endpoint_slice = client.V1EndpointSlice(
        metadata=client.V1ObjectMeta(name="a"), address_type="IPv4", endpoints=[], ports=[port]
    )
    discovery.create_namespaced_endpoint_slice(access.namespace, endpoint_slice)
    assert len(discovery.list_namespaced_endpoint_slice(access.namespace).items) == 1
    leases = client.CoordinationV1Api(access.client)
    spec = client.V1LeaseSpec(holder_identity="me", lease_duration_seconds=10)
    lease = leases.create_namespaced_lease(
        access.namespace, client.V1Lease(metadata=client.V1ObjectMeta(name="a"), spec=spec)
    )
    lease.spec.holder_identity = "you"
    assert leases.replace_namespaced_lease("a", access.namespace, lease).spec.holder_identity == "you"
    with pytest.raises(client.ApiException) as stale:
        leases.replace_namespaced_lease("a", access.namespace, lease)
    assert stale.value.status == 409


def test_official_client_keeps_custom_objects(access: Access) -> None:
    custom, where = client.CustomObjectsApi(access.client), (*METALLB, access.namespace, "ipaddresspools")
    custom.create_namespaced_custom_object(*where, pool("a", "10.0.0.0/24"))
    patched = custom.patch_namespaced_custom_object(
        *where, "a", {"spec": {"autoAssign": False}}, _content_type=MERGE_PATCH
    )
    assert patched["spec"]["autoAssign"] is False
    listed = custom.list_namespaced_custom_object(*where)
    assert [item["metadata"]["name"] for item in listed["items"]] == ["a"]
    stream = watch.Watch().stream(custom.list_namespaced_custom_object, *where, timeout_seconds=1)
    assert [event["type"] for event in stream] == ["ADDED"]
    assert custom.delete_namespaced_custom_object(*where, "a")["status"] == "Success"
