"""What the embedded API server and the real one must both do: the ground that everything else is tested on.

Only behaviour of Kubernetes' documentation and of its API server's source is asserted here. What can only be provoked
in the embedded one (a compacted history, faults) is in ``tests/lab/apiserver/test_server.py``."""

from __future__ import annotations

import pytest

from tests.kubernetes.access import Access
from tests.kubernetes.bodies import config_map, pool, service
from tests.waiting import wait_until

pytestmark = pytest.mark.slow


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
