"""The reflector's thread against the embedded API server, with faults, and against servers that misbehave."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cluster.api.client import ENDPOINT_SLICES, SERVICES, ApiClient, connect
from cluster.api.reflector import Change, Reflector
from cluster.objects import Service
from cluster.resources import IP_ADDRESS_POOLS, SERVICE_CIDRS
from lab.apiserver.embedded import EmbeddedApi
from tests.cluster.api.scripted import Script, ScriptedConnection, answer, refusal, scripted
from tests.waiting import wait_until, within

pytestmark = pytest.mark.slow

PROMPT_S = 1.5  # the waits that are to be cut short are of 10 s and more
PLAIN: dict[str, Any] = {"type": "ClusterIP", "ports": [{"port": 80}]}
BALANCED: dict[str, Any] = {"type": "LoadBalancer", "ports": [{"port": 80}]}


@pytest.fixture
def api(embedded_api: EmbeddedApi, tmp_path: Path) -> ApiClient:
    return connect(embedded_api.kubeconfig(tmp_path / "config"), user_agent="berthlb-test")


@pytest.fixture
def own(embedded_api: EmbeddedApi, tmp_path: Path) -> ApiClient:
    """The reflector's client where there are faults: they are to strike it, not the test's."""
    return connect(embedded_api.kubeconfig(tmp_path / "own"), user_agent="reflector-under-test")


def create(api: ApiClient, name: str, spec: dict[str, Any] = BALANCED) -> Service:
    return api.create(SERVICES, "default", {"metadata": {"name": name}, "spec": spec})


def touch(api: ApiClient, name: str, value: str) -> None:
    api.patch(SERVICES, "default", name, {"metadata": {"labels": {"touched": value}}})


class Listener:
    """What a reflector reported, and a copy made of nothing else."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str]] = []
        self.known: dict[str, Service] = {}

    def __call__(self, change: Change[Service]) -> None:
        self.heard.append((change.kind, change.key))
        if change.new is None:
            del self.known[change.key]
        else:
            self.known[change.key] = change.new

    def names(self) -> set[str]:
        return {key.removeprefix("default/") for key in self.known if key.startswith("default/")}


@contextmanager
def reflecting(
    api: ApiClient, listener: Callable[[Change[Service]], object], **selection: Any
) -> Iterator[Reflector[Service]]:
    reflector = Reflector(api, SERVICES, on_change=listener, **selection)
    reflector.start()
    try:
        yield reflector
    finally:
        reflector.stop()


def settled(api: ApiClient, reflector: Reflector[Service], listener: Listener) -> bool:
    """Whether reflector and listener have exactly what the server has."""
    truth = {one.key: one for page in api.list_pages(SERVICES) for one in page.items}
    return reflector.synced and dict(reflector.items()) == truth == listener.known


# -------------------------------------------------------------------- the ordinary course


def test_what_exists_and_what_happens_is_reported_in_order(api: ApiClient) -> None:
    create(api, "before")
    listener = Listener()
    with reflecting(api, listener) as reflector:
        assert reflector.wait_synced(10)
        create(api, "after")
        touch(api, "before", "1")
        api.delete(SERVICES, "default", "after")
        wait_until(lambda: ("deleted", "default/after") in listener.heard)
        assert [pair for pair in listener.heard if pair[1].startswith("default/")] == [
            ("added", "default/before"),
            ("added", "default/after"),
            ("modified", "default/before"),
            ("deleted", "default/after"),
        ]
        assert settled(api, reflector, listener)


def test_items_are_a_copy_of_the_moment(api: ApiClient) -> None:
    create(api, "one")
    with reflecting(api, Listener()) as reflector:
        reflector.wait_synced(10)
        before = reflector.items()
        create(api, "two")
        wait_until(lambda: "default/two" in reflector.items())
        assert "default/two" not in before
        with pytest.raises(TypeError):
            before["x"] = before["default/one"]  # type: ignore[index]  # that it cannot be written is the point


