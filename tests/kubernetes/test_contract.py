"""What the embedded API server and the real one must both do: the ground that everything else is tested on.

Only behaviour of Kubernetes' documentation and of its API server's source is asserted here. What can only be provoked
in the embedded one (a compacted history, faults) is in ``tests/lab/apiserver/test_server.py``.
"""

from __future__ import annotations

import ipaddress
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, config, watch

from tests.kubernetes.access import MERGE_PATCH, Access
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

METALLB = ("metallb.io", "v1beta1")


@pytest.fixture
def access(kubeconfig: Path) -> Iterator[Access]:
    with config.new_client_from_config(str(kubeconfig)) as api_client:
        name = f"test-{uuid.uuid4().hex[:8]}"
        access = Access(api_client, name)
        access.made("/api/v1/namespaces", {"metadata": {"name": name}})
        yield access


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def service(name: str, **spec: Any) -> dict[str, Any]:
    ports = [{"port": 80}]
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"ports": ports, **spec}}


def pool(name: str, *addresses: str, **spec: Any) -> dict[str, Any]:
    spec = {"addresses": list(addresses), **spec}
    return {"apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool", "metadata": {"name": name}, "spec": spec}


def labelled(name: str, **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": labels}}


def in_short(events: list[Any]) -> list[tuple[str, str]]:
    return [(event["type"], event["object"]["metadata"]["name"]) for event in events]


def test_server_is_ready(access: Access) -> None:
    assert access.get("/readyz").body == "ok"


# ------------------------------------------------------------------------ objects


def test_created_object_is_found_as_it_was_answered(access: Access) -> None:
    created = access.made(f"{access.core}/configmaps", config_map("a", key="value"))
    assert created["metadata"]["uid"]
    assert created["metadata"]["resourceVersion"]
    assert created["metadata"]["creationTimestamp"].endswith("Z")
    assert access.get(f"{access.core}/configmaps/a").body == created


def test_second_object_of_a_name_is_refused(access: Access) -> None:
    access.made(f"{access.core}/configmaps", config_map("a"))
    answer = access.create(f"{access.core}/configmaps", config_map("a"))
    assert (answer.status, answer.reason) == (409, "AlreadyExists")
    assert answer.body["message"] == 'configmaps "a" already exists'
    assert answer.body["details"] == {"name": "a", "kind": "configmaps"}


def test_missing_object_is_a_status(access: Access) -> None:
    answer = access.get(f"{access.core}/configmaps/a")
    assert answer.status == 404
    assert answer.body == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": 'configmaps "a" not found',
        "reason": "NotFound",
        "details": {"name": "a", "kind": "configmaps"},
        "code": 404,
    }


def test_details_of_a_group_name_it(access: Access) -> None:
    answer = access.get(f"{access.pools}/a")
    assert answer.body["message"] == 'ipaddresspools.metallb.io "a" not found'
    assert answer.body["details"] == {"name": "a", "group": "metallb.io", "kind": "ipaddresspools"}


def test_unknown_resource_is_not_found(access: Access) -> None:
    assert access.get("/apis/nobody.example/v1/things").status == 404


def test_missing_namespace_is_not_found(access: Access) -> None:
    answer = access.create("/api/v1/namespaces/nobody-made-this/configmaps", config_map("a"))
    assert (answer.status, answer.reason) == (404, "NotFound")
    assert answer.body["message"] == 'namespaces "nobody-made-this" not found'


@pytest.mark.parametrize("name", ["Upper", "under_score", "-dash", "a" * 254])
def test_bad_name_is_invalid(access: Access, name: str) -> None:
    answer = access.create(f"{access.core}/configmaps", config_map(name))
    assert (answer.status, answer.reason) == (422, "Invalid")
    assert answer.fields == ["metadata.name"]


def test_object_without_a_name_is_invalid(access: Access) -> None:
    answer = access.create(f"{access.core}/configmaps", {"metadata": {}})
    assert (answer.status, answer.reason) == (422, "Invalid")
    assert "metadata.name" in answer.fields


