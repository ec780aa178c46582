"""The tables of who and what is known: links, peers, and what each peer was last seen to do on each link (``peers``).

Each fact is in one place, and nothing is decided here. ``membership``, ``identity`` and ``mirrors`` fill the tables
with what datagrams say, ``links`` with what netlink says, ``witnesses`` with what other frames show, ``suspicion`` with
what time and silence show, and ``absences`` with who stands in for whom. All parts ask them.

A node has one peer, the speaker that is heard there, or one *absence*, a session that another speaker stands in for; or
both, when a speaker has started again and does not yet hold everything that its former session held.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from itertools import chain

from cluster.addresses import family_of
from cluster.objects import AddressText, NodeName
from cluster.times import LONG_AGO
from speaker.link import LinkName, Mac
from speaker.protocol.claims import Claim
from speaker.protocol.crowd import idle_interval, rounds
from speaker.protocol.detector import SUSPICION_INTERVALS
from speaker.protocol.effects import Decision, Effect
from speaker.protocol.heartbeat import BY_GROUP, MAX_AGE_MS, RETURNED, SUSPECTED, Heard
from speaker.protocol.news import Contact, News
from speaker.protocol.peers import (
    NEIGHBOURS,
    Absence,
    Link,
    LinkFamily,
    Network,
    Peer,
    Pending,
    Sighting,
    Suspicion,
    claims_of,
)
from speaker.protocol.settings import Settings
from speaker.protocol.standing import TRANSITIONS, Sign, Standing, Upshot

RETURNED_S = 1.0  # for which a peer that is no more dead is told that it was


class Roster:
    """The tables, and questions about them. ``emit`` takes effects, of which decisions are made by ``report``."""

    def __init__(self, node: NodeName, settings: Settings, emit: Callable[[Effect], None]) -> None:
        self.node = node
        self.settings = settings
        self.emit = emit
        self.able = False
        """Whether this node can claim, as it says on links that are open."""
        self.own_lateness = 0.0
        """How late this node's own loop runs, in seconds; ``own_trouble`` notes it."""
        self.scale = 1.0
        """By how much intervals and the floor of D are longer than usual, since more than 50 speakers hold something;
        ``protocol`` counts them."""
        self.links: dict[LinkName, Link] = {}
        self.lost: tuple[LinkName, ...] = ()
        """Own links that were up and are down or gone, the one that was lost last at the end. Of eight it is known."""
        self.peers: dict[NodeName, Peer] = {}
        self.absences: dict[NodeName, Absence] = {}
        self.pending: dict[int, Pending] = {}
        self.by_mac: dict[Mac, NodeName] = {}
        """Each peer's, on all links."""
        self.suspects: dict[int, Peer] = {}
        """By session: who is suspected on some link."""
        self.claimants: dict[AddressText, dict[NodeName, None]] = {}
        """Who claims an address, alive or not, as far as is known."""
        self.elsewhere: OrderedDict[Network, float] = OrderedDict()
        """Subnets that some node has, or this one had, on whatever link, and when that was last so."""
        self.shared: OrderedDict[Network, float] = OrderedDict()
        """Subnets of own links on which speakers were heard, and when that was last so."""

    def lives(self, node: NodeName, places: Iterable[LinkFamily]) -> bool:
        """Whether the peer is believed alive, suspected or not, at any of the places."""
        peer = self.peers.get(node)
        return peer is not None and any(
            (sighting := peer.sightings.get(place.link)) is not None
            and sighting.standing is not Standing.DEAD
            and place.family in sighting.families
            for place in places
        )

    def able_since(
        self,
        node: NodeName,
        places: Iterable[LinkFamily],
        interfaces: tuple[LinkName, ...] = (),
        starting: bool = False,
    ) -> float | None:
        """Since when the peer is believed able to claim at any of the places, by one of its own interfaces if these
        are named; ``None`` if it is not. With ``starting`` one that will be able soon counts too."""
        peer = self.peers.get(node)
        if peer is None:
            return None
        for link, family in places:
            sighting = peer.sightings.get(link)
            if sighting is None or sighting.standing is not Standing.ALIVE or family not in sighting.families:
                continue
            if interfaces and sighting.link not in interfaces:
                continue
            if sighting.able_since is not None:
                return sighting.able_since
            if starting and sighting.starting:
                return sighting.life_at
        return None

    def claim_on(self, peer: Peer, address: AddressText, link: LinkName) -> Claim | None:
        """A peer's claim on an address, if it counts on the link: if the peer can answer for the address there."""
        sighting, claim = peer.sightings.get(link), peer.mirror.claims.get(address)
        if sighting is None or claim is None or family_of(address) not in sighting.families:
            return None
        return claim if not claim.links or sighting.link in claim.links else None

    def sessions(self, node: NodeName) -> Iterator[Peer]:
        """Those of the node whose claims may count: of the speaker that is heard, and of one that is stood in for."""
        if (peer := self.peers.get(node)) is not None:
            yield peer
        if (absence := self.absences.get(node)) is not None:
            yield absence.peer

    def all_sessions(self) -> Iterator[Peer]:
        """All those whose claims may count."""
        return chain(self.peers.values(), (absence.peer for absence in self.absences.values()))

    def claim_of(self, node: NodeName, address: AddressText, link: LinkName) -> Claim | None:
        """Another node's claim on an address, if it counts on the link now."""
        for peer in self.sessions(node):
            sighting = peer.sightings.get(link)
            if sighting is not None and sighting.standing is not Standing.DEAD:
                claim = self.claim_on(peer, address, link)
                if claim is not None:
                    return claim
        return None

    def load(self, node: NodeName) -> int:
        """How many addresses another node claims, as far as is heard."""
        return max((len(peer.mirror.claims) for peer in self.sessions(node)), default=0)

    def all_have(self, skill: int) -> bool:
        """Whether all peers that live have a skill."""
        return all(
            peer.skills & skill
            for peer in self.peers.values()
            if any(sighting.standing is not Standing.DEAD for sighting in peer.sightings.values())
        )

    def is_heard_by(self, node: NodeName, links: Iterable[LinkName], now: float) -> bool:
        """Whether the peer hears us on any of the links, as it says."""
        peer = self.peers.get(node)
        seen = [peer.sightings[link] for link in links if link in peer.sightings] if peer is not None else []
        slack = self.settings.idle_interval_s
        return any(
            now - sighting.hears_us_at < sighting.detector.suspicion() + slack + self._listed_late(sighting)
            for sighting in seen
        )

    def latest_able(self) -> float:
        """When a peer last became able to claim, of those that are."""
        sightings = (sighting for peer in self.peers.values() for sighting in peer.sightings.values())
        return max((sighting.able_since for sighting in sightings if sighting.able_since is not None), default=LONG_AGO)

    def lateness(self, node: NodeName, links: Iterable[LinkName]) -> float:
        """How late the peer's heartbeats usually come on these links, in seconds, with four deviations; never longer
        than its death may take."""
        peer = self.peers.get(node)
        seen = [peer.sightings[link].detector for link in links if link in peer.sightings] if peer is not None else []
        late = max((detector.lateness + 4 * detector.deviation for detector in seen), default=0.0)
        return min(late, self.settings.detection_floor_s)

    def claimed_at(self, node: NodeName) -> float:
        """When the peer was last heard to claim something more."""
        peer = self.peers.get(node)
        return peer.claimed_at if peer is not None else LONG_AGO

    def judges(self, link: LinkName) -> bool:
        """Whether silence means anything there."""
        here = self.links[link]
        return here.state.up and not here.mute

    def families_differ(self) -> bool:
        """Whether not all links of all speakers speak the same families."""
        own = (link.state.families for link in self.links.values())
        theirs = (sighting.families for peer in self.peers.values() for sighting in peer.sightings.values())
        return len({*own, *theirs}) > 1

    def may_claim(self, link: LinkName, now: float) -> bool:
        """Whether something new may be claimed there: we are able to, and know that we can hear."""
        here = self.links.get(link)
        return here is not None and here.open(now) and not here.unproven

    def third_party_since(self, link: LinkName, since: float) -> bool:
        """Whether anybody was heard on the link after ``since``."""
        here = self.links[link]
        return (
            here.gateway_at > since
            or here.frame_at > since
            or any(at > since for _, at in here.neighbours.values())
            or any(max(sighting.heard_at, sighting.kernel_at) > since for _, sighting in self.on(link))
        )

    def behind(self, link: LinkName, now: float, patience: float) -> bool:
        """Whether some live peer there has claims that we have not heard yet, for less than ``patience``."""
        return any(
            peer.behind_since is not None
            and now - peer.behind_since < patience
            and (sighting := peer.sightings.get(link)) is not None
            and sighting.standing is not Standing.DEAD
            for peer in self.all_sessions()
        )

    def heard(self, link: LinkName, now: float) -> list[Heard]:
        """Everybody heard on the link, for our heartbeat."""

        def entry(session: int, at: float, how: int) -> Heard:
            return session, min(max(int((now - at) * 1000), 0), MAX_AGE_MS) | how

        lately = now - SUSPICION_INTERVALS * self.longest_interval_s
        entries = [
            entry(session, pending.heard_at, 0)
            for session, pending in self.pending.items()
            if pending.link == link and pending.heard_at > lately
        ]
        for peer, sighting in self.on(link):
            if sighting.standing is Standing.DEAD:
                continue
            how = SUSPECTED if sighting.standing is Standing.SUSPECTED else 0
            if now - sighting.by_group_at < SUSPICION_INTERVALS * sighting.detector.interval:
                how |= BY_GROUP
            if now - sighting.returned_at < RETURNED_S:
                how |= RETURNED
            entries.append(entry(peer.session, sighting.life_at, how))
        return entries

    def deaf_to_us(self, link: LinkName, now: float, interval: float) -> list[Contact]:
        """Live peers on the link that multicast does not reach."""
        late = [
            contact
            for _, sighting in self.on(link)
            if sighting.standing is not Standing.DEAD
            and now - sighting.hears_group_at
            > SUSPICION_INTERVALS * interval + sighting.detector.interval + self._listed_late(sighting)
            for contact in sighting.contacts
        ]
        waiting = (
            p for p in self.pending.values() if p.link == link and now - p.first_at > SUSPICION_INTERVALS * interval
        )
        return late + [(pending.address, pending.mac) for pending, _ in zip(waiting, range(NEIGHBOURS), strict=False)]

    def _listed_late(self, sighting: Sighting) -> float:
        """For how many seconds a peer on the link may list others than us, though it hears us."""
        return (rounds(len(self.peers)) - 1) * sighting.detector.interval

    @property
    def longest_interval_s(self) -> float:
        """Between heartbeats of anybody."""
        return idle_interval(self.settings.idle_interval_s, self.settings, self.scale, len(self.peers) + 1)

    def awaited(self) -> set[int]:
        """Sessions that somebody waits to see listed in our heartbeats: they have just come, or are suspected."""
        return set(self.pending).union(*(peer.suspicions for peer in self.peers.values()))

    def to_ask(self, now: float) -> list[Peer]:
        """The sessions whose claims we lack for more than a moment, those first who were asked longest ago."""
        lacking = [
            peer
            for peer in self.all_sessions()
            if peer.behind_since is not None
            and (now - peer.behind_since >= self.settings.early_gap_s or self._doubts(peer))
            and any(sighting.standing is not Standing.DEAD for sighting in peer.sightings.values())
        ]
        return sorted(lacking, key=lambda peer: peer.asked_at)

    def _doubts(self, peer: Peer) -> bool:
        return any(peer.session in link.fencing.doubted for link in self.links.values())

    def detection(self, sighting: Sighting, now: float) -> float:
        """D of a peer on a link, in seconds."""
        return sighting.detector.detection(
            now,
            self.settings.detection_floor_s * self.scale,
            self.settings.detection_ceiling_s * self.scale,
            self.own_lateness,
        )

    def sighting(self, node: NodeName, link: LinkName) -> Sighting | None:
        """The node's speaker on the link, if it was heard there."""
        peer = self.peers.get(node)
        return peer.sightings.get(link) if peer is not None else None

    def on(self, link: LinkName) -> Iterable[tuple[Peer, Sighting]]:
        for peer in self.peers.values():
            sighting = peer.sightings.get(link)
            if sighting is not None:
                yield peer, sighting

    def suspects_on(self, link: LinkName) -> list[tuple[Peer, Suspicion]]:
        return [
            (peer, sighting.suspicion)
            for peer in self.suspects.values()
            if (sighting := peer.sightings.get(link)) is not None and sighting.suspicion is not None
        ]

    # ------------------------------------------------------------------------------------------------ changes

    def change_standing(self, peer: Peer, link: LinkName, sign: Sign, why: str, now: float) -> News:
        """A sign of a peer on a link; ``why`` its claims count for something else than before, if they do."""
        sighting = peer.sightings[link]
        before = sighting.standing
        sighting.standing, upshot = TRANSITIONS[before, sign]
        if sighting.standing is before:
            return News()
        news = News(changed=True, look_at=now)
        if Upshot.OPENS in upshot:
            sighting.suspicion = Suspicion(now, now)
            self.suspects[peer.session] = peer
        if Upshot.CLOSES in upshot:
            self.end_suspicion(peer, sighting)
        if Upshot.WEIGHS in upshot:
            news.claims = claims_of(peer, why)
        return news

    def end_suspicion(self, peer: Peer, sighting: Sighting) -> None:
        sighting.suspicion = None
        if all(theirs.suspicion is None for theirs in peer.sightings.values()):
            self.suspects.pop(peer.session, None)

    def note_claimant(self, address: AddressText, node: NodeName) -> None:
        """Some session of the node claims the address, or does not any more."""
        if any(address in peer.mirror.claims for peer in self.sessions(node)):
            self.claimants.setdefault(address, {})[node] = None
            return
        claimants = self.claimants.get(address)
        if claimants is not None:
            claimants.pop(node, None)
            if not claimants:
                del self.claimants[address]

    def report(self, reason: str, **fields: str | int | float) -> None:
        self.emit(Decision(reason, fields))
