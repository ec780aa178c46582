"""Says who owns an address on a link, and where this node answers for it.

On each link of an address its owner is the node of the highest claim (``claims.outranks``) among those that live there,
this node included. A node has one claim on an address, whatever the number of its links, and answers on those where no
other claim is higher. Two examples:

- A holder whose cable to one network is out owns nothing there, although it lives on another network.
- Two nodes that hear each other on one network and not on another each answer on their side of the cut.

A node is the owner only where it can answer. Its kernel serves an address only where it speaks the address's family,
and advertisements may name interfaces. So an address has no links on this node that do not speak its family, wherever
it belongs. A claim of another node does not count where that one's heartbeats do not say the family, nor on segments of
other links than the claim says (``Roster.claim_of``). What an absent session claims counts as long as another speaker
stands in for it (``absences``).

Two kinds of links count for less. One that is down counts for nothing. One on which no other speaker was ever heard, as
a bridge for containers, counts only where all links of the address are such: the address is answered for there by its
holder, and nobody claims it because of that link.

**Epochs.** A claim has the next even epoch above all that were heard of the address, or read of it at a start. A claim
made while nothing proves that this node can hear (``Link.alone``) has an odd epoch below the claim that it stands in
for: if that one's holder lives after all, its claim stays. At the end of the range epochs stay where they are, and
preference and name decide. A member that claims the highest epoch can hold an address, but keeps nobody from claiming
it afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import NamedTuple

from cluster.addresses import family_of
from cluster.objects import AddressText, NodeName
from speaker.link import LinkName
from speaker.plan import Bundle, Candidate
from speaker.protocol.bundles import Bundles
from speaker.protocol.claims import Claim, ClaimLog, outranks
from speaker.protocol.heartbeat import MAX_CLAIM_LINKS, MAX_EPOCH
from speaker.protocol.peers import LinkFamily, Network, Peer
from speaker.protocol.roster import Roster
from speaker.protocol.subnets import Subnets, networks_of

FIRST_EPOCH = 2
HIGHEST_EPOCH = MAX_EPOCH - 2
MOST_EPOCH = 1 << 31
"""To which take-overs may lead, two by two: a higher one is a lie, or comes of one."""
NOWHERE: frozenset[LinkName] = frozenset()


class Owner(NamedTuple):
    node: NodeName
    claim: Claim


class _Belonging(NamedTuple):
    """Where an address belongs."""

    belongs: frozenset[LinkFamily]
    """Also on links that do not speak its family: others may."""
    answered_on: frozenset[LinkName]
    """Of the links that do, one for each segment."""
    counts: tuple[LinkFamily, ...]
    """Those of ``answered_on`` where it matters who owns it."""


class Owners:
    def __init__(self, roster: Roster, log: ClaimLog, bundles: Bundles) -> None:
        self._roster = roster
        self._log = log
        self._bundles = bundles
        self._subnets = Subnets(roster)
        self._places: dict[AddressText, _Belonging] = {}
        self._epochs: dict[AddressText, int] = {}
        """The highest heard or said of addresses in the Plan."""

    # ------------------------------------------------------------------------------------------------ links

    def forget_links(self) -> None:
        """Links, or what is known of subnets, are not what they were."""
        self._places.clear()

    def links_of(self, address: AddressText, now: float) -> frozenset[LinkName]:
        """Where the address may be answered."""
        return self._place(address, now).answered_on

    def links_of_unnamed(self, address: AddressText, now: float) -> frozenset[LinkName]:
        """Where a node for which no interfaces are named may answer for the address."""
        bundle = self._bundles.of.get(address)
        if bundle is None or not bundle.interfaces:
            return self.links_of(address, now)
        return frozenset(self._subnets.belongs(address, (), now))

    def speaks(self, link: LinkName, address: AddressText) -> bool:
        """Whether this node's kernel speaks the address's family on the link."""
        return family_of(address) in self._roster.links[link].state.families

    def places_of_any(self, addresses: Iterable[AddressText], now: float) -> frozenset[LinkFamily]:
        """The places where it matters who owns some of the addresses: each of a bundle may be of another network."""
        return frozenset(chain.from_iterable(self.counts(address, now) for address in addresses))

    def links_of_any(self, addresses: Iterable[AddressText], now: float) -> frozenset[LinkName]:
        """The links of these places."""
        return frozenset(place.link for place in self.places_of_any(addresses, now))

    def counts(self, address: AddressText, now: float) -> tuple[LinkFamily, ...]:
        """The places where it matters who owns the address."""
        return self._place(address, now).counts

    def belongs(self, address: AddressText, now: float) -> frozenset[LinkFamily]:
        """The places where the address belongs, whether or not this node can answer for it there."""
        return self._place(address, now).belongs

    def open_to(self, candidate: Candidate, address: AddressText, now: float) -> frozenset[LinkFamily]:
        """The places where a candidate of the address's bundle may answer for it, whether or not it can: another one
        than this node by its own interfaces, if advertisements name some for it."""
        if candidate.node == self._roster.node:
            return frozenset(self.counts(address, now))
        links = self._roster.links if candidate.interfaces else self._subnets.belongs(address, (), now)
        return frozenset(LinkFamily(link, family_of(address)) for link in links)

    def is_unspoken(self, address: AddressText, now: float) -> bool:
        """Whether the address belongs on links of this node, none of which speaks its family."""
        place = self._place(address, now)
        return bool(place.belongs) and not place.answered_on

    def networks(self, bundle: Bundle, now: float) -> frozenset[Network]:
        """The subnets of the links on which its addresses belong."""
        links = self._roster.links
        return frozenset(
            network
            for address in bundle.addresses
            for place in self._place(address, now).belongs
            for network in networks_of(links[place.link].state.prefixes)
        )

    def near(self, node: NodeName, bundle: Bundle) -> int:
        """How many of the bundle's addresses are on subnets to which the node is connected."""
        return sum(self._subnets.has(node, address) for address in bundle.addresses)

    def nodes_differ(self) -> bool:
        """Whether some nodes may be nearer to an address than others, or speak other families."""
        return self._subnets.differ() or self._roster.families_differ()

    def claimed_for(self, bundle: Bundle, now: float) -> tuple[LinkName, ...]:
        """What a claim on the bundle says of links: the interfaces that advertisements name, and those on the same
        segments, by which others may know this node. Nothing, where none are named or there are too many to say."""
        named = set(bundle.interfaces)
        for name in bundle.interfaces:
            if name in self._roster.links:
                named.update(self._subnets.same_segment(name, now))
        return tuple(sorted(named)) if len(named) <= MAX_CLAIM_LINKS else ()

    def _place(self, address: AddressText, now: float) -> _Belonging:
        place = self._places.get(address)
        if place is None:
            links = self._roster.links
            bundle = self._bundles.of.get(address)
            named = bundle.interfaces if bundle is not None else ()
            belongs = self._subnets.belongs(address, named, now)
            family = family_of(address)
            spoken = [name for name in belongs if self.speaks(name, address)]
            answered_on = self._subnets.answered_on(address, spoken, bool(named), now)
            up = tuple(LinkFamily(name, family) for name in sorted(answered_on) if links[name].state.up)
            shared = tuple(each for each in up if links[each.link].shared)
            place = _Belonging(frozenset(LinkFamily(name, family) for name in belongs), answered_on, shared or up)
            if bundle is not None:
                self._places[address] = place
        return place

    # ------------------------------------------------------------------------------------------------ owners

    def rival(self, address: AddressText, link: LinkName) -> Owner | None:
        """The highest claim on the link that is none of this session: of another node that lives there, or of one, this
        node included, for whose former session another speaker stands in."""
        best: Owner | None = None
        for node in self._roster.claimants.get(address, ()):
            claim = self._roster.claim_of(node, address, link)
            if claim is None or (node == self._roster.node and address in self._log.claims):
                continue
            if best is None or outranks(claim, node, best.claim, best.node):
                best = Owner(node, claim)
        return best

    def is_served_on(self, address: AddressText, link: LinkName, peer: Peer, now: float, outranked: bool) -> bool:
        """Whether the address is in the Plan, can be asked for on the link, and the peer owns it and answers for it
        there. It withdraws what somebody else owns, perhaps without our hearing of it; or goes on answering for it,
        since it has not heard of that: ``outranked`` counts this, too."""
        if address not in self._bundles.of or not self.answers_there(address, link, peer, now):
            return False
        return outranked or self.owner_node(address, link) == peer.node

    def answers_there(self, address: AddressText, link: LinkName, peer: Peer, now: float) -> bool:
        """Whether the address can be asked for on the link, and the peer answers for it there if it holds it."""
        claim = self._roster.claim_on(peer, address, link)
        if claim is None or not self.speaks(link, address):
            return False
        return bool(claim.links) or link in self.links_of_unnamed(address, now)

    def owner_node(self, address: AddressText, link: LinkName) -> NodeName | None:
        """Whose the address is on the link."""
        owner = self.owner(address, link)
        return owner.node if owner is not None else None

    def owner(self, address: AddressText, link: LinkName) -> Owner | None:
        rival = self.rival(address, link)
        own = self._log.claims.get(address)
        if own is None:
            return rival
        if rival is not None and outranks(rival.claim, rival.node, own, self._roster.node):
            return rival
        return Owner(self._roster.node, own)

    def of_bundle(self, bundle: Bundle, now: float) -> list[Owner | None]:
        """The owner of each of its addresses on each link that counts; ``None`` where there is none."""
        return [self.owner(address, place.link) for address in bundle.addresses for place in self.counts(address, now)]

    def claims_all(self, node: NodeName, bundle: Bundle) -> bool:
        """Whether a node claims all of the bundle's addresses, wherever its claims count."""
        if node == self._roster.node:
            return self._log.claims.keys() >= set(bundle.addresses)
        sessions = list(self._roster.sessions(node))
        return all(any(address in peer.mirror.claims for peer in sessions) for address in bundle.addresses)

    def vacant(self, bundle: Bundle, now: float) -> frozenset[LinkFamily]:
        """The places where some address of it has no owner."""
        return frozenset(
            place
            for address in bundle.addresses
            for place in self.counts(address, now)
            if self.owner(address, place.link) is None
        )

    def held_on(self, address: AddressText, now: float) -> frozenset[LinkName]:
        """Where the address is this node's to answer for now, unless answering is suspended there."""
        if address not in self._log.claims:
            return NOWHERE
        here = self.links_of(address, now)
        if address in self._roster.claimants:
            owners = ((name, self.owner(address, name)) for name in here)
            here = frozenset(name for name, owner in owners if owner is not None and owner.node == self._roster.node)
        return here

    def decisive_links(self, address: AddressText, now: float) -> Iterable[LinkName]:
        """The links on this node that decide whether the address is lost: where it matters who owns it, or all of its
        links where that matters on none."""
        return [place.link for place in self.counts(address, now)] or self.links_of(address, now)

    def is_of_others(self, address: AddressText, links: Iterable[LinkName], node: NodeName) -> bool:
        """Whether other nodes than this one own the address on all of these links, of which there are some."""
        owners = {self.owner_node(address, link) for link in links}
        return bool(owners) and owners.isdisjoint({None, node})

    def rivals(self, address: AddressText, now: float) -> tuple[Owner | None, bool]:
        """For an address that this node claims: the owner that leaves it nothing, if there is one; and whether some
        lower claim lives beside its own."""
        winner, lost, kept = None, True, False
        for link in self.decisive_links(address, now):
            rival = self.rival(address, link)
            if rival is None:
                lost = False
            elif outranks(rival.claim, rival.node, self._log.claims[address], self._roster.node):
                winner = rival
            else:
                lost, kept = False, True
        return (winner if lost else None), kept

    # ------------------------------------------------------------------------------------------------ epochs

    def note_epochs(self, address: AddressText) -> None:
        """Remember the highest epoch that is claimed by anybody."""
        claimants = self._roster.claimants.get(address, ())
        claims = (peer.mirror.claims.get(address) for node in claimants for peer in self._roster.sessions(node))
        if claimants:
            self.note_epoch(address, max((claim.epoch for claim in claims if claim is not None), default=0))

    def note_epoch(self, address: AddressText, epoch: int) -> None:
        before = self._epochs.get(address, 0)
        self._epochs[address] = epoch if before > MOST_EPOCH else max(epoch, before)

    def forget(self, address: AddressText) -> None:
        """It is not in the Plan any more."""
        self._epochs.pop(address, None)
        self._places.pop(address, None)

    def move(self, address: AddressText) -> None:
        """Its bundle may name other interfaces."""
        self._places.pop(address, None)

    def bundle_of(self, address: AddressText) -> Bundle | None:
        """The bundle that has the address."""
        return self._bundles.of.get(address)

    def never_held(self, address: AddressText) -> bool:
        """Whether nobody is known to have held it."""
        return address not in self._epochs

    def is_cold(self, bundle: Bundle) -> bool:
        """Whether nobody is known to have held any of it."""
        return all(self.never_held(address) for address in bundle.addresses)

    def next_epoch(self, bundle: Bundle, alone: bool, now: float, above: int = 0) -> int:
        """For a claim on the bundle: ``alone``, where nothing proves that we can hear; ``above`` an epoch that was read
        of it, too. An epoch that no take-over leads to is outranked while its claim counts, and forgotten then."""
        highest = max((above, *(self._epochs.get(address, 0) for address in bundle.addresses)))
        if highest > MOST_EPOCH:
            highest = max((each.claim.epoch for each in self._rivals_of(bundle, now)), default=0)
        if alone:
            return max(1, highest - 1 if highest % 2 == 0 else highest - 2)
        return min(highest - highest % 2 + 2, HIGHEST_EPOCH)

    def lowered(self, address: AddressText) -> Claim | None:
        """This node's claim as it should be instead, now that nobody else claims the address, if its epoch comes of a
        lie: nobody could take it over, or join it, by a higher one."""
        own = self._log.claims[address]
        if own.epoch <= MOST_EPOCH:
            return None
        self.note_epoch(address, FIRST_EPOCH)
        return own._replace(epoch=FIRST_EPOCH)

    def is_alone(self, addresses: Iterable[AddressText], now: float) -> bool:
        """Whether nothing proves that we can hear, where some of these addresses are to be claimed."""
        return any(self._roster.links[place.link].alone for place in self.places_of_any(addresses, now))

    def would_stay(self, claim: Claim, bundle: Bundle, now: float) -> bool:
        """Whether a claim of this node on the bundle would be the highest of all."""
        rivals = self._rivals_of(bundle, now)
        return not any(outranks(each.claim, each.node, claim, self._roster.node) for each in rivals)

    def _rivals_of(self, bundle: Bundle, now: float) -> Iterator[Owner]:
        """Who has claimed an address of the bundle where that counts."""
        for address in bundle.addresses:
            for place in self.counts(address, now):
                if (rival := self.rival(address, place.link)) is not None:
                    yield rival