def test_items_contain_a_change_before_it_is_reported(api: ApiClient) -> None:
    seen: list[bool] = []
    reflector = Reflector(api, SERVICES, on_change=lambda change: seen.append(change.key in reflector.items()))
    reflector.start()
    try:
        reflector.wait_synced(10)
        create(api, "new")
        wait_until(lambda: len(seen) == len(reflector.items()))
        assert all(seen)
    finally:
        reflector.stop()


def test_a_service_that_leaves_the_selection_is_reported_as_deleted_although_it_exists(api: ApiClient) -> None:
    create(api, "web")
    create(api, "plain", PLAIN)
    listener = Listener()
    with reflecting(api, listener, field_selector="spec.type=LoadBalancer") as reflector:
        reflector.wait_synced(10)
        assert listener.names() == {"web"}
        api.patch(SERVICES, "default", "web", {"spec": {"type": "ClusterIP"}})
        wait_until(lambda: ("deleted", "default/web") in listener.heard)
        assert api.get(SERVICES, "default", "web").spec.type == "ClusterIP"


def test_a_namespace_and_labels_select(api: ApiClient) -> None:
    for name, namespace in (("a", "default"), ("b", "kube-system")):
        labelled = {"metadata": {"name": name, "labels": {"x": name}}, "spec": BALANCED}
        api.create(SERVICES, namespace, labelled)
    with reflecting(api, Listener(), namespace="default") as reflector:
        reflector.wait_synced(10)
        assert set(reflector.items()) == {"default/a"} | {
            key for key in reflector.items() if key == "default/kubernetes"
        }
    with reflecting(api, Listener(), label_selector="x=b") as reflector:
        reflector.wait_synced(10)
        assert set(reflector.items()) == {"kube-system/b"}


def test_an_empty_kind_is_synced(api: ApiClient) -> None:
    reflector = Reflector(api, ENDPOINT_SLICES, on_change=lambda _: None)
    reflector.start()
    assert reflector.wait_synced(10)
    assert dict(reflector.items()) == {}
    reflector.stop()


# -------------------------------------------------------------------- faults


def test_a_definition_that_is_missing_is_said_once_with_what_to_do_and_waited_for(
    api: ApiClient, own: ApiClient, embedded_api: EmbeddedApi, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    embedded_api.inject(userAgent="reflector-under-test", status=404, count=5)
    reflector = Reflector(own, IP_ADDRESS_POOLS, on_change=lambda _: None)
    reflector.start()
    try:
        assert reflector.wait_synced(60)
    finally:
        reflector.stop()
    said = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.getMessage() for record in said] == ["the server has no such kind"]
    assert vars(said[0])["resource"] == "ipaddresspools.metallb.io"
    assert "apply its definition" in vars(said[0])["advice"]


def test_an_optional_kind_that_the_server_does_not_have_is_synced_and_empty(
    own: ApiClient, embedded_api: EmbeddedApi
) -> None:
    embedded_api.inject(userAgent="under-test", path="/apis/networking.k8s.io", status=404)
    reflector = Reflector(own, SERVICE_CIDRS, optional=True, on_change=lambda _: None)
    reflector.start()
    assert reflector.wait_synced(10)
    assert dict(reflector.items()) == {}
    reflector.stop()


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 500},
        {"status": 429, "retryAfter": 1, "count": 1},
        {"status": 410},
        {"status": 401},
        {"status": 403},
        {"status": 404},
        {"status": 400},
        {"status": 503},
        {"drop": True},
    ],
)
def test_a_start_among_faults_succeeds_once_they_are_over(
    api: ApiClient, own: ApiClient, embedded_api: EmbeddedApi, fault: dict[str, Any]
) -> None:
    create(api, "web")
    embedded_api.inject(**({"userAgent": "under-test", "count": 2} | fault))
    listener = Listener()
    with reflecting(own, listener) as reflector:
        assert reflector.wait_synced(20)
        wait_until(lambda: settled(api, reflector, listener))
        assert reflector.counters.last_error


