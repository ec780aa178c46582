"""How one waits until a lab is ready.

Every process that the lab's ``Spec`` asks for is asked in turn, as Kubernetes would ask it: ``/readyz`` of the API
server, the controllers and the speakers, ``/healthz`` of the proxies, the Nodes' conditions. A process that has ended,
or is not ready in time, is an error with the last lines of its log.
"""

from __future__ import annotations

import base64
import http.client
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from lab.client import Lab
from lab.control.messages import SPEAKER, LabStatus
from lab.controlplane.commands import PROXY_HEALTH_PORT
from lab.errors import FailedError
from lab.layout import CONTROL_PLANE, STATUS_PORT
from lab.machines.hosts import socket_family

READY_S = 60.0  # for the daemons; on two busy cores fifty speakers take half of it to import
KUBELET_READY = b'"KubeletReady"'  # the reason of a Node's condition while it is Ready
LOG_LINES = 8  # of a process that does not become ready


class NotReadyError(FailedError):
    """Something that was started is not ready; the message says which, and its log's last lines."""


@dataclass(frozen=True)
class _Awaited:
    """Something that must become ready: a process of a host, and how one asks."""

    host: str
    process: str
    is_ready: Callable[[], bool]


def await_ready(lab: Lab, progress: Callable[[str], None] = lambda _: None) -> None:
    """Wait until everything that runs in a lab is ready. Raises ``NotReadyError``."""
    waiting = _awaited(lab, lab.status())
    deadline = time.monotonic() + READY_S
    while waiting:
        awaited = waiting[0]
        progress(f"waiting for {awaited.process} on {awaited.host}")
        if awaited.is_ready():
            waiting.pop(0)
            continue
        ours = {(each.host, each.process) for each in waiting}
        ended = next((p for p in lab.status().processes if not p.running and (p.host, p.name) in ours), None)
        if ended is not None:
            raise _not_ready(lab, ended.host, ended.name, f"has ended with {ended.code}")
        if time.monotonic() > deadline:
            raise _not_ready(lab, awaited.host, awaited.process, f"is not ready after {READY_S:.0f} s")
        time.sleep(0.02)


def _awaited(lab: Lab, status: LabStatus) -> list[_Awaited]:
    """In the order in which they can become ready."""
    api = _Api(lab)

    def nodes_are_ready() -> bool:
        body = api.get("/api/v1/nodes")
        return body is not None and body.count(KUBELET_READY) == len(status.layout.nodes)

    def namespaces_take_pods() -> bool:
        """kube-controller-manager makes each namespace's first ServiceAccount, without which it takes no pods."""
        return api.get("/api/v1/namespaces/default/serviceaccounts/default") is not None

    def is_healthy(address: str, port: int, path: str, asker: str = CONTROL_PLANE) -> bool:
        connection = http.client.HTTPConnection(address, port, timeout=2.0)
        with lab.open_socket(asker, socket_family(address)) as connection.sock:
            connection.sock.settimeout(2.0)
            try:
                connection.sock.connect((address, port))
            except OSError:
                return False
            return _get(connection, path) is not None

    waiting = [
        _Awaited(CONTROL_PLANE, "apiserver", lambda: api.get("/readyz") is not None),
        _Awaited(CONTROL_PLANE, "stand-ins", nodes_are_ready),
    ]
    if status.control_plane == "kubernetes":
        waiting.append(_Awaited(CONTROL_PLANE, "kube-controller-manager", namespaces_take_pods))
        for node in status.layout.nodes:
            proxy_is_ready = partial(is_healthy, node.address, PROXY_HEALTH_PORT, "/healthz")
            waiting.append(_Awaited(node.name, "kube-proxy", proxy_is_ready))
    if status.daemons:
        address = status.layout.control_plane.address
        for name, port in status.controller_ports.items():
            waiting.append(_Awaited(CONTROL_PLANE, name, partial(is_healthy, address, port, "/readyz")))
        for node in (
            status.layout.nodes if status.speakers else ()
        ):  # a speaker answers its own node, whose kubelet would ask
            asked = partial(is_healthy, "127.0.0.1", STATUS_PORT, "/readyz", asker=node.name)
            waiting.append(_Awaited(node.name, SPEAKER, asked))
    return waiting


class _Api:
    """A lab's API server, asked without the API's client, which is slow to import."""

    def __init__(self, lab: Lab) -> None:
        config = msgspec.json.decode(lab.kubeconfig.read_bytes())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self.address = urlsplit(cluster["server"])
        self.headers = {"Authorization": f"Bearer {user['token']}"} if "token" in user else {}
        self.context: ssl.SSLContext | None = None
        if self.address.scheme == "https":
            authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
            self.context = ssl.create_default_context(cadata=authority)

    def get(self, path: str) -> bytes | None:
        """As ``_get``."""
        host, port = str(self.address.hostname), self.address.port
        if self.context is None:
            return _get(http.client.HTTPConnection(host, port, timeout=2.0), path)
        return _get(http.client.HTTPSConnection(host, port, timeout=2.0, context=self.context), path, self.headers)


def _get(connection: http.client.HTTPConnection, path: str, headers: Mapping[str, str] | None = None) -> bytes | None:
    """The body of an answer with status 200; None for anything else, no answer included."""
    try:
        connection.request("GET", path, headers=headers or {})
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return body if answer.status == 200 else None


def _not_ready(lab: Lab, host: str, process: str, how: str) -> NotReadyError:
    return NotReadyError(f"{process} on {host} {how}\n{_tail(lab.log(host, process))}".rstrip())


def _tail(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").splitlines()[-LOG_LINES:]
    except OSError:
        lines = []
    return "\n".join(f"  {line}" for line in lines)
