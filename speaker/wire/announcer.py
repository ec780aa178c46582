"""The wire side of a speaker: one thread, one loop, every socket, and never a wait for anything but the wire.

The loop is: receive → let the cores decide → send → re-arm. What to claim and what to say is `Protocol`'s, what to
answer the `Responder`'s, when to announce unasked the `GratuitousSchedule`'s; what comes in is read by the `Receiver`,
what goes out sent by the `Sender`. Here is only what connects them, and what keeps the loop honest about time:

- Each socket is drained up to a bound before the next has its turn, and timers have theirs in every round, so that a
  flood on one costs the others no more than some milliseconds.
- Whatever there is to do for thousands of addresses is done in pieces, with the sockets and the timers between them:
  a take-over must not look like a death. How long turns took is counted (``turns``).
- Heartbeats and answers that have arrived are read before the protocol judges who is silent.
- A loop that comes back later than half the detection floor does not know any more what it holds: it throws away
  everything that was received meanwhile, forgets what it had to announce, and tells the protocol (docs/protocol.md,
  rule 9). A reply is sent only while the batch that it belongs to is younger than that.
- The watcher is talked to through a channel that never blocks, and may die: nothing here needs it. What it is told of
  claims, decisions and traffic is the `Informer`'s.

Whatever the protocol decides takes effect in this order: first the responder and the filters follow what is held now,
then the effects are carried out. A node that loses an address is therefore silent before it says so, and one that gains
it can answer before it is announced.
"""

from __future__ import annotations

import logging
import random
import secrets
import selectors
import signal
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import assert_never

from cluster.daemon import logs
from cluster.daemon.command_line import EXIT_USAGE
from cluster.objects import NodeName
from speaker.channel import AnnouncerEnd, Credentials
from speaker.child import Child
from speaker.link import LinkName
from speaker.parts import Joiner
from speaker.plan import Plan
from speaker.protocol.effects import (
    Action,
    AnswerChange,
    AskAddress,
    Decision,
    LinkState,
    SendGratuitous,
    SendHeartbeat,
    SendUnicast,
    WatchFrames,
)
from speaker.protocol.protocol import Protocol, Settings
from speaker.turns import Turns
from speaker.wire import process
from speaker.wire.arp.responder import Responder
from speaker.wire.frame_watch import FrameWatch
from speaker.wire.gratuitous import SLACK_S, GratuitousSchedule
from speaker.wire.informer import Informer
from speaker.wire.keeper import WatcherKeeper
from speaker.wire.links import LinkSocket
from speaker.wire.ports import Port, Ports
from speaker.wire.process import boottime
from speaker.wire.receiving import Receiver
from speaker.wire.sending import Sender
from speaker.wire.sockets import discard

DATAGRAMS_BEFORE_JUDGING = 256
"""Of each link, when the protocol is due: some milliseconds, and about what a socket's buffer holds."""
LOOK_AGAIN_S = 0.002
"""Seconds after which more may have arrived than the selector told of."""
JUDGING_LATE_S = 0.05
"""For so long the protocol waits until all that has arrived is read; a flood must not hold it off for longer."""
HOUSEKEEPING_S = 1.0
"""Seconds between statistics, and between attempts at what failed (a socket on an interface)."""
FAREWELL_S = 0.4
"""Seconds in which, after SIGTERM, the releases must have been said (three times)."""

NEVER, AT_ONCE = float("inf"), 0.0

logger = logging.getLogger(__name__)


