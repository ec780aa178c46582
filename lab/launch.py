"""How a lab is made.

``up`` makes a lab in four steps:

1. It takes the lab's lock and writes the lab's files: the ``Spec``, kubeconfigs, and the credentials of a real control
   plane.
2. It starts the guard (``lab.keeper.guard``), which starts the keeper in namespaces of its own.
3. It waits until the keeper has built the LAN and started every process.
4. It asks each process until all are ready (``lab.readiness``).

A socket pair ties the lab to the process that called ``up``. The keeper ends the lab when that process ends, whatever
ended it, until ``Launched.release`` is called.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import msgspec

from lab.assets.gather import Assets
from lab.client import Lab
from lab.control import channel, directory
from lab.control.messages import ANSWERS, SPEC, Declined, Done, LetGo, ProxyMode, Spec
from lab.controlplane import credentials
from lab.controlplane.commands import LEAST_GRACE_S
from lab.errors import LabError, UnusableError
from lab.layout import API_PORT, Layout, url_host
from lab.machines.processes import python_path
from lab.readiness import await_ready
from lab.shipped.rights import DAEMONS, DaemonName, Rights, rights_of

BUILD_S = 30.0  # for the namespaces and the LAN; takes a tenth of a second
END_S = 10.0
SBIN = "/usr/local/sbin:/usr/sbin:/sbin"  # where nft is, and where an ordinary user's PATH on Debian does not look


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
    speakers: bool = True
    node_grace: float = 5.0
    assets: Assets | None = None
    """The programs of a real control plane; None: the embedded one."""
    proxy_mode: ProxyMode = "nftables"
    controllers: int = 1
    controller_args: tuple[str, ...] = ()
    speaker_args: tuple[str, ...] = ()
    rights: dict[DaemonName, Rights] = field(default_factory=dict)
    """Of daemons that do not have those of ``deploy/berthlb.yaml``."""


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


def _search_path() -> str:
    """Where the lab's programs are looked for, before it is made and by its keeper."""
    return os.environ.get("PATH", os.defpath) + ":" + SBIN


def _check_programs(recipe: Recipe) -> None:
    path = _search_path()
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
                speakers=recipe.speakers,
                node_grace=recipe.node_grace,
                controllers=recipe.controllers,
                controller_args=recipe.controller_args,
                speaker_args=recipe.speaker_args,
                rights={daemon: rights_of(daemon) for daemon in DAEMONS} | recipe.rights,
                programs={each: str(found.path) for each, found in recipe.assets.programs.items()}
                if recipe.assets
                else {},
                proxy_mode=recipe.proxy_mode,
            )
            if recipe.assets:
                credentials.make_credentials(spec)
            else:
                inside = f"http://{url_host(recipe.layout.control_plane.address)}:{API_PORT}"
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
        environment = {**os.environ, "PYTHONPATH": python_path(), "PATH": _search_path()}
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
