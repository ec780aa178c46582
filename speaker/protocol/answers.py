"""Tells the responder what to answer for, and the watcher what is claimed, as far as it changed.

Both follow from the addresses that ``ownership`` touched. Besides, the responder answers with another node's MAC where
this node stands in for that one (``standing_in``). What is true of a link as a whole is told of the link: that
nothing is answered there, or that nothing gratuitous is sent. Where an address moves to another link of this node,
gratuitous frames are sent there, since clients know the former MAC.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain

from cluster.objects import AddressText
from speaker.link import LinkName, Mac
from speaker.protocol.effects import AnswerChange, SendGratuitous
from speaker.protocol.owners import NOWHERE
from speaker.protocol.ownership import Ownership
from speaker.protocol.roster import Roster
from speaker.protocol.standing_in import StandIns

NO_MACS: Mapping[LinkName, Mac] = {}


class Answers:
    def __init__(self, roster: Roster, ownership: Ownership, stand_ins: StandIns) -> None:
        self.where: dict[AddressText, frozenset[LinkName]] = {}
        """Each address that is answered for, and on which links, those that are suspended included."""
        self.macs: dict[AddressText, Mapping[LinkName, Mac]] = {}
        """Of these, the MACs of other nodes that answers name."""
        self.quiet: frozenset[LinkName] = frozenset()
        self.suspended: frozenset[LinkName] = frozenset()
        """As in `AnswerChange`."""
        self._roster = roster
        self._ownership = ownership
        self._stand_ins = stand_ins
        self._changes: dict[AddressText, frozenset[LinkName]] = {}
        self._told: tuple[frozenset[LinkName], ...] = (self.quiet, self.suspended)
        self._told_claims: dict[AddressText, int] = {}
        self._claim_changes: dict[AddressText, None] = {}

    def look_at_links(self) -> None:
        """Something was found out about a link, or about somebody on it."""
        links = self._roster.links
        self.quiet = frozenset(name for name, link in links.items() if link.quiet)
        self.suspended = frozenset(name for name, link in links.items() if not link.answering)

    def answers(self, address: AddressText, link: LinkName) -> bool:
        """Whether the address is answered on the link."""
        return link in self.where.get(address, NOWHERE) and link not in self.suspended

    def note(self, now: float) -> None:
        """Work out what may have changed."""
        ownership = self._ownership
        if not ownership.touched and not self._stand_ins.touched:
            return
        moved: list[AddressText] = []
        for address in dict.fromkeys(chain(ownership.touched, self._stand_ins.touched)):
            before, macs_before = self.where.get(address, NOWHERE), self.macs.get(address, NO_MACS)
            held, macs = ownership.owners.held_on(address, now), self._stand_ins.lent(address, now)
            macs = {link: mac for link, mac in macs.items() if link not in held}
            here = held.union(macs)
            if before == here and macs_before == macs:
                continue
            self.where[address], self.macs[address] = here, macs
            if not here:
                del self.where[address]
            if not macs:
                del self.macs[address]
            self._changes[address] = here
            if (own_before := before - macs_before.keys()) and held - own_before:
                moved.append(address)  # whoever knows its former MAC is to learn the new one
        self._claim_changes.update(ownership.touched)
        ownership.touched.clear()
        self._stand_ins.touched.clear()
        if moved:
            self._roster.emit(SendGratuitous(tuple(moved)))

    def take(self) -> AnswerChange | None:
        """What changed since the last call; ``None`` when nothing."""
        if not self._changes and self._told == (self.quiet, self.suspended):
            return None
        changes, self._changes = self._changes, {}
        self._told = self.quiet, self.suspended
        macs = {address: self.macs[address] for address in changes if address in self.macs}
        return AnswerChange(changes, self.quiet, self.suspended, macs)

    def answered(self) -> Mapping[AddressText, frozenset[LinkName]]:
        """What is answered, whole."""
        links = ((address, links - self.suspended) for address, links in self.where.items())
        return {address: here for address, here in links if here}

    def own_links(self) -> frozenset[LinkName]:
        """Where anything is answered in this node's own name."""
        links: set[LinkName] = set()
        for address, here in self.where.items():
            if not here <= links:
                links |= here - self.macs.get(address, NO_MACS).keys()
        return frozenset(links)

    def take_claims(self) -> Mapping[AddressText, int | None]:
        """Own claims that changed since the last call, with their epochs; ``None`` for one that is no more."""
        changes: dict[AddressText, int | None] = {}
        for address in self._claim_changes:
            claim = self._ownership.log.claims.get(address)
            epoch = claim.epoch if claim is not None else None
            if self._told_claims.get(address) == epoch:
                continue
            changes[address] = epoch
            if epoch is None:
                del self._told_claims[address]
            else:
                self._told_claims[address] = epoch
        self._claim_changes.clear()
        return changes