@pytest.mark.parametrize(
    "fault",
    [{"status": 500}, {"status": 429, "retryAfter": 1, "count": 1}, {"status": 410}, {"drop": True}, {"latency": 0.3}],
)
def test_a_watch_that_was_closed_is_taken_up_among_faults_and_nothing_is_missed(
    api: ApiClient, own: ApiClient, embedded_api: EmbeddedApi, fault: dict[str, Any]
) -> None:
    for name in ("stays", "goes", "changes"):
        create(api, name)
    listener = Listener()
    with reflecting(own, listener) as reflector:
        reflector.wait_synced(10)
        reported = len(listener.heard)
        embedded_api.inject(**({"userAgent": "under-test", "count": 2} | fault))
        embedded_api.inject(closeWatches=True)
        api.delete(SERVICES, "default", "goes")
        touch(api, "changes", "1")
        create(api, "comes")
        wait_until(lambda: settled(api, reflector, listener), 20)
        assert sorted(listener.heard[reported:]) == [
            ("added", "default/comes"),
            ("deleted", "default/goes"),
            ("modified", "default/changes"),
        ], "each difference once, and nothing else"
        assert reflector.synced


def test_forgotten_history_leads_to_a_new_list_and_deletions_are_not_missed(
    api: ApiClient, own: ApiClient, embedded_api: EmbeddedApi
) -> None:
    create(api, "goes")
    create(api, "stays")
    listener = Listener()
    with reflecting(own, listener) as reflector:
        reflector.wait_synced(10)
        reported = len(listener.heard)
        embedded_api.inject(userAgent="under-test", status=503, count=2)
        embedded_api.inject(closeWatches=True)
        api.delete(SERVICES, "default", "goes")
        embedded_api.inject(compact=True)
        wait_until(lambda: settled(api, reflector, listener), 20)
        assert listener.heard[reported:] == [("deleted", "default/goes")]
        assert reflector.counters.relists == 1


def test_a_refresh_shows_what_a_watch_that_lags_has_not_brought_yet(
    embedded_api: EmbeddedApi, api: ApiClient, own: ApiClient
) -> None:
    create(api, "before")
    listener = Listener()
    with reflecting(own, listener) as reflector:
        assert reflector.wait_synced(10)
        embedded_api.inject(userAgent="reflector-under-test", lag=30)
        create(api, "after")
        asked = reflector.refresh()
        wait_until(lambda: reflector.refreshed == asked)
        assert listener.names() >= {"before", "after"}
        assert listener.heard.count(("added", "default/before")) == 1


def test_a_refresh_ends_a_wait_and_each_is_answered_by_a_list_of_its_own(odd: ApiClient, script: Script) -> None:
    script.answers = [
        refusal(429, "TooManyRequests", "x", Retry_After="60"),
        stream(script, ("ADDED", service("a", 1)), END_OF_LIST),
        stream(script, ("ADDED", service("b", 2)), END_OF_LIST),
    ]
    listener = Listener()
    with reflecting(odd, listener) as reflector:
        wait_until(lambda: reflector.counters.failures)
        assert (reflector.refreshed, reflector.refresh()) == (0, 1)
        wait_until(lambda: reflector.refreshed == 1)
        assert listener.names() == {"a"}
        assert reflector.refresh() == 2
        wait_until(lambda: reflector.refreshed == 2)
        assert listener.names() == {"b"}


def test_a_refresh_before_the_start_is_answered_by_the_first_list(api: ApiClient) -> None:
    reflector = Reflector(api, SERVICES, on_change=Listener())
    assert reflector.refresh() == 1
    reflector.start()
    wait_until(lambda: reflector.refreshed == 1)
    assert reflector.counters.lists == 1
    reflector.stop()


def test_a_server_that_goes_away_and_comes_back_is_found_again(tmp_path: Path) -> None:
    with EmbeddedApi() as first:
        api = connect(first.kubeconfig(tmp_path / "config"), user_agent="t")
        create(api, "web")
        listener = Listener()
        reflector = Reflector(api, SERVICES, on_change=listener)
        reflector.start()
        reflector.wait_synced(10)
    try:
        wait_until(lambda: reflector.counters.failures > 1)
        assert reflector.synced
        assert "default/web" in reflector.items(), "the last known state remains"
    finally:
        with within(PROMPT_S):
            reflector.stop()


