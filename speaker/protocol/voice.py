"""Says when to speak, and what: heartbeats on every link, and claims that changed or that somebody lacks.

**Heartbeats** go out each 100 ms while this node holds something, suspects somebody or starts, else each second; each
200 ms while nodes' lives matter whatever they hold (``brisk``). Each says when the next is due. Three things make one
come earlier:

- Somebody waits for it (``News.speak``): it goes out at once, but not twice within 20 ms.
- This node ceases to be idle: that is said at once, since its silence tells little before it was heard.
- This node is cut off: it speaks four times as often for ten seconds, so that it is found at once when the network is
  whole again.

**Claims.** Each change of the claim set is said at once, and with the next two heartbeats. What a peer asks for is said
once in an interval; so is what somebody lacks of the claims of a session that this node stands in for. Offers are said
as ``handing`` wants. All these go out in bursts of forty, so that no socket buffer
overflows.

All of it goes to the group, and by unicast to those whom the group does not reach. Heartbeats go to those, too, who are
expected and were not heard (``expected``).
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable
from itertools import chain

from msgspec.structs import replace

from cluster.objects import NodeName
from cluster.times import LONG_AGO, NEVER
from speaker.link import LinkName
from speaker.protocol.claims import ClaimLog
from speaker.protocol.crowd import Turns, idle_interval
from speaker.protocol.datagram import Authenticator
from speaker.protocol.effects import SendHeartbeat, SendUnicast
from speaker.protocol.heartbeat import (
    HEARD_BYTES,
    LONGEST_SAID,
    MAX_ASKS,
    MAX_HEARD,
    MAX_PREFIXES,
    SKILLS,
    STANDS_IN,
    ClaimPart,
    ClaimStep,
    Flag,
    Heartbeat,
    Message,
    Offer,
    OnBehalf,
    pack_families,
    pack_heard,
)
from speaker.protocol.news import Contact, News, ask_of
from speaker.protocol.peers import Link, Peer
from speaker.protocol.roster import Roster
from speaker.protocol.settings import RestartMode
from speaker.protocol.standing_in import StandIns
from speaker.protocol.subnets import Subnets, one_of_each_subnet

SAID = 3  # times that each change of the claim set is said, and that a node says that it leaves
BURST = 40  # claim messages at once: a peer's socket buffer holds at least as many
BURST_GAP_S = 0.01
CUT_OFF_S = 10.0  # for which an isolated node speaks more often
CUT_OFF_PACE = 4

ABLE, STARTING, LEAVING, RESTARTING = int(Flag.ABLE), int(Flag.STARTING), int(Flag.LEAVING), int(Flag.RESTARTING)
ANSWER, CUT_OFF, YIELDS, MORE = int(Flag.ANSWER), int(Flag.CUT_OFF), int(Flag.YIELDS), int(Flag.MORE)

_Key = tuple[type | int | bytes, ...]


class Voice:
    """Sans-IO; emits ``SendHeartbeat`` and ``SendUnicast``."""

    def __init__(
        self,
        session: int,
        roster: Roster,
        log: ClaimLog,
        rng: random.Random,
        now: float,
        *,
        stand_ins: StandIns,
        missing: Callable[[LinkName, float], list[Contact]],
    ) -> None:
        """``missing`` says who is to get the heartbeat of a link that goes out now, since they were not heard there."""
        self.authenticator: Authenticator | None = None
        """Nothing is said without it."""
        self.planned = False
        """There is a Plan that is kept up to date."""
        self.ready = False
        """The start-up wait is over."""
        self.yields = False
        """Another machine has our name, and we are silent for it."""
        self.restarting = False
        """This node is to end and waits for a stand-in, or has started and does not hold yet what it held."""
        self.stand_in = 0
        """The session that is to stand in for this one; 0: none."""
        self.brisk = False
        """Whoever hears us wants to know within a second when this node dies, though it holds nothing."""
        self.heartbeats = 0
        """Sent so far, one for each link."""
        self.claim_messages = 0
        """Sent so far, repetitions included."""
        self._session = session
        self._roster = roster
        self._subnets = Subnets(roster)
        self._settings = roster.settings
        self._log = log
        self._stand_ins = stand_ins
        self._missing = missing
        self._rng = rng
        self._emit = roster.emit
        self._leaving = 0
        """How often it is still to be said that this node leaves; below 0 when that is done."""
        self._sequence = 0
        self._now = now
        self._spoke_at = LONG_AGO
        self._announced_s = NEVER
        """When the next heartbeat was said to be due, in seconds after the last."""
        self._tick_at = now
        self._soon_at = NEVER
        self._in_a_hurry = False
        """Somebody waits for a heartbeat."""
        self._unicast: dict[tuple[LinkName, NodeName], tuple[Contact, ...]] = {}
        """Which peers are to get it by unicast too, and where: each once, wherever else it has said to be."""
        self._asked: dict[int, None] = {}
        """Versions after which peers want our claims."""
        self._alarm_until = LONG_AGO
        """Until then peers look for somebody."""
        self._idle_said = SAID
        self._asked_of: dict[int, int] = {}
        """Sessions that this node stands in for, and versions after which peers want their claims."""
        self._repeats: deque[tuple[ClaimStep | OnBehalf, int]] = deque()
        self._outbox: dict[_Key, Message] = {}
        self._outbox_at = NEVER
        self._sent_to_asker: dict[_Key, float] = {}
        self._turns: dict[LinkName, Turns] = {}

    # ------------------------------------------------------------------------------------------------ what to say

    def begin(self, now: float) -> None:
        """Say the next heartbeat now."""
        self._tick_at = now

    def hurry(self) -> None:
        """Somebody is to hear of us soon."""
        self._in_a_hurry = True

    def note(self, news: News) -> None:
        """Who waits to hear from us, and for what."""
        self._in_a_hurry |= news.speak
        if news.unicast:
            self._unicast.update(news.unicast)
        if news.asked:
            self._asked.update(news.asked)
        ask_of(self._asked_of, news.asked_of.items())
        self._alarm_until = max(self._alarm_until, news.alarm_until)

    def leave(self) -> None:
        """Say three times, quickly, that this node leaves."""
        self._leaving = SAID

    @property
    def leaving(self) -> bool:
        return self._leaving != 0

    @property
    def has_left(self) -> bool:
        return self._leaving < 0

    def tell_changes(self, now: float) -> None:
        """Say what changed in the claim set, what peers asked for, and a heartbeat if somebody waits for one."""
        self._now = now
        if self._asked:
            # what comes after one version comes after all later ones
            self._answer(self._log.after(min(self._asked)), now)
            self._asked.clear()
        asked_of, self._asked_of = self._asked_of, {}
        for session, version in asked_of.items():
            if (log := self._stand_ins.log_of(session)) is not None:
                self._answer((OnBehalf(session, said) for said in log.after(version)), now)
        steps: list[ClaimStep | OnBehalf] = [*self._log.commit()]
        steps += [OnBehalf(session, step) for session, step in self._stand_ins.take_steps()]
        if steps:
            for step in steps:
                self._queue(step, now)
                self._repeats.append((step, SAID - 1))
            self._empty_outbox(now)
        if steps or self._in_a_hurry:
            self._in_a_hurry = False
            gap = self._settings.early_gap_s if self._interval() >= self._announced_s else 0.0
            self._soon_at = min(self._soon_at, max(now, self._spoke_at + gap))

    def offer(self, offers: Iterable[Offer], now: float) -> None:
        """Say what this node offers to others, now."""
        for offer in offers:
            self._queue(offer, now)
        self._empty_outbox(now)

    def handle_timer(self, now: float) -> None:
        self._now = now
        if now >= self._tick_at or now >= self._soon_at:
            self.speak(now)
        if now >= self._outbox_at:
            self._empty_outbox(now)

    def next_deadline(self) -> float:
        if self.authenticator is None:
            return self._outbox_at
        return min(self._tick_at, self._soon_at, self._outbox_at)

    # ------------------------------------------------------------------------------------------------ saying it

    @property
    def _active(self) -> bool:
        roster = self._roster
        return bool(
            self._log.claims
            or roster.suspects
            or self._alarm_until > self._now
            or (self.planned and not self.ready)
            or self._repeats
            or self._leaving
            or self.restarting
            or self._stand_ins
            or any(link.fencing.suspended and link.state.up for link in roster.links.values())
            or any(peer.behind_since is not None for peer in roster.all_sessions())
        )

    def _interval(self) -> float:
        """What the next heartbeat announces."""
        scale = self._roster.scale
        if self._active:
            return self._settings.interval_s * scale
        usual = self._settings.brisk_interval_s if self.brisk else self._settings.idle_interval_s
        return idle_interval(usual, self._settings, scale, len(self._roster.peers) + 1)

    def _pace(self, interval: float) -> float:
        """When the next heartbeat follows. Who becomes idle says so several times, since one may be lost."""
        quick = self._settings.interval_s * self._roster.scale
        self._idle_said = self._idle_said + 1 if interval > quick else 0
        return quick if self._idle_said < SAID else interval

    def speak(self, now: float) -> None:
        """A heartbeat on every link that is up; with it the repeats of what changed."""
        authenticator = self.authenticator
        if authenticator is None:
            return
        if now >= self._tick_at or self._leaving:
            for _ in range(len(self._repeats)):
                step, left = self._repeats.popleft()
                self._queue(step, now)
                if left > 1:
                    self._repeats.append((step, left - 1))
        interval = self._interval()
        lacking = self._roster.to_ask(now)
        asked, others = lacking[:MAX_ASKS], lacking[MAX_ASKS:]
        unicast, self._unicast = self._unicast, {}
        for name, link in self._roster.links.items():
            if not link.state.up:
                continue
            data = self._heartbeat(authenticator, link, asked, interval, now)
            self._emit(SendHeartbeat(name, data))
            self.heartbeats += 1
            to = dict.fromkeys(self._roster.deaf_to_us(name, now, interval))
            to.update(dict.fromkeys(self._missing(name, now)))
            to.update((each, None) for (there, _), contacts in unicast.items() if there == name for each in contacts)
            for address, mac in to:
                self._emit(SendUnicast(name, address, mac, data))
        self._spoke_at, self._announced_s = now, interval
        self._soon_at = now + self._settings.early_gap_s if others and others[0].asked_at == LONG_AGO else NEVER
        for peer in asked:
            peer.asked_at = now
        cut_off = any(s.isolated and now - s.isolated_at < CUT_OFF_S for s in self._roster.links.values())
        pace = self._pace(interval) / (CUT_OFF_PACE if cut_off else 1)
        self._tick_at = now + pace * self._rng.uniform(0.95, 1.0)
        if self._leaving > 0:
            self._leaving = self._leaving - 1 or -1
            self._tick_at = now + self._settings.early_gap_s if self._leaving > 0 else now + interval
        self._empty_outbox(now)

    def _heartbeat(
        self, authenticator: Authenticator, here: Link, asked: Iterable[Peer], interval: float, now: float
    ) -> bytes:
        flags = 0
        if self.restarting:
            flags |= RESTARTING
        if self._leaving:
            flags |= LEAVING
        elif self.ready and here.open(now):
            flags |= ABLE
        elif self.planned and not self.ready and not self.stand_in:
            flags |= STARTING
        if here.fencing.suspended or self._spoke_at == LONG_AGO:
            flags |= ANSWER
        if here.came_up:
            flags |= CUT_OFF
        if self.yields:
            flags |= YIELDS
        heard = self._roster.heard(here.state.name, now)
        message = Heartbeat(
            self._roster.node,
            max(1, round(interval * 1000)),
            flags,
            here.state.name,
            here.state.mac,
            one_of_each_subnet(here.state.prefixes)[:MAX_PREFIXES],
            self._elsewhere(here),
            b"",
            self._log.version,
            self._log.digest,
            tuple((peer.session, peer.mirror.version) for peer in asked),
            families=pack_families(self._subnets.families_at(here.state.name, now)),
            skills=SKILLS if self._settings.restart_mode is RestartMode.STAND_IN else SKILLS & ~STANDS_IN,
            lost=self._roster.lost,
            stand_in=self.stand_in,
            stood_in=self._stand_ins.said_on(here.state.name),
        )
        room = min((LONGEST_SAID - 8 - authenticator.size(message)) // HEARD_BYTES, MAX_HEARD)
        if len(heard) > room:
            message = replace(message, flags=flags | MORE)
            heard = self._turns.setdefault(here.state.name, Turns()).choose(heard, self._roster.awaited(), room)
        return self._encode(authenticator, replace(message, heard=pack_heard(heard)))

    def _elsewhere(self, here: Link) -> tuple[str, ...]:
        others = (s.state.prefixes for s in self._roster.links.values() if s is not here)
        return one_of_each_subnet(tuple(chain.from_iterable(others)))[:MAX_PREFIXES]

    def _encode(self, authenticator: Authenticator, message: Message) -> bytes:
        self._sequence += 1
        return authenticator.encode(self._session, self._sequence, message)

    def _queue(self, message: ClaimStep | ClaimPart | Offer | OnBehalf, now: float) -> None:
        self._outbox[_key(message)] = message
        self._outbox_at = min(self._outbox_at, now)

    def _answer(self, messages: Iterable[ClaimStep | ClaimPart | OnBehalf], now: float) -> None:
        """What a peer lacks, but the same message not twice within an interval."""
        recently = now - self._settings.interval_s / 2
        self._sent_to_asker = {key: at for key, at in self._sent_to_asker.items() if at > recently}
        for message in messages:
            key = _key(message)
            if key not in self._sent_to_asker:
                self._sent_to_asker[key] = now
                self._queue(message, now)

    def _empty_outbox(self, now: float) -> None:
        """Claim messages, paced so that nobody's socket buffer overflows."""
        authenticator = self.authenticator
        if authenticator is None or now < self._outbox_at:
            return
        interval = self._interval()
        up = [name for name, link in self._roster.links.items() if link.state.up]
        deaf = {name: self._roster.deaf_to_us(name, now, interval) for name in up}
        for key in list(self._outbox)[:BURST]:
            message = self._as_of_now(self._outbox.pop(key))
            for name, contacts in deaf.items():
                data = self._encode(authenticator, message)
                self._emit(SendHeartbeat(name, data))
                self.claim_messages += 1
                for address, mac in contacts:
                    self._emit(SendUnicast(name, address, mac, data))
        self._outbox_at = now + BURST_GAP_S if self._outbox else NEVER

    def _as_of_now(self, message: Message) -> Message:
        """What is sent: it may have waited here, or come from a log, while claims changed."""
        if isinstance(message, ClaimStep | ClaimPart):
            return self._log.as_of_now(message)
        if isinstance(message, OnBehalf) and (log := self._stand_ins.log_of(message.session)) is not None:
            return replace(message, said=log.as_of_now(message.said))
        return message


def _key(message: ClaimStep | ClaimPart | Offer | OnBehalf) -> _Key:
    """What is the same for two messages that say the same."""
    if isinstance(message, OnBehalf):
        return OnBehalf, message.session, *_key(message.said)
    if isinstance(message, Offer):
        return Offer, message.to, message.addresses[0]
    return type(message), message.version, message.index if isinstance(message, ClaimPart) else 0
