"""The processes that a lab starts by itself: its control plane, and the daemons on every host."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from lab.control.messages import SPEAKER, SPEC, Spec
from lab.controlplane import commands
from lab.controlplane.credentials import kubeconfig_of
from lab.layout import API_PORT, CONTROL_PLANE, Host
from lab.machines import wall_clock
from lab.machines.children import Children
from lab.machines.hosts import Hosts, listen
from lab.shipped.rights import DaemonName


class Starter:
    """Starts each of them, and starts it again. The keeper watches them as its children."""

    def __init__(self, spec: Spec, hosts: Hosts, children: Children) -> None:
        self.spec = spec
        self.hosts = hosts
        self.children = children
        self._again: dict[tuple[str, str], Callable[[], object]] = {}
        """How to start again what was started, by host and name. Not what was born with a socket."""

    def start_again(self, host: str, name: str) -> bool:
        """Start a process anew that has ended; says whether it is one that can be."""
        start = self._again.get((host, name))
        if start is not None:
            start()
        return start is not None

    # -------------------------------------------------------------------- the control plane

    def start_embedded_api_server(self, outside: socket.socket) -> None:
        """Start the API server on two sockets that listen already, so that no early client is refused."""
        with self.hosts.inside(CONTROL_PLANE):  # which has no addresses yet
            inside = [listen(commands.EVERY_ADDRESS[family], API_PORT) for family in self.spec.layout.families]
        fds = (*(each.fileno() for each in inside), outside.fileno())
        networks = (network.services for network in self.spec.layout.networks.values())
        arguments = [*(f"--fd={fd}" for fd in fds), *(f"--service-network={each}" for each in networks)]
        self.children.start_module(CONTROL_PLANE, "apiserver", "lab.apiserver", *arguments, keep=fds)
        for each in inside:
            each.close()

    def start_stand_ins(self, to_keeper: socket.socket) -> None:
        arguments = [
            f"--keeper={to_keeper.fileno()}",
            f"--kubeconfig={self.children.kubeconfig}",
            f"--spec={Path(self.spec.directory, SPEC)}",
        ]
        self.children.start_module(CONTROL_PLANE, "stand-ins", "lab.standins", *arguments, keep=(to_keeper.fileno(),))

    def start_kubernetes(self, outside: socket.socket) -> None:
        """Start etcd, kube-apiserver, and the way to it from outside."""
        fd = outside.fileno()
        arguments = [f"--fd={fd}", f"--to=127.0.0.1:{API_PORT}"]
        self.children.start_module(CONTROL_PLANE, "forwarder", "lab.controlplane.forwarder", *arguments, keep=(fd,))
        self._start_program(CONTROL_PLANE, "etcd", commands.etcd(self.spec))
        self._start_program(CONTROL_PLANE, "apiserver", commands.api_server(self.spec))

    def start_controller_manager(self) -> None:
        self._start_program(CONTROL_PLANE, "kube-controller-manager", commands.controller_manager(self.spec))

    def _start_program(self, host: str, name: str, argv: Sequence[str]) -> None:
        """Start a program with PATH alone: a proxy that the environment names leads nowhere from the lab's hosts."""
        self._start(host, name, lambda: self.children.start_program(host, name, argv, {"PATH": os.environ["PATH"]}))

    def _start(self, host: str, name: str, start: Callable[[], object]) -> None:
        self._again[host, name] = start
        start()

    # -------------------------------------------------------------------- daemons

    def start_daemons(self) -> None:
        """Start everything that needs an API server."""
        if self.spec.daemons:
            for name, port in self.spec.controller_ports.items():
                at = [f"--listen=[{each}]:{port}" for each in self.spec.layout.control_plane.addresses.values()]
                arguments = (f"--identity={name}", *at, *self.spec.controller_args)
                self._start_daemon(CONTROL_PLANE, name, "controller", *arguments)
        for node in self.spec.layout.nodes:
            if self.hosts.has_power(node.name):
                self.start_node_daemons(node)

    def start_node_daemons(self, node: Host) -> None:
        if self.spec.control_plane == "kubernetes":
            self._start_program(node.name, "pod-network", commands.pod_network(node))
            self._start_program(node.name, "kube-proxy", commands.proxy(self.spec, node))
        if self.spec.daemons and self.spec.speakers:
            self._start_daemon(node.name, SPEAKER, "speaker", f"--node-name={node.name}", *self.spec.speaker_args)

    def _start_daemon(self, host: str, name: str, module: DaemonName, *arguments: str) -> None:
        """Start one of ours with the rights of its container and, on a real API server, of its ServiceAccount. Its wall
        clock is its host's."""
        kubeconfig = self.children.kubeconfig
        if self.spec.control_plane == "kubernetes":
            kubeconfig = str(kubeconfig_of(self.spec, f"berthlb-{module}"))
        clock = str(wall_clock.clock_file(Path(self.spec.directory), host))
        all_arguments = (clock, module, f"--kubeconfig={kubeconfig}", *arguments)
        rights, program = self.spec.rights[module], wall_clock.__name__
        self._start(host, name, lambda: self.children.start_module(host, name, program, *all_arguments, rights=rights))
