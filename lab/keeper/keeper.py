"""The keeper: the process that is the lab.

It is the first process of the lab's own PID namespace, in mount and network namespaces of its own, and in a user
namespace where the user is not root. Every other process of the lab is its descendant, and its descriptors alone keep
every network namespace. So the kernel ends the whole lab when the keeper ends, for whatever reason, SIGKILL included.
Outside, the *guard* (its parent) waits for that end and removes the lab's files.

The keeper listens to five sources, in one loop (``loop``):

- the control socket, whose clients ask it to run commands and to cause faults (``clients``),
- the process that launched the lab: the lab ends with it until that process lets it go,
- the guard's pipe, which closes when the guard is killed,
- the stand-ins for kubelets, which ask it to start and stop pods (``pods``),
- signals.
"""

from __future__ import annotations

import contextlib
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

from lab.control import channel
from lab.control.messages import (
    FROM_STAND_INS,
    REQUESTS,
    SPEAKER,
    Act,
    AnyRequest,
    ApiReady,
    Cable,
    Done,
    Down,
    DropFrames,
    Ended,
    Exec,
    GetStatus,
    LabStatus,
    LetGo,
    NodeDown,
    NodeUp,
    PodStarted,
    Power,
    ProcessStatus,
    Signal,
    Socket,
    Spec,
    Started,
    StartPod,
    StopPod,
    ToStandIns,
)
from lab.keeper.acts import Acts, RefusedError
from lab.keeper.clients import Clients, Connection
from lab.keeper.loop import KeeperLoop
from lab.keeper.pods import Pods
from lab.keeper.starter import Starter
from lab.layout import API_PORT, Host, url_host
from lab.machines import processes
from lab.machines.children import Children
from lab.machines.hosts import Hosts


@dataclass(frozen=True)
class Inherited:
    """What the keeper is born with."""

    control: socket.socket
    """The listening control socket."""
    api: socket.socket
    """A socket that listens on the machine's 127.0.0.1, for the API server."""
    launcher: socket.socket
    """To the command that brings the lab up."""
    guard: int
    """A pipe that is at its end when the guard is."""
    pid_outside: int
    """Our own process id, as the machine sees it."""