class Announcer:
    """The loop and what it holds."""

    def __init__(self, protocol: Protocol, keeper: WatcherKeeper, settings: Settings) -> None:
        self._protocol = protocol
        self._keeper = keeper
        self._late_s = settings.detection_floor_s / 2
        self._responder = Responder(protocol.prove)
        self._schedule = GratuitousSchedule(settings.gratuitous_limit)
        self._selector = selectors.DefaultSelector()
        self._ports = Ports(self._responder, self._wait_for, self._wait_no_longer_for)
        self._announced: tuple[LinkState, ...] = ()
        """The links that the protocol knows of."""
        self._usable = True
        """Some interface can be announced on now; benefit of the doubt until they are known."""
        self._unusable: dict[LinkName, str] = {}
        """Interfaces that cannot, and why."""
        self._links_looked_at = False
        """Since they changed last, in the second of the statistics."""
        self._joiner = Joiner()
        self._plan_revision = 0
        self._counters: Counter[str] = Counter()
        self._sender = Sender(self._ports, self._counters)
        self._receiver = Receiver(protocol, self._sender, self._counters, self._late_s, self._settle)
        self._turns = Turns()
        self._informer = Informer(keeper, protocol, self._responder, self._counters, self._turns)
        now = boottime()
        self._protocol_at = NEVER
        """When the protocol has something to do."""
        self._rest_at = now
        """When anything else has; whatever may bring that forward sets it to `AT_ONCE`."""
        self._housekeeping_at = now
        self._ends_at: float | None = None
        self._ended = False
        self._unregistered: set[object] = set()
        """Sockets that were closed in this turn, which may still be among those that were ready."""
        self._channel: AnnouncerEnd | None = None
        self._channel_events = 0
        """The channel that is waited for, and for what."""

        self._netlink = LinkSocket()
        self._selector.register(self._netlink.socket, selectors.EVENT_READ, self._receive_links)
        self._wakeup, self._signalled = socket.socketpair()
        for end in (self._wakeup, self._signalled):
            end.setblocking(False)
        self._selector.register(self._wakeup, selectors.EVENT_READ, self._receive_signal)
        self._watch_channel()

    # ---------------------------------------------------------------- the loop

    def run(self) -> int:
        """Until SIGTERM or SIGINT; the exit code."""
        signal.set_wakeup_fd(self._signalled.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)  # the octet on the wake-up socket is the message
        try:
            while not self._ended:
                self.turn()
            return EXIT_USAGE if self._keeper.unusable_arguments else 0
        finally:
            signal.set_wakeup_fd(-1)
            self.close()

    def turn(self) -> None:
        """Wait for the next thing to do, and do it."""
        deadline = min(self._protocol_at, self._rest_at)
        ready = self._selector.select(max(0.0, deadline - boottime()))
        began = boottime()
        if began - deadline > self._late_s:
            self._come_back_late(began - deadline, began)
        self._unregistered.clear()
        self._receiver.unread = False
        for key, _ in ready:
            if key.fileobj not in self._unregistered:
                key.data()
        if (now := boottime()) >= self._protocol_at:
            self._let_protocol_judge(began, now)
        if now >= self._rest_at - SLACK_S:  # whoever is awake need not be woken again soon
            self._handle_timers(boottime())
        process.collect_garbage()
        self._turns.note(boottime() - began)

    def close(self) -> None:
        self._keeper.end()
        for opened in (self._ports, self._netlink, self._wakeup, self._signalled, self._selector):
            opened.close()

    def _let_protocol_judge(self, looked_at: float, now: float) -> None:
        """What the protocol has to do now; but what has arrived is read first, or it would take for silence what is
        only our own delay. The sockets that were ready at ``looked_at`` have been read."""
        if self._receiver.unread or now > looked_at + LOOK_AGAIN_S:
            self._receiver.unread = False
            for port in self._ports:
                self._receiver.heartbeats(port, DATAGRAMS_BEFORE_JUDGING)
                self._receiver.arp(port, port.answers.socket)
            now = boottime()
        if not self._receiver.unread or now >= self._protocol_at + JUDGING_LATE_S:
            self._protocol.handle_timer(now)
            self._settle(now)

    def _handle_timers(self, now: float) -> None:
        """What there is to do besides, and when there is next."""
        self._send_gratuitous(now)
        self._informer.handle_timer(self._plan_revision, now)
        if self._keeper.handle_timer(now):
            self._joiner = Joiner()
            self._informer.begin()
        for port in self._ports:
            port.handle_timer(now)
        if now >= self._housekeeping_at - SLACK_S:
            self._keep_house(now)
        if self._ends_at is not None and (now >= self._ends_at or self._protocol.released):
            self._ended = True
        if self._keeper.unusable_arguments:
            self._ended = True
        self._watch_channel()
        moments = [
            self._housekeeping_at,
            self._schedule.next_deadline(),
            self._keeper.next_deadline(),
            self._informer.next_deadline(),
            self._ends_at,
            *(port.next_deadline() for port in self._ports),
        ]
        self._rest_at = min(moment for moment in moments if moment is not None)

    def _keep_house(self, now: float) -> None:
        self._housekeeping_at = now + HOUSEKEEPING_S
        if self._ports.refused:
            self._ports.open_missing()
            self._announce_links(now)
        for port in self._ports:
            self._receiver.note_lost(port, now)
        self._look_for_usable()
        links = tuple(state.name for state in self._announced) if self._netlink.table.complete else None
        self._informer.tell_statistics(links, now, self._ports.refused, self._unusable)

    def _come_back_late(self, late: float, now: float) -> None:
        """Rule 9: what was received is stale, and what we hold may be another's by now."""
        for port in self._ports:
            port.discard()
        self._schedule.cancel(now)
        self._rest_at = AT_ONCE
        self._counters["late_loops"] += 1
        self._protocol.loop_late(late, now)
        self._settle(now)

    # ---------------------------------------------------------------- decisions take effect

    def _settle(self, now: float) -> None:
        """Carry out what the protocol decided."""
        held = self._protocol.take_answers()
        if held is not None:
            self._follow(held, now)
        claims = self._protocol.take_claims()
        if held is not None or claims:
            self._informer.change_claims(claims, held)
            self._rest_at = AT_ONCE
        decisions = []
        for effect in self._protocol.take_effects():
            if isinstance(effect, Decision):
                decisions.append(effect)
            else:
                self._carry_out(effect, now)
        if decisions:
            self._informer.decide(decisions)
            self._rest_at = AT_ONCE
        sending = self._sender.take_changes()
        for link, works in sending:
            self._protocol.set_sending(link, works, now)
        deadline = now if sending else self._protocol.next_deadline()
        self._protocol_at = NEVER if deadline is None else deadline
        if self._ends_at is not None:
            self._rest_at = AT_ONCE

    def _follow(self, held: AnswerChange, now: float) -> None:
        """Answer and announce what is held now."""
        for link in self._responder.change_answers(held):
            if port := self._ports.get(link):
                port.let_pass(now)
        self._schedule.change_answers(held, now)

    def _carry_out(self, action: Action, now: float) -> None:
        match action:
            case SendHeartbeat() | SendUnicast() | AskAddress():
                self._sender.send(action, now)
            case WatchFrames(link, wanted):
                self._watch_frames(link, wanted)
            case SendGratuitous():
                self._schedule.announce(action)
                self._rest_at = AT_ONCE
            case _:
                assert_never(action)

    def _send_gratuitous(self, now: float) -> None:
        for frame in self._schedule.handle_timer(now):
            if self._sender.announce(frame, now):
                self._informer.gratuitous[frame.address] += 1

    # ---------------------------------------------------------------- what comes in

    def _receive_links(self) -> None:
        if not self._netlink.receive() or not self._netlink.table.complete:
            return
        now = boottime()
        links, before = self._netlink.table.links(), self._ports.links
        flapped = self._netlink.table.take_flapped()
        if flapped:  # over before we looked: the protocol is to know all the same
            before = tuple(replace(state, up=False) if state.index in flapped else state for state in before)
            self._set_links(before, now)
        named = {state.name: state.index for state in links}
        if any(named.get(state.name, state.index) != state.index for state in before):
            # Another interface has the name by now: first the one is gone, then the other is there.
            self._set_links(tuple(state for state in before if state.index in named.values()), now)
        if links != self._ports.links:
            self._set_links(links, now)
        self._links_looked_at = False

    def _receive_channel(self) -> None:
        now = boottime()
        self._rest_at = AT_ONCE
        self._keeper.flush(now)
        for message in self._keeper.receive(now):
            if isinstance(message, Credentials):
                self._protocol.set_credentials(message.cluster, message.keys, now)
                continue
            joined = self._joiner.take(message)
            if joined is None:
                continue
            self._plan_revision = joined.revision
            if isinstance(joined, Plan):
                self._protocol.set_plan(joined, now)
            else:
                self._protocol.change_plan(joined, now)
        self._settle(boottime())

    def _receive_signal(self) -> None:
        discard(self._wakeup)
        if self._ends_at is None:
            now = boottime()
            logger.info("ending", extra={"claims": len(self._informer.claims)})
            self._ends_at = now + FAREWELL_S
            self._protocol.release_all(now)
            self._settle(now)

    # ---------------------------------------------------------------- links

    def _set_links(self, links: tuple[LinkState, ...], now: float) -> None:
        self._ports.set_links(links)
        self._announce_links(now)

    def _announce_links(self, now: float) -> None:
        announced = self._ports.announced
        if announced == self._announced:
            return
        self._announced = announced
        self._links_looked_at = False
        self._schedule.set_links(announced, now)
        self._rest_at = AT_ONCE
        self._protocol.set_links(announced, now)
        self._settle(now)

    def _look_for_usable(self) -> None:
        """Why interfaces cannot be used, when any of them may have changed; and a line where none can be any more."""
        if self._links_looked_at or not self._netlink.table.complete:
            return
        self._links_looked_at = True
        self._unusable = self._netlink.table.unusable()
        usable = any(state.up for state in self._announced)
        if usable != self._usable:
            self._usable = usable
            if usable:
                logger.info("interface usable again")
            else:
                reasons = {**self._unusable, **self._ports.refused}
                logger.warning("no usable interface", extra={"interfaces": reasons})

    def _wait_for(self, port: Port) -> None:
        for asked in (port.arp.socket, port.answers.socket):
            self._selector.register(asked, selectors.EVENT_READ, partial(self._receiver.arp, port, asked))
        self._selector.register(port.heartbeat.socket, selectors.EVENT_READ, partial(self._receiver.heartbeats, port))

    def _wait_no_longer_for(self, port: Port) -> None:
        for opened in port.waited_for:
            self._selector.unregister(opened)
            self._unregistered.add(opened)

    def _watch_frames(self, link: LinkName, wanted: bool) -> None:
        port = self._ports.get(link)
        if port is None or wanted == (port.watch is not None):
            return
        if port.watch is not None:
            self._selector.unregister(port.watch.socket)
            self._unregistered.add(port.watch.socket)
            port.watch.close()
            port.watch = None
            return
        try:
            port.watch = FrameWatch(port.state)
        except OSError as error:
            logger.warning("frames not watched", extra={"link": link, "reason": str(error)})
        else:
            self._selector.register(port.watch.socket, selectors.EVENT_READ, partial(self._receive_anything, port))

    def _receive_anything(self, port: Port) -> None:
        self._receiver.anything(port)
        self._rest_at = AT_ONCE  # the watch may rest now

    # ---------------------------------------------------------------- the watcher

    def _watch_channel(self) -> None:
        """Wait for what the channel can do now, if there is one."""
        for lost in self._keeper.take_lost():
            self._selector.unregister(lost)
            self._unregistered.add(lost)
            lost.close()
            now = boottime()
            self._protocol.plan_lost(now)
            self._settle(now)
        channel = self._keeper.channel
        if channel is None:
            self._channel = None
            return
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if channel.waiting else 0)
        if channel is not self._channel:
            self._selector.register(channel, events, self._receive_channel)
        elif events != self._channel_events:
            self._selector.modify(channel, events, self._receive_channel)
        self._channel, self._channel_events = channel, events


def run(node: NodeName, settings: Settings, first: Child, spawn: Callable[[], Child]) -> int:
    """Be the announcer until SIGTERM or SIGINT, with ``first`` as the watcher and others by ``spawn`` when it ends.

    Returns the exit code: 0 after a signal, `EXIT_USAGE` if the watcher cannot work with the command line. Raises
    ``OSError`` when the kernel refuses what nothing works without (AF_PACKET sockets excepted: those are tried again).
    """
    logs.set_up(patience_s=0.0)
    granted = process.be_punctual()
    now = boottime()
    session = secrets.randbits(63) | 1
    protocol = Protocol(node, session, settings, random.Random(session), now)
    announcer = Announcer(protocol, WatcherKeeper(first, spawn, now), settings)
    process.freeze_garbage()
    logger.info("announcer started", extra={"node": node, **granted})
    return announcer.run()
