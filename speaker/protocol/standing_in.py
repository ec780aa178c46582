"""This node's part as a stand-in: answers for the addresses of speakers that restart.

A stand-in keeps the addresses of another speaker's session answered while that speaker is away (``absences``), so that
nothing moves: no client, no switch and no flow learns of anything.

1. A speaker that is told to end names its stand-in (``restarting``), for itself and for those that it stands in for.
   Or it is this node's turn to stand in for one that is gone (``absences``).
2. The stand-in answers for the session's addresses with the node's MAC in the answer, on the links on which the session
   was heard, and says so in its heartbeats from then on: when it answers for all of them.
3. When the speaker is gone it watches the node's kernel (``watched_kernel``). Where that is dead the stand-in says so
   by standing in no more, and the others take over.
4. It speaks for the session: who lacks claims of it asks the stand-in. A claim ends on the session's behalf when its
   address leaves the Plan, or when the Plan has the node as no candidate any more, or as one that is drained or whose
   endpoints are ending, and another node can hold the address. It also ends when another node's is higher wherever the
   session lives, as the session itself would have withdrawn it.
5. Each address that the node's new session claims is that one's to answer for. When the new session says that it holds
   everything, half a second is left for all to know it, and the stand-in ends.

**The end.** The stand-in ends also after 60 s; when the node's new session names another MAC; when one that comes
before it in the order has stood in for a second, too; and when the session is heard again. It ends on a link where its
node's kernel ceases to speak a family that it has to: others take over there, as after a death. Where addresses become
free although the node lives, they are answered for until another node claims them, for two seconds at most.

**Bounds:** as many sessions as fit 600 octets of a heartbeat, 16 at most. The answers for 50 addresses are worked out
each 10 ms: nothing is in a hurry, since somebody answers all the while, and questions must not wait.

Not promised: that connections survive whose packets need the ended process. The node's kernel forwards without it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from cluster.objects import AddressText, NodeName
from cluster.times import LONG_AGO, NEVER
from speaker.link import LinkName, Mac
from speaker.plan import DRAINED_TIER
from speaker.protocol.absences import Absences, needed
from speaker.protocol.bundles import candidate_of
from speaker.protocol.claims import ClaimLog
from speaker.protocol.heartbeat import MAX_STOOD_IN, STOOD_IN_OCTETS, ClaimStep, StoodIn, pack_address, pack_families
from speaker.protocol.mirrors import Mirrors
from speaker.protocol.news import NO_NEWS, News
from speaker.protocol.ownership import Ownership
from speaker.protocol.peers import Peer
from speaker.protocol.roster import Roster
from speaker.protocol.standing import Standing
from speaker.protocol.watched_kernel import WatchedKernel

STANDS_IN_S = 60.0  # for one session
AT_ONCE = 50  # addresses of which the answers are worked out, or what becomes of them, in one call
REST_S = 0.01  # between such calls
ENDED_S = 0.2  # for a process that says that it ends to have ended
BACK_S = 0.5  # for the others to hear what the new session claims
DOUBLE_S = 1.0  # beside one that comes before this node in the order
LINGERS_S = 2.0  # for an address that is free to be claimed
ENTRY_OCTETS = 90  # of a heartbeat, for one session, besides its node's name


@dataclass(slots=True)
class _Post:
    """A session that this node stands in for."""

    peer: Peer
    log: ClaimLog
    kernel: WatchedKernel
    """Of its node; its links are those on which this node stands in."""
    since: float
    ready: bool = False
    """The answers for all its addresses are worked out: it may be said."""
    ends_claims: bool = False
    """Its process has ended: its claims are this node's to end."""
    back_at: float = NEVER
    """When the node's new session was first heard to hold everything."""
    double_since: float = NEVER
    """Since when one stands in as well that comes before this node."""


@dataclass(slots=True)
class _Free:
    """An address that a session does not hold any more, and that is answered for until it is claimed."""

    peer: Peer
    """The session."""
    macs: dict[LinkName, Mac]
    until: float