# -------------------------------------------------------------------- servers that misbehave


@pytest.fixture
def script() -> Iterator[Script]:
    with scripted() as one:
        yield one


@pytest.fixture
def odd(script: Script, tmp_path: Path) -> ApiClient:
    return connect(script.kubeconfig(tmp_path / "config"), user_agent="berthlb-test")


def service(name: str, version: int, **more: Any) -> dict[str, Any]:
    meta = {"name": name, "namespace": "default", "uid": f"uid-{name}", "resourceVersion": str(version)}
    return {"metadata": meta} | more


def listed(version: int, *items: dict[str, Any], continue_: str = "") -> dict[str, Any]:
    return {"metadata": {"resourceVersion": str(version), "continue": continue_}, "items": items}


END_OF_LIST = (
    "BOOKMARK",
    {"metadata": {"resourceVersion": "9", "annotations": {"k8s.io/initial-events-end": "true"}}},
)


END_OF_LIST = (
    "BOOKMARK",
    {"metadata": {"resourceVersion": "9", "annotations": {"k8s.io/initial-events-end": "true"}}},
)


def stream(
    script: Script, *events: tuple[str, dict[str, Any]], then_hang: bool = True
) -> Callable[[ScriptedConnection], None]:
    def send(connection: ScriptedConnection) -> None:
        connection.begin_stream()
        for kind, body in events:
            connection.chunk(json.dumps({"type": kind, "object": body}).encode() + b"\n")
        if then_hang:
            script.hang(connection)
        else:
            connection.chunk(b"")

    return send


def test_a_server_that_does_not_stream_lists_is_read_in_pages(odd: ApiClient, script: Script) -> None:
    script.answers = [
        refusal(422, "Invalid", "sendInitialEvents is forbidden"),
        answer(200, listed(10, service("a", 1), continue_="more")),
        answer(200, listed(10, service("b", 2))),
        stream(script, ("ADDED", service("c", 11))),
    ]
    listener = Listener()
    with reflecting(odd, listener):
        wait_until(lambda: listener.names() == {"a", "b", "c"})
    assert [one.path.partition("?")[2].startswith("watch") for one in script.asked] == [True, False, False, True]
    assert "resourceVersion=10" in script.asked[3].path


def test_a_page_whose_token_expired_leads_to_one_whole_list(odd: ApiClient, script: Script) -> None:
    script.answers = [
        refusal(400, "BadRequest", "no"),
        answer(200, listed(10, service("a", 1), continue_="more")),
        refusal(410, "Expired", "the provided continue parameter is too old"),
        answer(200, listed(20, service("b", 15))),
        stream(script),
    ]
    listener = Listener()
    with reflecting(odd, listener) as reflector:
        assert reflector.wait_synced(10)
        assert listener.heard == [("added", "default/b")]
    assert script.asked[3].path == "/api/v1/services"


def test_a_server_that_closes_at_once_is_not_asked_in_a_hot_loop(odd: ApiClient, script: Script) -> None:
    script.answers = [stream(script, END_OF_LIST, then_hang=False) for _ in range(1000)]
    with reflecting(odd, Listener()) as reflector:
        reflector.wait_synced(10)
        wait_until(lambda: len(script.asked) >= 5)
    first, fifth = script.asked[0].at, script.asked[4].at
    assert fifth - first > 0.1 + 0.2 + 0.4
    assert len([each for each in script.asked if each.at < fifth + 0.4]) < 8


