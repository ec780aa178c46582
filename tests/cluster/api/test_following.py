"""How a copy follows the server: the watch, its waits after failures, and objects that cannot be read."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from msgspec.structs import replace

from cluster.api.errors import (
    ApiError,
    Initializing,
    Invalid,
    ServerError,
    Throttled,
    TimedOut,
    Unreachable,
)
from cluster.api.listwatch import (
    BACKOFF_LIMIT_S,
    HEALTHY_S,
    RETRY_AFTER_LIMIT_S,
    SILENCE_S,
    ListPage,
    ListWatch,
    Watch,
)
from cluster.objects import RawWatchEvent, Service, decode
from tests.cluster.api.driver import Driver, Json, bookmark, event, names, page, refused, service, told, unreadable


def test_what_is_held_and_told_is_what_was_to_be_kept() -> None:
    def without_labels(service: Service) -> Service:
        meta = service.metadata
        return Service(replace(meta, labels={}))

    core = ListWatch(Service, random.Random(1), keep=without_labels)
    core.next_step(0.0)
    core.watch_opened(0.0)
    web = {"metadata": {"name": "web", "uid": "u", "resourceVersion": "7", "labels": {"app": "web"}}}
    core.receive_event(event("ADDED", web), 0.0)
    (added,) = core.receive_event(bookmark(10, ends_initial=True), 0.0)
    newer = {"metadata": {**web["metadata"], "resourceVersion": "11", "labels": {"app": "other"}}}
    (modified,) = core.receive_event(event("MODIFIED", newer), 0.0)
    for change in (added, modified):
        assert change.new is not None
        assert change.new.metadata.labels == {}
    assert core.held["web"] is modified.new
    assert (modified.kind, core.receive_event(event("MODIFIED", newer), 0.0)) == ("modified", [])


# ------------------------------------------------------------------- the watch


def test_the_next_watch_starts_where_the_last_one_was(driver: Driver) -> None:
    driver.sync(service("a", 1), version=10)
    driver.receive(event("MODIFIED", service("a", 12)))
    driver.end()
    watch = driver.open()
    assert (watch.resource_version, watch.initial_events) == ("12", False)


def test_a_bookmark_alone_moves_the_version_on(driver: Driver) -> None:
    driver.sync(version=10)
    assert driver.receive(bookmark(99)) == []
    driver.end()
    assert driver.open().resource_version == "99"


def test_a_deletion_moves_the_version_on(driver: Driver) -> None:
    driver.sync(service("a", 1), version=10)
    driver.receive(event("DELETED", service("a", 15)))
    driver.end()
    assert driver.open().resource_version == "15"


def test_a_silent_watch_is_opened_again_where_it_was(driver: Driver) -> None:
    driver.sync(service("a", 1), version=10)
    driver.now += SILENCE_S
    driver.fail(TimedOut(0, "ReadTimeoutError", "silent"))
    assert 0 < driver.wait() <= 0.2
    assert driver.open().resource_version == "10"
    assert names(driver) == {"dev/a"}


def test_a_refresh_lists_anew_at_once_whatever_was_under_way(driver: Driver) -> None:
    driver.sync(service("a", 1), version=10)
    driver.open()
    driver.core.refresh()
    assert not driver.core.watching
    assert driver.wait() == 0.0
    assert driver.sync(service("a", 1), service("b", 11), version=20) == [("added", "dev/b")]
    driver.fail(ServerError(500, "InternalError", ""))
    assert driver.wait() > 0.0
    driver.core.refresh()
    assert driver.wait() == 0.0
    assert driver.open().initial_events


def test_a_refresh_forgets_the_pages_that_came_before_it(driver: Driver) -> None:
    driver.step()
    driver.fail(Invalid(422, "Invalid", "sendInitialEvents is forbidden"))
    driver.core.receive_page(page([service("a", 1)], 10, "more"))
    driver.core.refresh()
    assert driver.step() == ListPage(500, "")
    assert told(driver.core.receive_page(page([service("b", 1)], 20))) == [("added", "dev/b")]


def test_events_that_repeat_themselves_are_not_reported_twice(driver: Driver) -> None:
    driver.sync(service("a", 1))
    assert driver.receive(event("ADDED", service("b", 11)), event("ADDED", service("b", 11))) == [("added", "dev/b")]
    assert driver.receive(event("DELETED", service("b", 12)), event("DELETED", service("b", 12))) == [
        ("deleted", "dev/b")
    ]


def test_an_object_made_again_under_its_name_is_deleted_then_added(driver: Driver) -> None:
    driver.sync(service("a", 1, uid="first"))
    assert driver.receive(event("ADDED", service("a", 11, uid="second"))) == [("deleted", "dev/a"), ("added", "dev/a")]
    assert driver.receive(event("DELETED", service("a", 12, uid="first"))) == [], "not the one that is held"
    assert names(driver) == {"dev/a"}


def test_an_older_version_than_seen_means_another_history_and_a_new_list(driver: Driver) -> None:
    """A cluster restored from a backup counts on from an older number; a watch at the newer one would stay silent."""
    driver.sync(service("a", 50), version=100)
    assert driver.receive(event("MODIFIED", service("a", 60))) == []
    assert not driver.core.watching
    assert driver.sync(service("a", 60), version=61) == [("modified", "dev/a")]


def test_an_older_bookmark_means_another_history_and_a_new_list(driver: Driver) -> None:
    driver.sync(version=100)
    driver.receive(bookmark(40))
    assert not driver.core.watching
    step = driver.step()
    assert isinstance(step, Watch)
    assert step.initial_events


def test_a_deletion_under_the_objects_last_version_is_believed(driver: Driver) -> None:
    driver.sync(service("a", 1), version=100)
    assert driver.receive(event("DELETED", service("a", 1))) == [("deleted", "dev/a")]
    assert driver.core.watching
    driver.end()
    assert driver.open().resource_version == "100"


def test_versions_that_are_no_numbers_are_not_compared(driver: Driver) -> None:
    driver.sync(version=100)
    body = service("a", 1)
    body["metadata"]["resourceVersion"] = "opaque"
    assert driver.receive(event("ADDED", body)) == [("added", "dev/a")]
    driver.end()
    assert driver.open().resource_version == "opaque"


@pytest.mark.parametrize("kind", ["ADDED", "MODIFIED", "DELETED", "BOOKMARK"])
def test_an_event_without_a_version_does_not_lose_the_place(driver: Driver, kind: str) -> None:
    """A watch without a version would begin anywhere, and what was deleted before would stay for ever."""
    driver.sync(version=10)
    body = service("a", 1)
    del body["metadata"]["resourceVersion"]
    driver.receive(event(kind, body))
    driver.end()
    assert driver.open().resource_version == "10"


def test_an_unknown_kind_of_event_is_skipped(driver: Driver) -> None:
    driver.sync(version=10)
    assert driver.receive(event("SURPRISE", service("a", 11))) == []
    assert driver.core.watching
    assert driver.core.counters.undecodable == 1


# ------------------------------------------------------------------- waits


@pytest.mark.parametrize("seed", range(5))
def test_a_server_that_closes_at_once_is_asked_ever_more_slowly(seed: int) -> None:
    driver = Driver(seed)
    driver.sync()
    waits = []
    for _ in range(20):
        driver.end()
        waits.append(driver.wait())
        step = driver.open()
        if step.initial_events:
            driver.receive(bookmark(10, ends_initial=True))
    assert 0.1 <= waits[0] <= 0.2
    assert all(wait >= 0.1 for wait in waits)
    assert all(BACKOFF_LIMIT_S / 2 <= wait <= BACKOFF_LIMIT_S for wait in waits[9:])


def test_one_good_watch_forgives_earlier_failures(driver: Driver) -> None:
    driver.sync()
    for _ in range(8):
        driver.fail(Unreachable(0, "Cut", "x"))
        driver.open()
    driver.now += HEALTHY_S
    driver.end()
    assert driver.wait() <= 0.2


def test_a_watch_that_ends_in_its_time_is_no_failure(driver: Driver) -> None:
    driver.sync()
    driver.now += 240
    driver.end()
    assert 0 < driver.wait() <= 0.1
    assert (driver.core.counters.failures, driver.core.counters.last_error) == (0, "")


def test_failures_are_forgiven_while_the_watch_still_runs(driver: Driver) -> None:
    driver.sync()
    driver.fail(Unreachable(0, "Cut", "x"))
    driver.open()
    driver.now += HEALTHY_S
    driver.receive(bookmark(11))
    assert driver.core.counters.failures == 0


def test_waits_are_spread(driver: Driver) -> None:
    waits = set()
    for seed in range(20):
        one = Driver(seed)
        one.step()
        one.fail(Unreachable(0, "Cut", "x"))
        waits.add(round(one.wait(), 6))
    assert len(waits) > 15


@pytest.mark.parametrize(
    ("error", "least", "most"),
    [
        (Throttled(429, "TooManyRequests", "x", 7.0), 7.0, 7.0),
        (Throttled(429, "TooManyRequests", "x"), 1.0, 1.0),
        (ServerError(503, "ServiceUnavailable", "x", 3.0), 3.0, 3.0),
        (Throttled(429, "TooManyRequests", "x", 1e9), RETRY_AFTER_LIMIT_S, RETRY_AFTER_LIMIT_S),
        (Throttled(429, "TooManyRequests", "x", 0.0), 0.1, 0.2),
        (Initializing(429, "TooManyRequests", "x", 1.0), 0.1, 0.2),
        (Initializing(429, "TooManyRequests", "x", 5.0), 5.0, 5.0),
    ],
)
def test_the_server_says_how_long_to_wait(driver: Driver, error: ApiError, least: float, most: float) -> None:
    driver.step()
    driver.fail(error)
    assert least <= driver.wait() <= most


# ------------------------------------------------------------------- objects that cannot be read


def test_an_unreadable_object_is_skipped_said_and_counted(driver: Driver) -> None:
    assert driver.sync(unreadable("bad", 1), service("good", 2)) == [("added", "dev/good")]
    (line,) = driver.core.take_skipped()
    assert line.startswith("dev/bad: ")
    assert "$.spec.ports" in line
    assert driver.core.take_skipped() == []
    assert driver.core.counters.undecodable == 1


def test_an_unreadable_change_leaves_the_last_good_version_and_does_not_stop_the_watch(driver: Driver) -> None:
    driver.sync(service("a", 1))
    assert driver.receive(event("MODIFIED", unreadable("a", 11)), event("ADDED", service("b", 12))) == [
        ("added", "dev/b")
    ]
    assert driver.core.held["dev/a"].metadata.resource_version == "1"
    driver.end()
    assert driver.open().resource_version == "12"


def test_an_unreadable_object_does_not_look_deleted_in_a_new_list(driver: Driver) -> None:
    driver.sync(service("a", 1))
    driver.receive(refused(410))
    assert driver.sync(unreadable("a", 11), version=12) == []
    assert names(driver) == {"dev/a"}


def test_an_unreadable_object_that_was_mended_is_reported(driver: Driver) -> None:
    driver.sync(unreadable("a", 1))
    assert driver.receive(event("MODIFIED", service("a", 11))) == [("added", "dev/a")]


def test_an_unreadable_object_can_be_deleted(driver: Driver) -> None:
    driver.sync(service("a", 1))
    assert driver.receive(event("DELETED", unreadable("a", 11))) == [("deleted", "dev/a")]


@pytest.mark.parametrize("body", [{}, {"metadata": None}, {"metadata": {"name": 7}}, {"metadata": []}])
@pytest.mark.parametrize("kind", ["ADDED", "MODIFIED", "DELETED", "BOOKMARK"])
def test_an_object_without_metadata_is_skipped(driver: Driver, kind: str, body: Json) -> None:
    driver.sync(service("a", 1))
    assert driver.receive(event(kind, body)) == []
    assert names(driver) == {"dev/a"}
    assert driver.core.counters.undecodable > 0


@pytest.mark.parametrize("body", [None, 7, "text", [], {"code": "x"}])
def test_an_error_event_of_any_shape_ends_the_watch(driver: Driver, body: Any) -> None:
    driver.sync()
    driver.core.receive_event(decode(json.dumps({"type": "ERROR", "object": body}).encode(), RawWatchEvent), driver.now)
    assert not driver.core.watching
    assert driver.wait() > 0
