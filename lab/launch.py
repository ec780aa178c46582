"""How a lab is made, and how one waits until it is ready.

``up`` makes a lab in four steps:

1. It takes the lab's lock and writes the lab's files: the ``Spec``, kubeconfigs, and the credentials of a real control
   plane.
2. It starts the guard (``lab.keeper.guard``), which starts the keeper in namespaces of its own.
3. It waits until the keeper has built the LAN and started every process.
4. It asks each process until all are ready.

A socket pair ties the lab to the process that called ``up``. The keeper ends the lab when that process ends, whatever
ended it, until ``Launched.release`` is called.
"""

from __future__ import annotations

import base64
import http.client
import os
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit

import msgspec

from lab.assets.gather import Assets
from lab.client import Lab
from lab.control import channel, directory
from lab.control.messages import ANSWERS, SPEAKER, SPEC, Declined, Done, LabStatus, LetGo, ProxyMode, Spec
from lab.controlplane import credentials
from lab.controlplane.commands import LEAST_GRACE_S, PROXY_HEALTH_PORT
from lab.errors import FailedError, LabError, UnusableError
from lab.layout import API_PORT, CONTROL_PLANE, STATUS_PORT, Layout
from lab.machines.processes import python_path
from lab.shipped.rights import DAEMONS, rights_of

BUILD_S = 30.0  # for the namespaces and the LAN; takes a tenth of a second
END_S = 10.0
READY_S = 60.0  # for the daemons; on two busy cores fifty speakers take half of it to import
KUBELET_READY = b'"KubeletReady"'  # the reason of a Node's condition while it is Ready
LOG_LINES = 8  # of a process that does not become ready
SBIN = "/usr/local/sbin:/usr/sbin:/sbin"  # where nft is, and where an ordinary user's PATH on Debian does not look


class NotReadyError(FailedError):
    """Something that was started is not ready; the message says which, and its log's last lines."""


@dataclass
class Launched:
    """A lab that ends with this process unless it is released. As a ``with`` block it gives the lab, and ends it."""

    lab: Lab
    tie: socket.socket
    """To the keeper, which ends the lab when this is closed."""

    def release(self) -> Lab:
        """Let the lab outlive this process."""
        channel.send(self.tie, LetGo())
        self.tie.close()
        return self.lab

    def wait(self) -> None:
        """Return when the lab has ended."""
        while self.tie.recv(1):
            pass

    def __enter__(self) -> Lab:
        return self.lab

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if directory.is_alive(self.lab.directory):
            self.lab.down()
        self.tie.close()


@dataclass(frozen=True)
class Recipe:
    """What ``up`` is asked for. ``Spec`` says what the fields mean."""

    name: str
    layout: Layout
    daemons: bool = True
    node_grace: float = 5.0
    assets: Assets | None = None
    """The programs of a real control plane; None: the embedded one."""
    proxy_mode: ProxyMode = "nftables"
    controllers: int = 1
    controller_args: tuple[str, ...] = ()
    speaker_args: tuple[str, ...] = ()


def up(recipe: Recipe, progress: Callable[[str], None] = lambda _: None) -> Launched:
    """Make a lab and wait until what it starts is ready; ``progress`` is told what is waited for.

    Raises ``UnusableError`` where this machine cannot run one, ``NotReadyError`` where something did not become ready
    (the lab has ended then), and ``LabError`` for all else, such as a lab of that name that is up.
    """
    _check_programs(recipe)
    path = directory.lab_directory(recipe.name)
    lock = directory.take_lock(path)
    if lock is None:
        raise LabError(
            f"lab {recipe.name} is already up; `lab down --name {recipe.name}` ends it, or choose another --name"
        )
    progress("building the LAN")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    launched = Launched(Lab(recipe.name, path), ours)
    try:
        _build(recipe, lock, launched, theirs)
        await_ready(launched.lab, progress)
    except BaseException:
        ours.close()  # the keeper notices, if there is one by now
        _clear_when_ended(path)
        raise
    return launched


