"""Events on their way to an API server."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cluster.api.client import ApiClient, connect
from cluster.objects import ObjectMeta
from controller.changes import EventNote
from controller.daemon import recorder
from controller.daemon.recorder import Recorder
from lab.apiserver.embedded import EmbeddedApi
from tests.waiting import wait_until

WEB = ObjectMeta(name="web", namespace="default", uid="u-1", resource_version="7")
EVENTS = "/api/v1/namespaces/default/events"


def note(message: str) -> EventNote:
    return EventNote("Normal", "IPAllocated", message)


@contextmanager
def recording(client: ApiClient, flood: Callable[[], bool] = lambda: False) -> Iterator[Recorder]:
    """A recorder at work; at the block's end it has recorded all that waited."""
    one = Recorder(client, flood)
    one.start()
    yield one
    one.stop(5.0)


@pytest.fixture
def client(embedded_api: EmbeddedApi, tmp_path: Path) -> Iterator[ApiClient]:
    embedded_api.kubeconfig(tmp_path / "kubeconfig")
    client = connect(tmp_path / "kubeconfig", user_agent="recorder")
    yield client
    client.close()


@pytest.fixture
def recorded(embedded_api: EmbeddedApi) -> Callable[[], list[str]]:
    """The messages of the Events that there are."""
    return lambda: [each["message"] for each in embedded_api.request("GET", EVENTS)[1]["items"]]


def test_events_are_recorded_and_what_waits_at_the_end_too(
    client: ApiClient, recorded: Callable[[], list[str]]
) -> None:
    with recording(client) as one:
        one.note([note("first")], WEB)
        wait_until(lambda: recorded() == ["first"])
        one.note([note("second"), note("third")], WEB)
    assert sorted(recorded()) == ["first", "second", "third"]


def test_in_a_flood_an_event_waits_until_it_is_over(
    client: ApiClient, recorded: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "PATIENCE_S", 60.0)
    looks = iter([True] * 5)
    seen: list[list[str]] = []

    def flood() -> bool:
        seen.append(recorded())
        return next(looks, False)

    with recording(client, flood) as one:
        one.note([note("news")], WEB)
        wait_until(lambda: recorded() == ["news"])
    assert seen == [[]] * 6


def test_in_a_flood_without_end_news_come_all_the_same(
    client: ApiClient, recorded: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "PATIENCE_S", 0.2)
    with recording(client, flood=lambda: True) as one:
        one.note([note("news")], WEB)
        wait_until(lambda: recorded() == ["news"])


def test_an_event_that_is_refused_is_logged_and_the_next_one_recorded(
    embedded_api: EmbeddedApi,
    client: ApiClient,
    recorded: Callable[[], list[str]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    embedded_api.inject(path=EVENTS, verb="create", status=500)
    with recording(client) as one, caplog.at_level(logging.WARNING):
        one.note([note("lost")], WEB)
        wait_until(lambda: "Event not recorded" in caplog.text)
        embedded_api.clear_faults()
        one.note([note("kept")], WEB)
        wait_until(lambda: recorded() == ["kept"])


def test_when_too_many_wait_the_latest_are_dropped(
    client: ApiClient,
    recorded: Callable[[], list[str]],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recorder, "LIMIT", 1)
    one = Recorder(client, flood=lambda: False)
    one.note([note("first"), note("second")], WEB)
    assert "Event dropped" in caplog.text
    one.start()
    one.stop(5.0)
    assert recorded() == ["first"]
