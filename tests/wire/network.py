"""A wire for tests: hosts that are network namespaces, joined by a bridge, made by the test and gone with it.

The namespaces have no names: each is kept by a process of its own that ends with the test's process (its pipe closes),
so nothing is left behind whatever happens.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import re
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from cluster.addresses import Family
from cluster.objects import AddressText
from speaker.wire.arp.frames import ETHERTYPE_ARP, ArpFrame
from tests.waiting import wait_until

T = TypeVar("T")
_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000
_KEEP = "import sys; sys.stdout.write('x'); sys.stdout.flush(); sys.stdin.read()"


class WireHost:
    """A network namespace with one interface, ``eth0``."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._keeper = subprocess.Popen(
            ["unshare", "--net", "python3", "-S", "-c", _KEEP], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._keeper.stdout is not None
        assert self._keeper.stdout.read(1) == b"x", "no network namespace could be made"
        self.namespace = Path(f"/proc/{self._keeper.pid}/ns/net")
        self.pid = self._keeper.pid

    def run(self, *command: str, check: bool = True) -> str:
        """Run a program here; its output."""
        done = subprocess.run(
            ["nsenter", f"--net={self.namespace}", *command], capture_output=True, text=True, check=False, timeout=30
        )
        assert done.returncode == 0 or not check, f"{self.name}: {' '.join(command)}: {done.stderr or done.stdout}"
        return done.stdout

    def start(self, *command: str, **options: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen(["nsenter", f"--net={self.namespace}", *command], **options)

    def call(self, function: Callable[[], T]) -> T:
        """Call a function in a thread that is in this namespace; sockets that it opens stay here."""
        result: list[T] = []
        failure: list[BaseException] = []

        def enter() -> None:
            try:
                with self.namespace.open() as handle:
                    if _LIBC.setns(handle.fileno(), _CLONE_NEWNET):
                        raise OSError(ctypes.get_errno(), "setns")
                result.append(function())
            except BaseException as error:  # noqa: BLE001 -- raised again in the caller's thread
                failure.append(error)

        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        if failure:
            raise failure[0]
        return result[0]

    def nft(self, rules: str) -> None:
        """Add these rules to the host's packet filter."""
        done = subprocess.run(
            ["nsenter", f"--net={self.namespace}", "nft", "-f", "-"],
            input=rules, capture_output=True, text=True, check=False, timeout=30,
        )  # fmt: skip
        assert done.returncode == 0, f"{self.name}: {done.stderr}"

    def speak_ipv6(self, speaks: bool, interface: str = "default") -> None:
        """Whether the kernel speaks IPv6 on an interface, or on those that are made from now on."""
        self.run("sysctl", "-qw", f"net.ipv6.conf.{interface}.disable_ipv6={int(not speaks)}")

    def mac(self, interface: str = "eth0") -> str:
        return str(self.link(interface)["address"])

    def link(self, interface: str = "eth0") -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run("ip", "-json", "link", "show", "dev", interface))[0]
        return found

    def neighbour(self, address: str) -> str | None:
        """The MAC in this host's neighbour table, if there is a complete entry."""
        entries = json.loads(self.run("ip", "-json", "neigh", "show", address) or "[]")
        return next((str(entry["lladdr"]) for entry in entries if "lladdr" in entry), None)

    def poke(self, address: str) -> None:
        """Send a datagram, so that the kernel asks for the address if it must."""

        def send() -> None:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            with socket.socket(family, socket.SOCK_DGRAM) as sender:
                sender.sendto(b"", (address, 9))

        self.call(send)

    def resolve(self, address: str) -> str:
        """The MAC that the kernel finds for an address."""
        self.poke(address)
        return wait_until(lambda: self.neighbour(address), 2, f"{self.name} does not resolve {address}") or ""

    def answerers(self, address: str, *options: str) -> set[str]:
        """The MACs that answer two broadcast questions within a second."""
        output = self.run("arping", "-I", "eth0", "-c", "2", "-w", "1", *options, address, check=False)
        return {mac.lower() for mac in re.findall(r"((?:[0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2})", output)}

    @contextlib.contextmanager
    def listening(self) -> Iterator[list[ArpFrame]]:
        """All ARP frames that reach this host, in a list that is complete when the block ends."""
        arp = self.call(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0))
        heard: list[ArpFrame] = []
        try:
            self.call(lambda: arp.bind(("eth0", ETHERTYPE_ARP)))
            yield heard
            with contextlib.suppress(BlockingIOError):
                while True:
                    heard.append(ArpFrame.parse(arp.recv(64)))
        finally:
            arp.close()

    def end(self) -> None:
        assert self._keeper.stdin is not None
        self._keeper.stdin.close()
        self._keeper.wait(10)
        if self._keeper.stdout is not None:
            self._keeper.stdout.close()


