"""The API client against the embedded API server, and against servers that misbehave."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from cluster.api import errors
from cluster.api.client import (
    ENDPOINT_SLICES,
    IP_ADDRESS_POOLS,
    NAMESPACES,
    NODES,
    SERVICES,
    AlreadyExists,
    ApiClient,
    ApiError,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    NotFound,
    ReadOnlyError,
    ServerError,
    Throttled,
    TimedOut,
    Unauthorized,
    Undecodable,
    Unreachable,
    connect,
)
from lab.apiserver.embedded import EmbeddedApi
from tests.cluster.api.scripted import Script, ScriptedConnection, answer, refusal, scripted, write_kubeconfig
from tests.waiting import wait_until, within

pytestmark = pytest.mark.slow

WEB: dict[str, Any] = {"metadata": {"name": "web"}, "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]}}


@pytest.fixture
def script() -> Iterator[Script]:
    with scripted() as one:
        yield one


@pytest.fixture
def client(script: Script, tmp_path: Path) -> ApiClient:
    return connect(script.kubeconfig(tmp_path / "config"), user_agent="berthlb-test")


@pytest.fixture
def api(embedded_api: EmbeddedApi, tmp_path: Path) -> ApiClient:
    return connect(embedded_api.kubeconfig(tmp_path / "config"), user_agent="berthlb-test")


# -------------------------------------------------------------------- the whole round, against the embedded server


def test_an_object_is_made_read_patched_replaced_and_deleted(api: ApiClient) -> None:
    made = api.create(SERVICES, "default", WEB)
    assert (made.key, made.spec.type, made.spec.ports[0].port) == ("default/web", "LoadBalancer", 80)
    assert api.get(SERVICES, "default", "web") == made

    ingress = {"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}}
    patched = api.patch(SERVICES, "default", "web", ingress, subresource="status")
    assert [one.ip for one in patched.status.load_balancer.ingress] == ["192.0.2.1"]

    api.patch(SERVICES, "default", "web", {"metadata": {"annotations": {"a": "1", "b": "2"}}})
    after = api.patch(SERVICES, "default", "web", {"metadata": {"annotations": {"a": None}}})
    assert after.metadata.annotations == {"b": "2"}

    whole = {"metadata": {"name": "web", "resourceVersion": after.metadata.resource_version}, "spec": WEB["spec"]}
    assert api.replace(SERVICES, "default", "web", whole).metadata.uid == made.metadata.uid

    api.delete(SERVICES, "default", "web", uid=made.metadata.uid)
    with pytest.raises(NotFound):
        api.get(SERVICES, "default", "web")


def test_who_writes_from_an_old_version_gets_a_conflict(api: ApiClient) -> None:
    old = api.create(SERVICES, "default", WEB).metadata.resource_version
    change = {"metadata": {"resourceVersion": old, "labels": {"x": "y"}}}
    api.patch(SERVICES, "default", "web", change)
    with pytest.raises(Conflict):
        api.patch(SERVICES, "default", "web", change)
    with pytest.raises(Conflict):
        api.delete(SERVICES, "default", "web", uid="another")


def test_a_name_that_is_taken_is_not_a_conflict_of_versions(api: ApiClient) -> None:
    api.create(SERVICES, "default", WEB)
    with pytest.raises(AlreadyExists) as caught:
        api.create(SERVICES, "default", WEB)
    assert not isinstance(caught.value, Conflict)
    assert "web" in caught.value.message


def test_an_object_that_is_refused_names_the_field(api: ApiClient) -> None:
    with pytest.raises(Invalid, match="addresses"):
        api.create(IP_ADDRESS_POOLS, "metallb-system", {"metadata": {"name": "p"}, "spec": {"addresses": 7}})


def test_a_list_comes_in_pages_of_one_moment(api: ApiClient) -> None:
    for number in range(7):
        api.create(SERVICES, "default", {"metadata": {"name": f"s{number}"}, "spec": {"ports": [{"port": 80}]}})
    pages = list(api.list_pages(SERVICES, "default", limit=3))
    assert [len(page.items) for page in pages] == [3, 3, 1]
    assert {one.metadata.name for page in pages for one in page.items} == {f"s{number}" for number in range(7)}
    assert len({page.metadata.resource_version for page in pages}) == 1


def test_a_list_can_be_selected(api: ApiClient) -> None:
    api.create(SERVICES, "default", WEB)
    api.create(
        SERVICES, "default", {"metadata": {"name": "plain", "labels": {"a": "b"}}, "spec": {"ports": [{"port": 1}]}}
    )
    [page] = api.list_pages(SERVICES, field_selector="spec.type=LoadBalancer")
    assert [one.key for one in page.items] == ["default/web"]
    [page] = api.list_pages(SERVICES, label_selector="a=b")
    assert [one.key for one in page.items] == ["default/plain"]
    [page] = api.list_pages(SERVICES, "kube-system")
    assert page.items == ()


def test_kinds_without_namespace_are_listed(api: ApiClient) -> None:
    [page] = api.list_pages(NAMESPACES)
    assert "kube-system" in {one.key for one in page.items}


def test_a_watch_brings_what_exists_and_what_happens(api: ApiClient) -> None:
    api.create(SERVICES, "default", WEB)
    with api.watch(SERVICES, initial_events=True) as stream:
        events = iter(stream)
        assert [next(events).type, next(events).type] == ["ADDED", "BOOKMARK"]
        api.delete(SERVICES, "default", "web")
        assert next(events).type == "DELETED"


def test_a_watch_ends_when_the_server_ends_it(api: ApiClient) -> None:
    with api.watch(NODES, timeout_s=1) as stream:
        assert [event.type for event in stream if event.type != "BOOKMARK"] == []


def test_a_watch_from_forgotten_history_is_gone(api: ApiClient, embedded_api: EmbeddedApi) -> None:
    old = api.create(SERVICES, "default", WEB).metadata.resource_version
    api.patch(SERVICES, "default", "web", {"metadata": {"labels": {"x": "y"}}})
    embedded_api.inject(compact=True)
    with api.watch(SERVICES, resource_version=old) as stream:
        event = next(iter(stream))
    assert event.type == "ERROR"
    assert isinstance(errors.refusal(0, event.object), Gone)


# -------------------------------------------------------------------- what is sent


def test_the_request_says_who_asks_and_what_for(client: ApiClient, script: Script) -> None:
    script.answers = [answer(200, {"metadata": {"name": "w"}})] * 3
    client.get(SERVICES, "dev", "w")
    client.patch(SERVICES, "dev", "w", {"a": 1}, subresource="status")
    client.create(ENDPOINT_SLICES, "dev", {"metadata": {"name": "w"}})
    read, patch, create = script.asked
    assert (read.method, read.path, read.headers["User-Agent"]) == (
        "GET",
        "/api/v1/namespaces/dev/services/w",
        "berthlb-test",
    )
    signed = "?fieldManager=berthlb-test"
    assert (patch.method, patch.path) == ("PATCH", f"/api/v1/namespaces/dev/services/w/status{signed}")
    assert (patch.headers["Content-Type"], patch.body) == ("application/merge-patch+json", {"a": 1})
    assert (create.method, create.path) == ("POST", f"/apis/discovery.k8s.io/v1/namespaces/dev/endpointslices{signed}")
    assert (create.body["apiVersion"], create.body["kind"]) == ("discovery.k8s.io/v1", "EndpointSlice")


def test_a_streamed_list_is_asked_for_as_the_api_documents_it(client: ApiClient, script: Script) -> None:
    script.answers = [answer(200, b"")]
    with client.watch(SERVICES, field_selector="spec.type=LoadBalancer", initial_events=True, timeout_s=250) as stream:
        assert list(stream) == []
    assert parse_qs(urlsplit(script.asked[0].path).query) == {
        "watch": ["true"],
        "allowWatchBookmarks": ["true"],
        "sendInitialEvents": ["true"],
        "resourceVersionMatch": ["NotOlderThan"],
        "fieldSelector": ["spec.type=LoadBalancer"],
        "timeoutSeconds": ["250"],
    }


def test_a_name_cannot_leave_its_path(client: ApiClient, script: Script) -> None:
    script.answers = [answer(200, {"metadata": {"name": "x"}})]
    client.get(SERVICES, "dev", "../../secrets?x=")
    assert script.asked[0].path == "/api/v1/namespaces/dev/services/..%2F..%2Fsecrets%3Fx%3D"


# -------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("code", "reason", "expected"),
    [
        (400, "BadRequest", Invalid),
        (401, "Unauthorized", Unauthorized),
        (403, "Forbidden", Forbidden),
        (404, "NotFound", NotFound),
        (405, "MethodNotAllowed", ApiError),
        (409, "Conflict", Conflict),
        (409, "AlreadyExists", AlreadyExists),
        (410, "Expired", Gone),
        (415, "UnsupportedMediaType", ApiError),
        (422, "Invalid", Invalid),
        (429, "TooManyRequests", Throttled),
        (500, "InternalError", ServerError),
        (503, "ServiceUnavailable", ServerError),
        (504, "Timeout", ServerError),
    ],
)
def test_a_refusal_has_a_type_a_reason_and_a_message(
    client: ApiClient, script: Script, code: int, reason: str, expected: type[ApiError]
) -> None:
    script.answers = [refusal(code, reason, "because")]
    with pytest.raises(ApiError) as caught:
        client.get(SERVICES, "dev", "web")
    assert type(caught.value) is expected
    assert (caught.value.status, caught.value.reason, caught.value.message) == (code, reason, "because")
    assert str(caught.value) == f"{code} {reason}: because"


def test_nothing_is_repeated_behind_the_callers_back(client: ApiClient, script: Script) -> None:
    script.answers = [refusal(503, "ServiceUnavailable", "x", Retry_After="1"), refusal(429, "TooManyRequests", "x")]
    script.answers += [lambda connection: connection.cut(), answer(200, {"metadata": {"name": "web"}})]
    for expected in (ServerError, Throttled, Unreachable):
        with pytest.raises(expected):
            client.get(SERVICES, "dev", "web")
    assert len(script.asked) == 3


@pytest.mark.parametrize(
    ("headers", "details", "seconds"),
    [
        ({"Retry_After": "7"}, {}, 7.0),
        ({}, {"retryAfterSeconds": 5}, 5.0),
        ({"Retry_After": "7"}, {"retryAfterSeconds": 5}, 7.0),
        ({"Retry_After": "Wed, 21 Oct 2026 07:28:00 GMT"}, {}, 1.0),
        ({"Retry_After": "-3"}, {}, 1.0),
        ({}, {}, 1.0),
    ],
)
def test_a_throttled_caller_learns_how_long_to_wait(
    client: ApiClient, script: Script, headers: dict[str, str], details: dict[str, int], seconds: float
) -> None:
    script.answers = [answer(429, {"code": 429, "reason": "TooManyRequests", "details": details}, **headers)]
    with pytest.raises(Throttled) as caught:
        client.get(SERVICES, "dev", "web")
    assert caught.value.retry_after == seconds


@pytest.mark.parametrize("why", ["", ": etcd is down"])
def test_a_kind_that_the_server_begins_to_serve_is_told_from_a_server_with_too_much_to_do(
    client: ApiClient, script: Script, why: str
) -> None:
    script.answers = [refusal(429, "TooManyRequests", f"storage is (re)initializing{why}")]
    with pytest.raises(errors.Initializing) as caught:
        client.get(SERVICES, "dev", "web")
    assert caught.value.retry_after == 1.0


@pytest.mark.parametrize("body", [b"", b"<html>Bad Gateway</html>", b"\xff\xfe", b"[]", b'{"code": "x"}', b'{"code"'])
def test_a_refusal_that_is_no_status_object_still_has_its_type(client: ApiClient, script: Script, body: bytes) -> None:
    script.answers = [answer(502, body)]
    with pytest.raises(ServerError) as caught:
        client.get(SERVICES, "dev", "web")
    assert caught.value.status == 502
    assert caught.value.message


def test_a_server_that_is_not_ready_yet_says_so(client: ApiClient, script: Script) -> None:
    script.answers = [answer(500, b"[-]poststarthook/rbac/bootstrap-roles failed"), answer(200, b"ok")]
    with pytest.raises(ServerError):
        client.check_ready()
    client.check_ready()
    assert [asked.path for asked in script.asked] == ["/readyz", "/readyz"]


def test_a_server_below_a_path_is_asked_there(script: Script, tmp_path: Path) -> None:
    """As Rancher has its clusters."""
    script.answers = [answer(200, {"metadata": {"name": "web"}})]
    kubeconfig = write_kubeconfig(tmp_path / "config", f"{script.url}/k8s/clusters/c-1")
    connect(kubeconfig, user_agent="t").get(SERVICES, "dev", "web")
    assert script.asked[0].path == "/k8s/clusters/c-1/api/v1/namespaces/dev/services/web"


def test_a_proxy_is_asked_for_the_whole_address(script: Script, tmp_path: Path) -> None:
    script.answers = [answer(200, {"metadata": {"name": "web"}})]
    kubeconfig = write_kubeconfig(tmp_path / "config", "http://api.example:8080/c", proxy_url=script.url)
    connect(kubeconfig, user_agent="t").get(SERVICES, "dev", "web")
    assert script.asked[0].path == "http://api.example:8080/c/api/v1/namespaces/dev/services/web"
    assert script.asked[0].headers["Host"] == "api.example:8080"


def test_a_proxy_tunnels_to_a_server_with_tls(script: Script, tmp_path: Path) -> None:
    script.answers = [answer(403)]
    kubeconfig = write_kubeconfig(tmp_path / "config", "https://api.example:6443", proxy_url=script.url)
    with pytest.raises(Unreachable, match="403"):
        connect(kubeconfig, user_agent="t").get(SERVICES, "dev", "web")
    assert (script.asked[0].method, script.asked[0].path) == ("CONNECT", "api.example:6443")


def test_a_redirect_is_not_followed(client: ApiClient, script: Script) -> None:
    """The next server would be given our token."""
    script.answers = [answer(302, b"", Location=f"{script.url}/elsewhere")]
    with pytest.raises(ApiError) as caught:
        client.get(SERVICES, "dev", "web")
    assert caught.value.status == 302
    assert len(script.asked) == 1


@pytest.mark.parametrize(
    "body", [b"", b"nonsense", b"[]", b'{"metadata": 7}', b'{"metadata": {"name": "w"}, "spec": 1}']
)
def test_an_answer_that_is_no_object_says_so(client: ApiClient, script: Script, body: bytes) -> None:
    script.answers = [answer(200, body)]
    with pytest.raises(Undecodable):
        client.get(SERVICES, "dev", "web")


def test_one_unreadable_object_does_not_spoil_the_list(client: ApiClient, script: Script) -> None:
    good, bad = (
        {"metadata": {"name": "good", "namespace": "d"}},
        {"metadata": {"name": "bad", "namespace": "d"}, "spec": 7},
    )
    script.answers = [answer(200, {"metadata": {"resourceVersion": "5"}, "items": [good, bad, 3]})]
    [page] = client.list_pages(SERVICES)
    assert [one.key for one in page.items] == ["d/good"]
    assert page.undecodable[0].startswith("d/bad: ")
    assert len(page.undecodable) == 2


# -------------------------------------------------------------------- no answer


def test_a_server_that_is_not_there_is_unreachable(tmp_path: Path) -> None:
    client = connect(write_kubeconfig(tmp_path / "config", "http://127.0.0.1:1"), user_agent="t")
    with pytest.raises(Unreachable, match="refused"):
        client.get(SERVICES, "dev", "web")


def test_an_answer_cut_in_the_middle_is_unreachable(client: ApiClient, script: Script) -> None:
    def half(connection: ScriptedConnection) -> None:
        connection.send_response(200)
        connection.send_header("Content-Length", "1000")
        connection.end_headers()
        connection.wfile.write(b'{"metadata": ')
        connection.cut()

    script.answers = [half]
    with pytest.raises(Unreachable):
        client.get(SERVICES, "dev", "web")


def test_a_server_that_does_not_answer_is_given_up(client: ApiClient, script: Script) -> None:
    script.answers = [script.hang]
    with pytest.raises(TimedOut):
        client.watch(SERVICES, silence_s=0.2)


def test_a_request_with_a_limit_is_given_up_in_time_and_the_server_is_told_when(
    client: ApiClient, script: Script
) -> None:
    script.answers = [script.hang] * 3
    with within(4.0):
        with pytest.raises(TimedOut):
            client.patch(SERVICES, "default", "web", {}, subresource="status", limit_s=0.6)
        with pytest.raises(TimedOut):
            client.create(SERVICES, "default", {}, limit_s=0.6)
        with pytest.raises(TimedOut):
            client.get(SERVICES, "default", "web", limit_s=0.6)
    assert [parse_qs(urlsplit(each.path).query)["timeout"] for each in script.asked] == [["0.400s"]] * 3


def test_a_silent_watch_is_given_up(client: ApiClient, script: Script) -> None:
    def silent(connection: ScriptedConnection) -> None:
        connection.begin_stream()
        connection.chunk(line("BOOKMARK"))
        script.hang(connection)

    script.answers = [silent]
    with client.watch(SERVICES, silence_s=0.2) as stream:
        events = iter(stream)
        assert next(events).type == "BOOKMARK"
        with pytest.raises(TimedOut):
            next(events)


def line(kind: str) -> bytes:
    return json.dumps({"type": kind, "object": {"metadata": {"name": "x"}}}).encode() + b"\n"


def test_events_are_found_however_the_stream_is_cut_into_chunks(client: ApiClient, script: Script) -> None:
    everything = line("ADDED") + b"\n" + line("MODIFIED") + b"\r\n" + line("DELETED")

    def crumbs(connection: ScriptedConnection) -> None:
        connection.begin_stream()
        for byte in everything:
            connection.chunk(bytes([byte]))
        connection.chunk(b"")

    def lump(connection: ScriptedConnection) -> None:
        connection.begin_stream()
        connection.chunk(everything)
        connection.chunk(b"")

    script.answers = [crumbs, lump]
    for _ in range(2):
        with client.watch(SERVICES) as stream:
            assert [event.type for event in stream] == ["ADDED", "MODIFIED", "DELETED"]


def test_an_event_arrives_when_it_is_sent(client: ApiClient, script: Script) -> None:
    """Not when the next one, or the end, pushes it out of a buffer."""

    def one(connection: ScriptedConnection) -> None:
        connection.begin_stream()
        connection.chunk(line("ADDED"))
        script.hang(connection)

    script.answers = [one]
    with client.watch(SERVICES, silence_s=10) as stream:
        assert next(iter(stream)).type == "ADDED"


def test_a_watch_that_is_cut_is_unreachable(client: ApiClient, script: Script) -> None:
    def cut(connection: ScriptedConnection) -> None:
        connection.begin_stream()
        connection.chunk(line("ADDED")[:-10])
        connection.cut()

    script.answers = [cut]
    with client.watch(SERVICES) as stream, pytest.raises(Unreachable):
        list(stream)


def test_a_line_that_is_no_event_ends_the_watch(client: ApiClient, script: Script) -> None:
    def rubbish(connection: ScriptedConnection) -> None:
        connection.begin_stream()
        connection.chunk(b"<html>\n")
        script.hang(connection)

    script.answers = [rubbish]
    with client.watch(SERVICES) as stream, pytest.raises(Undecodable):
        list(stream)


def test_a_watch_is_interrupted_at_once_from_another_thread(client: ApiClient, script: Script) -> None:
    def silent(connection: ScriptedConnection) -> None:
        connection.begin_stream()
        connection.chunk(line("ADDED"))
        script.hang(connection)

    script.answers = [silent]
    seen: list[str] = []

    def follow() -> None:
        try:
            seen.extend(event.type for event in stream)
        except Unreachable:
            seen.append("ended")

    with client.watch(SERVICES) as stream:
        thread = threading.Thread(target=follow)
        thread.start()
        wait_until(lambda: script.asked)
        with within(2.0):
            stream.interrupt()
            thread.join(60)
        assert not thread.is_alive()
    stream.interrupt()  # after the end it does nothing


# -------------------------------------------------------------------- what it costs


def test_the_official_models_and_websockets_are_not_imported() -> None:
    """They double a daemon's start and its memory, and the announcer's process is forked beside it."""
    code = "import sys, cluster.api.client; print(*[name for name in sys.modules if name in {UNWANTED}])".replace(
        "{UNWANTED}",
        "{'pydantic', 'websocket', 'oauthlib', 'requests', 'kubernetes.client.models', 'kubernetes.dynamic'}",
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == []


def test_the_official_package_is_whole_for_others_afterwards() -> None:
    code = (
        "import cluster.api.client, kubernetes; print(kubernetes.client.CoreV1Api, kubernetes.config.load_kube_config)"
    )
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)


@pytest.mark.parametrize(
    "write",
    [
        lambda client: client.create(SERVICES, "dev", WEB),
        lambda client: client.replace(SERVICES, "dev", "web", WEB),
        lambda client: client.patch(SERVICES, "dev", "web", {}, subresource="status"),
        lambda client: client.delete(SERVICES, "dev", "web"),
    ],
)
def test_a_read_only_client_sends_nothing_but_questions(
    script: Script, tmp_path: Path, write: Callable[[ApiClient], object]
) -> None:
    script.answers = [answer(200, {"metadata": {"name": "web"}})] * 2
    reading = connect(script.kubeconfig(tmp_path / "read-only"), user_agent="berthlb-test", read_only=True)
    with pytest.raises(ReadOnlyError):
        write(reading)
    assert script.asked == []
    assert reading.get(SERVICES, "dev", "web").metadata.name == "web"