def test_object_of_another_namespace_or_kind_is_a_bad_request(access: Access) -> None:
    elsewhere = {"metadata": {"name": "a", "namespace": "default"}}
    assert access.create(f"{access.core}/configmaps", elsewhere).status == 400
    assert access.create(f"{access.core}/configmaps", service("a")).status == 400


def test_field_of_the_wrong_type_is_a_bad_request(access: Access) -> None:
    answer = access.create(f"{access.core}/services", service("a", ports=[{"port": "eighty"}]))
    assert (answer.status, answer.reason) == (400, "BadRequest")


def test_stale_replace_conflicts(access: Access) -> None:
    first = access.made(f"{access.core}/configmaps", config_map("a", key="1"))
    assert access.merge(f"{access.core}/configmaps/a", {"data": {"key": "2"}}).status == 200
    answer = access.ask("PUT", f"{access.core}/configmaps/a", {**first, "data": {"key": "3"}})
    assert (answer.status, answer.reason) == (409, "Conflict")
    assert answer.body["message"] == (
        'Operation cannot be fulfilled on configmaps "a": the object has been modified; '
        "please apply your changes to the latest version and try again"
    )
    assert access.get(f"{access.core}/configmaps/a").body["data"] == {"key": "2"}


def test_replace_without_a_version_wins_where_the_kind_allows_it(access: Access) -> None:
    access.made(f"{access.core}/configmaps", config_map("a", key="1"))
    answer = access.ask("PUT", f"{access.core}/configmaps/a", config_map("a", key="2"))
    assert (answer.status, answer.body["data"]) == (200, {"key": "2"})


def test_replace_without_a_version_is_invalid_where_the_kind_needs_it(access: Access) -> None:
    leases = f"/apis/coordination.k8s.io/v1/namespaces/{access.namespace}/leases"
    access.made(leases, {"metadata": {"name": "a"}, "spec": {"holderIdentity": "me"}})
    answer = access.ask("PUT", f"{leases}/a", {"metadata": {"name": "a"}, "spec": {"holderIdentity": "you"}})
    assert (answer.status, answer.fields) == (422, ["metadata.resourceVersion"])


def test_replace_under_another_name_is_a_bad_request(access: Access) -> None:
    access.made(f"{access.core}/configmaps", config_map("a"))
    assert access.ask("PUT", f"{access.core}/configmaps/a", config_map("b")).status == 400


def test_replace_of_an_earlier_object_of_the_name_conflicts(access: Access) -> None:
    first = access.made(f"{access.core}/configmaps", config_map("a"))
    access.delete(f"{access.core}/configmaps/a")
    access.made(f"{access.core}/configmaps", config_map("a"))
    stale = {"metadata": {"name": "a", "uid": first["metadata"]["uid"]}}
    assert access.ask("PUT", f"{access.core}/configmaps/a", stale).status == 409


def test_server_keeps_its_own_metadata(access: Access) -> None:
    first = access.made(f"{access.core}/configmaps", config_map("a"))
    answer = access.ask("PUT", f"{access.core}/configmaps/a", config_map("a", key="1"))
    for field in ("uid", "creationTimestamp"):
        assert answer.body["metadata"][field] == first["metadata"][field]


# ------------------------------------------------------------------------ patches


def test_merge_patch_merges_objects_replaces_lists_and_removes_nulls(access: Access) -> None:
    made = {
        **config_map("a", keep="1", drop="2"),
        "metadata": {"name": "a", "labels": {"x": "1"}, "finalizers": ["e.g/1"]},
    }
    access.made(f"{access.core}/configmaps", made)
    patch = {"data": {"drop": None, "new": "3"}, "metadata": {"labels": {"y": "2"}, "finalizers": ["e.g/2"]}}
    body = access.merge(f"{access.core}/configmaps/a", patch).body
    assert body["data"] == {"keep": "1", "new": "3"}
    assert body["metadata"]["labels"] == {"x": "1", "y": "2"}
    assert body["metadata"]["finalizers"] == ["e.g/2"]


def test_patch_of_a_stale_version_conflicts(access: Access) -> None:
    first = access.made(f"{access.core}/configmaps", config_map("a"))
    patch = {"metadata": {"resourceVersion": first["metadata"]["resourceVersion"]}, "data": {"key": "1"}}
    assert access.merge(f"{access.core}/configmaps/a", patch).status == 200
    again = access.merge(f"{access.core}/configmaps/a", {**patch, "data": {"key": "2"}})
    assert (again.status, again.reason) == (409, "Conflict")


