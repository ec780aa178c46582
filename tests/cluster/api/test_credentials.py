"""Kubeconfigs and service accounts, good and bad, as a server on the other side sees them."""

from __future__ import annotations

import base64
import json
import os
import ssl
import stat
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from cluster.api import credentials
from cluster.api.client import SERVICES, ClientConfigError, Unauthorized, Unreachable, connect
from tests.cluster.api.scripted import Script, answer, scripted, write_kubeconfig

WEB = answer(200, {"metadata": {"name": "web"}})


@pytest.fixture
def script() -> Iterator[Script]:
    with scripted() as one:
        yield one


@pytest.fixture
def refresh_due(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Have so much time pass that credentials are looked at again."""
    now = 1000.0
    monkeypatch.setattr(credentials, "time", SimpleNamespace(monotonic=lambda: now))

    def pass_() -> None:
        nonlocal now
        now += credentials.REFRESH_S

    return pass_


def header_seen(script: Script, kubeconfig: Path) -> str | None:
    script.answers = [WEB]
    connect(kubeconfig, user_agent="t").get(SERVICES, "dev", "web")
    return script.asked[-1].headers.get("Authorization")


def test_a_token_is_sent(script: Script, tmp_path: Path) -> None:
    assert header_seen(script, script.kubeconfig(tmp_path / "config", {"token": "s3cret"})) == "Bearer s3cret"


def test_a_token_file_beside_the_kubeconfig_is_read(script: Script, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from-file\n")
    assert header_seen(script, script.kubeconfig(tmp_path / "config", {"tokenFile": "token"})) == "Bearer from-file"


def test_a_token_file_that_was_renewed_is_read_again(
    script: Script, tmp_path: Path, refresh_due: Callable[[], None]
) -> None:
    (tmp_path / "token").write_text("first")
    client = connect(script.kubeconfig(tmp_path / "config", {"tokenFile": "token"}), user_agent="t")
    script.answers = [WEB, WEB, WEB]
    client.get(SERVICES, "dev", "web")
    (tmp_path / "token").write_text("second\n")
    client.get(SERVICES, "dev", "web")
    refresh_due()
    client.get(SERVICES, "dev", "web")
    assert [one.headers["Authorization"] for one in script.asked] == ["Bearer first", "Bearer first", "Bearer second"]

    for unusable in ((tmp_path / "token").unlink, (tmp_path / "token").touch):
        unusable()
        refresh_due()
        with pytest.raises(Unauthorized, match="token"):
            client.get(SERVICES, "dev", "web")


def test_no_credentials_are_none(script: Script, tmp_path: Path) -> None:
    assert header_seen(script, script.kubeconfig(tmp_path / "config")) is None


def plugin(path: Path, body: str) -> dict[str, Any]:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": str(path), "interactiveMode": "Never"}}


def test_an_exec_plugin_gives_the_token_and_is_asked_again_when_it_expires(
    script: Script, tmp_path: Path, refresh_due: Callable[[], None]
) -> None:
    status = '{"token": "t-\'$(wc -l < %s)\'", "expirationTimestamp": "2020-01-01T00:00:00Z"}' % (tmp_path / "runs")
    credential = '{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": ' + status + "}"
    user = plugin(tmp_path / "plugin", f"echo run >> {tmp_path / 'runs'}\necho '{credential}'")
    client = connect(script.kubeconfig(tmp_path / "config", user), user_agent="t")
    script.answers = [WEB, WEB, WEB]
    client.get(SERVICES, "dev", "web")
    refresh_due()
    client.get(SERVICES, "dev", "web")
    client.get(SERVICES, "dev", "web")
    first, second, third = [one.headers["Authorization"] for one in script.asked]
    assert first.startswith("Bearer t-")
    assert first != second
    assert second == third


# -------------------------------------------------------------------- several threads


AT_ONCE = """
import pathlib, sys, threading
from cluster.api import credentials

sys.setswitchinterval(1e-6)
found = []

def load(start, path):
    start.wait()
    try:
        found.append(credentials.load(path).host)
    except BaseException as error:
        found.append(repr(error))

for each in map(pathlib.Path, sys.argv[1:]):
    start = threading.Barrier(4)
    threads = [threading.Thread(target=load, args=(start, each)) for _ in range(4)]
    [each.start() for each in threads]
    [each.join() for each in threads]
print(*sorted(set(found)), sep="\\n")
print(*[name for name in ("kubernetes", "kubernetes.config", "kubernetes.client.api") if name in sys.modules])
"""


def test_several_threads_may_load_at_once_and_the_first_may_be_among_them(keys: Path, tmp_path: Path) -> None:
    """What they import, and the files that certificates are put into, are there once for the whole process."""
    paths, authority = [], (keys / "ca.crt").read_bytes()
    for number in range(30):
        other = base64.b64encode(authority + b"\n" * number).decode()  # in another file
        name, server = tmp_path / f"config-{number}", "https://192.0.2.1"
        paths.append(write_kubeconfig(name, server, {"token": "t"}, certificate_authority_data=other))
    program = [sys.executable, "-c", AT_ONCE, *map(str, paths)]
    done = subprocess.run(program, check=False, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["https://192.0.2.1", ""], done.stdout + done.stderr


def test_a_token_that_has_to_be_renewed_is_asked_for_by_one_thread(
    script: Script, tmp_path: Path, refresh_due: Callable[[], None]
) -> None:
    status = '{"token": "t", "expirationTimestamp": "2020-01-01T00:00:00Z"}'
    credential = '{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": ' + status + "}"
    runs = tmp_path / "runs"
    user = plugin(tmp_path / "plugin", f"echo run >> {runs}\nsleep 0.2\necho '{credential}'")
    authorization = credentials.Authorization(credentials.load(script.kubeconfig(tmp_path / "config", user)))
    authorization.header()
    before = len(runs.read_text().splitlines())
    refresh_due()
    found: list[str | None] = []
    threads = [threading.Thread(target=lambda: found.append(authorization.header())) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert (found, len(runs.read_text().splitlines())) == (["Bearer t"] * 4, before + 1)


# -------------------------------------------------------------------- kubeconfigs that cannot be used


def no_file(path: Path) -> None:
    pass


def directory(path: Path) -> None:
    path.mkdir()


def binary(path: Path) -> None:
    path.write_bytes(b"\xff\xfe\x00")


def text(content: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.write_text(content)

    return make


def changed(**parts: Any) -> Callable[[Path], None]:
    """A good kubeconfig with some of its top-level parts replaced."""

    def make(path: Path) -> None:
        write_kubeconfig(path, "https://192.0.2.1:6443")
        path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | parts))

    return make


def with_user(**user: Any) -> Callable[[Path], None]:
    return changed(users=[{"name": "u", "user": user}])


def with_cluster(**cluster: Any) -> Callable[[Path], None]:
    return changed(clusters=[{"name": "c", "cluster": cluster}])


def failing_plugin(path: Path) -> None:
    with_user(**plugin(path.with_name("plugin"), "echo no luck >&2; exit 3"))(path)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (no_file, "No such file or directory"),
        (directory, "Is a directory"),
        (binary, "not a text file"),
        (text(""), "expected a mapping"),
        (text("just words"), "expected a mapping"),
        (text("a: [1,\nb: }"), "not YAML"),
        (text("{}"), "current-context"),
        (changed(contexts=[]), "contexts"),
        (changed(contexts=7), "not the shape"),
        (changed(contexts="x"), "contexts"),
        (changed(clusters=[{"name": "other"}]), "Expected object with name c"),
        (changed(**{"current-context": "nowhere"}), "Expected object with name nowhere"),
        (with_cluster(), "server"),
        (with_cluster(server="https://192.0.2.1", **{"certificate-authority": "missing.crt"}), "missing.crt"),
        (
            with_cluster(
                server="https://192.0.2.1", **{"certificate-authority-data": base64.b64encode(b"junk").decode()}
            ),
            "certificate authority",
        ),
        (with_cluster(server="https://192.0.2.1", **{"certificate-authority-data": "A"}), "not the shape"),
        (with_user(**{"client-certificate": "missing.crt", "client-key": "missing.key"}), "missing.crt"),
        (with_user(tokenFile="missing-token"), "missing-token"),
        (failing_plugin, "exec plugin"),
    ],
)
def test_a_bad_kubeconfig_gives_one_line_that_names_it_and_the_reason(
    tmp_path: Path, make: Callable[[Path], None], reason: str
) -> None:
    path = tmp_path / "bad-config"
    make(path)
    with pytest.raises(ClientConfigError) as caught:
        connect(path, user_agent="t")
    said = str(caught.value)
    assert str(path) in said
    assert reason in said
    assert "\n" not in said


@pytest.mark.parametrize(
    "make",
    [
        changed(users=[{"name": "u", "token": "s3cret"}]),
        text("users:\n- token: [s3cret\n"),
        text("users:\n\t- token: s3cret\n"),
    ],
)
def test_a_bad_kubeconfig_does_not_put_its_secrets_into_the_log(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "bad-config"
    make(path)
    with pytest.raises(ClientConfigError) as caught:
        connect(path, user_agent="t")
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))


# -------------------------------------------------------------------- TLS


def openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate authority, and under it a server at either loopback address and a client "speaker"."""
    where = tmp_path_factory.mktemp("keys")
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    openssl("req", "-x509", *key, "-subj", "/CN=test-ca", "-keyout", where / "ca.key", "-out", where / "ca.crt")
    for name, extension in (
        ("server", "subjectAltName=IP:127.0.0.1,IP:::1"),
        ("speaker", "extendedKeyUsage=clientAuth"),
    ):
        under = ("-CA", where / "ca.crt", "-CAkey", where / "ca.key", "-addext", extension)
        out = ("-keyout", where / f"{name}.key", "-out", where / f"{name}.crt")
        openssl("req", "-x509", *key, "-subj", f"/CN={name}", *under, *out)
    return where


@pytest.fixture(params=["127.0.0.1", "::1"])
def tls_script(keys: Path, request: pytest.FixtureRequest) -> Iterator[Script]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=keys / "ca.crt")
    context.load_cert_chain(keys / "server.crt", keys / "server.key")
    context.verify_mode = ssl.CERT_OPTIONAL
    with scripted(context, request.param) as one:
        yield one


