"""The wire side of a speaker: one thread, one loop, every socket, and never a wait for anything but the wire.

A pass of the loop is: receive → let the cores decide → send → re-arm. The cores decide without a socket or a clock:

- `Protocol`: what to claim, and what to say to the other speakers;
- `Responders`: what to answer, each on its link and for its family;
- `GratuitousSchedule`: when to announce unasked;
- `Agenda`: when the loop is due, and what it owes first.

Around them, `Receiver` reads what comes in, `Sender` sends what goes out, and `Informer` tells the watcher. Here is
what connects them, and what keeps the loop honest about time:

- Each socket is drained up to a bound before the next one is read, and timers are looked at in every pass, so that a
  flood on one costs the others no more than some milliseconds.
- Whatever there is to do for thousands of addresses is done in pieces, with the sockets and the timers between them: a
  take-over must not look like a death. How long passes took is counted (``passes``).
- Heartbeats and answers that have arrived are read before the protocol judges who is silent. Where that takes too
  long, the protocol is told how old what was not read may be.
- What this node has to say waits for none of that.
- A loop that comes back later than half the detection floor no longer knows what it holds. It throws away everything
  that was received meanwhile, forgets what it had to announce, and tells the protocol (docs/protocol.md, rule 9). A
  reply is sent only while the batch that it belongs to is younger than that.
- The watcher is talked to through a channel that never blocks, and may die: nothing here needs it.

What the protocol decides takes effect in this order: first the ledger of what is answered for, and with it the
responders and the filters, then the effects. A node that loses an address is therefore silent before it says so, and
one that gains it can answer before it is announced.
"""

from __future__ import annotations

import logging
import random
import secrets
import signal
import socket
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import assert_never

from cluster.daemon import logs
from cluster.daemon.command_line import EXIT_USAGE
from cluster.objects import NodeName
from speaker.channel import Brisk, Credentials, ExcludedInterfaces, FormerHolders
from speaker.child import Child
from speaker.directory import DirectoryChange
from speaker.exclusion import Exclusion
from speaker.link import LinkName
from speaker.passes import Passes
from speaker.plan import Plan
from speaker.protocol.effects import (
    Action,
    AnswerChange,
    AskAddress,
    AskRecord,
    Decision,
    Knock,
    LinkState,
    ProbeAddress,
    RecordAnswer,
    SendGratuitous,
    SendHeartbeat,
    SendUnicast,
    WatchFrames,
)
from speaker.protocol.protocol import Protocol
from speaker.protocol.settings import Settings
from speaker.wire import process
from speaker.wire.addresses import WireAddress
from speaker.wire.agenda import Agenda
from speaker.wire.answering import Answering
from speaker.wire.frame_watch import FrameWatch
from speaker.wire.gratuitous import GratuitousSchedule
from speaker.wire.informer import Informer
from speaker.wire.keeper import WatcherKeeper
from speaker.wire.kernel_answers import KernelAnswers
from speaker.wire.link_socket import LinkSocket
from speaker.wire.links import steps
from speaker.wire.medium import DATAGRAMS, FRAMES, Medium
from speaker.wire.open_links import OpenLink, OpenLinks
from speaker.wire.process import boottime
from speaker.wire.receiving import Receiver
from speaker.wire.responders import Responders
from speaker.wire.sending import Sender
from speaker.wire.sockets import discard
from speaker.wire.usability import Usability
from speaker.wire.waiting import Waiting

DATAGRAMS_BEFORE_JUDGING = 256
"""Of each link and family, when the protocol is due: some milliseconds, and about what a socket's buffer holds."""

logger = logging.getLogger(__name__)


