"""The keeper: the process that is the lab.

It is the first process of the lab's own PID namespace, in mount, network and (for whoever is not root) user namespaces
of its own. Everything else in the lab is its descendant, and every namespace is held by its descriptors; so whatever
ends the keeper, SIGKILL included, ends the whole lab, and the kernel does it. Beside it, outside, a *guard* (its
parent) waits for nothing but that end, and removes the lab's files.

One thread, one selector: the control socket and its connections, the command that is still bringing the lab up (its
end of a socket pair closes when that command dies, and the lab ends with it unless it was released), the guard's pipe,
the stand-ins, and signals. Nothing here waits; what takes time is answered when a process has ended.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lab.control import channel
from lab.control.messages import (
    FROM_STAND_INS,
    REQUESTS,
    SPEAKER,
    Act,
    AnyAnswer,
    AnyRequest,
    ApiReady,
    Declined,
    Done,
    Down,
    Ended,
    Exec,
    GetStatus,
    LabStatus,
    LetGo,
    Link,
    NodeDown,
    NodeUp,
    PodEnded,
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
from lab.keeper.starter import Starter
from lab.layout import API_PORT, Host
from lab.machines import processes
from lab.machines.children import Children
from lab.machines.hosts import Hosts
from lab.machines.processes import Process
from lab.standins import workload


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


@dataclass(eq=False)
class Connection:
    """One client of the control socket."""

    socket: socket.socket
    command: Process | None = None
    """What it started; it dies with the connection."""


@dataclass(order=True)
class Timer:
    due: float
    act: Callable[[], None] = field(compare=False)


class Keeper:
    """The lab from inside: its hosts, its processes, and what clients ask of them."""

    def __init__(self, spec: Spec, inherited: Inherited, hosts: Hosts) -> None:
        self.spec = spec
        self.listener = inherited.control
        self.outside_api = inherited.api
        self.hosts = hosts
        self.pid_outside = inherited.pid_outside
        self.stopping = False
        self.api_is_ready = spec.control_plane == "embedded"  # its sockets listen already
        self.guard_is_gone = False
        self.children = Children(Path(spec.directory), hosts)
        self.starter = Starter(spec, hosts, self.children)
        self.acts = Acts(self.children, self.starter, self.after)
        self.timers: list[Timer] = []
        self.stand_ins: socket.socket | None = None
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.listener, selectors.EVENT_READ, self.accept)
        self.selector.register(inherited.guard, selectors.EVENT_READ, self.lose_guard)
        self.selector.register(inherited.launcher, selectors.EVENT_READ, lambda: self.hear_launcher(inherited.launcher))
        self._catch_signals()

    # -------------------------------------------------------------------- the loop

    def run(self) -> None:
        """Serve until told to end, by a message, a signal, or the end of who holds the lab."""
        while not self.stopping:
            now = time.monotonic()
            wait = max(0.0, self.timers[0].due - now) if self.timers else None
            for key, _ in self.selector.select(wait):
                key.data()
            while self.timers and self.timers[0].due <= time.monotonic():
                self.timers.pop(0).act()

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        self.timers = sorted([*self.timers, Timer(time.monotonic() + seconds, act)])

    def end(self) -> None:
        self.stopping = True

    def lose_guard(self) -> None:
        self.guard_is_gone = True
        self.end()

    def _catch_signals(self) -> None:
        reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)

        def hear() -> None:
            numbers = os.read(reading, 4096)
            if signal.SIGTERM in numbers or signal.SIGINT in numbers:
                self.end()
            self.children.reap()

        self.selector.register(reading, selectors.EVENT_READ, hear)

    def hear_launcher(self, launcher: socket.socket) -> None:
        """The command that brings the lab up lets go of it, or is gone."""
        try:
            received = channel.receive(launcher, REQUESTS)
        except (OSError, channel.MessageError):
            received = None
        if received is None:
            self.end()
        self.selector.unregister(launcher)
        launcher.close()

    # -------------------------------------------------------------------- bringing up

    def start_control_plane(self) -> None:
        """What can start before there is a LAN: importing takes it longer than that takes us."""
        if self.spec.control_plane == "embedded":
            self.starter.start_embedded_api_server(self.outside_api)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.stand_ins = ours
        self.starter.start_stand_ins(theirs)
        theirs.close()
        self.selector.register(ours, selectors.EVENT_READ, lambda: self.hear_stand_ins(ours))

    def start_rest(self) -> None:
        """The LAN, the nodes and our daemons."""
        self.hosts.build_lan()
        if self.spec.control_plane == "kubernetes":
            self.starter.start_kubernetes(self.outside_api)
        self.outside_api.close()
        for node in self.spec.layout.nodes:
            self.tell_node_up(node)
        if self.api_is_ready:
            self.starter.start_daemons()

    def note_api_ready(self) -> None:
        """The real control plane's other programs would end without an API server."""
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
            self.selector.unregister(stand_ins)
            stand_ins.close()
            self.stand_ins = None
            return
        match received[0]:
            case ApiReady():
                self.note_api_ready()
            case StartPod() as wanted:
                self.tell(PodStarted(wanted.pod, self.start_pod(wanted)))
            case StopPod() as unwanted:
                self.stop_pod(unwanted)

    def start_pod(self, wanted: StartPod) -> str | None:
        """Run a workload's server; the reason if that is not possible."""
        if not self.hosts.has_power(wanted.node):
            return f"{wanted.node} has no power"
        name = pod_process(wanted.pod)
        if self.children.find(wanted.node, name) is not None:
            return None
        try:
            listeners = self.hosts.listen_as_pod(wanted.node, wanted.address, wanted.ports)
        except OSError as error:
            return f"cannot listen at {wanted.address}: {error.strerror}"
        short = wanted.pod.partition("/")[2]

        def serve(descriptors: Sequence[int]) -> None:
            workload.serve(wanted.node, short, descriptors)

        log = self.children.log(wanted.node, name)
        try:
            pid = processes.run_function(
                wanted.node,
                self.hosts.namespace(wanted.node),
                streams=(self.hosts.null, log, log),
                keep=[listener.fileno() for listener in listeners],
                main=serve,
            )
        finally:
            os.close(log)
            for listener in listeners:
                listener.close()
        self.children.keep(wanted.node, name, pid, on_end=lambda code: self.tell(PodEnded(wanted.pod, code)))
        return None

    def stop_pod(self, unwanted: StopPod) -> None:
        process = self.children.find(unwanted.node, pod_process(unwanted.pod))
        if process is not None:
            process.on_end = None
            process.signal(signal.SIGKILL)
            os.waitpid(process.pid, 0)  # at once: its address may be wanted again
            self.children.forget(process)
        if self.hosts.has_power(unwanted.node):
            self.hosts.take_pod_address(unwanted.node, unwanted.address)

    # -------------------------------------------------------------------- clients

    def accept(self) -> None:
        accepted, _ = self.listener.accept()
        connection = Connection(accepted)
        self.selector.register(accepted, selectors.EVENT_READ, lambda: self.serve(connection))

    def serve(self, connection: Connection) -> None:
        """One request of one client, or its end."""
        try:
            received = channel.receive(connection.socket, REQUESTS)
        except channel.MessageError as error:
            self.answer(connection, Declined(f"not understood: {error}"))
            return
        except OSError:
            received = None
        if received is None:
            self.close(connection)
            return
        request, descriptors = received
        try:
            self.carry_out(request, descriptors, connection)
        except RefusedError as refused:
            self.answer(connection, Declined(str(refused)))
        except Exception as error:  # noqa: BLE001 (one request that fails must not end the lab)
            traceback.print_exc()
            self.answer(connection, Declined(f"{type(request).__name__.lower()}: {error}"))
        finally:
            for fd in descriptors:
                os.close(fd)

    def close(self, connection: Connection) -> None:
        self.selector.unregister(connection.socket)
        connection.socket.close()
        if connection.command is not None:
            connection.command.signal_group(signal.SIGKILL)

    def answer(self, connection: Connection, message: AnyAnswer, descriptors: tuple[int, ...] = ()) -> None:
        with contextlib.suppress(OSError):  # it is gone; its end is noticed by reading
            channel.send(connection.socket, message, descriptors)

    def carry_out(self, request: AnyRequest, descriptors: list[int], connection: Connection) -> None:
        match request:
            case GetStatus(memory=memory):
                self.answer(connection, self.status(memory=memory))
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
                    self.answer(connection, Done(), (made.fileno(),))
            case Power(node=node, on=on):
                self.set_power(self.node(node), on=on)
                self.answer(connection, Done())
            case Link(host=host_name, up=up):
                self.set_link(self.powered(host_name), up=up)
                self.answer(connection, Done())
            case Act(host=host_name):
                self.powered(host_name)
                self.acts.carry_out(request, lambda answer: self.answer(connection, answer))
            case LetGo():
                raise RefusedError("only who brings the lab up can release it")
            case Down():
                self.answer(connection, Done())
                self.end()

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
            host.name, f"exec {request.argv[0]}", pid, on_end=lambda code: self.answer(connection, Ended(code))
        )
        self.answer(connection, Started(pid))

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
            api_server_inside=f"{scheme}://{self.spec.layout.control_plane.address}:{API_PORT}",
            layout=self.spec.layout,
            control_plane=self.spec.control_plane,
            daemons=self.spec.daemons,
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


def pod_process(pod: str) -> str:
    """The name of a pod's process: in the log directory it must be one path component."""
    return "pod " + pod.replace("/", ".")
