"""Real hosts that have the address of a Service, before it is announced and afterwards, in both families."""

from __future__ import annotations

import socket

import pytest

from cluster.objects import AddressText
from speaker.wire.kernel_answers import LOOK_GAP_S
from tests.waiting import wait_until
from tests.wire.network import Wire, WireHost
from tests.wire.speakers import Speaker, Start, bundle

V4, V6 = AddressText("192.0.2.200"), AddressText("2001:db8::200")
PLAIN_V4, PLAIN_V6 = AddressText("192.0.2.201"), AddressText("2001:db8::201")

pytestmark = pytest.mark.lab


def take(host: WireHost, address: AddressText) -> None:
    """Configure an address on a host."""
    host.run("ip", "address", "add", *prefix(address), "dev", "eth0")


def leave(host: WireHost, address: AddressText) -> None:
    host.run("ip", "address", "delete", prefix(address)[0], "dev", "eth0")


def speak_from(host: WireHost, address: AddressText, to: str) -> None:
    """Send a datagram from an address, so that the kernel asks for the receiver in its name."""

    def send() -> None:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.bind((address, 0))
            sender.sendto(b"", (to, 9))

    host.call(send)


def prefix(address: AddressText) -> tuple[str, ...]:
    return (f"{address}/64", "nodad") if ":" in address else (f"{address}/24",)


def conflicts(speaker: Speaker) -> dict[AddressText, tuple[str, str, bool]]:
    """Address → MAC, what it is, whether the address is withheld; as told last."""
    stats = speaker.stats
    return {view.address: (view.mac, view.seen, view.withheld) for view in stats.conflicts} if stats else {}


def ready(wire: Wire, start: Start) -> tuple[Speaker, WireHost, WireHost]:
    """A speaker with an empty Plan, a machine that may take addresses, and a client."""
    node, printer, client = (wire.host(name) for name in ("node-1", "printer", "client"))
    wire.with_ipv6()
    speaker = start(node)
    speaker.plan(1)
    wait_until(lambda: speaker.ready, 10, "the speaker is not ready")
    return speaker, printer, client


def test_an_address_that_a_kernel_on_the_lan_has_is_withheld_until_it_is_free(wire: Wire, start: Start) -> None:
    speaker, printer, client = ready(wire, start)
    for address in (V4, V6):
        take(printer, address)
    speaker.plan(2, *(bundle(f"b{i}", (each,), "node-1") for i, each in enumerate((V4, V6, PLAIN_V4, PLAIN_V6))))
    wait_until(lambda: speaker.holds(PLAIN_V4, PLAIN_V6), 10, "an address that nobody has is not announced")
    stranger = (printer.mac(), "stranger", True)
    wait_until(lambda: conflicts(speaker) == {V4: stranger, V6: stranger}, 10, "the conflicts are not told of")
    assert client.resolve(V4) == client.resolve(V6) == printer.mac()
    assert speaker.holds(PLAIN_V4, PLAIN_V6)
    taken = [decision.fields for decision in speaker.decisions if decision.reason == "AddressTaken"]
    assert {(fields["address"], fields["mac"]) for fields in taken} == {(V4, printer.mac()), (V6, printer.mac())}
    for address in (V4, V6):
        leave(printer, address)
    wait_until(lambda: speaker.holds(V4, V6, PLAIN_V4, PLAIN_V6), 40, "what is free again is not announced")
    for address in (V4, V6):
        wait_until(lambda a=address: client.neighbour(a) == speaker.host.mac(), 5, "the client")  # type: ignore[misc]
    wait_until(lambda: not conflicts(speaker), 5, "the conflicts are not over")


def test_a_machine_that_takes_an_announced_address_is_told_of_until_it_leaves(wire: Wire, start: Start) -> None:
    speaker, printer, _ = ready(wire, start)
    speaker.plan(2, bundle("a", (V4, V6), "node-1"))
    wait_until(lambda: speaker.holds(V4, V6), 10)
    for address in (V4, V6):
        take(printer, address)
    speak_from(printer, V4, "192.0.2.1")
    speak_from(printer, V6, "2001:db8::1")
    stranger = (printer.mac(), "stranger", False)
    wait_until(lambda: conflicts(speaker).get(V4) == stranger, 10, "the IPv4 conflict is not told of")
    wait_until(lambda: conflicts(speaker).get(V6) == stranger, 10, "the IPv6 conflict is not told of")
    assert speaker.holds(V4, V6)
    for address in (V4, V6):
        leave(printer, address)
    wait_until(lambda: not conflicts(speaker), 70, "the conflicts are not over")
    assert speaker.holds(V4, V6)


def test_the_kernel_that_answers_by_itself_is_told_of(wire: Wire, start: Start) -> None:
    """kube-proxy in IPVS mode: the addresses are on kube-ipvs0, and ARP is answered for them unless it is strict."""
    speaker, _, client = ready(wire, start)
    node = speaker.host
    node.run("ip", "link", "add", "kube-ipvs0", "type", "bridge")
    for address in (V4, V6):
        node.run("ip", "address", "add", f"{address}/{128 if ':' in address else 32}", "dev", "kube-ipvs0")
    speaker.plan(2, bundle("a", (V4, V6), "node-2"))

    def told() -> tuple[AddressText, ...]:
        return speaker.stats.kernel if speaker.stats else ()

    wait_until(lambda: told() == (V4,), LOOK_GAP_S + 5.0, "the kernel is not told of")
    assert client.answerers(V4) == {node.mac()}
    node.run("sysctl", "-w", "net.ipv4.conf.all.arp_ignore=1")
    wait_until(lambda: told() == (), 5.0, "strictARP makes no difference")
    assert client.answerers(V4) == set()
