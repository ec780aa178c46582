"""For which addresses of the Plan this node's kernel answers by itself, whoever of the cluster holds them.

A kernel answers for its own addresses. An address of a Service becomes one of these where somebody configures it on an
interface, and where kube-proxy runs in IPVS mode, which puts the address of every Service on ``kube-ipvs0`` of every
node. Then every node answers for every address, and nobody decides which one a client believes.

- *ARP*: a kernel answers on any interface for an address that it has on any, unless ``arp_ignore`` of the one that was
  asked says otherwise (Linux, ip-sysctl). kube-proxy's ``strictARP`` sets it to 1: only for the interface's own.
- *Neighbour Discovery*: a kernel answers only for addresses of the interface that was asked. kube-ipvs0 does no harm.

The kernel's table is looked through when it or the Plan has changed, once in ten seconds at most. What ``arp_ignore``
says is read each time, where it matters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

from cluster.addresses import Family
from cluster.objects import AddressText
from cluster.times import LONG_AGO
from speaker.link import LinkName
from speaker.protocol.effects import LinkState
from speaker.wire.addresses import WireAddress

TOLD = 5
"""Addresses; with kube-proxy there are as many as Services."""
LOOK_GAP_S = 10.0
ANY_INTERFACES = frozenset((0, 3))
"""Values of ``arp_ignore`` with which a kernel answers for addresses of other interfaces too."""
NOTHING = 8
"""With which it answers for nothing."""

Local = tuple[LinkName, WireAddress]
"""An interface, whether or not it is announced on, and an address that the kernel has there."""


def answers(local: Local, link: LinkName, arp_ignore: Callable[[LinkName], int]) -> bool:
    """Whether the kernel answers on the link for an address that it has on some interface."""
    interface, address = local
    if address.family is Family.IPV6:
        return interface == link
    ignore = arp_ignore(link)
    return ignore in ANY_INTERFACES or (interface == link and ignore != NOTHING)


def arp_ignore_of(link: LinkName) -> int:
    """What counts for the link: the greater one of its own and that of all. An interface that has just gone answers
    nothing."""
    values = []
    for name in ("all", link):
        try:
            values.append(int(Path(f"/proc/sys/net/ipv4/conf/{name}/arp_ignore").read_text()))
        except (OSError, ValueError):
            return NOTHING
    return max(values)


class KernelAnswers:
    """See the module's docstring. Times are seconds."""

    def __init__(self, arp_ignore: Callable[[LinkName], int] = arp_ignore_of) -> None:
        self._arp_ignore = arp_ignore
        self._suspects: tuple[Local, ...] = ()
        """Of the Plan, and local."""
        self._changed = True
        self._looked_at = LONG_AGO

    def changed(self) -> None:
        """The kernel's addresses, or the Plan, are not what they were."""
        self._changed = True

    def look(
        self,
        local: Callable[[], Iterable[Local]],
        planned: Callable[[AddressText], bool],
        links: tuple[LinkState, ...],
        now: float,
    ) -> tuple[AddressText, ...]:
        """Some of the addresses of the Plan for which the kernel answers on some of the links."""
        if self._changed and now - self._looked_at >= LOOK_GAP_S:
            self._changed, self._looked_at = False, now
            self._suspects = tuple(islice((each for each in local() if planned(each[1].text)), TOLD))
        return tuple(dict.fromkeys(self._answered(links)))

    def _answered(self, links: tuple[LinkState, ...]) -> Iterator[AddressText]:
        for local in self._suspects:
            if any(answers(local, link.name, self._arp_ignore) for link in links if link.up):
                yield local[1].text
