"""The speakers that should be heard on a link, by the directory, and are not: who they are, and whom of them to ask.

Multicast does not pass everywhere: not through a switch that snoops memberships without anybody who asks for them, nor
in most clouds, nor over much WiFi. A speaker that hears another one writes to it by unicast where the group does not
reach it. The directory is for those who never heard each other.

1. A speaker of the directory is *expected* on each link of ours whose subnet one of its addresses is in, and on a link
   for which the kernel routes wherever it is.
2. One that is expected, and whose datagrams do not arrive, is *missing*. It is sent the heartbeats of that link by
   unicast: twice, and then after pauses that double up to two seconds, or to thirty where its Lease is not renewed. At
   most 16 are written to with a heartbeat, those first that have waited longest.
3. One of whom no MAC is known is asked for by ARP or Neighbour Discovery instead, and written to from then on.
4. Who is heard answers by unicast, and is a peer as any other (``Roster.deaf_to_us``).

**Start.** This node claims nothing before everybody missing whose Lease is fresh was written to twice, and had 100 ms
to answer; and for two seconds at most from when the directory was known.

**Bounds:** as many speakers, links and addresses as a directory may have. A look at who is missing costs as much as the
directory is large, once a second. Where all are heard nothing is sent.

**Blocked.** The datagrams of somebody are blocked who is missing although its Lease is renewed: what it holds is not
known, and the record in the API decides about claims on that link (``arbitration``).

- One that was never heard there counts as blocked once it was written to twice in vain, until its Lease is stale.
- One that was heard there counts if its Lease was renewed more than five seconds later, and it was not heard within two
  seconds of that. A Lease outlives its speaker, and begins before it is heard: a power cut or a restart blocks nobody.
- A suspect counts that lives by its answers (``suspicion``) after three seconds. Its death ends that at once.

Not promised: that who does not answer is dead. It may be a node that is down, whose Lease nobody has removed.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass, field

from cluster.listing import first_few
from cluster.objects import AddressText, NodeName
from cluster.times import LONG_AGO, NEVER, doubled
from speaker.directory import MAX_LISTED, DirectoryChange, ListedLink, ListedSpeaker, address_of
from speaker.link import LinkName, Mac
from speaker.protocol.effects import ROUTED_MAC, AskAddress, LinkState, NeighbourSeen
from speaker.protocol.news import NO_NEWS, Contact, News
from speaker.protocol.roster import Roster
from speaker.protocol.standing import Standing
from speaker.protocol.subnets import networks_of

FIRST_S = 0.2  # for who hears the group to be heard by itself
ANSWER_S = 0.1  # for an answer to the second heartbeat
START_BOUND_S = 2.0  # of waiting for answers before the first claim
LONGEST_PAUSE_S = 2.0  # between heartbeats to one that is missing
LONGEST_STALE_PAUSE_S = 30.0  # the same, where its Lease is not renewed
AT_ONCE = 16  # written to with one heartbeat
SUSPECT_S = 3.0  # of suspicion, in which a peer is heard again or dead, where datagrams pass
LOOK_S = 1.0  # between looks at who is missing
GRACE_S = 5.0  # after it was heard, until a renewal seen shows that it lives: that comes through the API


@dataclass(slots=True)
class _Place:
    """One expected speaker on one link of ours."""

    contacts: tuple[Contact, ...]
    """Where it is reached: one for each family. Without a MAC where none is known."""
    since: float
    ask_next: float
    asked: int = 0
    asked_at: float = LONG_AGO


@dataclass(slots=True)
class _Listed:
    speaker: ListedSpeaker
    places: dict[LinkName, _Place] = field(default_factory=dict)
    renewed_at: float = LONG_AGO
    """When its Lease was last seen renewed."""
    known_at: dict[LinkName, float] = field(default_factory=dict)
    """When it was last found not to be dead on each link."""
    lives_at: dict[LinkName, float] = field(default_factory=dict)
    """Since when it is known to live, though it is not heard on the link any more."""


class Expected:
    """Sans-IO; emits ``AskAddress``."""

    def __init__(self, roster: Roster) -> None:
        self._roster = roster
        self._listed: dict[NodeName, _Listed] = {}
        self._by_mac: dict[Mac, NodeName] = {}
        self._known_at: float | None = None
        """When there first was a directory."""
        self._missing: dict[LinkName, dict[NodeName, _Place]] = {}
        self._look_at = LONG_AGO

    # ------------------------------------------------------------------------------------------------ what is known

    def change(self, change: DirectoryChange, now: float) -> News:
        """The directory is not what it was."""
        if self._known_at is None:
            self._known_at = now
        gone = set(change.removed)
        if change.whole:
            gone |= self._listed.keys() - {speaker.node for speaker in change.changed}
        for node in gone:
            self._listed.pop(node, None)
        for speaker in change.changed:
            former = self._listed.get(speaker.node)
            if former is None and len(self._listed) >= MAX_LISTED:
                continue
            listed = former or _Listed(speaker)
            listed.speaker = speaker
            self._listed[speaker.node] = listed
            self._place(listed, now)
        for node in change.renewed:
            if node in self._listed:
                self._listed[node].renewed_at = now
        if gone or change.changed:
            macs = ((Mac(link.mac), node) for node, listed in self._listed.items() for link in listed.speaker.links)
            self._by_mac = {mac: node for mac, node in macs if mac}
        return self._look(now)

    def links_changed(self, now: float) -> News:
        """This node's links are not what they were."""
        for listed in self._listed.values():
            self._place(listed, now)
        return self._look(now)

    def learn(self, seen: NeighbourSeen) -> None:
        """Somebody has an address, by this MAC. It may be that of one whose MAC is not known."""
        if not seen.is_reply:
            return
        for place in self._missing.get(seen.link, {}).values():
            if (seen.sender, Mac(b"")) in place.contacts:
                place.contacts = tuple(
                    (address, seen.sender_mac if address == seen.sender else mac) for address, mac in place.contacts
                )

    def whose(self, mac: Mac) -> NodeName | None:
        """The speaker that has the MAC, as the directory says."""
        return self._by_mac.get(mac)

    def _place(self, listed: _Listed, now: float) -> None:
        """Find out on which of our links the speaker is, and where it is reached there."""
        former, listed.places = listed.places, {}
        for name, link in self._roster.links.items():
            contacts = tuple(_contacts(listed.speaker.links, link.state)) if link.state.up else ()
            if contacts:
                place = former.get(name)
                if place is None or place.contacts != contacts:
                    place = _Place(contacts, now, now + FIRST_S)
                listed.places[name] = place

    # ------------------------------------------------------------------------------------------------ who is missing

    def review(self, now: float, *, at_once: bool = False) -> News:
        """See who is missing, if it is time to."""
        return self._look(now) if self._listed and (at_once or now >= self._look_at) else NO_NEWS

    def _look(self, now: float) -> News:
        self._look_at = now + LOOK_S
        self._missing = {}
        for node, listed in self._listed.items():
            for name, place in listed.places.items():
                hears = self._hears(node, name, now)
                if hears or self._is_suspect(node, name):
                    listed.known_at[name] = now
                    listed.lives_at.pop(name, None)
                if hears:
                    place.asked, place.ask_next = 0, now
                else:
                    self._missing.setdefault(name, {})[node] = place
        news = News()
        for name, link in self._roster.links.items():
            before, link.blocked = link.blocked, self._blocked_on(name, now)
            if link.blocked != before and not link.state.routed:  # where nothing can be claimed
                news.changed = True
                self._say_what_decides(name, before, link.blocked)
        return news

    def _blocked_on(self, link: LinkName, now: float) -> frozenset[NodeName]:
        blocked = set()
        for node, place in self._missing.get(link, {}).items():
            listed = self._listed[node]
            if self._is_suspect(node, link):
                blocked.add(node)
                continue
            if listed.renewed_at >= listed.known_at.get(link, place.since) + GRACE_S:
                listed.lives_at.setdefault(link, now)
            if link in listed.known_at:
                unheard = now >= listed.lives_at.get(link, NEVER) + START_BOUND_S
            else:
                asked = place.asked >= 2 and now >= place.asked_at + ANSWER_S
                unheard = asked or now >= place.since + START_BOUND_S
            if unheard and listed.speaker.fresh:
                blocked.add(node)
        return frozenset(blocked)

    def _say_what_decides(self, link: LinkName, before: frozenset[NodeName], blocked: frozenset[NodeName]) -> None:
        if bool(before) == bool(blocked):
            return
        if blocked:
            self._roster.report("RecordDecides", link=link, blocked=len(blocked), nodes=first_few(sorted(blocked)))
        else:
            self._roster.report("WireDecides", link=link)

    def proved(self) -> dict[LinkName, tuple[NodeName, ...]]:
        """By link, who is blocked for certain: its Lease was renewed since it should have been heard."""
        proved: dict[LinkName, tuple[NodeName, ...]] = {}
        for name, link in self._roster.links.items():
            listed = ((node, self._listed.get(node)) for node in sorted(link.blocked))
            nodes = tuple(
                node
                for node, each in listed
                if (each is not None and name in each.lives_at) or self._is_suspect(node, name)
            )
            if nodes:
                proved[name] = nodes
        return proved

    def awaited(self, now: float) -> bool:
        """Whether to wait with the first claim for somebody's answer."""
        if self._known_at is None or now >= self._known_at + START_BOUND_S:
            return False
        return any(
            place.asked < 2 or now < place.asked_at + ANSWER_S
            for link, missing in self._missing.items()
            for node, place in missing.items()
            if self._listed[node].speaker.fresh and not self._hears(node, link, now)
        )

    def due(self, link: LinkName, now: float) -> list[Contact]:
        """Whom to send the heartbeat of a link by unicast, which goes out now."""
        waiting = [
            (place.ask_next, node, place)
            for node, place in self._missing.get(link, {}).items()
            if place.ask_next <= now and not self._hears(node, link, now)
        ]
        due: list[Contact] = []
        for _, node, place in sorted(waiting, key=lambda one: one[:2])[:AT_ONCE]:
            place.asked += 1
            place.asked_at = now
            place.ask_next = now + self._pause(node, place.asked)
            for address, mac in place.contacts:
                if mac:
                    due.append((address, mac))
                else:
                    self._roster.emit(AskAddress(link, address))
        return due

    def _hears(self, node: NodeName, link: LinkName, now: float) -> bool:
        """Whether datagrams of the speaker arrive, or did until now, or another speaker stands in for it."""
        absence = self._roster.absences.get(node)
        away = absence.peer.sightings.get(link) if absence is not None else None
        if away is not None and away.standing is not Standing.DEAD:
            return True
        sighting = self._roster.sighting(node, link)
        if sighting is None or sighting.standing is Standing.DEAD:
            return False
        return sighting.suspicion is None or now < sighting.suspicion.since + SUSPECT_S

    def _is_suspect(self, node: NodeName, link: LinkName) -> bool:
        sighting = self._roster.sighting(node, link)
        return sighting is not None and sighting.suspicion is not None

    def _pause(self, node: NodeName, asked: int) -> float:
        if asked == 1:
            return self._roster.settings.question_gap_s
        longest = LONGEST_PAUSE_S if self._listed[node].speaker.fresh else LONGEST_STALE_PAUSE_S
        return doubled(self._roster.settings.interval_s, asked - 1, longest)


def _contacts(links: tuple[ListedLink, ...], here: LinkState) -> Iterator[Contact]:
    """Where a speaker with these links is reached on a link of ours: on the first of them that has an address in a
    subnet of ours. In IPv4 that is its address there. In IPv6 it is its link-local one, by which heartbeats go. Where
    the kernel routes, it is at each of its addresses."""
    own = {address_of(text) for text in here.own}
    if here.routed:
        everywhere = dict.fromkeys(address_of(text) for link in links for text in link.addresses)
        yield from ((address, ROUTED_MAC) for address in everywhere if address not in own)
        return
    networks = networks_of(here.prefixes)
    for link in links:
        addresses = [ipaddress.ip_address(address_of(text)) for text in link.addresses]
        near = [ip for ip in addresses if str(ip) not in own and any(ip in network for network in networks)]
        if not near:
            continue
        v4 = next((ip for ip in near if ip.version == 4), None)
        if v4 is not None:
            yield AddressText(str(v4)), Mac(link.mac)
        v6 = next((ip for ip in addresses if ip.version == 6 and ip.is_link_local and str(ip) not in own), None)
        if v6 is not None and here.link_local is not None:
            yield AddressText(str(v6)), Mac(link.mac)
        return