def _clear_when_ended(path: Path) -> None:
    """Wait until a lab that is given up has ended, and remove what is left of its files."""
    deadline = time.monotonic() + END_S
    while (lock := directory.take_lock(path)) is None:
        if time.monotonic() > deadline:
            return
        time.sleep(0.005)
    directory.clear(path)
    os.close(lock)


def _check_programs(recipe: Recipe) -> None:
    path = os.environ.get("PATH", os.defpath) + ":" + SBIN
    if shutil.which("nft", path=path) is None:
        raise UnusableError("nft is missing: install the package nftables (apt-get install nftables)")
    if recipe.assets is None:
        return
    if recipe.proxy_mode == "iptables" and shutil.which("iptables-restore", path=path) is None:
        raise UnusableError("iptables is missing: install the package iptables (apt-get install iptables)")
    if recipe.node_grace < LEAST_GRACE_S:
        raise LabError(f"--node-grace: a real control plane needs {LEAST_GRACE_S:g} s at least")


def _build(recipe: Recipe, lock: int, launched: Launched, theirs: socket.socket) -> None:
    """Write the lab's files, start its keeper, and wait until the keeper has built it."""
    path = launched.lab.directory
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as api, theirs:
        try:
            shutil.rmtree(path, ignore_errors=True)  # of a lab that is dead: we have its lock
            path.mkdir(mode=0o700)
            port = api.getsockname()[1]
            spec = Spec(
                name=recipe.name,
                layout=recipe.layout,
                directory=str(path),
                api_port=port,
                daemons=recipe.daemons,
                node_grace=recipe.node_grace,
                controllers=recipe.controllers,
                controller_args=recipe.controller_args,
                speaker_args=recipe.speaker_args,
                rights={daemon: rights_of(daemon) for daemon in DAEMONS},
                programs={each: str(found.path) for each, found in recipe.assets.programs.items()}
                if recipe.assets
                else {},
                proxy_mode=recipe.proxy_mode,
            )
            if recipe.assets:
                credentials.make_credentials(spec)
            else:
                inside = f"http://{recipe.layout.control_plane.address}:{API_PORT}"
                for file, server in (("kubeconfig", f"http://127.0.0.1:{port}"), ("kubeconfig-inside", inside)):
                    credentials.write_kubeconfig(path / file, recipe.name, {"server": server}, {})
            (path / SPEC).write_bytes(msgspec.json.encode(spec))
            _start_guard(path, lock, api, theirs)
        finally:
            os.close(lock)
    launched.tie.settimeout(BUILD_S)
    try:
        received = channel.receive(launched.tie, ANSWERS)
    except OSError as error:
        raise LabError(f"the lab does not come up: {error}") from error
    if received is None or not isinstance(received[0], Done):
        raise UnusableError(received[0].reason if received and isinstance(received[0], Declined) else _last_line(path))
    launched.tie.settimeout(None)


def _start_guard(path: Path, lock: int, api: socket.socket, tie: socket.socket) -> None:
    """Start the guard, which starts the keeper."""
    with directory.control_listener(path) as control, (path / "keeper.log").open("ab") as log:
        fds = (lock, control.fileno(), api.fileno(), tie.fileno())
        environment = {
            **os.environ,
            "PYTHONPATH": python_path(),
            "PATH": os.environ.get("PATH", os.defpath) + ":" + SBIN,
        }
        subprocess.run(
            [sys.executable, "-m", "lab.keeper.guard", str(path), *map(str, fds)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=fds,
            cwd="/",
            env=environment,
            start_new_session=True,
            check=False,
        )


def _last_line(path: Path) -> str:
    try:
        lines = (path / "keeper.log").read_text().splitlines()
    except OSError:
        lines = []
    return f"the keeper ended: {lines[-1] if lines else 'it said nothing'}"


# ------------------------------------------------------------------------ readiness


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
        with lab.open_socket(asker) as connection.sock:
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
        for node in status.layout.nodes:  # a speaker answers its own node, whose kubelet would ask
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