def test_patch_that_changes_nothing_makes_no_version(access: Access) -> None:
    first = access.made(f"{access.core}/configmaps", config_map("a", key="1"))
    assert access.merge(f"{access.core}/configmaps/a", {"data": {"key": "1"}}).body == first


def test_patch_of_a_missing_object_is_not_found(access: Access) -> None:
    assert access.merge(f"{access.core}/configmaps/a", {"data": {}}).status == 404


@pytest.mark.parametrize("content_type", ["application/strategic-merge-patch+json", "application/json"])
def test_patch_of_an_unknown_form_is_refused(access: Access, content_type: str) -> None:
    access.made(access.pools, pool("a", "10.0.0.0/24"))
    answer = access.ask("PATCH", f"{access.pools}/a", {"spec": {}}, content_type)
    assert (answer.status, answer.reason) == (415, "UnsupportedMediaType")


# ------------------------------------------------------------------------ deletion


def test_deleted_object_is_gone(access: Access) -> None:
    made = access.made(f"{access.core}/configmaps", config_map("a"))
    answer = access.delete(f"{access.core}/configmaps/a")
    assert answer.status == 200
    assert answer.body["status"] == "Success"
    assert answer.body["details"] == {"name": "a", "kind": "configmaps", "uid": made["metadata"]["uid"]}
    assert access.get(f"{access.core}/configmaps/a").status == 404
    assert access.delete(f"{access.core}/configmaps/a").status == 404


def test_deleted_service_is_answered_with_the_service(access: Access) -> None:
    access.made(f"{access.core}/services", service("a"))
    assert access.delete(f"{access.core}/services/a").body["kind"] == "Service"


@pytest.mark.parametrize("field", ["uid", "resourceVersion"])
def test_delete_with_a_wrong_precondition_conflicts(access: Access, field: str) -> None:
    access.made(f"{access.core}/configmaps", config_map("a"))
    answer = access.delete(f"{access.core}/configmaps/a", {"preconditions": {field: "1"}})
    assert (answer.status, answer.reason) == (409, "Conflict")
    assert access.get(f"{access.core}/configmaps/a").status == 200


