"""What is known of each link and each peer: the rows of the roster's tables.

A *peer* is a session of another node's speaker. It has a *sighting* on each link on which it was heard, and there a
*suspicion* while it is silent. A session that another speaker stands in for is an *absence*. One that has not named
this node's session yet is *pending*. The tables themselves are in ``roster``, which says who fills them.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import NamedTuple

from cluster.addresses import Family, family_of
from cluster.objects import AddressText, NodeName
from cluster.times import LONG_AGO, NEVER
from speaker.link import LinkName, Mac
from speaker.protocol.claims import ClaimMirror
from speaker.protocol.detector import Detector
from speaker.protocol.effects import LinkState
from speaker.protocol.fencing import Fence, Fencing
from speaker.protocol.news import Contact
from speaker.protocol.replay import ReplayWindow
from speaker.protocol.standing import Standing

NEIGHBOURS = 8

NO_MAC = Mac(b"")

IPV4_ALONE = frozenset({Family.IPV4})

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class LinkFamily(NamedTuple):
    """Where an address is to be answered for: a link, on which only a node that speaks the address's family can."""

    link: LinkName
    family: Family


@dataclass(slots=True)
class Suspicion:
    since: float
    ask_next: float
    questions: int = 0
    nonces: dict[bytes, AddressText] = field(default_factory=dict)
    """Of the latest questions for addresses that it holds: only an answer with a proof made of one of them counts."""
    place: int = 0
    """Of its addresses: which to ask for next, if none was proved."""
    first_asked_at: float = NEVER
    asked_at: float = NEVER
    """The first and the last of these questions."""
    told_at: float = LONG_AGO
    """The latest time at which a peer says that it heard the suspect."""
    served_at: float = LONG_AGO
    """The suspect last proved that it answers for an address that it holds."""
    served: AddressText | None = None
    """That address."""


@dataclass(slots=True)
class Sighting:
    """One peer on one link."""

    address: AddressText
    """From which it was heard last."""
    mac: Mac
    detector: Detector
    heard_at: float
    """Last believed datagram since the link came up."""
    link: LinkName
    """The name that the peer's own link to this segment has."""
    other_address: AddressText | None = None
    """From which it was heard last in the other family, if it was."""
    newest: int = -1
    """Sequence of its newest heartbeat here."""
    link_at: float = LONG_AGO
    """When it was last heard from there."""
    renamed_at: float = LONG_AGO
    """When it was heard from another one for the last time."""
    lost_at: float = LONG_AGO
    """When it was last believed to have lost that one."""
    other_mac: Mac = NO_MAC
    """Of another interface that it has on this segment."""
    by_group_at: float = LONG_AGO
    """When a datagram to the group was last heard from there."""
    life_at: float = LONG_AGO
    """Last sign of life."""
    returned_at: float = LONG_AGO
    """When it was found to be no more dead."""
    knocked_at: float = LONG_AGO
    """When this node last knocked at it."""
    refused_at: float = LONG_AGO
    """When its kernel last refused a datagram that counts."""
    misled_until: float = LONG_AGO
    """Until then a refusal alone makes no suspect: it was heard after one."""
    kernel_at: float = LONG_AGO
    """When its kernel last answered a question of ours for its own address."""
    able_since: float | None = None
    starting: bool = False
    yields: bool = False
    """It says that another machine has its name, and that it is silent for that one."""
    hears_us_at: float = LONG_AGO
    """When it last heard us on this link, as it says."""
    hears_group_at: float = LONG_AGO
    """When it last said that what we say to the group arrives."""
    prefixes: tuple[str, ...] = ()
    elsewhere: tuple[str, ...] = ()
    families: frozenset[Family] = IPV4_ALONE
    """Those that its kernel speaks there, as it says."""
    families_at: float = LONG_AGO
    """When that changed last."""
    standing: Standing = Standing.DEAD
    suspicion: Suspicion | None = None

    @property
    def addresses(self) -> tuple[AddressText, ...]:
        """One of each family in which it was heard, the one heard last first."""
        return (self.address,) if self.other_address is None else (self.address, self.other_address)

    @property
    def contacts(self) -> tuple[Contact, ...]:
        """Where it is reached in each family in which it was heard."""
        return tuple((address, self.mac) for address in self.addresses)

    def is_at(self, address: AddressText, mac: Mac) -> bool:
        """Whether who has this address and MAC is in the same place: the MAC is its, and so is the address, or it was
        not heard in that family yet."""
        if mac != self.mac:
            return False
        own = self.address if family_of(self.address) is family_of(address) else self.other_address
        return own is None or own == address

    def note_place(self, address: AddressText, mac: Mac) -> None:
        """It was heard from there."""
        if mac != self.mac:
            self.mac, self.address, self.other_address = mac, address, None
        elif address != self.address:
            if family_of(self.address) is not family_of(address):
                self.other_address = self.address
            self.address = address


