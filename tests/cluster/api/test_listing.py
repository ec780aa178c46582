"""How a copy of a kind's objects begins: a list that is streamed, pages where a server does not stream, and a new list
where the history is gone."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.api.errors import (
    ApiError,
    Forbidden,
    Gone,
    Invalid,
    NotFound,
    ServerError,
    Throttled,
    TimedOut,
    Unauthorized,
    Unreachable,
)
from cluster.api.listwatch import (
    HEALTHY_S,
    RELIST_AFTER,
    RELIST_S,
    SILENCE_S,
    ListPage,
    Watch,
)
from tests.cluster.api.driver import Driver, bookmark, event, names, page, refused, service, told

# ------------------------------------------------------------------- the first list, streamed


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


# ------------------------------------------------------------------- servers that do not stream lists


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


# ------------------------------------------------------------------- 410 and a new list


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