def test_delete_with_the_right_preconditions_deletes(access: Access) -> None:
    meta = access.made(f"{access.core}/configmaps", config_map("a"))["metadata"]
    wanted = {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"]}
    assert access.delete(f"{access.core}/configmaps/a", {"preconditions": wanted}).status == 200


def test_finalizer_holds_a_deleted_object_until_it_is_removed(access: Access) -> None:
    path = f"{access.core}/configmaps/a"
    access.made(f"{access.core}/configmaps", {"metadata": {"name": "a", "finalizers": ["example.com/x"]}})
    assert access.delete(path).status == 200
    marked = access.get(path).body
    assert marked["metadata"]["deletionTimestamp"]
    assert access.delete(path).status == 200
    assert access.get(path).body == marked
    added = access.merge(path, {"metadata": {"finalizers": ["example.com/x", "example.com/y"]}})
    assert (added.status, added.fields) == (422, ["metadata.finalizers"])
    assert access.merge(path, {"metadata": {"finalizers": None}}).status == 200
    assert access.get(path).status == 404


@pytest.mark.garbage_collector
def test_object_goes_after_its_last_owner(access: Access) -> None:
    owners = [access.made(f"{access.core}/configmaps", config_map(name)) for name in ("owner-1", "owner-2")]
    references = [
        {"apiVersion": "v1", "kind": "ConfigMap", "name": o["metadata"]["name"], "uid": o["metadata"]["uid"]}
        for o in owners
    ]
    access.made(f"{access.core}/secrets", {"metadata": {"name": "both", "ownerReferences": references}})
    access.made(f"{access.core}/secrets", {"metadata": {"name": "first", "ownerReferences": references[:1]}})
    access.delete(f"{access.core}/configmaps/owner-1")
    wait_until(lambda: access.names(f"{access.core}/secrets") == ["both"], message="only one owner of both is gone")
    access.delete(f"{access.core}/configmaps/owner-2")
    wait_until(lambda: access.names(f"{access.core}/secrets") == [], message="both owners are gone")


# ------------------------------------------------------------------------ lists


def test_pages_show_one_state(access: Access) -> None:
    path = f"{access.core}/configmaps"
    for name in "abcde":
        access.made(path, config_map(name))
    first = access.get(path, limit="2")
    assert [item["metadata"]["name"] for item in first.body["items"]] == ["a", "b"]
    assert first.body["metadata"]["remainingItemCount"] == 3
    access.delete(f"{path}/c")
    access.made(path, config_map("cc"))
    second = access.get(path, limit="2", **{"continue": first.body["metadata"]["continue"]})
    third = access.get(path, limit="2", **{"continue": second.body["metadata"]["continue"]})
    seen = [item["metadata"]["name"] for page in (second, third) for item in page.body["items"]]
    assert seen == ["c", "d", "e"]
    assert first.version == second.version == third.version
    assert "continue" not in third.body["metadata"]


def test_garbled_continue_is_a_bad_request(access: Access) -> None:
    assert access.get(f"{access.core}/configmaps", limit="1", **{"continue": "garbled"}).status == 400


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ("tier=web", ["a", "b"]),
        ("tier==web,zone=1", ["a"]),
        ("tier!=web", ["c", "d"]),
        ("tier in (web, db)", ["a", "b", "c"]),
        ("tier notin (web,db)", ["d"]),
        ("tier", ["a", "b", "c"]),
        ("!tier", ["d"]),
        ("tier in (web),zone notin (1)", ["b"]),
    ],
)
def test_labels_select(access: Access, selector: str, names: list[str]) -> None:
    for body in (
        labelled("a", tier="web", zone="1"),
        labelled("b", tier="web", zone="2"),
        labelled("c", tier="db"),
        labelled("d"),
    ):
        access.made(f"{access.core}/configmaps", body)
    path = f"{access.core}/configmaps"
    assert [name for name in access.names(path, labelSelector=selector) if len(name) == 1] == names


def test_garbled_label_selector_is_a_bad_request(access: Access) -> None:
    assert access.get(f"{access.core}/configmaps", labelSelector="tier in (web").status == 400


def test_fields_select(access: Access) -> None:
    access.made(f"{access.core}/services", service("a", type="LoadBalancer"))
    access.made(f"{access.core}/services", service("b"))
    path = f"{access.core}/services"
    assert access.names(path, fieldSelector="spec.type=LoadBalancer") == ["a"]
    assert access.names(path, fieldSelector="spec.type!=LoadBalancer") == ["b"]
    assert access.names(path, fieldSelector="metadata.name=b") == ["b"]
    assert access.names("/api/v1/services", fieldSelector=f"metadata.namespace={access.namespace}") == ["a", "b"]


def test_field_that_a_kind_cannot_be_selected_by_is_a_bad_request(access: Access) -> None:
    answer = access.get(f"{access.core}/services", fieldSelector="spec.loadBalancerClass=x")
    assert (answer.status, answer.reason) == (400, "BadRequest")
    assert "field label not supported: spec.loadBalancerClass" in answer.body["message"]


# ------------------------------------------------------------------------ watches


