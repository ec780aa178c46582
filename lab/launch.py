"""Bringing a lab up.

The command that does so holds the lab (a socket pair with the keeper) until everything that was started is ready;
whatever ends that command before, ends the lab. With ``hold`` it goes on holding, and the lab ends with it.
"""

from __future__ import annotations

import http.client
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec

from lab import directory, wire
from lab.client import Lab
from lab.errors import FailedError, LabError, UnusableError
from lab.layout import API_PORT, CONTROL_PLANE, STATUS_PORT, Layout
from lab.messages import ANSWERS, CONTROLLER, SPEAKER, SPEC, Done, LabStatus, Refused, Release, Spec
from lab.processes import python_path

BUILD_S = 30.0  # for the namespaces and the LAN; takes a tenth of a second
END_S = 10.0
READY_S = 60.0  # for the daemons; on two busy cores fifty speakers take half of it to import
KUBELET_READY = b'"KubeletReady"'  # the reason of a Node's condition while it is Ready
LOG_LINES = 8  # of a process that does not become ready
SBIN = "/usr/local/sbin:/usr/sbin:/sbin"  # where nft is, and where an ordinary user's PATH on Debian does not look


class NotReadyError(FailedError):
    """Something that was started is not ready; the message says which, and its log's last lines."""


@dataclass
class Held:
    """A lab that ends with this process, unless it is released."""

    lab: Lab
    holder: socket.socket

    def release(self) -> Lab:
        wire.send(self.holder, Release())
        self.holder.close()
        return self.lab

    def wait(self) -> None:
        """Until the lab has ended."""
        while self.holder.recv(1):
            pass


@dataclass(frozen=True)
class Wanted:
    """What ``up`` is asked for. ``Spec`` says what the fields mean."""

    name: str
    layout: Layout
    daemons: bool = True
    node_grace: float = 5.0
    controller_args: tuple[str, ...] = ()
    speaker_args: tuple[str, ...] = ()


def up(wanted: Wanted, progress: Callable[[str], None] = lambda _: None) -> Held:
    """Make a lab and wait until what it starts is ready; ``progress`` is told what is waited for.

    Raises ``UnusableError`` where this machine cannot run one, ``NotReadyError`` where something did not become ready
    (the lab has ended then), and ``LabError`` for all else, such as a lab of that name that is up.
    """
    _check_programs()
    path = directory.lab_directory(wanted.name)
    lock = directory.take_lock(path)
    if lock is None:
        raise LabError(
            f"lab {wanted.name} is already up; `lab down --name {wanted.name}` ends it, or choose another --name"
        )
    progress("building the LAN")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    held = Held(Lab(wanted.name, path), ours)
    try:
        _build(wanted, lock, held, theirs)
        await_ready(held.lab, progress)
    except BaseException:
        ours.close()  # the keeper notices, if there is one by now
        _clear_when_ended(path)
        raise
    return held


def _clear_when_ended(path: Path) -> None:
    """Wait until a lab that is given up has ended, and that its files are gone, whoever could remove them."""
    deadline = time.monotonic() + END_S
    while (lock := directory.take_lock(path)) is None:
        if time.monotonic() > deadline:
            return
        time.sleep(0.005)
    directory.clear(path)
    os.close(lock)


def _check_programs() -> None:
    path = os.environ.get("PATH", os.defpath) + ":" + SBIN
    if shutil.which("nft", path=path) is None:
        raise UnusableError("nft is missing: install the package nftables (apt-get install nftables)")


def _build(wanted: Wanted, lock: int, held: Held, theirs: socket.socket) -> None:
    """Write the lab's files, start its keeper, and wait until the keeper has built it."""
    path = held.lab.directory
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as api, theirs:
        try:
            shutil.rmtree(path, ignore_errors=True)  # of a lab that is dead: we have its lock
            path.mkdir(mode=0o700)
            port = api.getsockname()[1]
            spec = Spec(
                name=wanted.name,
                layout=wanted.layout,
                directory=str(path),
                api_port=port,
                daemons=wanted.daemons,
                node_grace=wanted.node_grace,
                controller_args=wanted.controller_args,
                speaker_args=wanted.speaker_args,
            )
            _write_kubeconfig(path / "kubeconfig", f"http://127.0.0.1:{port}", wanted.name)
            inside = f"http://{wanted.layout.control_plane.address}:{API_PORT}"
            _write_kubeconfig(path / "kubeconfig-inside", inside, wanted.name)
            (path / SPEC).write_bytes(msgspec.json.encode(spec))
            _start_guard(path, lock, api, theirs)
        finally:
            os.close(lock)
    held.holder.settimeout(BUILD_S)
    try:
        received = wire.receive(held.holder, ANSWERS)
    except OSError as error:
        raise LabError(f"the lab does not come up: {error}") from error
    if received is None or not isinstance(received[0], Done):
        raise UnusableError(received[0].reason if received and isinstance(received[0], Refused) else _last_line(path))
    held.holder.settimeout(None)


def _start_guard(path: Path, lock: int, api: socket.socket, holder: socket.socket) -> None:
    """Start the guard, which starts the keeper."""
    with directory.control_listener(path) as control, (path / "keeper.log").open("ab") as log:
        fds = (lock, control.fileno(), api.fileno(), holder.fileno())
        environment = {
            **os.environ,
            "PYTHONPATH": python_path(),
            "PATH": os.environ.get("PATH", os.defpath) + ":" + SBIN,
        }
        subprocess.run(
            [sys.executable, "-m", "lab.guard", str(path), *map(str, fds)],
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


def _write_kubeconfig(path: Path, server: str, name: str) -> None:
    """A kubeconfig for the lab's API server, which asks for no authentication. (JSON is YAML.)"""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"server": server}}],
        "users": [{"name": name, "user": {}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    }
    path.write_bytes(msgspec.json.format(msgspec.json.encode(config)))


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
    port = int(status.api_server.rpartition(":")[2])

    def api_is_ready() -> bool:
        return _get(http.client.HTTPConnection("127.0.0.1", port, timeout=2.0), "/readyz") is not None

    def nodes_are_ready() -> bool:
        body = _get(http.client.HTTPConnection("127.0.0.1", port, timeout=2.0), "/api/v1/nodes")
        return body is not None and body.count(KUBELET_READY) == len(status.layout.nodes)

    def daemon_is_ready(address: str) -> bool:
        connection = http.client.HTTPConnection(address, STATUS_PORT, timeout=2.0)
        with lab.open_socket(CONTROL_PLANE) as connection.sock:
            connection.sock.settimeout(2.0)
            try:
                connection.sock.connect((address, STATUS_PORT))
            except OSError:
                return False
            return _get(connection, "/readyz") is not None

    waiting = [
        _Awaited(CONTROL_PLANE, "apiserver", api_is_ready),
        _Awaited(CONTROL_PLANE, "stand-ins", nodes_are_ready),
    ]
    if status.daemons:
        daemons = [(status.layout.control_plane, CONTROLLER), *((node, SPEAKER) for node in status.layout.nodes)]
        waiting += [_Awaited(host.name, name, partial(daemon_is_ready, host.address)) for host, name in daemons]
    return waiting


def _get(connection: http.client.HTTPConnection, path: str) -> bytes | None:
    """The body of an answer with status 200; None for anything else, no answer included."""
    try:
        connection.request("GET", path)
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
