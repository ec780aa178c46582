"""Hands bundles over: the holder names a successor, and goes on answering until that one is heard to claim.

1. The holder offers a bundle to the node that ``moving`` names: it says an ``Offer`` at once, and again after 100 ms
   and 200 ms.
2. The successor claims, if its own Plan agrees (``claiming``). Its claim is higher than the holder's, as
   each later claim is, so the holder withdraws on hearing it. Somebody answers all the while, and both do for as long
   as the claim is on its way.
3. A successor that is not heard to claim within 300 ms was named in vain. ``moving`` names another node, if there is
   one (``successors``).
4. A node that was named in vain may have claimed all the same, where nothing of it arrives here any more. So two
   seconds after it was named it is asked for the address. If it proves that it answers, the holder releases the bundle.
   But not where a claim on some of the bundle was heard: a node that cannot take all of it has not taken the rest.
5. It is asked again each second, since its answers are all that is known of its claim. This node claims the bundle
   again only when two questions were left unanswered, or another node's claim was heard and has ended.

**Work is bounded.** At most 500 addresses are on offer at a time, or one bundle. The others wait until these are taken.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from cluster.addresses import family_of
from cluster.objects import AddressText, NodeName
from cluster.times import LONG_AGO, NEVER
from speaker.plan import Bundle, BundleId
from speaker.protocol.datagram import NONCE_OCTETS
from speaker.protocol.effects import AskAddress, NeighbourSeen
from speaker.protocol.heartbeat import MAX_OFFERED, Offer, pack_address
from speaker.protocol.roster import Roster

OFFER_S = 0.3  # for a successor to be heard to claim
SAY_GAP_S = 0.1
MAX_ON_OFFER = 500  # addresses at a time
ASK_S = 2.0  # after which a node that was named in vain is asked for the address
ANSWER_S = 1.0  # for its answer
UNANSWERED = 2  # questions, after which a node that took a bundle is believed to have it no more


@dataclass(slots=True)
class _HandOver:
    addresses: tuple[AddressText, ...]
    """Those that this node claims."""
    why: str
    to: NodeName
    session: int
    next_at: float = LONG_AGO
    """When it is to be said again."""
    until: float = NEVER
    heard: bool = False
    """Somebody was heard to claim some of it."""


@dataclass(slots=True)
class _InVain:
    """A node that was named and not heard to claim."""

    address: AddressText
    next_at: float
    """When it is to be asked, or has answered for long enough."""
    nonce: bytes = b""
    """Of the question."""


@dataclass(slots=True)
class _Taken:
    """A bundle that a node has taken, as its answers alone show."""

    node: NodeName
    address: AddressText
    next_at: float
    nonce: bytes = b""
    unanswered: int = 0
    """Questions since its last answer."""


class HandOvers:
    """Sans-IO; emits ``AskAddress`` and ``Decision``."""

    def __init__(self, roster: Roster, rng: random.Random) -> None:
        self._roster = roster
        self._rng = rng
        self._open: dict[BundleId, _HandOver] = {}
        """On offer."""
        self._waiting: dict[BundleId, _HandOver] = {}
        """To be offered when others are taken."""
        self._on_offer = 0
        """Addresses."""
        self._in_vain: dict[BundleId, dict[NodeName, _InVain]] = {}
        self._taken: dict[BundleId, _Taken] = {}
        self._offers: list[Offer] = []
        self._next_at = NEVER

    def begin(self, bundle: Bundle, addresses: Iterable[AddressText], to: NodeName, why: str) -> None:
        """Hand a bundle, of which this node claims these addresses, over to a peer."""
        self._waiting[bundle.id] = _HandOver(tuple(addresses), why, to, self._roster.peers[to].session)
        self._next_at = LONG_AGO

    def __contains__(self, id_: BundleId) -> bool:
        """Whether a bundle is being handed over."""
        return id_ in self._open or id_ in self._waiting

    def why(self, id_: BundleId) -> str:
        """Why a bundle is being handed over; empty where it is not."""
        over = self._open.get(id_) or self._waiting.get(id_)
        return over.why if over is not None else ""

    def to(self, id_: BundleId) -> NodeName | None:
        """Whom a bundle is being handed over to."""
        over = self._open.get(id_) or self._waiting.get(id_)
        return over.to if over is not None else None

    def under_way(self) -> Counter[NodeName]:
        """How many addresses are being handed over to whom: nobody claims them there yet."""
        under_way = Counter[NodeName]()
        for over in chain(self._open.values(), self._waiting.values()):
            under_way[over.to] += len(over.addresses)
        return under_way

    def end(self, id_: BundleId) -> None:
        """The bundle is another node's, or not to be handed over any more."""
        self._waiting.pop(id_, None)
        self._in_vain.pop(id_, None)
        if self._close(id_) is not None and self._waiting:
            self._next_at = LONG_AGO

    def _close(self, id_: BundleId) -> _HandOver | None:
        closed = self._open.pop(id_, None)
        if closed is not None:
            self._on_offer -= len(closed.addresses)
        return closed

    @property
    def next_deadline(self) -> float:
        return self._next_at

    def take_offers(self) -> list[Offer]:
        """What is to be said to everybody."""
        offers, self._offers = self._offers, []
        return offers

    # ------------------------------------------------------------------------------------------------ in time

    def review(self, now: float) -> list[tuple[BundleId, NodeName]]:
        """Say what is to be said now. Returns what was offered in vain, and to whom."""
        in_vain: list[tuple[BundleId, NodeName]] = []
        for id_ in [id_ for id_, each in self._open.items() if now >= each.until]:
            if (over := self._close(id_)) is not None:
                in_vain.append((id_, over.to))
                if not over.heard:
                    asked = _InVain(over.addresses[0], over.until - OFFER_S + ASK_S)
                    self._in_vain.setdefault(id_, {}).setdefault(over.to, asked)
                for address in over.addresses:
                    self._roster.report("NotTaken", address=address, to=over.to)
        self._offer_more(now)
        said: dict[int, list[AddressText]] = {}
        for over in self._open.values():
            if now >= over.next_at:
                said.setdefault(over.session, []).extend(over.addresses)
                over.next_at = now + SAY_GAP_S
        self._offers += _in_datagrams(said)
        self._ask(now)
        times = [min(each.next_at, each.until) for each in self._open.values()]
        times += [each.next_at for nodes in self._in_vain.values() for each in nodes.values()]
        times += [each.next_at for each in self._taken.values()]
        self._next_at = min(times, default=NEVER)
        return in_vain

    def _offer_more(self, now: float) -> None:
        while self._waiting:
            id_, over = next(iter(self._waiting.items()))
            if self._open and self._on_offer + len(over.addresses) > MAX_ON_OFFER:
                return
            del self._waiting[id_]
            over.until = now + OFFER_S
            self._open[id_] = over
            self._on_offer += len(over.addresses)
            for address in over.addresses:
                self._roster.report("Offered", address=address, to=over.to, why=over.why)

    # ------------------------------------------------------------------------------------------------ named in vain

    def _ask(self, now: float) -> None:
        for id_, nodes in list(self._in_vain.items()):
            for node, asked in list(nodes.items()):
                if now < asked.next_at:
                    continue
                if asked.nonce:
                    del nodes[node]
                    continue
                asked.nonce, asked.next_at = self._ask_node(node, asked.address), now + ANSWER_S
            if not nodes:
                del self._in_vain[id_]

    def _ask_node(self, node: NodeName, address: AddressText) -> bytes:
        """Ask a node whether it answers for an address, wherever it was heard. Returns the question's nonce."""
        nonce = self._rng.getrandbits(8 * NONCE_OCTETS).to_bytes(NONCE_OCTETS)
        peer = self._roster.peers.get(node)
        for name, sighting in peer.sightings.items() if peer is not None else ():
            link = self._roster.links.get(name)
            if link is not None and link.answering and family_of(address) in link.state.families:
                self._roster.emit(AskAddress(name, address, sighting.mac, nonce))
        return nonce

    def note_answer(
        self, id_: BundleId, seen: NeighbourSeen, node: NodeName, proves: Callable[[bytes], bool], now: float
    ) -> bool:
        """Whether a frame shows that a node that was named in vain answers for a bundle's address. ``proves`` says
        whether the frame has what a member makes of a nonce."""
        taken = self._taken.get(id_)
        if taken is not None and taken.nonce and (node, seen.sender) == (taken.node, taken.address):
            taken.unanswered = 0 if proves(taken.nonce) else taken.unanswered
        asked = self._in_vain.get(id_, {}).get(node)
        if asked is None or not asked.nonce or seen.sender != asked.address or not proves(asked.nonce):
            return False
        self._taken[id_] = _Taken(node, asked.address, now + ANSWER_S)
        self._next_at = min(self._next_at, now + ANSWER_S)
        return True

    # ------------------------------------------------------------------------------------------------ taken unheard

    def is_away(self, id_: BundleId) -> bool:
        """Whether a node has the bundle, as its answers alone show."""
        return id_ in self._taken

    def heard(self, id_: BundleId) -> None:
        """Another node's claim on some of it was heard: from now on claims tell whose it is."""
        self._taken.pop(id_, None)
        self._in_vain.pop(id_, None)
        if (over := self._open.get(id_)) is not None:
            over.heard = True

    def ask_again(self, now: float) -> bool:
        """Ask those who have taken a bundle. Returns whether of some nobody answers any more."""
        back = [id_ for id_, each in self._taken.items() if now >= each.next_at and each.unanswered >= UNANSWERED]
        for id_ in back:
            del self._taken[id_]
        for taken in self._taken.values():
            if now >= taken.next_at:
                taken.nonce, taken.next_at = self._ask_node(taken.node, taken.address), now + ANSWER_S
                taken.unanswered += 1
        return bool(back)


def _in_datagrams(said: dict[int, list[AddressText]]) -> Iterator[Offer]:
    for session, addresses in said.items():
        packed = tuple(map(pack_address, addresses))
        for first in range(0, len(packed), MAX_OFFERED):
            yield Offer(session, packed[first : first + MAX_OFFERED])
