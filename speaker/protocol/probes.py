"""Asks whether anybody has a newly assigned address, before this node claims it for the first time.

The problem: a person may have given an address of a pool to a machine. A speaker that announced it all the same would
take the machine's traffic. RFC 5227 §2.1.1 and RFC 4862 §5.4 have a host ask first.

**Newly assigned** is an address that came into this speaker's Plan while the speaker was running, and that nobody was
ever heard to claim. So the question costs a take-over nothing: an address that somebody has held since is not new. It
costs a restart nothing either, of one speaker or of all: what a speaker finds in its first Plan is not new, unless the
record says that the address was withheld (`Bundle.withheld`).

1. When it is this node's turn to claim such an address, it sends one probe on each link where it may claim it, and
   waits for 50 ms. All addresses of a bundle are asked for at once.
2. Nobody answers: the address is claimed.
3. A stranger answers: the address is withheld. The rest of the bundle is claimed. ``conflicts`` asks again, and when
   the stranger has gone the address is claimed.
4. A speaker's own node answers without a claim: its kernel does so, as kube-proxy's does in IPVS mode without
   strictARP. That node serves the address too, so that nothing is withheld; it is told of once in ten minutes.

The next candidate's turn comes while the chosen one withholds an address. It asks too, and withholds it too. Only the
chosen one tells of it.

Not promised: that a host is found that does not answer within 50 ms, or only answers on another segment; and that an
address is asked for that was assigned while no speaker ran.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from cluster.objects import AddressText, NodeName
from cluster.times import LONG_AGO, NEVER
from speaker.plan import Bundle, BundleId
from speaker.protocol.conflicts import PROBE_WAIT_S, Conflicts, ConflictState
from speaker.protocol.effects import NeighbourSeen
from speaker.protocol.foreign import ForeignSpeakers
from speaker.protocol.owners import Owners
from speaker.protocol.roster import Roster
from speaker.protocol.standing import Standing

GOOD_FOR_S = 5.0
"""For which no answer means that nobody has the address. The claim follows at once, or when a round comes to it."""
KERNEL_TOLD_S = 600.0
"""Between two decisions about the kernel of one node."""


class Probes:
    """Sans-IO; emits ``ProbeAddress`` and ``Decision``."""

    def __init__(self, roster: Roster, owners: Owners, conflicts: Conflicts, foreign: ForeignSpeakers) -> None:
        self._roster = roster
        self._owners = owners
        self._conflicts = conflicts
        self._foreign = foreign
        self._new: set[AddressText] = set()
        self._asked: dict[AddressText, float] = {}
        """When the answer to the latest probe must have come."""
        self._found_out: deque[tuple[float, BundleId]] = deque()
        """When which bundles are to be looked at again; in order of time."""
        self._kernels: dict[NodeName, float] = {}
        """Nodes whose kernel was told of, and when."""

    # ------------------------------------------------------------------------------------------------ what is new

    def enter(self, changed: Iterable[Bundle], former: Iterable[Bundle], *, first: bool) -> None:
        """The Plan has changed; ``first``: it is this speaker's first one."""
        if not self._roster.settings.probes:
            return
        before = {address for bundle in former for address in bundle.addresses}
        for bundle in changed:
            if bundle.withheld or not first:
                self._new.update(address for address in bundle.addresses if address not in before)

    def forget(self, address: AddressText) -> None:
        """It is not new any more: somebody has claimed it, or it left the Plan."""
        self._new.discard(address)
        self._asked.pop(address, None)

    # ------------------------------------------------------------------------------------------------ asking

    def free(self, addresses: tuple[AddressText, ...], now: float, *, chosen: bool) -> tuple[AddressText, ...]:
        """Those of a bundle's addresses that may be claimed now: none, while some are being asked for. ``take_due``
        names the bundle when there is more to know. ``chosen``: this node is the one that should have the bundle."""
        new = [address for address in addresses if address in self._new and self._owners.never_held(address)]
        if not new:
            return addresses
        asking = [address for address in new if self._is_asked_for(address, now, chosen=chosen)]
        if asking:
            return ()
        return tuple(address for address in addresses if not self._conflicts.is_withheld(address))

    def _is_asked_for(self, address: AddressText, now: float, *, chosen: bool) -> bool:
        """Whether its answer is waited for; ask, if that was not done lately."""
        conflict = self._conflicts.of(address)
        if conflict is not None and conflict.withheld:
            if chosen and not conflict.told:
                conflict.told = True
                self._tell_taken(address, conflict)
            return False
        due = self._asked.get(address, LONG_AGO)
        if now < due + GOOD_FOR_S:
            return now < due
        if not self._conflicts.probe(address, now):
            return False
        self._asked[address] = now + PROBE_WAIT_S
        bundle = self._owners.bundle_of(address)
        if bundle is not None:
            self._found_out.append((now + PROBE_WAIT_S, bundle.id))
        return True

    def receive(self, seen: NeighbourSeen, node: NodeName | None, now: float) -> None:
        """A frame whose sender has an address; ``node`` is the speaker whose MAC it carries."""
        address = seen.sender
        if address not in self._asked or address not in self._new or not self._owners.never_held(address):
            return
        if node is not None:
            self._meet_kernel(seen, node, now)
            return
        if self._conflicts.is_withheld(address) or now >= self._asked[address] + GOOD_FOR_S:
            return
        cluster = self._foreign.cluster_of(seen.sender_mac, now)
        kind = "cluster" if cluster else "stranger"
        conflict = ConflictState(seen.link, seen.sender_mac, kind, None, cluster, withheld=True, told=False)
        self._conflicts.find(address, conflict, now)

    def over(self, address: AddressText, now: float) -> None:
        """Who had the withheld address has gone."""
        self._asked[address] = now
        bundle = self._owners.bundle_of(address)
        if bundle is not None:
            self._found_out.appendleft((now, bundle.id))

    def discard_answers(self) -> None:
        """What has arrived was thrown away: ask again."""
        self._asked.clear()

    @property
    def next_deadline(self) -> float:
        return self._found_out[0][0] if self._found_out else NEVER

    def take_due(self, now: float) -> Iterator[BundleId]:
        """Bundles of which more is known than before."""
        while self._found_out and self._found_out[0][0] <= now:
            yield self._found_out.popleft()[1]

    # ------------------------------------------------------------------------------------------------ telling

    def _tell_taken(self, address: AddressText, conflict: ConflictState) -> None:
        self._roster.report(
            "AddressTaken",
            address=address,
            link=conflict.link,
            mac=conflict.mac.hex(":"),
            seen=conflict.seen,
            **({"cluster": conflict.cluster} if conflict.cluster else {}),
        )

    def _meet_kernel(self, seen: NeighbourSeen, node: NodeName, now: float) -> None:
        """One of our nodes answers. Its speaker's claim would be known by now, if there were one: unless it is not
        heard here, or some of its claims are on their way."""
        sighting, peer = self._roster.sighting(node, seen.link), self._roster.peers.get(node)
        if sighting is None or sighting.standing is not Standing.ALIVE or peer is None or peer.behind_since is not None:
            return
        if now - self._kernels.get(node, LONG_AGO) < KERNEL_TOLD_S:
            return
        self._kernels = {who: at for who, at in self._kernels.items() if now - at < KERNEL_TOLD_S}
        self._kernels[node] = now
        mac = seen.sender_mac.hex(":")
        self._roster.report("AddressConflict", address=seen.sender, link=seen.link, mac=mac, seen="kernel", node=node)