class Keeper:
    """The lab from inside: its hosts, its processes, and what clients ask of them."""

    def __init__(self, spec: Spec, inherited: Inherited, hosts: Hosts) -> None:
        self.spec = spec
        self.outside_api = inherited.api
        self.hosts = hosts
        self.pid_outside = inherited.pid_outside
        self.api_is_ready = spec.control_plane == "embedded"  # its sockets listen already
        self.guard_is_gone = False
        self.children = Children(Path(spec.directory), hosts)
        self.loop = KeeperLoop(on_child_ended=self.children.reap)
        self.starter = Starter(spec, hosts, self.children)
        self.acts = Acts(self.children, self.starter, self.loop.after)
        self.pods = Pods(hosts, self.children, self.tell)
        self.clients = Clients(self.loop, inherited.control, self.carry_out)
        self.stand_ins: socket.socket | None = None
        self.loop.when_readable(inherited.guard, self.lose_guard)
        self.loop.when_readable(inherited.launcher, lambda: self.hear_launcher(inherited.launcher))

    def lose_guard(self) -> None:
        self.guard_is_gone = True
        self.loop.end()

    def hear_launcher(self, launcher: socket.socket) -> None:
        """Take note that the command that brought the lab up lets go of it, or is gone."""
        try:
            received = channel.receive(launcher, REQUESTS)
        except (OSError, channel.MessageError):
            received = None
        if received is None:
            self.loop.end()
        self.loop.forget(launcher)
        launcher.close()

    # -------------------------------------------------------------------- bringing up

    def start_control_plane(self) -> None:
        """Start what needs no LAN: these programs import for longer than the LAN takes to build."""
        if self.spec.control_plane == "embedded":
            self.starter.start_embedded_api_server(self.outside_api)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.stand_ins = ours
        self.starter.start_stand_ins(theirs)
        theirs.close()
        self.loop.when_readable(ours, lambda: self.hear_stand_ins(ours))

    def start_rest(self) -> None:
        """Build the LAN, and start the nodes and our daemons."""
        self.hosts.build_lan()
        if self.spec.control_plane == "kubernetes":
            self.starter.start_kubernetes(self.outside_api)
        self.outside_api.close()
        for node in self.spec.layout.nodes:
            self.tell_node_up(node)
        if self.api_is_ready:
            self.starter.start_daemons()

    def note_api_ready(self) -> None:
        """Start what would end without an API server, now that the real one answers."""
        self.api_is_ready = True
        self.starter.start_controller_manager()
        self.starter.start_daemons()

    # -------------------------------------------------------------------- stand-ins

    def tell(self, message: ToStandIns, descriptors: tuple[int, ...] = ()) -> None:
        if self.stand_ins is not None:
            with contextlib.suppress(OSError):  # they are gone; their process' end is reported as such
                channel.send(self.stand_ins, message, descriptors)

    def tell_node_up(self, node: Host) -> None:
        self.tell(NodeUp(node.name), (self.hosts.namespace(node.name),))

    def hear_stand_ins(self, stand_ins: socket.socket) -> None:
        try:
            received = channel.receive(stand_ins, FROM_STAND_INS)
        except OSError:
            received = None
        if received is None:
            self.loop.forget(stand_ins)
            stand_ins.close()
            self.stand_ins = None
            return
        match received[0]:
            case ApiReady():
                self.note_api_ready()
            case StartPod() as wanted:
                self.tell(PodStarted(wanted.pod, self.pods.start(wanted)))
            case StopPod() as unwanted:
                self.pods.stop(unwanted)

    # -------------------------------------------------------------------- what clients ask

    def carry_out(self, request: AnyRequest, descriptors: list[int], connection: Connection) -> None:
        match request:
            case GetStatus(memory=memory):
                connection.answer(self.status(memory=memory))
            case Exec():
                self.start_command(request, descriptors, connection)
            case Signal(number=number):
                if connection.command is not None:
                    connection.command.signal_group(number)
            case Socket():
                host = self.powered(request.host)
                with self.hosts.inside(host.name):
                    made = socket.socket(request.family, request.type, request.protocol)
                with made:
                    connection.answer(Done(), (made.fileno(),))
            case Power(node=node, on=on):
                self.set_power(self.node(node), on=on)
                connection.answer(Done())
            case Cable(host=host_name, up=up):
                self.set_link(self.powered(host_name), up=up)
                connection.answer(Done())
            case DropFrames(frames=frames):
                self.drop(frames)
                connection.answer(Done())
            case Act(host=host_name):
                self.powered(host_name)
                self.acts.carry_out(request, connection.answer)
            case LetGo():
                raise RefusedError("only who brings the lab up can release it")
            case Down():
                connection.answer(Done())
                self.loop.end()
            case _:
                assert_never(request)

    def host(self, name: str) -> Host:
        host = self.spec.layout.find(name)
        if host is None:
            known = ", ".join(known.name for known in self.spec.layout.hosts)
            raise RefusedError(f"no host {name!r}; there are {known}")
        return host

    def powered(self, name: str) -> Host:
        host = self.host(name)
        if not self.hosts.has_power(name):
            raise RefusedError(f"{name} has no power")
        return host

    def node(self, name: str) -> Host:
        host = self.host(name)
        if host.role != "node":
            raise RefusedError(f"{name} is not a node")
        return host

    def start_command(self, request: Exec, descriptors: list[int], connection: Connection) -> None:
        host = self.powered(request.host)
        if connection.command is not None:
            raise RefusedError("this connection has a command already")
        if len(descriptors) != 3 or not request.argv:
            raise RefusedError("a command needs arguments and three descriptors")
        pid = processes.run_program(
            host.name,
            self.hosts.namespace(host.name),
            request.argv,
            {**request.environment, "KUBECONFIG": self.children.kubeconfig},
            streams=(descriptors[0], descriptors[1], descriptors[2]),
            directory=request.directory,
            terminal=request.terminal,
        )
        connection.command = self.children.keep(
            host.name, f"exec {request.argv[0]}", pid, on_end=lambda code: connection.answer(Ended(code))
        )
        connection.answer(Started(pid))

    def status(self, *, memory: bool) -> LabStatus:
        shown: list[ProcessStatus] = []
        for process in self.children.known():
            shown.append(self.show(process.host, process.name, process.pid, process.code, memory=memory))
            if process.name == SPEAKER and process.running:
                shown += [
                    self.show(process.host, "speaker watcher", pid, None, memory=memory)
                    for pid in processes.children_of(process.pid)
                ]
        shown.append(self.show("", "keeper", os.getpid(), None, memory=memory))
        scheme = "https" if self.spec.control_plane == "kubernetes" else "http"
        return LabStatus(
            name=self.spec.name,
            keeper_pid=self.pid_outside,
            directory=self.spec.directory,
            kubeconfig=str(Path(self.spec.directory, "kubeconfig")),
            kubeconfig_inside=self.children.kubeconfig,
            api_server=f"{scheme}://127.0.0.1:{self.spec.api_port}",
            api_server_inside=f"{scheme}://{url_host(self.spec.layout.control_plane.address)}:{API_PORT}",
            layout=self.spec.layout,
            control_plane=self.spec.control_plane,
            daemons=self.spec.daemons,
            speakers=self.spec.speakers,
            controller_ports=self.spec.controller_ports,
            node_grace=self.spec.node_grace,
            hosts=self.hosts.status(self.pid_outside),
            processes=tuple(shown),
        )

    @staticmethod
    def show(host: str, name: str, pid: int, code: int | None, *, memory: bool) -> ProcessStatus:
        pss = processes.memory_of(pid) if memory and code is None else None
        return ProcessStatus(host, name, pid, running=code is None, code=code, pss_kib=pss)

    # -------------------------------------------------------------------- faults

    def set_power(self, node: Host, *, on: bool) -> None:
        if on == self.hosts.has_power(node.name):
            raise RefusedError(f"{node.name} {'has power already' if on else 'has no power'}")
        if on:
            self.hosts.switch_on(node)
            self.tell_node_up(node)
            if self.api_is_ready:
                self.starter.start_node_daemons(node)
            return
        for process in self.children.running.values():
            if process.host == node.name and not process.name.startswith("exec "):
                process.on_end = None  # a node that dies says nothing about its pods
        self.hosts.cut_power(node)
        self.children.reap()
        self.tell(NodeDown(node.name, power=False))

    def set_link(self, host: Host, *, up: bool) -> None:
        self.hosts.set_link(host, up=up)
        if host.role == "node":
            if up:
                self.tell_node_up(host)
            else:
                self.tell(NodeDown(host.name, power=True))

    def drop(self, frames: tuple[str, ...]) -> None:
        try:
            self.hosts.drop(frames)
        except ValueError as error:
            raise RefusedError(str(error)) from error