def test_watch_continues_from_a_list(access: Access) -> None:
    path = f"{access.core}/secrets"
    access.made(path, labelled("before"))
    since = access.get(path).version
    access.made(path, labelled("a"))
    access.merge(f"{path}/a", {"metadata": {"labels": {"x": "1"}}})
    access.delete(f"{path}/a")
    events = list(access.watch(path, resourceVersion=since, timeoutSeconds="1"))
    assert in_short(events) == [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a")]
    versions = [int(event["object"]["metadata"]["resourceVersion"]) for event in events]
    assert versions == sorted(set(versions)), "a deletion has a version of its own"
    assert events[-1]["object"]["metadata"]["labels"] == {"x": "1"}


def test_watch_without_a_version_starts_with_what_exists(access: Access) -> None:
    path = f"{access.core}/secrets"
    access.made(path, labelled("a"))
    assert in_short(list(access.watch(path, timeoutSeconds="1"))) == [("ADDED", "a")]


def test_watch_sends_initial_events_and_says_where_they_end(access: Access) -> None:
    path = f"{access.core}/secrets"
    access.made(path, labelled("a"))
    access.made(path, labelled("b"))
    events = access.watch(
        path,
        sendInitialEvents="true",
        resourceVersionMatch="NotOlderThan",
        allowWatchBookmarks="true",
        timeoutSeconds="3",
    )
    first = [next(events) for _ in range(3)]
    assert in_short(first[:2]) == [("ADDED", "a"), ("ADDED", "b")]
    assert first[2]["type"] == "BOOKMARK"
    assert first[2]["object"]["kind"] == "Secret"
    meta = first[2]["object"]["metadata"]
    assert meta["annotations"] == {"k8s.io/initial-events-end": "true"}
    assert int(meta["resourceVersion"]) >= int(first[1]["object"]["metadata"]["resourceVersion"])
    access.made(path, labelled("c"))
    assert in_short([next(events)]) == [("ADDED", "c")]


def test_initial_events_need_a_version_match(access: Access) -> None:
    answer = access.get(f"{access.core}/secrets", watch="true", sendInitialEvents="true", timeoutSeconds="1")
    assert (answer.status, answer.fields) == (422, ["resourceVersionMatch"])


def test_object_that_leaves_the_selection_is_deleted_for_the_watch(access: Access) -> None:
    path = f"{access.core}/services"
    made = access.made(path, service("a", type="LoadBalancer"))
    since = made["metadata"]["resourceVersion"]
    left = access.merge(f"{path}/a", {"spec": {"type": "ClusterIP"}})
    access.merge(f"{path}/a", {"metadata": {"labels": {"unseen": "true"}}})
    access.merge(f"{path}/a", {"spec": {"type": "LoadBalancer"}})
    events = list(access.watch(path, resourceVersion=since, fieldSelector="spec.type=LoadBalancer", timeoutSeconds="1"))
    assert in_short(events) == [("DELETED", "a"), ("ADDED", "a")]
    assert events[0]["object"]["spec"]["type"] == "LoadBalancer", "the last state that was selected"
    assert events[0]["object"]["metadata"]["resourceVersion"] == left.version


def test_watch_of_labels_follows_them(access: Access) -> None:
    path = f"{access.core}/secrets"
    since = access.get(path).version
    access.made(path, labelled("a", tier="db"))
    access.merge(f"{path}/a", {"metadata": {"labels": {"tier": "web"}}})
    access.merge(f"{path}/a", {"metadata": {"labels": {"tier": None}}})
    events = list(access.watch(path, resourceVersion=since, labelSelector="tier=web", timeoutSeconds="1"))
    assert in_short(events) == [("ADDED", "a"), ("DELETED", "a")]


def test_watch_tells_by_a_bookmark_before_it_ends_how_far_it_is(access: Access) -> None:
    """Only a change of that kind after the watch began makes the real server send one."""
    path = f"{access.core}/secrets"
    since = access.made(path, labelled("a"))["metadata"]["resourceVersion"]
    access.made(path, labelled("b"))
    events = access.watch(path, resourceVersion=since, allowWatchBookmarks="true", timeoutSeconds="4")
    assert in_short([next(events)]) == [("ADDED", "b")]
    access.made("/api/v1/namespaces/default/secrets", labelled(f"elsewhere-{access.namespace}"))
    rest = list(events)
    assert rest, "one two seconds before the end"
    assert {event["type"] for event in rest} == {"BOOKMARK"}
    assert int(rest[-1]["object"]["metadata"]["resourceVersion"]) > int(since)


def test_watch_of_one_namespace_hears_nothing_of_another(access: Access) -> None:
    since = access.get(f"{access.core}/configmaps").version
    access.made("/api/v1/namespaces/default/configmaps", config_map(f"elsewhere-{access.namespace}"))
    access.made(f"{access.core}/configmaps", config_map("here"))
    events = list(access.watch(f"{access.core}/configmaps", resourceVersion=since, timeoutSeconds="1"))
    assert in_short(events) == [("ADDED", "here")]


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


# ------------------------------------------------------------------------ the official client


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