def test_an_unreadable_object_is_logged_and_the_rest_goes_on(
    odd: ApiClient, script: Script, caplog: pytest.LogCaptureFixture
) -> None:
    bad = [("ADDED", service(f"bad{number}", 1, spec="rubbish")) for number in range(30)]
    script.answers = [stream(script, *bad, ("ADDED", service("good", 2)), END_OF_LIST)]
    listener = Listener()
    with reflecting(odd, listener) as reflector:
        assert reflector.wait_synced(10)
        assert listener.names() == {"good"}
        assert reflector.counters.undecodable == 30
    skipped = [record for record in caplog.records if "skipped" in record.message]
    assert any("default/bad0" in vars(record).get("problem", "") for record in skipped)


# -------------------------------------------------------------------- the consumer, and the end


def test_a_consumer_that_raises_is_logged_and_told_the_next_change(
    api: ApiClient, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[str] = []

    def consumer(change: Change[Service]) -> None:
        heard.append(change.key)
        raise KeyError("defect")

    with caplog.at_level(logging.ERROR), reflecting(api, consumer) as reflector:
        assert reflector.wait_synced(10)
        create(api, "one")
        create(api, "two")
        wait_until(lambda: {"default/one", "default/two"} <= set(heard))
        assert reflector.callback_errors == len(heard)
    assert any("on_change failed" in record.message for record in caplog.records)


def test_stop_is_prompt_and_nothing_is_reported_afterwards(api: ApiClient) -> None:
    listener = Listener()
    with reflecting(api, listener) as reflector:
        reflector.wait_synced(10)
        with within(PROMPT_S):
            reflector.stop()
        reported = len(listener.heard)
        create(api, "late")
        assert not [one for one in threading.enumerate() if one.name == "reflect-services"]
        assert len(listener.heard) == reported


def test_stop_is_prompt_during_a_wait(odd: ApiClient, script: Script) -> None:
    script.answers = [refusal(429, "TooManyRequests", "x", Retry_After="60")]
    with reflecting(odd, Listener()) as reflector:
        wait_until(lambda: reflector.counters.failures)
        with within(PROMPT_S):
            reflector.stop()


def test_stop_from_within_the_consumer_ends_it(api: ApiClient) -> None:
    create(api, "one")
    create(api, "two")
    heard: list[str] = []

    def consumer(change: Change[Service]) -> None:
        heard.append(change.key)
        reflector.stop()

    reflector = Reflector(api, SERVICES, on_change=consumer)
    reflector.start()
    wait_until(lambda: not [one for one in threading.enumerate() if one.name == "reflect-services"])
    assert len(heard) == 1


def test_stop_waits_for_the_report_that_is_under_way(api: ApiClient) -> None:
    create(api, "web")
    entered, leave, left = threading.Event(), threading.Event(), threading.Event()

    def consumer(change: Change[Service]) -> None:
        entered.set()
        leave.wait(10)
        left.set()

    with reflecting(api, consumer) as reflector:
        assert entered.wait(10)
        threading.Timer(0.1, leave.set).start()
        reflector.stop()
        assert left.is_set()


def test_a_stop_before_anything_was_answered_returns(odd: ApiClient, script: Script) -> None:
    script.answers = [script.hang]
    reflector = Reflector(odd, SERVICES, on_change=lambda _: None)
    reflector.start()
    wait_until(lambda: script.asked)
    with within(PROMPT_S):
        reflector.stop()


# -------------------------------------------------------------------- under load


def test_many_changes_among_many_faults_end_in_the_same_state(
    api: ApiClient, own: ApiClient, embedded_api: EmbeddedApi
) -> None:
    listener = Listener()
    with reflecting(own, listener) as reflector:
        for number in range(60):
            create(api, f"s{number}")
            if number % 3 == 0:
                api.delete(SERVICES, "default", f"s{number}")
            else:
                touch(api, f"s{number}", "1")
            if number % 20 == 9:
                embedded_api.inject(closeWatches=True)
            if number % 20 == 14:
                embedded_api.inject(userAgent="under-test", drop=True, count=1)
            if number % 25 == 24:
                embedded_api.inject(compact=True)
        wait_until(lambda: settled(api, reflector, listener), 30)
        assert len(listener.names() - {"kubernetes"}) == 40
