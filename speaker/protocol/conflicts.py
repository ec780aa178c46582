"""Who else on the LAN has an address of the Plan, and whether it still has it.

A conflict begins when somebody else is found to have an address: before the address was ever announced (``probes``), so
that it is *withheld*, or while this node answers for it (``rivals``). A host that has an address need not send anything
for hours, so silence does not end a conflict. The address is asked for again (a probe, RFC 5227 §2.1.1, RFC 4862
§5.4.2): after one second, and then after twice as long each time, up to 30 s.

A withheld address is free after one probe that nobody answers. A conflict about an address that is answered for ends
after two, since nothing waits for it. A conflict that is not this node's any more, because it claims the address no
more or another speaker claims the withheld one, is forgotten without a word.

The table has addresses of the Plan only, so that no host on the LAN can make it grow. One call asks for 100 addresses.

Not promised: that a host is found whose answers are lost. An address that is answered for is watched all the while.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cluster.objects import AddressText, NodeName
from cluster.times import NEVER
from speaker.link import LinkName, Mac
from speaker.protocol.effects import ConflictView, NeighbourSeen, ProbeAddress
from speaker.protocol.roster import Roster

PROBE_WAIT_S = 0.05
"""For the answer to a probe: hosts on a LAN answer within some milliseconds."""
FIRST_GAP_S = 1.0
LONGEST_GAP_S = 30.0
ASKED_AT_ONCE = 100
UNANSWERED = {True: 1, False: 2}
"""Probes in a row that nobody answers, until a conflict is over; by whether the address is withheld."""


@dataclass(slots=True)
class ConflictState:
    """Somebody else has an address."""

    link: LinkName
    mac: Mac
    seen: str
    """What the other one is, as far as it is known (``rivals``)."""
    node: NodeName | None
    cluster: str
    """Digest of the cluster of which it is a speaker; empty: of none that is known."""
    withheld: bool
    """The address was never announced, and is not until the other one has gone."""
    told: bool
    """It is this node's to tell of."""
    due: float = NEVER
    gap_s: float = FIRST_GAP_S
    asked: bool = False
    """An answer is waited for."""
    unanswered: int = 0


class Conflicts:
    """Sans-IO; emits ``ProbeAddress`` and ``Decision``."""

    def __init__(
        self,
        roster: Roster,
        links_of: Callable[[AddressText, float], frozenset[LinkName]],
        claims: Callable[[AddressText], bool],
    ) -> None:
        """``links_of``: where an address may be answered; ``claims``: whether this node claims it."""
        self._roster = roster
        self._links_of = links_of
        self._claims = claims
        self._of: dict[AddressText, ConflictState] = {}
        self._dues: list[tuple[float, AddressText]] = []
        """A heap. An entry that is not its conflict's ``due`` any more is passed over."""

    def __len__(self) -> int:
        return len(self._of)

    def of(self, address: AddressText) -> ConflictState | None:
        return self._of.get(address)

    def is_withheld(self, address: AddressText) -> bool:
        conflict = self._of.get(address)
        return conflict is not None and conflict.withheld

    def find(self, address: AddressText, conflict: ConflictState, now: float) -> None:
        """Somebody else was found to have the address."""
        known = self._of.get(address)
        if known is not None and known.withheld is conflict.withheld:
            known.link, known.mac, known.seen = conflict.link, conflict.mac, conflict.seen
            known.node, known.cluster = conflict.node, conflict.cluster
            return
        self._of[address] = conflict
        self._set_due(address, conflict, now + conflict.gap_s)

    def hear(self, seen: NeighbourSeen, node: NodeName | None, now: float) -> None:
        """A frame whose sender has an address: perhaps the answer to a probe. ``node``: the speaker whose MAC it
        carries. A kernel of our own that answers is no reason to withhold an address."""
        conflict = self._of.get(seen.sender)
        if conflict is None or not conflict.asked or (conflict.withheld and node is not None):
            return
        conflict.asked, conflict.unanswered = False, 0
        conflict.gap_s = min(2 * conflict.gap_s, LONGEST_GAP_S)
        conflict.link, conflict.mac = seen.link, seen.sender_mac
        self._set_due(seen.sender, conflict, now + conflict.gap_s)

    def forget(self, address: AddressText) -> None:
        """It left the Plan."""
        self._of.pop(address, None)

    def withhold_no_more(self, address: AddressText) -> None:
        """A speaker of ours claims it."""
        if self.is_withheld(address):
            del self._of[address]

    def discard_answers(self, now: float) -> None:
        """What has arrived was thrown away: ask again for what was asked for."""
        for address, conflict in self._of.items():
            if conflict.asked:
                conflict.asked = False
                self._set_due(address, conflict, now)

    @property
    def next_deadline(self) -> float:
        return self._dues[0][0] if self._dues else NEVER

    def check(self, now: float) -> Iterator[AddressText]:
        """Ask for what is due. Returns the withheld addresses that are free now."""
        asked = 0
        while self._dues and self._dues[0][0] <= now and asked < ASKED_AT_ONCE:
            at, address = heapq.heappop(self._dues)
            conflict = self._of.get(address)
            if conflict is None or conflict.due != at:
                continue
            if not conflict.withheld and not self._claims(address):
                del self._of[address]
                continue
            if conflict.asked:
                conflict.asked = False
                conflict.unanswered += 1
            if conflict.unanswered < UNANSWERED[conflict.withheld]:
                conflict.asked = self.probe(address, now)
                self._set_due(address, conflict, now + (PROBE_WAIT_S if conflict.asked else conflict.gap_s))
                asked += 1
                continue
            del self._of[address]
            if conflict.told:
                self._roster.report("ConflictOver", address=address, link=conflict.link, mac=conflict.mac.hex(":"))
            if conflict.withheld:
                yield address

    def probe(self, address: AddressText, now: float) -> bool:
        """Ask everybody on the address's links whether anybody has it; whether there is such a link."""
        links = sorted(link for link in self._links_of(address, now) if self._roster.may_claim(link, now))
        for link in links:
            self._roster.emit(ProbeAddress(link, address))
        return bool(links)

    def views(self) -> Iterator[ConflictView]:
        """Those that this node tells of."""
        for address, conflict in self._of.items():
            if conflict.told:
                yield ConflictView(
                    address,
                    conflict.mac.hex(":"),
                    conflict.link,
                    conflict.seen,
                    conflict.node or "",
                    conflict.cluster,
                    conflict.withheld,
                )

    def _set_due(self, address: AddressText, conflict: ConflictState, at: float) -> None:
        conflict.due = at
        heapq.heappush(self._dues, (at, address))
