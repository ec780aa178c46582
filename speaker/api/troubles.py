"""What keeps this speaker from doing its part, as far as it knows itself.

A trouble has a reason, one word that names it in the log, in an Event, in the condition of the ConfigurationState and
in the metric. It has a text, which says what is seen and what to do. With a serious one the speaker is not ready.

1. Some troubles follow from facts, and last as long as these: no interface that can be announced on, no namespace,
   nobody heard although other nodes run speakers.
2. Others follow from decisions of the announcer, which say that something happened and never that it is over. They
   count as present for ``REMEMBERED_S`` after the last such decision. ``MAX_REMEMBERED`` of them are remembered.

Another node runs a speaker where its Node is Ready and its ConfigurationState exists. A node that dies is heard no more
at once, and is Ready for another 50 s (kube-controller-manager's grace period). So hearing nobody is a trouble only
after ``PATIENCE_S``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from cluster.listing import first_few
from cluster.objects import AddressText, NodeName
from speaker.api.events import OPEN_THE_PORT, WHAT_STOPS_IT, Event, nobody_heard
from speaker.api.stranded import WHAT_IT_TAKES
from speaker.link import LinkName
from speaker.options import WHICH_NODE

PATIENCE_S = 60.0
"""With hearing nobody."""
BARE_S = 5.0
"""Seconds for which a node may be without an interface, as it is while an address is renewed."""
REMEMBERED_S = 600.0
MAX_REMEMBERED = 64
"""Things that decisions told. A host on the LAN can cause some of them."""
HEARTBEAT_PORT = 7948
NAMED = 5
"""Nodes or interfaces in a text."""


class Trouble(NamedTuple):
    reason: str
    text: str
    serious: bool = False
    """The speaker cannot take part at all."""


class Troubles:
    """The facts, and what follows from them. Time in monotonic seconds."""

    def __init__(self, node: NodeName, namespace: str) -> None:
        self._node = node
        self._namespace = namespace
        self._namespace_exists = True
        self._links: frozenset[LinkName] = frozenset()
        self._bare_since: float | None = None
        self._refused: dict[LinkName, str] = {}
        self._unusable: tuple[LinkName, ...] = ()
        self._reasons: Mapping[LinkName, str] = {}
        self._kernel: tuple[AddressText, ...] = ()
        self._old_server = ""
        self._blocked: Mapping[LinkName, tuple[NodeName, ...]] = {}
        self._own_node_exists: bool | None = None
        self._ready_nodes: set[NodeName] = set()
        self._speakers: set[NodeName] = set()
        self._hears = False
        self._deaf_since: float | None = None
        self._told: dict[tuple[str, ...], tuple[Trouble, float]] = {}

    # -------------------------------------------------------------------- facts

    def set_namespace(self, *, exists: bool) -> None:
        """Whether there is a namespace of the name in which pools are looked for."""
        self._namespace_exists = exists

    def set_links(self, links: frozenset[LinkName], now: float) -> None:
        """The interfaces that can be announced on, which are not known until told."""
        self._links = links
        self._bare_since = None if links else now

    def set_refused(self, refused: dict[LinkName, str]) -> None:
        """Interfaces that could be announced on if their sockets were to be had, and why they are not."""
        self._refused = refused

    def set_reasons(self, reasons: Mapping[LinkName, str]) -> None:
        """Why interfaces cannot be announced on at this moment, as predicates: some, if there are many."""
        self._reasons = reasons

    def set_unusable(self, interfaces: tuple[LinkName, ...]) -> None:
        """Interfaces that an advertisement names for this node, which exist and cannot be announced on."""
        self._unusable = interfaces

    def set_kernel(self, addresses: tuple[AddressText, ...]) -> None:
        """Some of the addresses of Services for which our kernel answers by itself."""
        self._kernel = addresses

    def set_blocked(self, blocked: Mapping[LinkName, tuple[NodeName, ...]]) -> None:
        """By interface, nodes whose speakers renew their Leases and are not heard."""
        self._blocked = blocked

    def set_server(self, too_old: str) -> None:
        """Why the API server is too old; empty: it is not."""
        self._old_server = too_old

    def all_nodes_known(self) -> None:
        """A node that was not told of by now does not exist."""
        if self._own_node_exists is None:
            self._own_node_exists = False

    def set_node(self, name: NodeName, *, exists: bool, ready: bool) -> None:
        if name == self._node:
            self._own_node_exists = exists
        (self._ready_nodes.add if ready else self._ready_nodes.discard)(name)

    def set_speaker(self, node: NodeName, *, exists: bool) -> None:
        """Whether a node's speaker has ever written its ConfigurationState."""
        (self._speakers.add if exists else self._speakers.discard)(node)

    def set_hearing(self, now: float, *, hears: bool) -> None:
        """Whether some other speaker is believed alive."""
        self._hears = hears
        deaf = not hears and self._links and self._others()
        if not deaf:
            self._deaf_since = None
        elif self._deaf_since is None:
            self._deaf_since = now

    def note(self, event: Event, now: float) -> None:
        """This happened, by a decision of the announcer."""
        self._told.pop(event.key, None)
        if len(self._told) >= MAX_REMEMBERED:
            del self._told[next(iter(self._told))]
        self._told[event.key] = Trouble(event.reason, event.message), now

    # -------------------------------------------------------------------- what follows

    def present(self, now: float) -> tuple[Trouble, ...]:
        """What there is, the serious ones first."""
        self._told = {key: told for key, told in self._told.items() if now - told[1] < REMEMBERED_S}
        return (*self.facts(now), *(trouble for trouble, _ in self._told.values()))

    def facts(self, now: float) -> list[Trouble]:
        """What follows from facts: it lasts as long as they hold."""
        found = []
        if not self._namespace_exists:
            found.append(
                Trouble(
                    "NoNamespace",
                    f"namespace {self._namespace}, in which pools and advertisements are looked for, does not exist:"
                    " create it, or name another one with --namespace",
                    serious=True,
                )
            )
        if self._old_server:
            found.append(Trouble("OldServer", self._old_server, serious=True))
        if self._own_node_exists is False:
            found.append(
                Trouble("NoNode", f"there is no Node {self._node}: --node-name has to be {WHICH_NODE}", serious=True)
            )
        if self._refused:
            why = ", ".join(sorted(set(self._refused.values())))
            found.append(
                Trouble(
                    "InterfaceRefused",
                    f"node {self._node} cannot announce on {first_few(sorted(self._refused))}, as its sockets cannot be"
                    f" opened ({why}). They need the capability NET_RAW, and UDP port {HEARTBEAT_PORT} for themselves:"
                    " see that no other speaker and no other program on this node has it",
                    serious=not self._links,
                )
            )
        elif self._bare_since is not None and now - self._bare_since >= BARE_S:
            found.append(
                Trouble(
                    "NoUsableInterface",
                    f"node {self._node} has no interface to announce on: {self._why(self._reasons)}{WHAT_IT_TAKES}",
                    serious=True,
                )
            )
        if self._deaf_since is not None and now - self._deaf_since >= PATIENCE_S:
            found.append(
                Trouble(
                    "NobodyHeard",
                    f"{nobody_heard('')}; by the API there are speakers on {first_few(sorted(self._others()))}"
                    " (where none runs any more, delete its ConfigurationState)",
                )
            )
        if self._kernel:
            found.append(
                Trouble(
                    "KernelAnswers",
                    f"the kernel of node {self._node} answers by itself for addresses of Services, whoever holds them:"
                    f" {first_few(sorted(self._kernel))}. With kube-proxy in IPVS mode, set ipvs.strictARP in its"
                    " configuration and restart it; otherwise take the addresses off this node's interfaces",
                )
            )
        if self._blocked:
            nodes = {node for each in self._blocked.values() for node in each}
            found.append(
                Trouble(
                    "HeartbeatsBlocked",
                    f"no heartbeat of {first_few(sorted(nodes))} arrives on {first_few(sorted(self._blocked))} of node"
                    f" {self._node}, though the Leases there are renewed: {OPEN_THE_PORT}. What stops it is"
                    f" {WHAT_STOPS_IT}. Until then the ServiceL2Status objects decide who announces, and an address"
                    " moves a minute after its holder dies",
                )
            )
        if self._unusable:
            found.append(
                Trouble(
                    "UnusableInterface",
                    f"an L2Advertisement names {first_few(sorted(self._unusable))}, which node {self._node} has but"
                    f" cannot announce on: {self._why(self._unusable)}{WHAT_IT_TAKES}",
                )
            )
        return found

    def _why(self, interfaces: Iterable[LinkName]) -> str:
        known = [f"{name} {self._reasons[name]}; " for name in interfaces if name in self._reasons]
        return "".join(known[:NAMED])

    def _others(self) -> set[NodeName]:
        return (self._ready_nodes & self._speakers) - {self._node}
