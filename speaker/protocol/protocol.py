"""The speaker's protocol as one object without I/O: heartbeats go in and out, and what to answer for comes out.

The announcer uses it in this order, again and again:

1. It tells what the sockets and netlink brought, by the methods under *inputs*, and calls ``handle_timer`` when
   ``next_deadline`` has come.
2. It has the responder answer for what ``take_answers`` says.
3. It carries out what ``take_effects`` says, in order.

The parts:

- Who is there: ``roster`` has the tables. ``membership`` fills them with what heartbeats say, ``identity`` with whose
  they are, ``mirrors`` with the claims of others, ``links`` with this node's links, ``witnesses`` with other frames.
- Who should be there, by the API, and is not heard: ``expected``.
- Who lives: ``suspicion`` finds it out, and ``standing`` says what that changes.
- Who starts: ``starting`` says when this speaker may claim. Until then it listens.
- Who restarts: ``absences`` knows whose claims count although they are not heard, ``standing_in`` answers for others
  and has their ``watched_kernel``, ``restarting`` ends this speaker, and ``resuming`` has it hold again what it held.
- Who holds what, and who answers: ``ownership`` claims and releases, ``former`` knows who held it before a start of the
  whole cluster, ``answers`` tells the responder, and ``fencing`` keeps a link silent where this node may not know who
  has taken over.
- Who else has an address: ``probes`` asks before it is claimed, ``rivals`` judges what is seen afterwards,
  ``conflicts`` remembers both, and ``foreign`` knows speakers of other clusters.
- What is said: ``voice`` says when, ``claims`` how a claim set travels, ``heartbeat`` which messages there
  are, and ``datagram`` which of them are believed. ``drops`` counts what is dropped of what is heard.

This module combines them. Each part returns its ``News``, and the news go to the parts that they concern.

**Trouble of this node.** Where the kernel does not take the heartbeats for a link, nobody is declared dead there. Where
the kernel has dropped frames, D grows by half a second. ``own_trouble`` says both. After a stall of half the detection
floor everything queued is discarded, and each link is fenced. Of two machines with one name (``identity``) the one that
yields releases what it holds.

**Work is bounded.** One call does a bounded part of the work, whatever has to be taken over (``ownership``).
``next_deadline`` is in the past until all is done, and the caller looks after its sockets in between.

Not promised: that ``set_plan`` is cheap. It costs as much as the Plan is large, ``change_plan`` as much as changed.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from functools import partial

from cluster.objects import AddressText, NodeName
from cluster.times import LONG_AGO, NEVER
from speaker.directory import DirectoryChange
from speaker.link import LinkName, Mac
from speaker.plan import BundleId, Plan, PlanChange
from speaker.protocol.absences import Absences
from speaker.protocol.answers import Answers
from speaker.protocol.claims import ClaimLog
from speaker.protocol.crowd import scale_of
from speaker.protocol.datagram import Authenticator, HeartbeatError
from speaker.protocol.drops import Drops
from speaker.protocol.effects import (
    AnswerChange,
    ConflictView,
    Decision,
    Effect,
    FormerHolder,
    LinkState,
    NeighbourSeen,
    PeerView,
    RecordAnswer,
)
from speaker.protocol.expected import Expected
from speaker.protocol.foreign import ForeignSpeakers
from speaker.protocol.identity import Identity
from speaker.protocol.knocking import Knocking
from speaker.protocol.links import OwnLinks
from speaker.protocol.lives import peer_views, unheard_nodes
from speaker.protocol.membership import Membership
from speaker.protocol.mirrors import Mirrors
from speaker.protocol.news import NO_NEWS, News
from speaker.protocol.own_trouble import OwnTrouble
from speaker.protocol.ownership import Ownership
from speaker.protocol.restarting import End, Restarting
from speaker.protocol.resuming import Resuming
from speaker.protocol.rivals import Rivals
from speaker.protocol.roster import Roster
from speaker.protocol.sessions import Sessions
from speaker.protocol.settings import Settings
from speaker.protocol.standing_in import StandIns
from speaker.protocol.starting import Starting
from speaker.protocol.suspicion import Suspicions
from speaker.protocol.voice import Voice
from speaker.protocol.witnesses import Witnesses

NETWORKS_REST_S = 0.0002
"""For each bundle, between looks at where all of them belong: a member may say another subnet in each heartbeat."""


class Protocol:
    """One speaker. Times are CLOCK_BOOTTIME seconds."""

    def __init__(self, node: NodeName, session: int, settings: Settings, rng: random.Random, now: float) -> None:
        self._settings = settings
        self._effects: list[Effect] = []
        self._log = ClaimLog()
        self._roster = Roster(node, settings, self._effects.append)
        self._witnesses = Witnesses(self._roster)
        self._mirrors = Mirrors(self._roster)
        sessions = Sessions(self._roster)
        self._absences = Absences(session, self._roster, sessions, self._mirrors)
        self._identity = Identity(
            session, self._roster, sessions=sessions, mirrors=self._mirrors, absences=self._absences
        )
        self._membership = Membership(
            self._identity, self._roster, sessions=sessions, mirrors=self._mirrors, absences=self._absences
        )
        self._foreign = ForeignSpeakers()
        self._ownership = Ownership(self._roster, self._log, self._foreign, rng)
        self._stand_ins = StandIns(
            session, self._roster, self._ownership, mirrors=self._mirrors, absences=self._absences
        )
        self._knocking = Knocking(self._roster)
        self._suspicions = Suspicions(self._roster, rng, self._ownership.owners.is_served_on, self._absences)
        self._links = OwnLinks(self._roster, self._log, self._ownership.owners.links_of)
        self._answers = Answers(self._roster, self._ownership, self._stand_ins)
        self._restarting = Restarting(
            session,
            self._roster,
            self._log,
            sessions=sessions,
            absences=self._absences,
            stand_ins=self._stand_ins,
            answered_on=self._answers.own_links,
        )
        self._resuming = Resuming(self._roster, self._ownership)
        self._expected = Expected(self._roster)
        self._voice = Voice(
            session, self._roster, self._log, rng, now, stand_ins=self._stand_ins, missing=self._expected.due
        )
        self._starting = Starting(
            self._roster,
            self._voice,
            identity=self._identity,
            expected=self._expected,
            restarting=self._restarting,
        )
        self._timer_at = now
        self._news = News()
        """What was found out, and not yet carried over."""
        self._answering: frozenset[LinkName] = frozenset()
        self._rivals = Rivals(self._roster, self._ownership.conflicts, self._foreign)
        self._own_trouble = OwnTrouble(self._roster)
        self._drops = Drops(self._roster)
        self._networks_again_at = LONG_AGO

    # ------------------------------------------------------------------------------------------------ inputs

    def set_credentials(self, cluster: str, keys: tuple[bytes, ...], now: float) -> None:
        """Who we are, and what authenticates heartbeats: the first key signs, each verifies. Until this is called with
        at least one key nothing is said and nothing believed."""
        self._voice.authenticator = Authenticator(cluster, keys) if keys else None
        self._starting.begin(now)

    def set_plan(self, plan: Plan, now: float) -> None:
        self._voice.planned = True
        self._ownership.set_plan(plan, now)
        self._carry_over(now)

    def change_plan(self, change: PlanChange, now: float) -> None:
        """What changed in the Plan since the last call. A Plan must have been set."""
        self._ownership.change_plan(change, now)
        self._carry_over(now)

    def change_directory(self, change: DirectoryChange, now: float) -> None:
        """What changed in what the API says of where speakers are."""
        self._take_in(self._expected.change(change, now))
        self._carry_over(now)

    def set_former_holders(self, holders: Mapping[BundleId, FormerHolder], now: float) -> None:
        """Who held these bundles when they were recorded last. It matters where nobody holds them."""
        self._ownership.recorded.tell(holders)
        self._ownership.wake(now)
        self._carry_over(now)

    def answer_record(self, answer: RecordAnswer, now: float) -> None:
        """The watcher's answer to an ``AskRecord``."""
        self._ownership.answer_record(answer, now)
        self._carry_over(now)

    def set_brisk(self, brisk: bool, now: float) -> None:
        """Whether to speak often enough, whatever is held, that everybody knows within a second when this node dies."""
        self._voice.brisk = brisk
        self._voice.hurry()
        self._carry_over(now)

    def plan_lost(self, now: float) -> None:
        """Nobody keeps the Plan up to date any more: what is held stays, nothing is claimed until the next
        ``set_plan``, and peers are told, so that they do not wait for us."""
        self._voice.planned = self._voice.ready = False
        self._ownership.set_able(False, now)
        self._voice.hurry()
        self._carry_over(now)

    def set_links(self, links: tuple[LinkState, ...], now: float) -> None:
        """All announced interfaces as they are now."""
        names = self._roster.links.keys()
        news, fenced = self._links.set_links(links, self._starting.speaks, now)
        self._take_in(news)
        self._take_in(self._expected.links_changed(now))
        self._ownership.links_changed(now, complete=not names >= self._roster.links.keys())
        if fenced and self._log.claims:
            self._fenced("LinkUp", 0.0)
        self._starting.begin(now)
        self._carry_over(now)

    def receive_datagram(
        self,
        link: LinkName,
        source: AddressText,
        data: bytes,
        now: float,
        *,
        by_group: bool = True,
        mac: Mac | None = None,
    ) -> bool:
        """A datagram that arrived from this link (TTL or hop limit 255) on UDP 7948, addressed to the group or to this
        node alone; ``mac`` is where its frame came from. Returns whether it counts, as what a member said just now."""
        here = self._roster.links.get(link)
        if self._voice.authenticator is None or here is None or not here.state.up:
            return False
        try:
            envelope = self._voice.authenticator.parse(data)
        except HeartbeatError as error:
            if error.cluster and mac is not None:
                self._foreign.hear(mac, error.cluster, now)
            self._drops.note(link, source, error, now)
            return False
        news = self._membership.receive(link, source, envelope, now, by_group=by_group)
        self._take_in(news)
        if news.dropped is None:
            self._carry_over(now)
            self._knocking.heard()
            if self._restarting.active:
                self._end(self._restarting.review(now), now)
            return True
        self._drops.note(link, source, news.dropped, now)
        if news.networks:
            self._carry_over(now)
        return False

    def datagram_refused(self, link: LinkName, to: AddressText, now: float) -> None:
        suspected = self._witnesses.refused(link, to, now)
        if self._knocking.refused(link, to, now) or suspected:
            self._suspicions.look(now)

    def receive_frame(self, link: LinkName, sender: Mac, now: float) -> None:
        """A frame of any kind, while ``WatchFrames`` asks for them."""
        if not self._links.is_own(sender) and self._witnesses.frame(link, sender, now):
            self._suspicions.look(now)

    def set_sending(self, link: LinkName, works: bool, now: float, error: str = "") -> None:
        """Whether the kernel takes heartbeats for this link, or why not, each time that this changes; it does until
        told."""
        here = self._roster.links.get(link)
        if here is None or here.mute is not works:
            return
        here.mute = not works
        if works:
            self._own_trouble.can_send(link)
            self._take_in(self._links.excuse(link, now))  # nobody could answer what we did not say
            self._links.listen(link, now)
        else:
            self._own_trouble.cannot_send(link, error, now)
        self._news.changed = True
        self._carry_over(now)

    def frames_lost(self, link: LinkName, now: float) -> None:
        """The kernel had to drop frames that were for us: what was not heard on this link tells nothing."""
        if link in self._roster.links:
            self._own_trouble.frames_lost(link, now)
            self._suspicions.look(now)

    def prove(self, nonce: bytes, mac: Mac, address: AddressText) -> bytes:
        """What goes with the answer to a question with a nonce: twelve octets, empty without a key."""
        return self._voice.authenticator.prove(nonce, mac, address) if self._voice.authenticator is not None else b""

    def receive_neighbour(self, seen: NeighbourSeen, now: float) -> None:
        here = self._roster.links.get(seen.link)
        if here is None or self._links.is_own(seen.sender_mac):
            return
        self._expected.learn(seen)
        node = self._witnesses.whose(seen.sender_mac)
        if node is None:
            look = self._witnesses.neighbour(seen, now)
        else:
            self._witnesses.kernel(seen, node, now)
            look = self._witnesses.proved(seen, node, partial(self._proves, seen), now)
        if look:
            self._suspicions.look(now)
        if node is not None and seen.proof:
            self._ownership.receive_neighbour(seen, node, partial(self._proves, seen), now)
        node = node or self._expected.whose(seen.sender_mac)
        self._ownership.conflicts.hear(seen, node, now)
        self._ownership.probes.receive(seen, node, now)
        if seen.sender in self._log.claims and self._answers.answers(seen.sender, seen.link):
            if node in here.blocked:
                self._ownership.doubt(seen.sender, now)
            self._rivals.meet(seen, node, self._answers.quiet, now)

    def _proves(self, seen: NeighbourSeen, nonce: bytes) -> bool:
        """Whether a reply has what a member makes of a question's nonce."""
        authenticator = self._voice.authenticator
        proved = authenticator is not None and authenticator.proves(seen.proof, nonce, seen.sender_mac, seen.sender)
        return seen.is_reply and proved

    def speak(self, now: float) -> None:
        """Say what is due to be said, and judge nothing: for a caller who has not read yet what has arrived."""
        self._voice.handle_timer(now)

    def handle_timer(self, now: float, behind_s: float = 0.0) -> None:
        """Do what is due. To be called when ``next_deadline`` has come; calling it early does no harm. What arrived in
        the last ``behind_s`` seconds may not have been told yet: it tells of nobody's silence."""
        late = max(now - max(self._timer_at, self.next_deadline() or now), 0.0)
        self._own_trouble.late(late, now - self._timer_at)
        self._own_trouble.behind(behind_s)
        self._timer_at = now
        self._knocking.review(now)
        self._take_in(self._suspicions.check(now))
        self._own_trouble.repeat(now)
        self._take_in(self._links.review(now))
        self._take_in(self._expected.review(now))
        self._yield_to_twin(now)
        self._carry_over(now)
        if not self._voice.ready and self._starting.may_claim(now):
            self._take_in(self._expected.review(now, at_once=True))
            self._voice.ready = True
            self._ownership.set_able(True, now)
            self._voice.hurry()
        self._ownership.handle_timer(now)
        self._review_restarts(now)
        self._carry_over(now)
        self._voice.handle_timer(now)

    def _review_restarts(self, now: float) -> None:
        """Who is away, who stands in, and whether this node ends or resumes."""
        self._take_in(self._absences.review(now))
        self._take_in(self._stand_ins.review(now))
        if self._resuming.review(now):
            self._voice.hurry()
        if self._restarting.active:
            self._end(self._restarting.review(now), now)

    def loop_late(self, seconds: float, now: float) -> None:
        """The loop was away for that long beyond its deadline. If that is half the detection floor or more, everything
        queued here is discarded and answering is fenced; the caller discards what its sockets have queued *before* it
        calls this: those datagrams tell nothing about now."""
        if seconds < self._settings.detection_floor_s / 2:
            return
        self._effects[:] = [effect for effect in self._effects if isinstance(effect, Decision)]
        self._timer_at = now
        self._ownership.discard_answers(now)
        self._stand_ins.excuse(now)
        self._take_in(self._links.stall(now))
        self._fenced("LoopLate", seconds)
        self._voice.begin(now)
        self._carry_over(now)

    def end(self, now: float) -> None:
        """End this speaker: with another one that stands in for it, or by releasing every claim. Nothing is claimed any
        more. ``ended`` tells when all was said."""
        if self._voice.leaving or self._restarting.active:
            return
        self._voice.ready = self._roster.able = False
        self._ownership.set_able(False, now)
        self._answers.note(now)
        self._end(self._restarting.begin(now), now)
        self._carry_over(now)

    def _end(self, how: End, now: float) -> None:
        """Go on with the end, or come to it."""
        named, self._voice.stand_in = self._voice.stand_in, self._restarting.stand_in
        self._voice.restarting = how is not End.RELEASES
        if how is End.NAMES:
            if self._voice.stand_in != named:
                self._voice.speak(now)
            return
        self._voice.leave()
        if how is End.RELEASES:
            self._stand_ins.close_all()
            self._ownership.release_all(now)
            self._carry_over(now)
        self._voice.speak(now)

    # ------------------------------------------------------------------------------------------------ outputs

    def next_deadline(self) -> float | None:
        """When ``handle_timer`` should be called next; ``LONG_AGO`` for at once, ``None`` if nothing is due ever."""
        soonest = min(
            self._suspicions.next_deadline(),
            self._knocking.next_deadline(),
            self._ownership.next_deadline(),
            self._voice.next_deadline(),
            self._absences.next_deadline(),
            self._stand_ins.next_deadline(),
            self._restarting.next_deadline(),
            self._resuming.next_deadline(),
            self._links.next_deadline() if self._voice.authenticator is not None else NEVER,
            self._networks_again_at if self._news.networks else NEVER,
        )
        return soonest if soonest < NEVER else None

    def take_effects(self) -> list[Effect]:
        """What to carry out, in order; decisions come last, so that no frame waits for a log line."""
        if not self._effects:
            return []
        effects = sorted(self._effects, key=lambda effect: isinstance(effect, Decision))
        self._effects.clear()
        return effects

    def answered(self) -> Mapping[AddressText, frozenset[LinkName]]:
        """Each address that is answered for now, and on which links."""
        self._answers.note(self._timer_at)
        return self._answers.answered()

    def named(self) -> Mapping[AddressText, Mapping[LinkName, Mac]]:
        """The MACs of other nodes that answers name, for some of these addresses and links."""
        return self._answers.macs

    def take_answers(self) -> AnswerChange | None:
        """What to answer for from now on, as far as it changed since the last call; ``None`` when nothing did. To be
        called before ``take_effects``: what a gratuitous frame is sent for is to be answered for."""
        self._answers.note(self._timer_at)
        return self._answers.take()

    def take_claims(self) -> Mapping[AddressText, int | None]:
        """Own claims that changed since the last call, with their epochs; ``None`` for one that is no more."""
        self._answers.note(self._timer_at)
        return self._answers.take_claims()

    def claims(self) -> Mapping[AddressText, int]:
        """Own claims with their epochs, those that are suspended included."""
        return {address: claim.epoch for address, claim in self._log.claims.items()}

    def blocked(self) -> Mapping[LinkName, tuple[NodeName, ...]]:
        """By link, speakers that live by their Leases and are not heard."""
        return self._expected.proved()

    def peers(self) -> tuple[PeerView, ...]:
        return peer_views(self._roster, self._timer_at)

    @property
    def lateness(self) -> float:
        """By how many seconds ``handle_timer`` was called late lately; it fades."""
        return self._roster.own_lateness

    def unheard(self) -> frozenset[NodeName]:
        """The nodes whose silence is proved, and is that of the node itself (``lives``)."""
        return unheard_nodes(self._roster)

    def plans(self, address: AddressText) -> bool:
        """Whether the Plan has the address."""
        return self._ownership.owners.bundle_of(address) is not None

    def conflicts(self) -> Iterator[ConflictView]:
        """Who else has addresses of the Plan, as far as this node is to tell of them."""
        return self._ownership.conflicts.views()

    def counters(self) -> Mapping[str, int]:
        """Datagrams sent and dropped, by reason."""
        voice = self._voice
        said = {"sent_heartbeats": voice.heartbeats, "sent_claims": voice.claim_messages}
        refused = self._mirrors.refused
        return {**self._drops.counters(), **said, **({"claims_refused:unknown_feature": refused} if refused else {})}

    @property
    def ready(self) -> bool:
        """Heartbeats flow, there is a Plan, and the start-up wait is over."""
        return self._voice.ready

    @property
    def ended(self) -> bool:
        """``end`` was called, and what follows has been said often enough to go."""
        return self._voice.has_left

    # ------------------------------------------------------------------------------------------------ composition

    def _take_in(self, news: News) -> None:
        """Tell who looks and who speaks at once; what concerns ownership is carried over by whoever called."""
        if news is NO_NEWS:
            return
        self._suspicions.look(news.look_at)
        self._voice.note(news)
        self._news.changed |= news.changed
        self._news.networks |= news.networks
        self._news.claims.update(news.claims)
        self._news.suspected |= news.suspected
        self._news.offered.update(news.offered)

    def _carry_over(self, now: float) -> None:
        """Have all parts do what follows from the news."""
        roster, ownership, news = self._roster, self._ownership, self._news
        if news.changed and ownership.degraded:
            self._take_in(self._expected.review(now, at_once=True))
        roster.able = self._voice.ready
        self._voice.yields = self._identity.yields(now)
        answering = frozenset(name for name, link in roster.links.items() if link.answering)
        known = news.networks and now >= self._networks_again_at
        if known or (answering != self._answering and len(roster.links) > 1):
            news.networks = False
            self._networks_again_at = now + NETWORKS_REST_S * ownership.bundles
            ownership.networks_changed(now)
        if news.changed or answering != self._answering:
            self._answers.look_at_links()
            ownership.confirm(answering - self._answering, now)
        self._answering = answering
        if news.changed or news.claims:
            self._knocking.look(now)
        if news.changed:
            news.changed = False
            ownership.wake(now)
            self._absences.look(now)
            self._stand_ins.look(now)
            holders = sum(bool(peer.mirror.claims) for peer in roster.peers.values()) + bool(self._log.claims)
            roster.scale = scale_of(holders)
        if news.claims:
            claims, news.claims = news.claims, {}
            ownership.heard(claims, now)
            self._stand_ins.follow(claims)
        if news.suspected:
            suspected, news.suspected = news.suspected, set()
            self._knocking.suspected(suspected, now)
        if news.offered:
            offered, news.offered = news.offered, {}
            ownership.offered(offered, now)
        self._stand_ins.follow(ownership.touched)
        if not self._voice.stand_in:
            self._voice.restarting = self._resuming.restarting
        self._voice.offer(ownership.hand_overs.take_offers(), now)
        self._voice.tell_changes(now)

    # ------------------------------------------------------------------------------------------------ trouble

    def _fenced(self, why: str, seconds: float) -> None:
        self._voice.hurry()
        self._roster.report(why, late_ms=int(seconds * 1000), suspended=len(self._log.claims))

    def _yield_to_twin(self, now: float) -> None:
        """Another machine with our name is there, and it is ours to be silent."""
        if (self._voice.ready or self._log.claims) and self._identity.yields(now):
            self._voice.ready = False
            self._ownership.set_able(False, now)
            self._ownership.give_up("another machine has this node's name", now)
            self._voice.hurry()
