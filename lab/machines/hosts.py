"""The hosts of a running lab: a network namespace each, with power and a cable or without.

A power cut has three steps: the host's interface leaves the wire, so that no more frames leave the host; every process
there is killed; the namespace is given up. A node that comes back therefore has a kernel that remembers nothing.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from lab.control.messages import HostStatus
from lab.layout import CONTROL_PLANE, Host, Layout
from lab.machines import namespaces, processes

if TYPE_CHECKING:
    from lab.machines.network import Lan


class Hosts:
    """Made by the keeper in its own namespaces; the LAN follows with ``build_lan``."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self._namespaces = {CONTROL_PLANE: namespaces.new_network()}
        self._unplugged: set[str] = set()
        self.lan: Lan

    def build_lan(self) -> None:
        from lab.machines.network import Lan  # noqa: PLC0415 (importing netlink takes 0.4 s, in which others can start)

        self.lan = Lan(self.layout)
        for host in self.layout.hosts:
            if host.name not in self._namespaces:
                self._namespaces[host.name] = namespaces.new_network()
            self.lan.attach(host, self._namespaces[host.name])

    def namespace(self, name: str) -> int:
        """A powered host's network namespace."""
        return self._namespaces[name]

    @contextlib.contextmanager
    def inside(self, name: str) -> Iterator[None]:
        with namespaces.inside(self._namespaces[name]):
            yield

    def has_power(self, name: str) -> bool:
        return name in self._namespaces

    def status(self, keeper: int) -> tuple[HostStatus, ...]:
        """The state of every host. ``keeper`` is the keeper's process id outside the lab."""
        return tuple(
            HostStatus(
                host=host,
                namespace=f"/proc/{keeper}/fd/{self._namespaces[host.name]}" if self.has_power(host.name) else None,
                power=self.has_power(host.name),
                link=self.has_power(host.name) and host.name not in self._unplugged,
            )
            for host in self.layout.hosts
        )

    def set_link(self, host: Host, *, up: bool) -> None:
        if up:
            self.lan.plug(host, self._namespaces[host.name])
            self._unplugged.discard(host.name)
        else:
            self.lan.pull(host)
            self._unplugged.add(host.name)

    def drop(self, frames: Sequence[str]) -> None:
        """As ``network.drop``."""
        from lab.machines.network import drop  # noqa: PLC0415 (as in build_lan)

        drop(frames)

    def cut_power(self, host: Host) -> None:
        self.lan.pull(host)
        namespace = self._namespaces.pop(host.name)
        processes.kill_all_in(namespace)
        self.lan.detach(host)
        os.close(namespace)

    def switch_on(self, host: Host) -> None:
        """Power again, and the cable in."""
        namespace = namespaces.new_network()
        self.lan.attach(host, namespace)
        self._namespaces[host.name] = namespace
        self._unplugged.discard(host.name)

    def listen_as_pod(self, node: str, addresses: Sequence[str], ports: Sequence[int]) -> list[socket.socket]:
        """Sockets that listen at a pod's addresses, which the node is given."""
        from lab.machines.network import set_pod_addresses  # noqa: PLC0415 (as in build_lan)

        set_pod_addresses(self._namespaces[node], addresses, present=True)
        with self.inside(node):
            return [listen(address, port) for address in addresses for port in ports]

    def take_pod_addresses(self, node: str, addresses: Sequence[str]) -> None:
        from lab.machines.network import set_pod_addresses  # noqa: PLC0415 (as in build_lan)

        set_pod_addresses(self._namespaces[node], addresses, present=False)


def listen(address: str, port: int) -> socket.socket:
    """A socket that listens at an address of this network namespace."""
    return socket.create_server((address, port), family=socket_family(address), backlog=1024)


def socket_family(address: str) -> socket.AddressFamily:
    """For the socket module."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET
