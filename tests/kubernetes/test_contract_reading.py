"""Lists and watches, as the embedded API server and the real one must both answer them."""

from __future__ import annotations

import pytest

from tests.kubernetes.access import Access
from tests.kubernetes.bodies import config_map, in_short, labelled, service

pytestmark = pytest.mark.slow


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
