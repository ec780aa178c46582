"""The decisions of list and watch, by tables and against a model of the API server."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from cluster.api.errors import (
    ApiError,
    Forbidden,
    Gone,
    Initializing,
    Invalid,
    NotFound,
    ServerError,
    Throttled,
    TimedOut,
    Unauthorized,
    Unreachable,
)
from cluster.api.listwatch import (
    BACKOFF_LIMIT_S,
    HEALTHY_S,
    INITIAL_EVENTS_END,
    RELIST_AFTER,
    RELIST_S,
    RETRY_AFTER_LIMIT_S,
    SILENCE_S,
    Change,
    ListPage,
    ListWatch,
    Step,
    Wait,
    Watch,
)
from cluster.objects import RawList, RawWatchEvent, Service, decode

Json = dict[str, Any]


def service(name: str, version: int, uid: str | None = None) -> Json:
    return {
        "metadata": {"name": name, "namespace": "dev", "uid": uid or f"uid-{name}", "resourceVersion": str(version)}
    }


def unreadable(name: str, version: int) -> Json:
    return service(name, version) | {"spec": {"ports": "eighty"}}


def event(kind: str, body: Json) -> RawWatchEvent:
    return decode(json.dumps({"type": kind, "object": body}).encode(), RawWatchEvent)


def bookmark(version: int, *, ends_initial: bool = False) -> RawWatchEvent:
    annotations = {INITIAL_EVENTS_END: "true"} if ends_initial else {}
    return event("BOOKMARK", {"metadata": {"resourceVersion": str(version), "annotations": annotations}})


def refused(code: int, reason: str = "") -> RawWatchEvent:
    return event("ERROR", {"kind": "Status", "metadata": {}, "code": code, "reason": reason, "message": "no"})


def page(items: list[Json], version: int, continue_: str = "") -> RawList:
    body = {"metadata": {"resourceVersion": str(version), "continue": continue_}, "items": items}
    return decode(json.dumps(body).encode(), RawList)


def told(changes: list[Change[Service]]) -> list[tuple[str, str]]:
    return [(change.kind, change.key) for change in changes]


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


class Driver:
    """A ListWatch with a clock: waits are taken, and what it then wants to do is looked at."""

    def __init__(self, seed: int = 1, *, optional: bool = False) -> None:
        self.core = ListWatch(Service, random.Random(seed), optional=optional)
        self.now = 1000.0

    def step(self) -> Step:
        """What it wants to do next, its wait taken. Twice waiting would be a defect: the wait was over."""
        step = self.core.next_step(self.now)
        if isinstance(step, Wait):
            self.now += step.seconds
            step = self.core.next_step(self.now)
        assert not isinstance(step, Wait)
        return step

    def wait(self) -> float:
        """Seconds that it wants to wait now, 0 for none."""
        step = self.core.next_step(self.now)
        return step.seconds if isinstance(step, Wait) else 0.0

    def open(self) -> Watch:
        step = self.step()
        assert isinstance(step, Watch)
        self.core.watch_opened(self.now)
        return step

    def receive(self, *events: RawWatchEvent) -> list[tuple[str, str]]:
        return [pair for one in events for pair in told(self.core.receive_event(one, self.now))]

    def sync(self, *objects: Json, version: int = 10) -> list[tuple[str, str]]:
        """A streamed list, up to its end."""
        assert self.open().initial_events
        return self.receive(*[event("ADDED", body) for body in objects], bookmark(version, ends_initial=True))

    def fail(self, error: ApiError) -> None:
        self.core.failed(error, self.now)

    def end(self) -> None:
        self.core.watch_ended(self.now)


@pytest.fixture
def driver() -> Driver:
    return Driver()


def names(driver: Driver) -> set[str]:
    return set(driver.core.held)


# -------------------------------------------------------------------- the first list, streamed


def test_first_it_asks_for_initial_events_without_a_version(driver: Driver) -> None:
    step = driver.step()
    assert isinstance(step, Watch)
    assert (step.initial_events, step.resource_version, step.silence_s) == (True, "", SILENCE_S)
    assert 240 <= step.timeout_s <= 480


def test_initial_events_are_reported_together_at_the_annotated_bookmark(driver: Driver) -> None:
    driver.open()
    assert driver.receive(event("ADDED", service("a", 1)), bookmark(5), event("ADDED", service("b", 2))) == []
    assert not driver.core.synced
    assert not names(driver)
    assert driver.receive(bookmark(10, ends_initial=True)) == [("added", "dev/a"), ("added", "dev/b")]
    assert driver.core.synced


def test_an_object_deleted_during_the_initial_events_is_not_reported(driver: Driver) -> None:
    driver.open()
    driver.receive(event("ADDED", service("a", 1)), event("ADDED", service("b", 2)), event("DELETED", service("a", 9)))
    assert driver.receive(bookmark(10, ends_initial=True)) == [("added", "dev/b")]


def test_an_empty_list_is_synced(driver: Driver) -> None:
    assert driver.sync() == []
    assert driver.core.synced


def test_changes_follow_on_the_same_watch(driver: Driver) -> None:
    driver.sync(service("a", 1))
    assert driver.receive(
        event("MODIFIED", service("a", 11)), event("ADDED", service("b", 12)), event("DELETED", service("a", 13))
    ) == [("modified", "dev/a"), ("added", "dev/b"), ("deleted", "dev/a")]
    assert names(driver) == {"dev/b"}
    assert driver.core.watching


def test_a_change_carries_both_sides(driver: Driver) -> None:
    driver.sync(service("a", 1))
    (change,) = driver.core.receive_event(event("MODIFIED", service("a", 11)), driver.now)
    assert change.old is not None
    assert change.new is not None
    assert (change.old.metadata.resource_version, change.new.metadata.resource_version) == ("1", "11")
    (change,) = driver.core.receive_event(event("DELETED", service("a", 12)), driver.now)
    assert (change.old is not None, change.new) == (True, None)


# -------------------------------------------------------------------- servers that do not stream lists


@pytest.mark.parametrize("error", [Invalid(400, "BadRequest", "x"), Invalid(422, "Invalid", "x")])
def test_a_server_that_refuses_initial_events_is_asked_for_pages_at_once_and_for_good(
    driver: Driver, error: ApiError
) -> None:
    driver.step()
    driver.fail(error)
    assert driver.core.next_step(driver.now) == ListPage(500, "")
    driver.core.receive_page(page([], 10))
    driver.open()
    driver.receive(refused(410))
    assert isinstance(driver.step(), ListPage)


def test_initial_events_refused_inside_the_watch_are_as_good_as_refused(driver: Driver) -> None:
    driver.open()
    driver.receive(refused(422, "Invalid"))
    assert driver.core.next_step(driver.now) == ListPage(500, "")


def test_a_server_that_ignores_initial_events_is_found_out_by_its_silence(driver: Driver) -> None:
    driver.open()
    driver.receive(event("ADDED", service("a", 1)))
    driver.now += SILENCE_S
    driver.fail(TimedOut(0, "ReadTimeoutError", "silent"))
    assert driver.core.next_step(driver.now) == ListPage(500, "")
    assert told(driver.core.receive_page(page([service("b", 2)], 10))) == [("added", "dev/b")]


def test_a_missing_kind_is_asked_for_both_ways_then_awaited(driver: Driver) -> None:
    missing = NotFound(404, "NotFound", "no such kind")
    for _ in range(3):
        assert isinstance(driver.step(), Watch)
        driver.fail(missing)
        assert isinstance(driver.core.next_step(driver.now), ListPage)
        driver.fail(missing)
        assert driver.wait() > 0
    driver.sync()  # the kind is there now, and the server streams it
    assert driver.core.synced


def test_an_optional_kind_that_is_missing_is_no_failure_and_is_asked_for_again_ever_later() -> None:
    driver = Driver(optional=True)
    waits = []
    for _ in range(12):
        driver.open()
        driver.fail(NotFound(404, "NotFound", "no such kind"))
        assert driver.core.unserved
        assert driver.core.counters.failures == 0
        waits.append(driver.wait())
    assert waits[0] <= 1
    assert all(30 <= wait <= 60 for wait in waits[-5:])
    driver.sync()
    assert (driver.core.synced, driver.core.unserved) == (True, False)
    assert driver.core.counters.relists == 0


def test_an_optional_kind_that_cannot_be_reached_is_not_taken_for_missing() -> None:
    driver = Driver(optional=True)
    driver.open()
    driver.fail(Unreachable(0, "ConnectionRefused", "refused"))
    assert not driver.core.unserved


def test_a_streamed_list_that_breaks_off_is_followed_by_pages_after_a_wait(driver: Driver) -> None:
    driver.open()
    driver.receive(event("ADDED", service("half", 1)))
    driver.fail(Unreachable(0, "ProtocolError", "cut"))
    assert driver.wait() > 0
    assert driver.step() == ListPage(500, "")
    assert told(driver.core.receive_page(page([service("a", 1)], 10))) == [("added", "dev/a")]


def test_a_server_that_fails_at_streaming_is_asked_both_ways_in_turn(driver: Driver) -> None:
    """An etcd that is too old for streamed lists is the server's error, and not the list's."""
    broken = ServerError(500, "InternalError", "etcd is too old")
    for expected in (Watch, ListPage, Watch, ListPage):
        assert isinstance(driver.step(), expected)
        driver.fail(broken)
        assert driver.wait() > 0
    driver.step()
    driver.fail(broken)
    assert driver.step() == ListPage(500, "")
    assert told(driver.core.receive_page(page([service("a", 1)], 10))) == [("added", "dev/a")]


def test_pages_take_effect_together_and_the_watch_starts_at_their_version(driver: Driver) -> None:
    driver.step()
    driver.fail(Invalid(422, "Invalid", "x"))
    assert driver.core.receive_page(page([service("a", 1)], 10, "token-1")) == []
    assert driver.step() == ListPage(500, "token-1")
    assert driver.core.receive_page(page([service("b", 2)], 10, "token-2")) == []
    assert not driver.core.synced
    assert driver.step() == ListPage(500, "token-2")
    assert told(driver.core.receive_page(page([service("c", 3)], 10))) == [
        ("added", "dev/a"),
        ("added", "dev/b"),
        ("added", "dev/c"),
    ]
    watch = driver.open()
    assert (watch.resource_version, watch.initial_events) == ("10", False)


def test_a_token_that_expires_between_pages_leads_to_one_whole_list(driver: Driver) -> None:
    driver.step()
    driver.fail(Invalid(422, "Invalid", "x"))
    driver.core.receive_page(page([service("a", 1)], 10, "token-1"))
    driver.fail(Gone(410, "Expired", "the continue token is too old"))
    assert driver.step() == ListPage(0, "")
    assert told(driver.core.receive_page(page([service("b", 2)], 20))) == [("added", "dev/b")]
    driver.open()
    driver.receive(refused(410))
    assert driver.step() == ListPage(500, ""), "the next list is paged again"


@pytest.mark.parametrize(
    "error",
    [ServerError(500, "InternalError", "x"), Throttled(429, "TooManyRequests", "x"), Unreachable(0, "Cut", "x")],
)
def test_a_page_that_fails_in_passing_is_asked_for_again(driver: Driver, error: ApiError) -> None:
    driver.step()
    driver.fail(Invalid(422, "Invalid", "x"))
    driver.core.receive_page(page([service("a", 1)], 10, "token-1"))
    driver.fail(error)
    assert driver.wait() > 0
    assert driver.step() == ListPage(500, "token-1")
    assert len(driver.core.receive_page(page([service("b", 2)], 10))) == 2


# -------------------------------------------------------------------- the watch


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


# -------------------------------------------------------------------- 410 and a new list


def gone_as_answer(driver: Driver) -> None:
    driver.end()
    driver.step()
    driver.fail(Gone(410, "Expired", "too old resource version"))


def gone_as_event(driver: Driver) -> None:
    driver.receive(refused(410, "Expired"))


@pytest.mark.parametrize("go", [gone_as_answer, gone_as_event])
def test_410_in_either_form_leads_to_a_new_list(driver: Driver, go: Any) -> None:
    driver.sync(service("a", 1))
    go(driver)
    assert driver.wait() > 0
    step = driver.step()
    assert isinstance(step, Watch)
    assert step.initial_events
    assert names(driver) == {"dev/a"}, "what was known stays until the new list is complete"
    assert driver.core.synced
    assert driver.core.counters.relists == 1


def test_a_server_that_was_away_for_long_and_forgot_the_history_is_asked_within_a_second(driver: Driver) -> None:
    """Its 410 says that it is there: what its absence taught does not delay the new list. The next 410 waits again."""
    driver.sync(service("a", 1))
    for _ in range(8):
        driver.fail(Unreachable(0, "NewConnectionError", "x"))
        driver.step()
    driver.fail(Gone(410, "Expired", "too old resource version"))
    assert driver.wait() <= RELIST_S
    driver.sync(service("a", 20), version=21)
    driver.receive(refused(410))
    assert driver.wait() > RELIST_S
    driver.sync(service("a", 30), version=31)
    driver.now += HEALTHY_S
    driver.receive(bookmark(32), refused(410))
    assert driver.wait() <= RELIST_S


@pytest.mark.parametrize("paged", [False, True])
def test_a_new_list_reports_only_what_changed_meanwhile(driver: Driver, paged: bool) -> None:
    driver.sync(service("same", 1), service("changed", 2), service("gone", 3), service("remade", 4, uid="one"))
    driver.receive(refused(410))
    now_there = [service("new", 20), service("changed", 21), service("same", 1), service("remade", 22, uid="two")]
    if paged:
        driver.step()
        driver.fail(Invalid(422, "Invalid", "x"))
        changes = told(driver.core.receive_page(page(now_there, 30)))
    else:
        changes = driver.sync(*now_there, version=30)
    assert changes == [
        ("deleted", "dev/gone"),
        ("added", "dev/new"),
        ("modified", "dev/changed"),
        ("deleted", "dev/remade"),
        ("added", "dev/remade"),
    ]


def test_a_new_list_keeps_the_very_objects_that_did_not_change(driver: Driver) -> None:
    driver.sync(service("a", 1))
    before = driver.core.held["dev/a"]
    driver.receive(refused(410))
    driver.sync(service("a", 1), version=20)
    assert driver.core.held["dev/a"] is before


def test_a_version_that_the_server_calls_invalid_leads_to_a_new_list(driver: Driver) -> None:
    driver.sync(version=10)
    driver.end()
    driver.step()
    driver.fail(Invalid(400, "BadRequest", "invalid resource version"))
    step = driver.step()
    assert isinstance(step, Watch)
    assert step.initial_events


@pytest.mark.parametrize(
    "error",
    [
        ServerError(500, "InternalError", "x"),
        Throttled(429, "TooManyRequests", "x"),
        Unauthorized(401, "Unauthorized", "x"),
        Forbidden(403, "Forbidden", "x"),
        Unreachable(0, "NewConnectionError", "x"),
        ApiError(418, "Teapot", "x"),
    ],
)
def test_any_other_refusal_waits_and_watches_on_from_the_same_version(driver: Driver, error: ApiError) -> None:
    driver.sync(service("a", 1), version=10)
    driver.end()
    driver.step()
    driver.fail(error)
    assert driver.wait() > 0
    assert driver.open().resource_version == "10"
    assert driver.core.counters.last_error == str(error)


def test_an_error_event_other_than_410_waits_and_watches_on(driver: Driver) -> None:
    driver.sync(version=10)
    driver.receive(refused(500, "InternalError"))
    assert not driver.core.watching
    assert driver.wait() > 0
    assert driver.open().resource_version == "10"


def test_a_version_that_fails_again_and_again_is_given_up(driver: Driver) -> None:
    driver.sync(version=10)
    for _ in range(RELIST_AFTER):
        driver.receive(refused(500, "InternalError"))
        step = driver.open()
    assert step.initial_events


@pytest.mark.parametrize(
    "error", [Unreachable(0, "NewConnectionError", "refused"), Throttled(429, "TooManyRequests", "too much")]
)
def test_a_server_that_is_away_or_busy_is_not_asked_for_everything(driver: Driver, error: ApiError) -> None:
    driver.sync(version=10)
    driver.end()
    for _ in range(3 * RELIST_AFTER):
        step = driver.step()
        assert isinstance(step, Watch)
        assert step.resource_version == "10"
        driver.fail(error)


# -------------------------------------------------------------------- waits


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


# -------------------------------------------------------------------- objects that cannot be read


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


# -------------------------------------------------------------------- against a model of the server


class Server:
    """What an API server keeps: objects, the history of changes, and how far back that reaches."""

    def __init__(self, *, streams: bool) -> None:
        self.streams = streams
        self.version = 100
        self.objects: dict[str, Json] = {}
        self.history: list[tuple[int, str, Json]] = []
        self.oldest = 100
        self.snapshots: dict[int, list[Json]] = {100: []}
        self._uid = 0

    def _write(self, kind: str, name: str, uid: str) -> None:
        self.version += 1
        body = service(name, self.version, uid)
        if kind == "DELETED":
            del self.objects[name]
        else:
            self.objects[name] = body
        self.history.append((self.version, kind, body))
        self.snapshots[self.version] = list(self.objects.values())

    def put(self, name: str) -> None:
        if name in self.objects:
            self._write("MODIFIED", name, self.objects[name]["metadata"]["uid"])
        else:
            self._uid += 1
            self._write("ADDED", name, f"uid-{self._uid}")

    def delete(self, name: str) -> None:
        if name in self.objects:
            self._write("DELETED", name, self.objects[name]["metadata"]["uid"])

    def compact(self) -> None:
        self.oldest = self.version

    def page(self, step: ListPage) -> RawList:
        version, start = map(int, step.continue_.split("/")) if step.continue_ else (self.version, 0)
        if version < self.oldest:
            raise Gone(410, "Expired", "token")
        items = self.snapshots[version]
        end = start + 2 if step.limit else len(items)
        return page(items[start:end], version, f"{version}/{end}" if end < len(items) else "")

    def watch(self, step: Watch) -> list[RawWatchEvent]:
        if step.initial_events:
            if not self.streams:
                raise Invalid(422, "Invalid", "sendInitialEvents")
            return [event("ADDED", body) for body in self.objects.values()] + [
                bookmark(self.version, ends_initial=True)
            ]
        if int(step.resource_version) < self.oldest:
            raise Gone(410, "Expired", "version")
        return self.events_since(int(step.resource_version))

    def events_since(self, version: int) -> list[RawWatchEvent]:
        return [event(kind, body) for at, kind, body in self.history if at > version]


class Believer:
    """A consumer that knows only what it is told, and insists that every change makes sense."""

    def __init__(self) -> None:
        self.known: dict[str, Service] = {}

    def hear(self, changes: list[Change[Service]]) -> None:
        for change in changes:
            if change.old is None:
                assert change.new is not None
                assert change.key not in self.known
            else:
                assert self.known.pop(change.key) is change.old
            if change.new is not None:
                assert change.old is None or change.old.metadata.uid == change.new.metadata.uid
                self.known[change.key] = change.new
            assert (
                change.kind
                == {(True, False): "added", (False, False): "modified", (False, True): "deleted"}[
                    (change.old is None, change.new is None)
                ]
            )


class Conversation:
    """A ListWatch, its consumer and a model server, one exchange at a time."""

    def __init__(self, *, streams: bool, seed: int) -> None:
        self.server = Server(streams=streams)
        self.driver = Driver(seed)
        self.believer = Believer()
        self.pending: list[RawWatchEvent] = []
        self.sent = 0

    def exchange(self) -> None:
        """Whatever comes next: a request and its answer, or one event of the open watch."""
        core, server = self.driver.core, self.server
        if core.watching:
            if not self.pending:
                self.pending = server.events_since(self.sent)
                self.sent = server.version
            if self.pending:
                self.believer.hear(core.receive_event(self.pending.pop(0), self.driver.now))
            return
        step = self.driver.step()
        try:
            if isinstance(step, ListPage):
                self.believer.hear(core.receive_page(server.page(step)))
            elif isinstance(step, Watch):
                self.pending = server.watch(step)
                self.sent = server.version
                core.watch_opened(self.driver.now)
        except ApiError as error:
            self.driver.fail(error)

    def act(self, action: str) -> None:
        core = self.driver.core
        match action.split():
            case ["put", name]:
                self.server.put(name)
            case ["delete", name]:
                self.server.delete(name)
            case ["compact"]:
                self.server.compact()
            case ["exchange"]:
                self.exchange()
            case ["bookmark"] if (
                core.watching and core.synced and not self.pending and self.sent == self.server.version
            ):
                self.believer.hear(core.receive_event(bookmark(self.server.version), self.driver.now))
            case ["cut"] if core.watching:
                self.driver.fail(Unreachable(0, "Cut", "x"))
            case ["gone"] if core.watching:
                self.believer.hear(core.receive_event(refused(410, "Expired"), self.driver.now))
            case ["error"] if core.watching:
                self.believer.hear(core.receive_event(refused(500, "InternalError"), self.driver.now))
            case ["hour"]:
                self.driver.now += 3600

    def settled(self) -> bool:
        core = self.driver.core
        return core.watching and core.synced and not self.pending and self.sent == self.server.version


ACTIONS = st.sampled_from(
    [f"put {name}" for name in "abcde"]
    + [f"delete {name}" for name in "abcde"]
    + ["compact", "bookmark", "cut", "gone", "error", "hour"]
    + ["exchange"] * 12
)


@settings(max_examples=200)
@given(actions=st.lists(ACTIONS, min_size=60, max_size=200), streams=st.booleans(), seed=st.integers(0, 1000))
def test_whatever_happens_the_copy_and_the_consumer_end_up_with_what_the_server_has(
    actions: list[str], streams: bool, seed: int
) -> None:
    talk = Conversation(streams=streams, seed=seed)
    for action in actions:
        talk.act(action)
        assert talk.believer.known == dict(talk.driver.core.held)
    for _ in range(400):
        if talk.settled():
            break
        talk.exchange()
    assert talk.settled(), "it comes to rest"
    truth = {f"dev/{name}": body["metadata"]["resourceVersion"] for name, body in talk.server.objects.items()}
    assert {key: one.metadata.resource_version for key, one in talk.believer.known.items()} == truth
    assert talk.believer.known == dict(talk.driver.core.held)