class Announcer:
    """The loop and what it holds."""

    def __init__(self, protocol: Protocol, keeper: WatcherKeeper, settings: Settings, medium: Medium = FRAMES) -> None:
        late_s = settings.detection_floor_s / 2
        counters: Counter[str] = Counter()
        self._protocol = protocol
        self._keeper = keeper
        self._counters = counters
        self._passes = Passes()
        self._agenda = Agenda(late_s, boottime())
        self._waiting = Waiting()

        self._answering = Answering(medium.resolutions)
        self._responders = Responders(medium.resolutions, self._answering, protocol.prove)
        self._schedule = GratuitousSchedule(medium.resolutions, self._answering, settings.gratuitous_limit)
        self._medium = medium
        self._links = OpenLinks(medium, self._responders, self._wait_for, self._wait_no_longer_for, settings.reception)
        self._announced: tuple[LinkState, ...] = ()
        """The links that the protocol knows of."""
        self._usability = Usability()
        self._kernel_answers = KernelAnswers()

        self._sender = Sender(self._links, counters)
        self._receiver = Receiver(protocol, self._sender, counters, late_s, self._obey)
        self._informer = Informer(
            keeper, protocol, self._answering, self._responders, counters=counters, passes=self._passes
        )
        self._ended = False

        self._netlink = LinkSocket()
        self._waiting.add(self._netlink.socket, self._receive_links)
        self._wakeup, self._signalled = socket.socketpair()
        for end in (self._wakeup, self._signalled):
            end.setblocking(False)
        self._waiting.add(self._wakeup, self._receive_signal)
        self._watch_channel()

    # ---------------------------------------------------------------- the loop

    def run(self) -> int:
        """Until SIGTERM or SIGINT; the exit code."""
        signal.set_wakeup_fd(self._signalled.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)  # the octet on the wake-up socket is the message
        try:
            while not self._ended:
                self.run_pass()
            return EXIT_USAGE if self._keeper.unusable_arguments else 0
        finally:
            signal.set_wakeup_fd(-1)
            self.close()

    def run_pass(self) -> None:
        """Wait for the next thing to do, and do it."""
        ready = self._waiting.wait(max(0.0, self._agenda.deadline() - boottime()))
        began = boottime()
        if late := self._agenda.lateness(began):
            self._come_back_late(late, began)
        self._receiver.begin_pass(began)
        self._waiting.call(ready)
        if self._agenda.protocol_is_due(now := boottime()):
            self._let_protocol_judge(began, now)
        if self._agenda.rest_is_due(now):
            self._handle_timers(boottime())
        process.collect_garbage()
        self._passes.note(boottime() - began)

    def close(self) -> None:
        self._keeper.end()
        for opened in (self._links, self._netlink, self._wakeup, self._signalled, self._waiting):
            opened.close()

    def _let_protocol_judge(self, looked_at: float, now: float) -> None:
        """What the protocol has to do now, after what has arrived was read. The sockets that were ready at
        ``looked_at`` have been.

        What this node has to say does not wait for that: its silence is a death to the others.
        """
        if self._agenda.must_read_first(looked_at, self._receiver.unread, now):
            self._protocol.speak(now)
            self._obey(now)
            if not self._agenda.protocol_is_due(now):
                return
            self._receiver.all_that_tells_of_peers(self._links, DATAGRAMS_BEFORE_JUDGING)
            now = boottime()
        if self._agenda.may_judge(self._receiver.unread, now):
            self._agenda.judged()
            self._protocol.handle_timer(now, self._receiver.behind_s(now))
            self._obey(now)

    def _handle_timers(self, now: float) -> None:
        """What there is to do besides, and when there is next."""
        self._send_gratuitous(now)
        self._informer.handle_timer(now)
        if self._keeper.handle_timer(now):
            self._informer.begin()
        for link in self._links:
            link.handle_timer(now)
        if self._agenda.take_housekeeping(now):
            self._keep_house(now)
        self._ended = self._agenda.is_over(self._protocol.ended, now) or self._keeper.unusable_arguments
        self._watch_channel()
        others = (self._schedule, self._keeper, self._informer, *self._links)
        self._agenda.set_rest((other.next_deadline() for other in others), now)

    def _keep_house(self, now: float) -> None:
        if self._links.refused:
            self._links.open_missing()
            self._announce_links(now)
        for link in self._links:
            self._receiver.note_lost(link, now)
        table = self._netlink.table
        self._usability.look(table, self._links)
        links = self._announced if table.complete else None
        kernel = self._kernel_answers.look(table.local, self._protocol.plans, self._announced, now)
        self._informer.tell_statistics(links, now, self._links.refused, self._usability.reasons, kernel)

    def _come_back_late(self, late: float, now: float) -> None:
        """Rule 9: what was received is stale, and what we hold may be another's by now."""
        for link in self._links:
            link.discard()
        self._receiver.unread = False
        self._schedule.cancel(now)
        self._agenda.rest_now()
        self._counters["late_loops"] += 1
        self._protocol.loop_late(late, now)
        self._obey(now)

    # ---------------------------------------------------------------- decisions take effect

    def _obey(self, now: float) -> None:
        """Carry out what the protocol decided."""
        held = self._protocol.take_answers()
        if held is not None:
            self._answer_for(held, now)
        claims = self._protocol.take_claims()
        if held is not None or claims:
            self._informer.change_claims(claims, held)
            self._agenda.rest_now()
        decisions = []
        for effect in self._protocol.take_effects():
            if isinstance(effect, Decision):
                decisions.append(effect)
            else:
                self._carry_out(effect, now)
        if decisions:
            self._informer.decide(decisions)
            self._agenda.rest_now()
        sending = self._sender.take_changes()
        for link, error in sending:
            self._protocol.set_sending(link, not error, now, error)
        self._agenda.set_protocol(now if sending else self._protocol.next_deadline(), now)
        if self._agenda.ending:
            self._agenda.rest_now()

    def _answer_for(self, change: AnswerChange, now: float) -> None:
        """Answer, and announce in time, what is held now."""
        differences = self._answering.change(change)
        self._responders.follow(differences)
        for name in differences:
            if link := self._links.get(name):
                link.let_pass(now)
        self._schedule.follow(differences, now)

    def _carry_out(self, action: Action, now: float) -> None:
        match action:
            case SendHeartbeat() | SendUnicast() | Knock() | AskAddress():
                self._sender.send(action, now)
            case ProbeAddress():
                self._sender.send(action, now)
                self._agenda.rest_now()  # its answers are waited for no longer than need be
            case AskRecord():
                self._informer.ask(action, now)
            case WatchFrames(link, wanted):
                self._watch_frames(link, wanted)
            case SendGratuitous(addresses, defend):
                self._schedule.announce(map(WireAddress.of, addresses), defend)
                self._agenda.rest_now()
            case _:
                assert_never(action)

    def _send_gratuitous(self, now: float) -> None:
        for frame in self._schedule.handle_timer(now):
            if self._sender.announce(frame, now):
                self._informer.gratuitous[frame.address] += 1

    # ---------------------------------------------------------------- what comes in

    def _receive_links(self) -> None:
        if self._netlink.receive():
            self._look_at_links(boottime())

    def _look_at_links(self, now: float) -> None:
        """Announce on the links that there are by now."""
        table = self._netlink.table
        if not table.complete:
            return
        for links in steps(self._links.wanted, self._medium.links(table.links()), table.take_lost()):
            self._links.set_links(links)
            self._announce_links(now)
        self._usability.changed()
        self._kernel_answers.changed()

    def _receive_channel(self) -> None:
        now = boottime()
        self._agenda.rest_now()
        self._kernel_answers.changed()
        self._keeper.flush(now)
        for message in self._keeper.receive(now):
            match message:
                case Credentials(cluster, keys):
                    self._protocol.set_credentials(cluster, keys, now)
                case ExcludedInterfaces(patterns):
                    self._netlink.table.exclusion = Exclusion(patterns)
                    self._look_at_links(now)
                case FormerHolders(holders):
                    self._protocol.set_former_holders(holders, now)
                case Plan():
                    self._protocol.set_plan(message, now)
                case RecordAnswer():
                    self._protocol.answer_record(message, now)
                case DirectoryChange():
                    self._protocol.change_directory(message, now)
                case Brisk(wanted):
                    self._protocol.set_brisk(wanted, now)
                case _:
                    self._protocol.change_plan(message, now)
        self._obey(boottime())

    def _receive_signal(self) -> None:
        discard(self._wakeup)
        now = boottime()
        if self._agenda.end_soon(now):
            logger.info("ending", extra={"claims": len(self._informer.claims)})
            self._protocol.end(now)
            self._obey(now)

    # ---------------------------------------------------------------- links

    def _announce_links(self, now: float) -> None:
        """Have the protocol and the schedule know which links are open."""
        announced = self._links.announced
        if announced == self._announced:
            return
        self._announced = announced
        self._usability.changed()
        self._schedule.set_links(announced, now)
        self._agenda.rest_now()
        self._protocol.set_links(announced, now)
        self._obey(now)

    def _wait_for(self, link: OpenLink) -> None:
        for resolver in link.resolvers.values():
            for asked in (resolver.questions.socket, resolver.answers.socket):
                self._waiting.add(asked, partial(self._receiver.resolution, link, resolver, asked))
        for family, heartbeats in link.heartbeats.items():
            self._waiting.add(heartbeats.socket, partial(self._receiver.heartbeats, link, family))

    def _wait_no_longer_for(self, link: OpenLink) -> None:
        for opened in link.sockets:
            self._waiting.remove(opened)

    def _watch_frames(self, name: LinkName, wanted: bool) -> None:
        link = self._links.get(name)
        if link is None or link.state.routed or wanted == (link.watch is not None):
            return
        if link.watch is not None:
            self._waiting.remove(link.watch.socket)
            link.watch.close()
            link.watch = None
            return
        try:
            link.watch = FrameWatch(link.state)
        except OSError as error:
            logger.warning("frames not watched", extra={"link": name, "reason": str(error)})
        else:
            self._waiting.add(link.watch.socket, partial(self._receive_anything, link))

    def _receive_anything(self, link: OpenLink) -> None:
        self._receiver.anything(link, self._links.own_macs)
        self._agenda.rest_now()  # the watch may rest now

    # ---------------------------------------------------------------- the watcher

    def _watch_channel(self) -> None:
        """Wait for what the channel can do now, if there is one."""
        for lost in self._keeper.take_lost():
            self._waiting.remove(lost)
            lost.close()
            now = boottime()
            self._protocol.plan_lost(now)
            self._obey(now)
        if channel := self._keeper.channel:
            self._waiting.add(channel, self._receive_channel, writes=channel.waiting)


def run(
    node: NodeName, settings: Settings, first: Child, spawn: Callable[[], Child], *, liveness_only: bool = False
) -> int:
    """Be the announcer until SIGTERM or SIGINT, with ``first`` as the watcher and others by ``spawn`` when it ends.

    With ``liveness_only`` nothing is announced, and the kernel routes the heartbeats.

    Returns the exit code: 0 after a signal, `EXIT_USAGE` if the watcher cannot work with the command line. Raises
    ``OSError`` when the kernel refuses what nothing works without (AF_PACKET sockets excepted: those are tried again).
    """
    logs.set_up(patience_s=0.0)
    granted = process.be_punctual()
    now = boottime()
    session = secrets.randbits(63) | 1
    protocol = Protocol(node, session, settings, random.Random(session), now)
    medium = DATAGRAMS if liveness_only else FRAMES
    announcer = Announcer(protocol, WatcherKeeper(first, spawn, now), settings, medium)
    process.freeze_garbage()
    logger.info("announcer started", extra={"node": node, **granted})
    return announcer.run()