@dataclass(slots=True)
class Peer:
    node: NodeName
    session: int
    window: ReplayWindow
    sightings: dict[LinkName, Sighting] = field(default_factory=dict)
    mirror: ClaimMirror = field(default_factory=ClaimMirror)
    behind_since: float | None = None
    """Since when we lack some of its claims."""
    asked_at: float = LONG_AGO
    """When we last asked for them."""
    claimed_at: float = LONG_AGO
    """When we last heard that it claims something more."""
    skills: int = 0
    """What it understands, as its heartbeats say."""
    restarting: bool = False
    """It is about to end, or has started and does not hold everything yet that it held."""
    stand_in: int = 0
    """The session that it wants to stand in for it; 0: none."""
    ignored: bool = False
    """It claimed more than anybody can hold: its claims count no more."""
    suspicions: dict[int, int] = field(default_factory=dict)
    """Session that it suspects -> how often we answered that."""


@dataclass(slots=True)
class LinkAbsence:
    """An absence on one link: somebody stands in, or nobody does who should, or it ends."""

    by: dict[int, None] = field(default_factory=dict)
    """The sessions that say that they stand in."""
    orphaned_since: float = NEVER
    """Since when nobody does who should."""
    over_at: float = NEVER
    """When the claims end, since nobody does any more: the node's new speaker may have claims that were not heard
    yet."""

    def note_stand_in(self, session: int) -> None:
        """A session says that it stands in."""
        self.by[session] = None
        self.orphaned_since = self.over_at = NEVER


@dataclass(slots=True)
class Absence:
    """A session that is not heard any more, while its node's kernel lives. Its claims count on the links on which its
    standing is not dead: another speaker stands in for it there, or is about to."""

    peer: Peer
    since: float
    links: dict[LinkName, LinkAbsence] = field(default_factory=dict)

    def on(self, link: LinkName) -> LinkAbsence:
        """How it is on a link, from now on if it was not known."""
        return self.links.setdefault(link, LinkAbsence())

    def orphaned(self) -> list[tuple[LinkName, float]]:
        """The links, of those that this node still has, on which nobody stands in who should, and since when."""
        orphans = ((link, here.orphaned_since) for link, here in self.links.items() if here.orphaned_since < NEVER)
        return [(link, since) for link, since in orphans if link in self.peer.sightings]

    def links_of(self, session: int) -> list[LinkName]:
        """The links on which a session stands in."""
        return [link for link, here in self.links.items() if session in here.by]


@dataclass(slots=True)
class Pending:
    """A session that has not named ours yet, or whose node has another one that lives."""

    node: NodeName
    window: ReplayWindow
    link: LinkName
    address: AddressText
    mac: Mac
    first_at: float
    heard_at: float


@dataclass(slots=True)
class Link:
    """One link, and what proves that it works."""

    state: LinkState
    fencing: Fencing = field(default_factory=Fencing)
    """Whether this node answers here, and may claim."""
    shared: bool = False
    """Another speaker was heard here."""
    mute: bool = False
    """The kernel does not take our heartbeats here."""
    gateway_at: float = LONG_AGO
    frame_at: float = LONG_AGO
    """The last frame of somebody who is no suspect, while frames are watched."""
    watched: bool = False
    """Frames of any kind are told of."""
    ask_next: float = LONG_AGO
    neighbours: OrderedDict[Mac, tuple[AddressText, float]] = field(default_factory=OrderedDict)
    networks: OrderedDict[Network, float] = field(default_factory=OrderedDict)
    """Subnets that peers have said to be here, and when last."""
    also: dict[LinkName, float] = field(default_factory=dict)
    """Own links on which our words from here were heard: the same segment. And when last."""
    unproven: bool = False
    """Somebody is suspected, and nothing has proved since that we can hear."""
    isolated: bool = False
    """And that has lasted for longer than D."""
    isolated_at: float = LONG_AGO
    rejoined_at: float = LONG_AGO
    """When the last isolation ended."""
    blocked: frozenset[NodeName] = frozenset()
    """Who should be heard here by its Lease, and is not: it may hold what it likes."""
    alone: bool = False
    """Somebody was taken for dead although nothing proved that we can hear, and nobody has been heard since."""

    @property
    def came_up(self) -> bool:
        """Whether it is new, or came up, and nobody was heard since: a switch may still block the port."""
        return self.fencing.state is Fence.NEW

    @property
    def quiet(self) -> bool:
        """Whether nothing gratuitous may be sent here: this node may be the one that is cut off."""
        return self.isolated or self.fencing.state is Fence.QUIET

    @property
    def answering(self) -> bool:
        """Whether what is held may be answered for here now."""
        return self.state.up and self.fencing.answering

    def is_alone(self, at: float, now: float) -> bool:
        """Whether who is silent is taken for dead here, although nobody is heard: from ``at`` on, and not where a
        switch may still block the port. That is remembered until somebody is heard."""
        if self.came_up or (now < at and not self.alone):
            return False
        self.alone = True
        return True

    def open(self, now: float) -> bool:
        """Whether this node is able to claim here."""
        return self.answering and not self.mute and now >= self.fencing.listening_until


def claims_of(peer: Peer, why: str) -> dict[AddressText, str]:
    """The addresses that a peer claims, all for one reason."""
    return dict.fromkeys(peer.mirror.claims, why)