def inline(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def test_a_client_certificate_says_who_we_are(tls_script: Script, keys: Path, tmp_path: Path) -> None:
    user = {"client-certificate-data": inline(keys / "speaker.crt"), "client-key": str(keys / "speaker.key")}
    cluster = {"certificate_authority_data": inline(keys / "ca.crt")}
    tls_script.answers = [WEB]
    connect(tls_script.kubeconfig(tmp_path / "config", user, **cluster), user_agent="t").get(SERVICES, "dev", "web")
    subject = tls_script.asked[0].certificate["subject"]
    assert subject == ((("commonName", "speaker"),),)


def test_a_server_under_another_authority_is_not_talked_to(tls_script: Script, tmp_path: Path) -> None:
    openssl(
        *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=other"),
        *("-keyout", tmp_path / "other.key", "-out", tmp_path / "other.crt"),
    )
    user = {"token": "s3cret"}
    kubeconfig = tls_script.kubeconfig(tmp_path / "config", user, certificate_authority=str(tmp_path / "other.crt"))
    with pytest.raises(Unreachable, match="certificate verify failed"):
        connect(kubeconfig, user_agent="t").get(SERVICES, "dev", "web")
    assert tls_script.asked == []


def test_a_certificate_without_its_key_gives_one_line(tls_script: Script, keys: Path, tmp_path: Path) -> None:
    user = {"client-certificate": str(keys / "speaker.crt"), "client-key": str(keys / "server.key")}
    kubeconfig = tls_script.kubeconfig(tmp_path / "config", user, certificate_authority=str(keys / "ca.crt"))
    with pytest.raises(ClientConfigError, match=r"config: the client's certificate or key cannot be read"):
        connect(kubeconfig, user_agent="t")


def test_a_watch_over_tls_is_interrupted_at_once(tls_script: Script, keys: Path, tmp_path: Path) -> None:
    client = connect(
        tls_script.kubeconfig(tmp_path / "config", certificate_authority=str(keys / "ca.crt")), user_agent="t"
    )

    def silent(connection: Any) -> None:
        connection.begin_stream()
        connection.chunk(json.dumps({"type": "BOOKMARK", "object": {"metadata": {}}}).encode() + b"\n")
        tls_script.hang(connection)

    tls_script.answers = [silent]
    with client.watch(SERVICES, silence_s=20) as stream:
        events = iter(stream)
        assert next(events).type == "BOOKMARK"
        ended = threading.Event()

        def follow() -> None:
            with suppress(Unreachable):
                next(events, None)
            ended.set()

        threading.Thread(target=follow, daemon=True).start()
        stream.interrupt()
        assert ended.wait(5)


# -------------------------------------------------------------------- in a pod


OFFICIAL = import_module(
    "kubernetes.config.incluster_config"
)  # once cluster.api.client is imported, not the whole package


@pytest.fixture
def pod(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tls_script: Script, keys: Path) -> Path:
    """The directory of a service account, and the variables that a pod has."""
    (tmp_path / "token").write_text("first\n")
    (tmp_path / "ca.crt").write_bytes((keys / "ca.crt").read_bytes())
    monkeypatch.setattr(OFFICIAL, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(OFFICIAL, "SERVICE_CERT_FILENAME", str(tmp_path / "ca.crt"))
    server = urlsplit(tls_script.url)
    monkeypatch.setitem(os.environ, "KUBERNETES_SERVICE_HOST", str(server.hostname))  # an IPv6 address has no brackets
    monkeypatch.setitem(os.environ, "KUBERNETES_SERVICE_PORT", str(server.port))
    return tmp_path


def test_a_pod_uses_its_service_account(pod: Path, tls_script: Script) -> None:
    tls_script.answers = [WEB]
    connect(None, user_agent="t").get(SERVICES, "dev", "web")
    assert tls_script.asked[0].headers["Authorization"] == "bearer first"


@pytest.mark.parametrize("outside", ["127.0.0.0/8,::/64", "127.0.0.1,::1"])
def test_a_proxy_is_not_asked_for_a_server_that_is_excepted(
    pod: Path, tls_script: Script, monkeypatch: pytest.MonkeyPatch, outside: str
) -> None:
    """As Kubernetes' own programs read NO_PROXY: addresses and ranges of either family."""
    monkeypatch.setenv("HTTPS_PROXY", "http://192.0.2.1:3128")
    monkeypatch.setenv("NO_PROXY", outside)
    tls_script.answers = [WEB]
    connect(None, user_agent="t").get(SERVICES, "dev", "web", limit_s=5)
    assert len(tls_script.asked) == 1


def test_a_token_that_was_renewed_is_read_again(
    pod: Path, tls_script: Script, monkeypatch: pytest.MonkeyPatch, refresh_due: Callable[[], None]
) -> None:
    start = datetime.now(UTC)
    clock = SimpleNamespace(now=lambda: start)
    monkeypatch.setattr(OFFICIAL, "datetime", SimpleNamespace(datetime=clock, timedelta=timedelta))
    client = connect(None, user_agent="t")
    (pod / "token").write_text("second")
    tls_script.answers = [WEB, WEB]
    client.get(SERVICES, "dev", "web")
    clock.now = lambda: start + timedelta(hours=1)
    refresh_due()
    client.get(SERVICES, "dev", "web")
    assert [one.headers["Authorization"] for one in tls_script.asked] == ["bearer first", "bearer second"]

    (pod / "token").unlink()
    clock.now = lambda: start + timedelta(hours=2)
    refresh_due()
    with pytest.raises(Unauthorized, match="token"):
        client.get(SERVICES, "dev", "web")


def test_outside_a_pod_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(ClientConfigError, match="not in a cluster, and no --kubeconfig given"):
        connect(None, user_agent="t")