class StandIns:
    """Sans-IO; emits ``AskAddress`` and ``Decision``."""

    def __init__(
        self, session: int, roster: Roster, ownership: Ownership, *, mirrors: Mirrors, absences: Absences
    ) -> None:
        self.touched: dict[AddressText, None] = {}
        """Addresses for which another MAC may be to be named now, until the owner of this clears it."""
        self._session = session
        self._roster = roster
        self._owners = ownership.owners
        self._choosing = ownership.choosing
        self._mirrors = mirrors
        self._absences = absences
        self._posts: dict[int, _Post] = {}
        self._free: dict[AddressText, _Free] = {}
        self._ahead: dict[AddressText, None] = {}
        """Addresses for which it is still to be worked out what is answered."""
        self._changed: dict[AddressText, None] = {}
        """Addresses of which it is still to be found out whether a session should hold them any more."""
        self._steps: list[tuple[int, ClaimStep]] = []
        self._look_at = NEVER
        self._more_at = LONG_AGO
        """When the next of these addresses are due."""

    # ------------------------------------------------------------------------------------------------ questions

    def __bool__(self) -> bool:
        """Whether this node stands in for anybody."""
        return bool(self._posts)

    def sessions(self) -> list[tuple[int, frozenset[LinkName]]]:
        """Those that this node stands in for, and where."""
        return [(session, frozenset(post.kernel.links)) for session, post in self._posts.items()]

    def log_of(self, session: int) -> ClaimLog | None:
        """The claims of a session that this node stands in for."""
        post = self._posts.get(session)
        return post.log if post is not None else None

    def said_on(self, link: LinkName) -> tuple[StoodIn, ...]:
        """What heartbeats on the link say of whom this node stands in for."""
        entries = []
        for session, post in self._posts.items():
            sighting = post.peer.sightings.get(link)
            if not post.ready or link not in post.kernel.links or sighting is None:
                continue
            addresses = tuple(map(pack_address, sighting.addresses))
            families, log = pack_families(sighting.families), post.log
            entry = StoodIn(
                session, post.peer.node, log.version, log.digest, sighting.link, sighting.mac, families, addresses
            )
            entries.append(entry)
        return tuple(entries)

    def lent(self, address: AddressText, now: float) -> dict[LinkName, Mac]:
        """The links on which this node answers for an address in another's name, with the MAC to name."""
        macs = {}
        for post in self._posts.values():
            if address in post.peer.mirror.claims:
                for link in post.kernel.links:
                    if self._is_to_answer(address, link, post.peer, now):
                        macs[link] = post.peer.sightings[link].mac
        free = self._free.get(address)
        for link, mac in free.macs.items() if free is not None else ():
            speaks = link in self._roster.links and self._owners.speaks(link, address)
            if speaks and self._owners.owner_node(address, link) is None:
                macs.setdefault(link, mac)
        return macs

    def _is_to_answer(self, address: AddressText, link: LinkName, peer: Peer, now: float) -> bool:
        """Whether the peer's claim owns the address there, and no later session of its node claims it as well."""
        if link not in self._roster.links or link not in peer.sightings:
            return False
        if not self._owners.answers_there(address, link, peer, now):
            return False
        if self._owners.owner_node(address, link) != peer.node:
            return False
        present = self._roster.peers.get(peer.node)
        if present is None or present is peer:
            return True
        sighting = present.sightings.get(link)
        lives = sighting is not None and sighting.standing is not Standing.DEAD
        return not lives or self._roster.claim_on(present, address, link) is None

    # ------------------------------------------------------------------------------------------------ beginning

    def begin(self, peer: Peer, links: Iterable[LinkName], why: str, now: float) -> None:
        """Stand in for a session on these links, if that is possible."""
        post = self._posts.get(peer.session)
        if post is None and not self._fits(peer):
            return
        there = post.kernel.links if post is not None else {}
        more = [link for link in links if link not in there and self._speaks_for(peer, link)]
        if not more:
            return
        if post is None:
            absence = self._absences.of(peer.node)
            post = _Post(
                peer,
                ClaimLog.of(peer.mirror),
                WatchedKernel(peer, self._roster),
                absence.since if absence is not None else now,
            )
            self._posts[peer.session] = post
        post.kernel.watch_on(more, now)
        post.ready = False
        self._work_out(peer.mirror.claims)
        self._roster.report("StandsIn", node=peer.node, addresses=len(peer.mirror.claims), why=why)

    def _speaks_for(self, peer: Peer, link: LinkName) -> bool:
        """Whether this node speaks on the link all that who stands in for the peer there has to."""
        return link in peer.sightings and self._absences.speaks(link, needed(peer, link))

    def _fits(self, peer: Peer) -> bool:
        mirror = peer.mirror
        octets = sum(ENTRY_OCTETS + len(post.peer.node.encode()) for post in self._posts.values())
        return (
            self._roster.able
            and mirror.in_step
            and mirror.version > 0
            and not mirror.strange
            and len(self._posts) < MAX_STOOD_IN
            and octets + ENTRY_OCTETS + len(peer.node.encode()) <= STOOD_IN_OCTETS
        )

    # ------------------------------------------------------------------------------------------------ in time

    def next_deadline(self) -> float:
        return min(self._look_at, self._more_at) if self._ahead or self._changed else self._look_at

    def look(self, at: float) -> None:
        self._look_at = min(self._look_at, at)

    def review(self, now: float) -> News:
        """Begin, watch and end."""
        if not self._posts and not self._roster.absences and now < self.next_deadline():
            return NO_NEWS
        news = News()
        self._look_at = NEVER
        for peer in self._roster.peers.values():
            if peer.restarting and peer.stand_in == self._session and peer.session not in self._posts:
                alive = [link for link, each in peer.sightings.items() if each.standing is not Standing.DEAD]
                self.begin(peer, alive, "it restarts", now)
            if peer.restarting and peer.stand_in == self._session:
                for other, links in self._absences.stood_in_by(peer.session):
                    self.begin(other, links, f"{peer.node} restarts", now)
                if peer.session not in self._posts:
                    self.look(now + self._roster.settings.early_gap_s)  # its claims may be known then
        for peer, link in self._absences.mine(now):
            self.begin(peer, (link,), "nobody stands in for it", now)
        if now >= self._more_at and (self._ahead or self._changed):
            self._more_at = now + REST_S
            news.add(self._follow(now))
            for address in list(islice(self._ahead, AT_ONCE)):
                del self._ahead[address]
                self.touched[address] = None
            if not self._ahead and not self._changed:
                self._more_at = LONG_AGO
        for post in list(self._posts.values()):
            if not self._ahead and not post.ready:
                post.ready = news.speak = True
            news.add(self._review(post, now))
        over = [address for address, free in self._free.items() if now >= free.until]
        for address in over:
            del self._free[address]
        self._work_out(over)
        self.look(min((free.until for free in self._free.values()), default=NEVER))
        return news

    def _work_out(self, addresses: Iterable[AddressText]) -> None:
        self._ahead.update(dict.fromkeys(addresses))

    def _review(self, post: _Post, now: float) -> News:
        news = News()
        peer = post.peer
        for link in post.kernel.links.keys() - peer.sightings.keys():
            post.kernel.leave(link)
        if not post.kernel.links:  # this node has none of them any more
            del self._posts[peer.session]
            return news
        if self._roster.peers.get(peer.node) is peer:
            if not peer.restarting or peer.stand_in != self._session:
                return self._close(post, "it goes on by itself", now)
            news.add(self._tell(post, now))
            post.kernel.excuse(now)  # its kernel is asked when its speaker is gone
            self.look(now + self._roster.settings.interval_s)
            return news
        absence = self._absences.of(peer.node)
        if absence is None or absence.peer is not peer:
            return self._close(post, "it is absent no more", now)
        news.add(self._tell(post, now))
        if not post.ends_claims and now >= absence.since + ENDED_S:
            post.ends_claims = True
            self.follow(peer.mirror.claims)
        elif not post.ends_claims:
            self.look(absence.since + ENDED_S)
        why = self._reason_to_end(post, now)
        if why:
            news.add(self._close(post, why, now, lives=True))
            return news
        news.add(self._watch(post, now))
        return news

    def _tell(self, post: _Post, now: float) -> News:
        """Have the absence know where this node stands in."""
        news = News()
        for link in post.kernel.links:
            news.add(self._absences.heard(link, self._session, self.said_on(link), now))
        return news

    def _reason_to_end(self, post: _Post, now: float) -> str:
        """Why this node should stand in no more, though the node's kernel lives; empty: it should."""
        peer = post.peer
        present = self._roster.peers.get(peer.node)
        if present is not None:
            for link in post.kernel.links:
                there, was = present.sightings.get(link), peer.sightings.get(link)
                if there is not None and was is not None and there.mac != was.mac:
                    return "it has another MAC"
            able = any(each.able_since is not None for each in present.sightings.values())
            if able and not present.restarting and present.behind_since is None:
                post.back_at = min(post.back_at, now)
            else:
                post.back_at = NEVER
        if now >= post.back_at + BACK_S:
            return "it is back"
        if now >= post.since + STANDS_IN_S:
            return "it did not come back"
        if self._is_double(post, now):
            post.double_since = min(post.double_since, now)
        else:
            post.double_since = NEVER
        if now >= post.double_since + DOUBLE_S:
            return "another one stands in"
        self.look(min(post.back_at + BACK_S, post.since + STANDS_IN_S, post.double_since + DOUBLE_S))
        return ""

    def _is_double(self, post: _Post, now: float) -> bool:
        """Whether on each of its links one that comes before this node stands in as well."""
        absence = self._absences.of(post.peer.node)
        for link in post.kernel.links:
            order = self._absences.order_of(post.peer, link, now)
            if self._roster.node not in order:
                return False
            before = {self._roster.peers[each].session for each in order[: order.index(self._roster.node)]}
            here = absence.links.get(link) if absence is not None else None
            if here is None or before.isdisjoint(here.by):
                return False
        return True

    # ------------------------------------------------------------------------------------------------ the kernel

    def _watch(self, post: _Post, now: float) -> News:
        """End where the node's kernel is dead, or where this node's speaks too few families; ask it elsewhere."""
        news = News()
        for link in [each for each in post.kernel.links if not self._speaks_for(post.peer, each)]:
            news.add(self._leave(post, link, now))
        for link, silent_s in post.kernel.dead_on(now).items():
            self._roster.report("NodeDead", node=post.peer.node, link=link, silent_ms=int(silent_s * 1000))
            news.add(self._leave(post, link, now))
        if post.kernel.links:
            news.add(post.kernel.ask(now))
            self.look(post.kernel.ask_next)
        else:
            self._posts.pop(post.peer.session, None)
        return news

    def _leave(self, post: _Post, link: LinkName, now: float) -> News:
        """Stand in on the link no more: others take over there."""
        post.kernel.leave(link)
        self._work_out(post.peer.mirror.claims)
        news = News(speak=True)
        news.add(self._absences.heard(link, self._session, self.said_on(link), now))
        return news

    def excuse(self, now: float) -> None:
        """This node could not hear for a while: no kernel's silence from before counts."""
        for post in self._posts.values():
            post.kernel.excuse(now)

    # ------------------------------------------------------------------------------------------------ claims

    def follow(self, addresses: Iterable[AddressText]) -> None:
        """What is planned or claimed for these addresses, or by whom, is not what it was."""
        if self._posts or self._free:
            self._changed.update(dict.fromkeys(addresses))

    def _follow(self, now: float) -> News:
        """Draw the conclusions for some of these addresses."""
        if not self._posts and not self._free:
            self._changed.clear()
            return NO_NEWS
        news = News()
        for address in list(islice(self._changed, AT_ONCE)):
            del self._changed[address]
            if address in self._free:
                self._end_where_claimed(self._free[address], address)
                self._work_out((address,))
            for post in self._posts.values():
                if address not in post.log.claims:
                    continue
                self._work_out((address,))
                if address not in post.peer.mirror.claims:  # the session itself, or another stand-in, has ended it
                    post.log.put(address, None)
                elif post.ends_claims and (self._ends(address, post.peer.node, now) or self._is_lost(address, post)):
                    self._set_free(address, post, now)
                    post.log.put(address, None)
        for post in self._posts.values():
            for step in post.log.commit():
                self._steps.append((post.peer.session, step))
                news.add(self._mirrors.take(post.peer, step, now))
        return news

    def _ends(self, address: AddressText, node: NodeName, now: float) -> bool:
        """Whether by this node's Plan the node should hold the address no more."""
        bundle = self._owners.bundle_of(address)
        if bundle is None:
            return True
        candidate = candidate_of(bundle, node)
        wanted = candidate is not None and candidate.tier < DRAINED_TIER and not candidate.ending
        return not wanted and self._choosing.can_be_taken_from(node, address, bundle, now)

    def _is_lost(self, address: AddressText, post: _Post) -> bool:
        """Whether the address is other nodes' on all links where the session lives, as far as this node can tell."""
        peer = post.peer
        lives = {link for link, each in peer.sightings.items() if each.standing is not Standing.DEAD}
        return post.kernel.links.keys() >= lives and self._owners.is_of_others(address, post.kernel.links, peer.node)

    def take_steps(self) -> list[tuple[int, ClaimStep]]:
        """Steps of sessions' claims, to be said on their behalf."""
        steps, self._steps = self._steps, []
        return steps

    # ------------------------------------------------------------------------------------------------ ending

    def close_all(self) -> None:
        """This node ends."""
        self._posts.clear()
        self._free.clear()

    def _close(self, post: _Post, why: str, now: float, *, lives: bool = False) -> News:
        """Stand in no more. Where the node ``lives``, what becomes free is answered for until it is claimed."""
        del self._posts[post.peer.session]
        claims = {**post.log.claims, **post.peer.mirror.claims}  # one that has left is mirrored no more
        if lives:
            for address in claims:
                self._set_free(address, post, now)
        self._work_out(claims)
        self._roster.report("StandsInNoMore", node=post.peer.node, why=why)
        news = News(speak=True)
        for link in post.kernel.links:
            news.add(self._absences.heard(link, self._session, self.said_on(link), now))
        self.look(now)
        return news

    def _set_free(self, address: AddressText, post: _Post, now: float) -> None:
        """Answer on, where the session answered and while nobody claims the address."""
        peer = post.peer
        if address in peer.mirror.claims:
            links = frozenset(
                link for link in post.kernel.links if self._owners.answers_there(address, link, peer, now)
            )
        else:
            links = self._owners.links_of_unnamed(address, now) & post.kernel.links.keys()
        macs = {link: peer.sightings[link].mac for link in links if link in peer.sightings}
        self._free[address] = _Free(peer, macs, now + LINGERS_S)
        self.look(now + LINGERS_S)

    def _end_where_claimed(self, free: _Free, address: AddressText) -> None:
        """Forget the links where somebody holds the address now: what becomes of it later is the holder's to say."""
        absence = self._absences.of(free.peer.node)
        counts = absence is not None and absence.peer is free.peer
        for link in list(free.macs):
            owner = self._owners.owner_node(address, link) if link in self._roster.links else None
            if owner is not None and not (counts and owner == free.peer.node):
                del free.macs[link]
