"""The speaker's protocol as one sans-IO object: heartbeats in and out, who holds what, what to answer for.

The announcer feeds it what the sockets and netlink say, calls ``handle_timer`` when ``next_deadline`` has come, has
the responder answer by ``take_held`` and then carries out ``take_effects`` in order. The parts: ``roster``,
``membership`` and ``suspicion`` (who is there, and lives), ``ownership`` (who claims), ``claims`` (how claim sets
travel), ``heartbeat`` (the datagram). What is here beside their composition is when to speak, and fencing.

**Speaking.** A heartbeat goes out on every link each 100 ms while this node holds something, suspects somebody or is
starting, otherwise each second; each says when the next is due. To say it to whom the group does not reach, it goes by
unicast, and so do claims. A node for which somebody waits speaks at once, but not twice within 20 ms, except to say
that it is idle no more, since its silence tells little before that is heard. Changes of the claim set go out at once
and with the next two heartbeats. A node that is cut off speaks four times as often for ten seconds, so that it is
found at once when the network is whole again.

**Fencing.** Who was away — the loop was late by half the detection floor, or a link came up or is new — does not know
who has taken over meanwhile. Everything queued is discarded and answering is suspended on the links concerned; peers
are asked for their claims, and answering is resumed after an interval in which somebody was heard and whose claims are
known. If nobody is heard: after a stall, answering is resumed after the detection floor, without gratuitous frames;
after a link came up, not for 40 s, since a switch may still block the port. Claims stay, and are said, all the while.

**Trouble of one's own.** Where the kernel does not take our heartbeats, or has thrown frames away that were for us,
the silence of others proves nothing: nobody is declared dead on a link of the first kind, and D grows by half a second
after the second. A node whose name another machine has (``membership``) and whose turn it is to yield gives up what it
holds and answers for nothing.

**Work per call is bounded**, whatever has to be taken over (``ownership``): ``next_deadline`` is in the past until all
is done, and the caller looks after its sockets in between.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from cluster.objects import AddressText, NodeName
from speaker.channel import PeerView
from speaker.claims import ClaimLog
from speaker.effects import (
    Announce,
    ArpSeen,
    Effect,
    Held,
    HeldChange,
    LinkState,
    Mac,
    Report,
    SendHeartbeat,
    SendUnicast,
)
from speaker.heartbeat import (
    HEARD_BYTES,
    LONGEST_SAID,
    MAX_ASKS,
    MAX_HEARD,
    MAX_PREFIXES,
    NONCE_OCTETS,
    Authenticator,
    ClaimPart,
    ClaimStep,
    Drop,
    Flag,
    Heartbeat,
    HeartbeatError,
    Message,
    pack_heard,
)
from speaker.membership import Membership
from speaker.owners import NOWHERE
from speaker.ownership import Ownership
from speaker.plan import LinkName, Plan, PlanChange
from speaker.rivals import Rivals
from speaker.roster import Roster, Segment, Standing
from speaker.settings import Settings
from speaker.suspicion import Suspicions

SAID = 3  # times that each change of the claim set is said
BURST = 40  # claim messages at once: a peer's socket buffer holds at least as many
BURST_GAP_S = 0.01
BEHIND_PATIENCE_S = 1.0  # for peers' claims that are known to exist and do not come
STARTING_INTERVALS = 3
BUSY_HOLDERS = 50  # interval and floor grow beyond
LATENESS_HALF_LIFE_S = 1.0
LOST_FRAMES_S = 0.5
"""What is added to D when frames were lost here: some heartbeats of each peer, for the time of a full queue."""
CUT_OFF_S = 10.0  # for which an isolated node speaks more often
CUT_OFF_PACE = 4
NONSENSE_GAP_S = 600.0  # between reports of one member that says nonsense
MAX_NONSENSE = 64  # members remembered
NEVER = float("inf")
LONG_AGO = float("-inf")


class Protocol:
    """One speaker. Times are CLOCK_BOOTTIME seconds."""

    def __init__(self, node: NodeName, session: int, settings: Settings, rng: random.Random, now: float) -> None:
        self._node = node
        self._session = session
        self._settings = settings
        self._rng = rng
        self._effects: list[Effect] = []
        self._log = ClaimLog()
        self._emit = self._effects.append
        self._roster = Roster(node, settings, self._emit)
        self._membership = Membership(session, self._roster)
        self._suspicions = Suspicions(self._roster, lambda: rng.getrandbits(8 * NONCE_OCTETS).to_bytes(NONCE_OCTETS))
        self._ownership = Ownership(self._roster, self._log)
        self._authenticator: Authenticator | None = None
        self._planned = False
        self._speaking_since: float | None = None
        self._ready = False
        self._leaving = 0
        self._sequence = 0
        self._spoke_at = LONG_AGO
        self._announced_s = NEVER
        """When the next heartbeat was said to be due, in seconds after the last."""
        self._tick_at = now
        self._timer_at = now
        self._soon_at = NEVER
        self._idle_said = SAID
        self._repeats: deque[tuple[ClaimStep, int]] = deque()
        self._outbox: dict[tuple[type, int, int], Message] = {}
        self._outbox_at = NEVER
        self._sent_to_asker: dict[tuple[type, int, int], float] = {}
        self._held: dict[AddressText, frozenset[LinkName]] = {}
        self._held_changes: dict[AddressText, frozenset[LinkName]] = {}
        self._quiet: frozenset[LinkName] = frozenset()
        self._told_quiet: frozenset[LinkName] = frozenset()
        self._answering: frozenset[LinkName] = frozenset()
        self._told_claims: dict[AddressText, int] = {}
        self._claim_changes: dict[AddressText, None] = {}
        self._nonsense: dict[AddressText, float] = {}
        self._rivals = Rivals(self._roster)
        self._counters: dict[str, int] = {}

    # ------------------------------------------------------------------------------------------------ inputs

    def set_credentials(self, cluster: str, keys: tuple[bytes, ...], now: float) -> None:
        """Who we are, and what authenticates heartbeats: the first key signs, each verifies. Until this is called with
        at least one key nothing is said and nothing believed."""
        self._authenticator = Authenticator(cluster, keys) if keys else None
        self._begin(now)

    def set_plan(self, plan: Plan, now: float) -> None:
        self._planned = True
        self._ownership.set_plan(plan, now)
        self._settle(now)

    def change_plan(self, change: PlanChange, now: float) -> None:
        """What changed in the Plan since the last call. A Plan must have been set."""
        self._ownership.change_plan(change, now)
        self._settle(now)

    def plan_lost(self, now: float) -> None:
        """Nobody keeps the Plan up to date any more: what is held stays, nothing is claimed until the next
        ``set_plan``, and peers are told, so that they do not wait for us."""
        self._planned = self._ready = False
        self._ownership.set_able(False, now)
        self._roster.speak_now = True
        self._settle(now)

    def set_links(self, links: tuple[LinkState, ...], now: float) -> None:
        """All announced interfaces as they are now."""
        fenced = self._membership.set_links(links, self._speaking_since is not None, now)
        self._ownership.links_changed(now)
        if fenced and self._log.claims:
            self._fenced("LinkUp", 0.0)
        self._begin(now)
        self._settle(now)

    def receive_datagram(
        self, link: LinkName, source: AddressText, data: bytes, now: float, *, by_group: bool = True
    ) -> None:
        """A datagram that arrived with TTL 255 on UDP 7948, addressed to the group or to this node alone."""
        segment = self._roster.links.get(link)
        if self._authenticator is None or segment is None or not segment.state.up:
            return
        try:
            self._membership.receive(link, source, self._authenticator.parse(data), now, by_group=by_group)
        except HeartbeatError as error:
            self._count(f"heartbeats_dropped:{error.reason.value}")
            if error.reason is Drop.NONSENSE:
                self._tell_nonsense(link, source, str(error), now)
            if not self._roster.networks_changed:
                return
        self._settle(now)

    def datagram_refused(self, link: LinkName, to: AddressText, now: float) -> None:
        self._membership.refused(link, to, now)

    def receive_frame(self, link: LinkName, sender: Mac, now: float) -> None:
        """A frame of any kind, while ``WatchFrames`` asks for them."""
        if not self._is_own(sender):
            self._membership.frame(link, sender, now)

    def set_sending(self, link: LinkName, works: bool, now: float) -> None:
        """Whether the kernel takes heartbeats for this link, each time that this changes; it does until told."""
        segment = self._roster.links.get(link)
        if segment is None or segment.mute is not works:
            return
        segment.mute = not works
        if works:
            self._membership.excuse(link, now)  # nobody could answer what we did not say
            segment.listening_until = now + self._settings.listening_s
        self._roster.changed = True
        self._settle(now)

    def frames_lost(self, link: LinkName, now: float) -> None:
        """The kernel had to drop frames that were for us: what was not heard on this link tells nothing."""
        if link in self._roster.links:
            self._roster.own_lateness = max(self._roster.own_lateness, LOST_FRAMES_S)
            self._roster.check_at = now

    def prove(self, nonce: bytes, mac: Mac, address: AddressText) -> bytes:
        """What goes behind an ARP Reply to a question with a nonce: twelve octets, empty without a key."""
        return self._authenticator.prove(nonce, mac, address) if self._authenticator is not None else b""

    def receive_arp(self, seen: ArpSeen, now: float) -> None:
        segment = self._roster.links.get(seen.link)
        if segment is None or self._is_own(seen.sender_mac):
            return
        node = self._membership.arp(seen, now)
        if node is not None and seen.proof and self._is_proof(seen, node):
            self._membership.proved(seen.link, node, now)
        if seen.sender in self._log.claims and seen.link in self._held.get(seen.sender, ()):
            self._rivals.meet(seen, node, self._quiet, now)

    def _is_own(self, mac: Mac) -> bool:
        return any(mac == segment.state.mac for segment in self._roster.links.values())

    def _is_proof(self, seen: ArpSeen, node: NodeName) -> bool:
        """Whether a reply has been made by a member for one of our latest questions to a suspect."""
        peer = self._roster.peers.get(node)
        sighting = peer.sightings.get(seen.link) if peer is not None else None
        suspicion = sighting.suspicion if sighting is not None else None
        return (
            self._authenticator is not None
            and suspicion is not None
            and seen.is_reply
            and seen.sender == suspicion.address
            and any(
                self._authenticator.proves(seen.proof, nonce, seen.sender_mac, seen.sender)
                for nonce in suspicion.nonces
            )
        )

    def _tell_nonsense(self, link: LinkName, source: AddressText, what: str, now: float) -> None:
        if now - self._nonsense.get(source, LONG_AGO) < NONSENSE_GAP_S:
            return
        self._nonsense = {who: at for who, at in self._nonsense.items() if now - at < NONSENSE_GAP_S}
        if len(self._nonsense) < MAX_NONSENSE:
            self._nonsense[source] = now
            self._roster.report("MemberNonsense", link=link, address=source, what=what)

    def handle_timer(self, now: float) -> None:
        """Do what is due. To be called when ``next_deadline`` has come; calling it early does no harm."""
        late = max(now - max(self._timer_at, self.next_deadline() or now), 0.0)
        fading = 0.5 ** ((now - self._timer_at) / LATENESS_HALF_LIFE_S)
        self._roster.own_lateness = max(late, self._roster.own_lateness * fading)
        self._timer_at = now
        self._suspicions.check(now)
        self._lift_fences(now)
        self._yield_to_twin(now)
        self._settle(now)
        if not self._ready and self._may_start(now):
            self._ready = True
            self._ownership.set_able(True, now)
            self._roster.speak_now = True
        self._ownership.handle_timer(now)
        self._settle(now)
        if now >= self._tick_at or now >= self._soon_at:
            self._speak(now)
        if now >= self._outbox_at:
            self._empty_outbox(now)

    def loop_late(self, seconds: float, now: float) -> None:
        """The loop was away for that long beyond its deadline. If that is half the detection floor or more, everything
        queued here is discarded and answering is fenced; the caller discards what its sockets have queued *before* it
        calls this: those datagrams tell nothing about now."""
        if seconds < self._settings.detection_floor_s / 2:
            return
        self._effects[:] = [effect for effect in self._effects if isinstance(effect, Report)]
        self._timer_at = now
        for name, segment in self._roster.links.items():
            if segment.state.up:
                if not segment.came_up:
                    segment.quiet_since = now
                self._membership.fence(name, now)
        self._fenced("LoopLate", seconds)
        self._tick_at = now
        self._settle(now)

    def release_all(self, now: float) -> None:
        """Release every claim, say so three times, and claim nothing more. ``released`` tells when it was said."""
        if self._leaving:
            return
        self._leaving = SAID
        self._ready = False
        self._ownership.release_all()
        self._settle(now)
        self._speak(now)

    # ------------------------------------------------------------------------------------------------ outputs

    def next_deadline(self) -> float | None:
        """When ``handle_timer`` should be called next; ``None`` if nothing is due ever."""
        deadlines = [self._roster.check_at, self._ownership.next_deadline(), self._outbox_at]
        if self._authenticator is not None:
            deadlines += [self._tick_at, self._soon_at]
            deadlines += [self._doubts_end(), self._listening_ends()]
            deadlines += [
                since + self._settings.interval_s
                for segment in self._roster.links.values()
                if (since := segment.fenced_since) is not None and since + self._settings.interval_s > self._timer_at
            ]
        soonest = min(deadlines)
        return soonest if soonest < NEVER else None

    def take_effects(self) -> list[Effect]:
        """What to carry out, in order; reports come last, so that no frame waits for a log line."""
        effects = sorted(self._effects, key=lambda effect: isinstance(effect, Report))
        self._effects.clear()
        return effects

    def held(self) -> Held:
        """What to answer for, and the links on which no gratuitous frame may be sent now."""
        self._note_held(self._timer_at)
        return Held(0, self._held, self._quiet)

    def take_held(self) -> HeldChange | None:
        """What changed in ``held`` since the last call; ``None`` when nothing. To be called before ``take_effects``:
        what is announced is to be answered for."""
        self._note_held(self._timer_at)
        if not self._held_changes and self._quiet == self._told_quiet:
            return None
        changes, self._held_changes = self._held_changes, {}
        self._told_quiet = self._quiet
        return HeldChange(changes, self._quiet)

    def _note_held(self, now: float) -> None:
        ownership = self._ownership
        if not ownership.touched and not ownership.all_touched:
            return
        touched: Iterable[AddressText] = ownership.touched
        if ownership.all_touched:
            touched = {*self._held, *self._log.claims, *ownership.touched}
            self._quiet = frozenset(
                name
                for name, segment in self._roster.links.items()
                if segment.isolated or segment.quiet_since is not None
            )
        moved: list[AddressText] = []
        for address in touched:
            before, here = self._held.get(address, NOWHERE), ownership.answered(address, now)
            if before == here:
                continue
            if here:
                self._held[address] = here
            else:
                del self._held[address]
            self._held_changes[address] = here
            if before and here - before:
                moved.append(address)  # whoever knows its former MAC is to learn the new one
        self._claim_changes.update(dict.fromkeys(ownership.touched))
        ownership.touched, ownership.all_touched = {}, False
        if moved:
            self._emit(Announce(tuple(moved)))

    def take_claims(self) -> Mapping[AddressText, int | None]:
        """Own claims that changed since the last call, with their epochs; ``None`` for one that is no more."""
        self._note_held(self._timer_at)
        changes: dict[AddressText, int | None] = {}
        for address in self._claim_changes:
            claim = self._log.claims.get(address)
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

    def claims(self) -> Mapping[AddressText, int]:
        """Own claims with their epochs, those that are suspended included."""
        return {address: claim.epoch for address, claim in self._log.claims.items()}

    def peers(self) -> tuple[PeerView, ...]:
        views = []
        for peer in self._roster.peers.values():
            seen = peer.sightings.values()
            views.append(
                PeerView(
                    peer.node,
                    any(sighting.standing is not Standing.DEAD for sighting in seen),
                    max((self._roster.detection(sighting, self._timer_at) for sighting in seen), default=0.0),
                    max((sighting.detector.lateness for sighting in seen), default=0.0),
                    len(peer.mirror.claims),
                )
            )
        return tuple(views)

    def counters(self) -> Mapping[str, int]:
        """Datagrams sent and dropped, by reason."""
        return self._counters

    @property
    def ready(self) -> bool:
        """Heartbeats flow, there is a Plan, and the start-up wait is over."""
        return self._ready

    @property
    def released(self) -> bool:
        """``release_all`` was called and has been said often enough to go."""
        return self._leaving < 0

    # ------------------------------------------------------------------------------------------------ starting

    def _begin(self, now: float) -> None:
        """The start-up wait begins when heartbeats can flow."""
        up = any(segment.state.up for segment in self._roster.links.values())
        if self._speaking_since is None and self._authenticator is not None and up:
            self._speaking_since = now
            self._tick_at = now

    def _may_start(self, now: float) -> bool:
        wait = self._settings.start_wait_s + STARTING_INTERVALS * self._settings.interval_s
        return (
            not self._leaving
            and self._planned
            and self._speaking_since is not None
            and now >= self._speaking_since + wait
            and not self._membership.yields(now)
            and any(segment.open(now) for segment in self._roster.links.values())
            and not any(self._roster.behind(link, now, BEHIND_PATIENCE_S) for link in self._roster.links)
        )

    # ------------------------------------------------------------------------------------------------ composition

    def _settle(self, now: float) -> None:
        """Carry what one part found out to the others."""
        roster, ownership = self._roster, self._ownership
        self._membership.able = self._ready
        answering = frozenset(name for name, segment in roster.links.items() if segment.answering)
        if roster.networks_changed or (answering != self._answering and len(roster.links) > 1):
            roster.networks_changed = False
            ownership.links_changed(now)
        self._answering = answering
        if roster.changed:
            roster.changed = False
            ownership.all_touched = True
            ownership.wake(now)
            holders = sum(bool(peer.mirror.claims) for peer in roster.peers.values()) + bool(self._log.claims)
            roster.scale = max(1.0, holders / BUSY_HOLDERS)
        if roster.dirty_addresses:
            dirty, roster.dirty_addresses = roster.dirty_addresses, {}
            ownership.heard(dirty, now)
        for version in roster.asked_of_us:
            self._answer(version, now)
        roster.asked_of_us.clear()
        steps = self._log.commit()
        if steps:
            for step in steps:
                self._queue(step, now)
                self._repeats.append((step, SAID - 1))
            self._empty_outbox(now)
        if steps or roster.speak_now:
            roster.speak_now = False
            gap = self._settings.early_gap_s if self._interval() >= self._announced_s else 0.0
            self._soon_at = min(self._soon_at, max(now, self._spoke_at + gap))

    # ------------------------------------------------------------------------------------------------ speaking

    @property
    def _active(self) -> bool:
        roster = self._roster
        return bool(
            self._log.claims
            or roster.suspects
            or roster.alarm_until > self._timer_at
            or (self._planned and not self._ready)
            or self._repeats
            or self._leaving
            or any(segment.fenced_since is not None and segment.state.up for segment in roster.links.values())
            or any(peer.behind_since is not None for peer in roster.peers.values())
        )

    def _interval(self) -> float:
        """What the next heartbeat announces."""
        base = self._settings.interval_s if self._active else self._settings.idle_interval_s
        return base * self._roster.scale

    def _pace(self, interval: float) -> float:
        """When the next heartbeat follows. Who becomes idle says so several times, since one may be lost."""
        quick = self._settings.interval_s * self._roster.scale
        self._idle_said = self._idle_said + 1 if interval > quick else 0
        return quick if self._idle_said < SAID else interval

    def _speak(self, now: float) -> None:
        """A heartbeat on every link that is up; with it the repeats of what changed."""
        authenticator = self._authenticator
        if authenticator is None:
            return
        if now >= self._tick_at or self._leaving:
            for _ in range(len(self._repeats)):
                step, left = self._repeats.popleft()
                self._queue(step, now)
                if left > 1:
                    self._repeats.append((step, left - 1))
        interval = self._interval()
        unicast = self._roster.unicast
        self._roster.unicast = {}
        for name, segment in self._roster.links.items():
            if not segment.state.up:
                continue
            data = self._heartbeat(authenticator, segment, interval, now)
            self._effects.append(SendHeartbeat(name, data))
            self._count("sent_heartbeats")
            to = dict.fromkeys(self._roster.deaf_to_us(name, now, interval))
            to.update((contact, None) for link, contact in unicast if link == name)
            self._effects += [SendUnicast(name, address, mac, data) for address, mac in to]
        self._spoke_at, self._announced_s = now, interval
        self._soon_at = NEVER
        cut_off = any(s.isolated and now - s.isolated_at < CUT_OFF_S for s in self._roster.links.values())
        pace = self._pace(interval) / (CUT_OFF_PACE if cut_off else 1)
        self._tick_at = now + pace * self._rng.uniform(0.95, 1.0)
        if self._leaving > 0:
            self._leaving = self._leaving - 1 or -1
            self._tick_at = now + self._settings.early_gap_s if self._leaving > 0 else now + interval
        self._empty_outbox(now)

    def _heartbeat(self, authenticator: Authenticator, segment: Segment, interval: float, now: float) -> bytes:
        flags = Flag(0)
        if self._leaving:
            flags |= Flag.LEAVING
        elif self._ready and segment.open(now):
            flags |= Flag.ABLE
        elif self._planned and not self._ready:
            flags |= Flag.STARTING
        if segment.fenced_since is not None or self._spoke_at == LONG_AGO:
            flags |= Flag.ANSWER
        if segment.came_up:
            flags |= Flag.CUT_OFF
        heard = self._roster.heard(segment.state.name, now)
        self._rng.shuffle(heard)
        message = Heartbeat(
            self._node,
            max(1, round(interval * 1000)),
            int(flags),
            segment.state.name,
            segment.state.mac,
            segment.state.prefixes[:MAX_PREFIXES],
            self._elsewhere(segment),
            b"",
            self._log.version,
            self._log.digest,
            tuple(self._roster.asks(now)[:MAX_ASKS]),
        )
        room = min((LONGEST_SAID - 8 - authenticator.size(message)) // HEARD_BYTES, MAX_HEARD)
        if len(heard) > room:
            message = replace(message, flags=int(flags | Flag.MORE))
        return self._encode(authenticator, replace(message, heard=pack_heard(heard[:room])))

    def _elsewhere(self, here: Segment) -> tuple[str, ...]:
        others = (s.state.prefixes for s in self._roster.links.values() if s is not here)
        return tuple(prefix for prefixes in others for prefix in prefixes)[:MAX_PREFIXES]

    def _encode(self, authenticator: Authenticator, message: Message) -> bytes:
        self._sequence += 1
        return authenticator.encode(self._session, self._sequence, message)

    def _queue(self, message: ClaimStep | ClaimPart, now: float) -> None:
        key = (type(message), message.version, message.index if isinstance(message, ClaimPart) else 0)
        self._outbox[key] = message
        self._outbox_at = min(self._outbox_at, now)

    def _answer(self, version: int, now: float) -> None:
        """What a peer lacks, but the same message not twice within an interval."""
        recently = now - self._settings.interval_s / 2
        self._sent_to_asker = {key: at for key, at in self._sent_to_asker.items() if at > recently}
        for message in self._log.after(version):
            key = (type(message), message.version, message.index if isinstance(message, ClaimPart) else 0)
            if key not in self._sent_to_asker:
                self._sent_to_asker[key] = now
                self._queue(message, now)

    def _empty_outbox(self, now: float) -> None:
        """Claim messages, paced so that nobody's socket buffer overflows."""
        authenticator = self._authenticator
        if authenticator is None or now < self._outbox_at:
            return
        interval = self._interval()
        for key in list(self._outbox)[:BURST]:
            message = self._outbox.pop(key)
            for name, segment in self._roster.links.items():
                if segment.state.up:
                    data = self._encode(authenticator, message)
                    self._effects.append(SendHeartbeat(name, data))
                    self._count("sent_claims")
                    self._effects += [
                        SendUnicast(name, address, mac, data)
                        for address, mac in self._roster.deaf_to_us(name, now, interval)
                    ]
        self._outbox_at = now + BURST_GAP_S if self._outbox else NEVER

    # ------------------------------------------------------------------------------------------------ fencing

    def _fenced(self, why: str, seconds: float) -> None:
        self._ownership.all_touched = True
        self._roster.speak_now = True
        self._effects.append(Report(why, {"late_ms": int(seconds * 1000), "suspended": len(self._log.claims)}))

    def _lift_fences(self, now: float) -> None:
        settings = self._settings
        for name, segment in self._roster.links.items():
            since, quiet_since = segment.fenced_since, segment.quiet_since
            if since is None and quiet_since is not None and self._roster.third_party_since(name, quiet_since):
                segment.quiet_since = None
                self._ownership.all_touched = True
            self._end_doubts(segment, now)
            if segment.listening_until > LONG_AGO and now >= segment.listening_until:
                segment.listening_until = LONG_AGO
                self._roster.changed = self._roster.speak_now = True
            if since is None or not segment.state.up or now < since + settings.interval_s:
                continue
            heard = self._roster.third_party_since(name, since)
            patience = settings.link_silence_s if segment.came_up else settings.detection_floor_s
            if heard and self._roster.behind(name, now, BEHIND_PATIENCE_S):
                continue
            if not heard and now < since + patience:
                continue
            segment.fenced_since = None
            self._roster.changed = True
            self._roster.speak_now = True
            if heard:
                segment.quiet_since = None
            elif quiet_since is None:
                segment.quiet_since = now
            resumed = tuple(a for a in self._log.claims if name in self._ownership.links_of(a, now))
            if resumed:
                self._effects.append(Report("Resumed", {"link": name, "addresses": len(resumed), "heard": int(heard)}))
                if heard:
                    self._effects.append(Announce(resumed))

    def _listening_ends(self) -> float:
        """When we are able to claim on a link that was new."""
        until = (segment.listening_until for segment in self._roster.links.values() if segment.state.up)
        return min((at for at in until if at > LONG_AGO), default=NEVER)

    def _doubts_end(self) -> float:
        """When the claims of a peer that is back have had their time to come."""
        since = (at for segment in self._roster.links.values() for at in segment.doubted.values())
        return min(since, default=NEVER) + BEHIND_PATIENCE_S

    def _end_doubts(self, segment: Segment, now: float) -> None:
        for session in [s for s, at in segment.doubted.items() if now >= at + BEHIND_PATIENCE_S]:
            del segment.doubted[session]
            self._roster.changed = True

    def _yield_to_twin(self, now: float) -> None:
        """Another machine with our name is there, and it is ours to be silent."""
        if self._ready and self._membership.yields(now):
            self._ready = False
            self._ownership.set_able(False, now)
            self._ownership.give_up("another machine has this node's name")
            self._roster.speak_now = True

    # ------------------------------------------------------------------------------------------------ counting

    def _count(self, name: str) -> None:
        self._counters[name] = self._counters.get(name, 0) + 1


__all__ = ["Protocol", "Settings"]
