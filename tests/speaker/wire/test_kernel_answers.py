"""For which addresses the kernel answers by itself, as Linux decides it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cluster.objects import AddressText
from speaker.link import LinkName, Mac
from speaker.protocol.effects import LinkState
from speaker.wire.addresses import WireAddress
from speaker.wire.kernel_answers import LOOK_GAP_S, NOTHING, TOLD, KernelAnswers, Local, answers, arp_ignore_of

ETH0, IPVS = LinkName("eth0"), LinkName("kube-ipvs0")
V4, V6 = (WireAddress.of(AddressText(text)) for text in ("192.0.2.10", "2001:db8::10"))
LINKS = (LinkState(ETH0, 2, Mac(bytes(6)), up=True, prefixes=("192.0.2.1/24",)),)


@pytest.mark.parametrize(
    ("interface", "address", "arp_ignore", "answered"),
    [
        (IPVS, V4, 0, True),
        (IPVS, V4, 1, False),  # kube-proxy's strictARP
        (IPVS, V4, 2, False),
        (IPVS, V4, 3, True),
        (IPVS, V4, 8, False),
        (ETH0, V4, 0, True),
        (ETH0, V4, 1, True),
        (ETH0, V4, 8, False),
        (IPVS, V6, 0, False),
        (ETH0, V6, 8, True),
    ],
)
def test_a_kernel_answers(interface: LinkName, address: WireAddress, arp_ignore: int, answered: bool) -> None:
    assert answers((interface, address), ETH0, lambda _: arp_ignore) is answered


def test_only_addresses_of_the_plan_are_told_of_and_only_some() -> None:
    made = KernelAnswers(lambda _: 0)
    many = [(IPVS, WireAddress(bytes((10, 0, i // 256, i % 256)))) for i in range(1000)]
    told = made.look(lambda: many, lambda address: address.startswith("10.0.1."), LINKS, 0.0)
    assert told == tuple(f"10.0.1.{i}" for i in range(TOLD))


def test_the_table_is_looked_through_when_it_has_changed_and_seldom() -> None:
    made, looks = KernelAnswers(lambda _: 0), list[float]()

    def table(now: float) -> Callable[[], list[Local]]:
        def look() -> list[Local]:
            looks.append(now)
            return [(IPVS, V4)]

        return look

    for now in (0.0, 1.0, LOOK_GAP_S, LOOK_GAP_S + 1.0):
        made.look(table(now), lambda _: True, LINKS, now)
    assert looks == [0.0]
    made.changed()
    made.changed()
    for now in (LOOK_GAP_S + 2.0, LOOK_GAP_S + 3.0):
        made.look(table(now), lambda _: True, LINKS, now)
        made.changed()
    assert looks == [0.0, LOOK_GAP_S + 2.0]


def test_a_link_that_is_down_or_gone_answers_nothing() -> None:
    down = tuple(LinkState(link.name, link.index, link.mac, up=False) for link in LINKS)
    assert KernelAnswers(lambda _: 0).look(lambda: [(IPVS, V4)], lambda _: True, down, 0.0) == ()
    assert arp_ignore_of(LinkName("none-such")) == NOTHING