_SWITCH_LOOKS_INTO_NO_PACKET = """
for each in /proc/sys/net/bridge/bridge-nf-call-*; do [ ! -e "$each" ] || echo 0 > "$each"; done
"""
"""Where a container engine has loaded br_netfilter, what a bridge forwards passes the packet filters of IP."""


class Wire:
    """A bridge with hosts on it: 192.0.2.0/24, host n at 192.0.2.n. Of IPv6 they have a link-local address that the
    kernel makes, and waits a second or two before it uses it (RFC 4862 §5.4)."""

    def __init__(self) -> None:
        self._switch = WireHost("switch")
        self.hosts: list[WireHost] = []
        self._switch.run("sh", "-c", _SWITCH_LOOKS_INTO_NO_PACKET)
        self._switch.run("ip", "link", "add", "br0", "type", "bridge", "mcast_snooping", "0")
        self._switch.run("ip", "link", "set", "br0", "up")

    def host(self, name: str, *families: Family) -> WireHost:
        """Another host, at the next address. It speaks these families, or both."""
        host = WireHost(name)
        self.hosts.append(host)
        number = len(self.hosts)
        host.run("ip", "link", "set", "lo", "up")
        if families == (Family.IPV4,):
            host.speak_ipv6(False)
        self.plug(host, "eth0", None if families == (Family.IPV6,) else f"192.0.2.{number}/24")
        return host

    def plug(self, host: WireHost, interface: str, address: str | None = None) -> None:
        """Join a host to the bridge by an interface."""
        port = f"{host.name}-{interface}"[:15]
        self._switch.run(
            "ip", "link", "add", port, "type", "veth", "peer", "name", interface, "netns", str(host.pid)
        )  # fmt: skip
        self._switch.run("ip", "link", "set", port, "master", "br0", "up")
        if address is not None:
            host.run("ip", "address", "add", address, "dev", interface)
        host.run("ip", "link", "set", interface, "up")
        wait_until(lambda: self._forwards(port), 5, f"the bridge does not forward from {port}")

    def _forwards(self, port: str) -> bool:
        (link,) = json.loads(self._switch.run("ip", "-json", "-details", "link", "show", "dev", port))
        return bool(link["linkinfo"]["info_slave_data"]["state"] == "forwarding" and link["operstate"] == "UP")

    def cable(self, host: WireHost, state: str, interface: str = "eth0") -> None:
        """Pull a host's cable (``down``) or put it back (``up``)."""
        self._switch.run("ip", "link", "set", f"{host.name}-{interface}"[:15], state)

    def block(self, host: WireHost, *, blocked: bool) -> None:
        """Stop forwarding from and to a host's port, or forward again; its carrier stays."""
        port = f"{host.name}-eth0"
        if blocked:
            self.drop("blocked", f'oifname "{port}"', f'iifname "{port}"')
        else:
            self._switch.run("nft", "delete", "table", "bridge", "blocked")

    def group_passes(self, passes: bool) -> None:
        """Whether the switch forwards what is addressed to a group; broadcasts always pass."""
        for host in self.hosts:
            flood = "on" if passes else "off"
            self._switch.run("bridge", "link", "set", "dev", f"{host.name}-eth0", "mcast_flood", flood)

    def drop(self, name: str, *matches: str) -> None:
        """Have the switch drop the frames that match any of these, in nftables' words."""
        rules = "\n".join(f"{match} drop" for match in matches)
        hook = "type filter hook forward priority 0"
        self._switch.nft(f"table bridge {name} {{\nchain forward {{\n{hook}\n{rules}\n}}\n}}\n")

    def with_ipv6(self, prefix: str = "2001:db8::") -> None:
        """Give every host an address of 2001:db8::/64 too, or of another prefix, at once: host n has 2001:db8::n."""
        for number, host in enumerate(self.hosts, 1):
            host.run("ip", "address", "add", f"{prefix}{number:x}/64", "dev", "eth0", "nodad")

    def snoop(self) -> None:
        """Have the switch ask for members of groups (RFC 3810), and forward what goes to a group to them alone."""
        self._switch.run(
            "ip", "link", "set", "br0", "type", "bridge", "mcast_query_response_interval", "20",
            "mcast_querier", "1", "mcast_snooping", "1", "mcast_mld_version", "2",
        )  # fmt: skip

    def members(self, group: str) -> set[str]:
        """The hosts to which the switch forwards what goes to a group."""
        (found,) = json.loads(self._switch.run("bridge", "-json", "mdb", "show", "dev", "br0"))
        return {entry["port"].removesuffix("-eth0") for entry in found["mdb"] if entry["grp"] == group}

    @contextlib.contextmanager
    def learning(self) -> Iterator[Callable[[str], set[str]]]:
        """Watch what the switch learns; what says of a MAC behind which hosts' ports it was learnt since."""
        monitor = self._switch.start("bridge", "monitor", "fdb", stdout=subprocess.PIPE)
        lines: list[str] = []
        reader = threading.Thread(target=lambda: lines.extend(map(bytes.decode, monitor.stdout or ())))
        reader.start()
        numbers = itertools.count()

        def catch_up() -> None:
            """Until a change that is made now was told, and with it all before."""
            marks: set[str] = set()

            def told() -> bool:
                number = next(numbers)
                mark, port = f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}", f"{self.hosts[0].name}-eth0"
                self._switch.run("bridge", "fdb", "replace", mark, "dev", port, "master", "static")
                marks.add(mark)
                return any(line.split()[0] in marks for line in lines)

            wait_until(told, 10, "the switch does not tell what it learns", every=0.05)

        def learnt(mac: str) -> set[str]:
            catch_up()
            found = (re.match(rf"{mac} dev (\S+)-eth0 ", line) for line in lines)
            return {match[1] for match in found if match}

        try:
            catch_up()
            yield learnt
        finally:
            monitor.terminate()
            reader.join(10)
            monitor.communicate(timeout=10)

    def second_network(self, hosts: list[WireHost]) -> None:
        """Join hosts by another bridge too: 198.51.100.0/24 on ``eth1``."""
        self._switch.run("ip", "link", "add", "br1", "type", "bridge", "mcast_snooping", "0")
        self._switch.run("ip", "link", "set", "br1", "up")
        for number, host in enumerate(hosts, 1):
            port = f"{host.name}-eth1"
            self._switch.run("ip", "link", "add", port, "type", "veth", "peer", "name", "eth1", "netns", str(host.pid))
            self._switch.run("ip", "link", "set", port, "master", "br1", "up")
            host.run("ip", "address", "add", f"198.51.100.{number}/24", "dev", "eth1")
            host.run("ip", "link", "set", "eth1", "up")
            wait_until(lambda port=port: self._forwards(port), 5)  # type: ignore[misc]  # mypy: default

    def address(self, host: WireHost) -> AddressText:
        return AddressText(f"192.0.2.{self.hosts.index(host) + 1}")

    def end(self) -> None:
        for host in (*self.hosts, self._switch):
            host.end()
