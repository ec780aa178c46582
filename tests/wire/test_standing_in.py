"""Answers with another node's MAC on a real (virtual) wire: what clients and the switch make of them."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from cluster.addresses import Family
from cluster.objects import AddressText
from speaker.link import LinkName, Mac
from speaker.wire.addresses import WireAddress
from speaker.wire.ethernet import BROADCAST
from speaker.wire.families import RESOLUTIONS
from speaker.wire.resolution import no_proof
from speaker.wire.resolver import Resolver
from tests.wire.network import Wire, WireHost
from tests.wire.opened import as_speaker, mac_of, state_of

ETH0 = LinkName("eth0")
VIPS = {Family.IPV4: AddressText("192.0.2.200"), Family.IPV6: AddressText("2001:db8::200")}
SUBNETS = {Family.IPV4: "192.0.2.99/24", Family.IPV6: "2001:db8::99/64"}

pytestmark = pytest.mark.lab


@dataclass(frozen=True)
class Node:
    """A host that answers for what it is told to."""

    host: WireHost
    resolver: Resolver
    hold: Callable[[Mac | None], None]
    """Answer for the address from now on: with this MAC, or with its own."""
    release: Callable[[], None]


@contextlib.contextmanager
def node_on(host: WireHost, family: Family) -> Iterator[Node]:
    """The sockets and the responder of one family, in a bare loop."""
    vip, lock, done = WireAddress.of(VIPS[family]), threading.Lock(), threading.Event()
    resolution, state = RESOLUTIONS[family], state_of(host, SUBNETS[family])
    responder = resolution.responder(ETH0, state.mac, no_proof)
    resolver = as_speaker(host, lambda: Resolver(state, resolution, responder))

    def loop() -> None:
        questions = resolver.questions.socket
        while not done.is_set():
            if select.select([questions], [], [], 0.05)[0]:
                with lock, contextlib.suppress(BlockingIOError):
                    verdict = responder.receive(questions.recv(resolver.frame_octets), 0.0)
                    if isinstance(verdict, bytes):
                        questions.send(verdict)

    def hold(mac: Mac | None) -> None:
        with lock:
            responder.hold(vip, mac)
            resolver.let_pass(0.0)
            as_speaker(host, lambda: resolver.handle_timer(0.0))  # joins the group that is asked

    def release() -> None:
        with lock:
            responder.release(vip)
            resolver.let_pass(0.0)

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield Node(host, resolver, hold, release)
    finally:
        done.set()
        thread.join()
        resolver.close()


def resolve_anew(client: WireHost, address: AddressText) -> str:
    client.run("ip", "neigh", "flush", "to", address)
    return client.resolve(address)


@pytest.mark.parametrize("family", list(Family), ids=lambda family: family.name)
def test_clients_and_the_switch_know_no_other_place_while_another_answers(wire: Wire, family: Family) -> None:
    """The holder's node serves all the while; only who answers is another one, which later takes over."""
    away, standing_in, client = (wire.host(name) for name in ("away", "stand-in", "client"))
    wire.with_ipv6()
    vip = VIPS[family]
    for host in (away, standing_in):
        client.resolve(AddressText(f"192.0.2.{wire.hosts.index(host) + 1}"))  # so that the switch has seen both
    macs = {host.name: host.mac() for host in wire.hosts}
    away.run("ip", "address", "add", f"{vip}/128" if family is Family.IPV6 else f"{vip}/32", "dev", "lo")
    away.run("sysctl", "-qw", "net.ipv4.conf.all.arp_ignore=1")  # its kernel serves the address and is silent
    with node_on(away, family) as holder, node_on(standing_in, family) as stand_in, serving(away, vip) as connect:
        holder.hold(None)
        assert resolve_anew(client, vip) == macs["away"]
        with wire.learning() as learnt:
            with client.call(connect) as connection:
                stand_in.hold(mac_of(away))
                holder.release()
                for _ in range(3):
                    assert resolve_anew(client, vip) == macs["away"], "the client knows another MAC"
                    connection.sendall(b"still there?")
                    assert connection.recv(64) == b"still there?", "the connection leads elsewhere"
                holder.hold(None)
                stand_in.release()
                assert resolve_anew(client, vip) == macs["away"]
            assert {name: learnt(mac) - {name} for name, mac in macs.items()} == {name: set[str]() for name in macs}
            stand_in.hold(None)
            holder.release()
            assert resolve_anew(client, vip) == macs["stand-in"], "it has taken over"
            impostor = BROADCAST + mac_of(away) + bytes.fromhex("88b5").ljust(48, b"\0")
            assert stand_in.resolver.questions.send(impostor) == 0
            assert "stand-in" in learnt(macs["away"]), "this test would not have seen it"


@contextlib.contextmanager
def serving(host: WireHost, address: AddressText) -> Iterator[Callable[[], socket.socket]]:
    """A server at the address that says what it is told; what connects to it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listening = host.call(lambda: socket.create_server((address, 7007), family=family))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection = listening.accept()[0]
                connection.settimeout(10)  # its end may be lost where the address has moved
                with connection:
                    while said := connection.recv(64):
                        connection.sendall(said)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield lambda: socket.create_connection((address, 7007), timeout=10)
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join()
