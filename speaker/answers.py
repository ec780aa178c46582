"""What this node answers for, and what it claims, as they change: for the responder and for the watcher.

Both are kept along with what ``ownership`` says was touched; only where links change is everything looked at. An
address that is answered on another link than before is announced there, since its clients know the former MAC.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cluster.objects import AddressText
from speaker.effects import Announce, HeldChange
from speaker.owners import NOWHERE
from speaker.ownership import Ownership
from speaker.plan import LinkName
from speaker.roster import Roster


class Answers:
    def __init__(self, roster: Roster, ownership: Ownership) -> None:
        self.held: dict[AddressText, frozenset[LinkName]] = {}
        """Each address that is answered, and where."""
        self.quiet: frozenset[LinkName] = frozenset()
        """Links on which nothing gratuitous may be sent: we may be the ones who are cut off there."""
        self._roster = roster
        self._ownership = ownership
        self._changes: dict[AddressText, frozenset[LinkName]] = {}
        self._told_quiet: frozenset[LinkName] = frozenset()
        self._told_claims: dict[AddressText, int] = {}
        self._claim_changes: dict[AddressText, None] = {}

    def note(self, now: float) -> None:
        """Work out what may have changed."""
        ownership = self._ownership
        if not ownership.touched and not ownership.all_touched:
            return
        touched: Iterable[AddressText] = ownership.touched
        if ownership.all_touched:
            touched = {*self.held, *self._ownership.log.claims, *ownership.touched}
            self.quiet = frozenset(
                name
                for name, segment in self._roster.links.items()
                if segment.isolated or segment.quiet_since is not None
            )
        moved: list[AddressText] = []
        for address in touched:
            before, here = self.held.get(address, NOWHERE), ownership.answered(address, now)
            if before == here:
                continue
            if here:
                self.held[address] = here
            else:
                del self.held[address]
            self._changes[address] = here
            if before and here - before:
                moved.append(address)  # whoever knows its former MAC is to learn the new one
        self._claim_changes.update(dict.fromkeys(ownership.touched))
        ownership.touched, ownership.all_touched = {}, False
        if moved:
            self._roster.emit(Announce(tuple(moved)))

    def take(self) -> HeldChange | None:
        """What changed since the last call; ``None`` when nothing."""
        if not self._changes and self.quiet == self._told_quiet:
            return None
        changes, self._changes = self._changes, {}
        self._told_quiet = self.quiet
        return HeldChange(changes, self.quiet)

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
