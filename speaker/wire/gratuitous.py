"""When which held address is announced unasked: the gratuitous schedule, without a clock and without a socket.

A client that knows an address goes on sending to the MAC that it knows. Whoever takes an address over therefore says so
at once, and again for those who missed it. Per link there are three queues, served in this order:

1. **First round**, up to 5,000 frames a second: one Request per address, most urgent first. A Request updates every
   neighbour table that has an entry, also one that is younger than Linux's locktime, where a Reply may not.
2. **Repeats**, up to 1,000 frames a second: a Request and a Reply (some equipment learns from one only), 1.1 s apart,
   for five seconds. With so many addresses that the rate does not suffice, they take longer but are not left out.
3. **Slowly, for ever**: a Request and a Reply for every held address, once in four minutes, so that a bridge, which
   forgets a MAC after five (IEEE 802.1Q §8.8.3), never does, and a host that heard nothing of the above is not wrong
   for longer; up to 100 frames a second; beyond 12,000 addresses the period grows instead.

Where a *limit* is given, all of these together stay below it on each link, in any second. Nothing is left out for it:
what cannot be said yet waits, in the same order. (Some switches inspect ARP and shut a port that sends more than some
frames a second. Replies to questions are not limited here: who asks gets an answer.)

Nothing is sent on a link that is down, or where others may hold by now what is held here (`AnswerChange.quiet` and
``suspended``), and what was to be sent there lapses.

An answer to a rival is one Request and Reply, ahead of everything else. An address that is not held any more drops out
of all queues at once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import NamedTuple, TypeVar

from cluster.objects import AddressText
from speaker.link import LinkName
from speaker.protocol.effects import AnswerChange, LinkState, SendGratuitous
from speaker.wire.allowance import Allowance
from speaker.wire.arp import frames
from speaker.wire.arp.frames import Operation

REPEAT_S = 1.1
"""Seconds between repeats: just past Linux's ARP locktime of 1 s."""
REPEATS = 4
"""As many as fit into 5 s."""
FIRST_FRAMES_PER_S = 5000.0
REPEAT_FRAMES_PER_S = 1000.0
SLOW_FRAMES_PER_S = 100.0
SLOW_PERIOD_S = 240.0
"""Seconds in which each held address is announced once."""
_BURST_S = 0.01
"""First rounds are sent in bursts of at most this many seconds' worth, so that requests are answered between them."""
SLACK_S = 0.05
"""So much later a repeat may come. A loop that is awake for something else sends it then, and need not be woken."""

_Moment = TypeVar("_Moment")
_NOWHERE: frozenset[LinkName] = frozenset()
_BOTH = (Operation.REQUEST, Operation.REPLY)


class Frame(NamedTuple):
    """One gratuitous frame to send now."""

    link: LinkName
    address: AddressText
    data: bytes


class _LinkSchedule:
    """The queues of one link. Each maps addresses in order of their turn; an address is in a queue at most once."""

    def __init__(self, state: LinkState, limit: int | None, now: float) -> None:
        self.name = state.name
        self.mac = state.mac
        self.up = state.up
        self.quiet = False
        """Nothing may be sent: nobody is heard here. Nothing is kept for later either."""
        self._defend: OrderedDict[AddressText, None] = OrderedDict()
        self._first: OrderedDict[AddressText, None] = OrderedDict()
        self._repeat: OrderedDict[AddressText, tuple[float, int]] = OrderedDict()
        """When due, and how many are left after it. In order of time, as each is appended one interval ahead."""
        self._slow: OrderedDict[AddressText, float] = OrderedDict()
        """When each held address was announced last, in that order."""
        self._first_rate = _allowance(FIRST_FRAMES_PER_S, _BURST_S, now)
        self._repeat_rate = _allowance(REPEAT_FRAMES_PER_S, SLACK_S, now)
        self._slow_rate = _allowance(SLOW_FRAMES_PER_S, SLACK_S, now)
        self._all_rates = (
            None if limit is None else Allowance(limit - 2, 2, now)
        )  # two at once, and the rest in a second

    def hold(self, address: AddressText, now: float) -> None:
        self._slow[address] = now

    def release(self, address: AddressText) -> None:
        for queue in (self._defend, self._first, self._repeat, self._slow):
            queue.pop(address, None)

    def announce(self, addresses: Iterable[AddressText], defend: bool) -> None:
        if self.quiet:
            return
        for address in addresses:
            if address in self._slow:
                if defend:
                    self._defend[address] = None
                else:
                    self._repeat.pop(address, None)
                    self._first[address] = None

    def announce_all(self) -> None:
        self.announce(tuple(self._slow), defend=False)

    def cancel(self, now: float) -> None:
        self._defend.clear()
        self._first.clear()
        self._repeat.clear()
        for address in self._slow:
            self._slow[address] = now

    def be_quiet(self, quiet: bool, now: float) -> None:
        if quiet != self.quiet:
            self.cancel(now)
        self.quiet = quiet

    @property
    def may_send(self) -> bool:
        return self.up and not self.quiet

    def due(self, now: float) -> Iterable[Frame]:
        while self._defend and self._may(self._first_rate, 2, now):
            address, _ = self._defend.popitem(last=False)
            yield from self._frames(address, _BOTH)
        while self._first and not self._defend and self._may(self._first_rate, 1, now):
            address, _ = self._first.popitem(last=False)
            self._repeat[address] = (now + REPEAT_S, REPEATS - 1)
            self._said(address, now)
            yield from self._frames(address, (Operation.REQUEST,))
        while self._repeat and _earliest(self._repeat)[0] <= now and self._may(self._repeat_rate, 2, now):
            address, (_, left) = self._repeat.popitem(last=False)
            if left:
                self._repeat[address] = (now + REPEAT_S, left - 1)
            self._said(address, now)
            yield from self._frames(address, _BOTH)
        while self._slow and self._slow_due() <= now and self._may(self._slow_rate, 2, now):
            address, _ = self._slow.popitem(last=False)
            self._slow[address] = now
            yield from self._frames(address, _BOTH)

    def next_deadline(self) -> float | None:
        moments: list[float] = []
        if self._defend or self._first:
            moments.append(self._ready_at(self._first_rate, 2 if self._defend else 1))
        if self._repeat:
            moments.append(max(_earliest(self._repeat)[0], self._ready_at(self._repeat_rate, 2)) + SLACK_S)
        if self._slow:
            moments.append(max(self._slow_due(), self._ready_at(self._slow_rate, 2)) + SLACK_S)
        return min(moments, default=None)

    def _may(self, rate: Allowance, count: int, now: float) -> bool:
        """Whether so many frames may be sent now; if so, they count."""
        if self._all_rates is None:
            return rate.take(count, now)
        return self._ready_at(rate, count) <= now and self._all_rates.take(count, now) and rate.take(count, now)

    def _ready_at(self, rate: Allowance, count: int) -> float:
        ready_at = rate.ready_at(count)
        return ready_at if self._all_rates is None else max(ready_at, self._all_rates.ready_at(count))

    def _slow_due(self) -> float:
        """The one announced longest ago; many together are spread over the period by the rate."""
        return _earliest(self._slow) + SLOW_PERIOD_S

    def _said(self, address: AddressText, now: float) -> None:
        self._slow[address] = now
        self._slow.move_to_end(address)

    def _frames(self, address: AddressText, operations: Iterable[Operation]) -> Iterable[Frame]:
        for operation in operations:
            yield Frame(self.name, address, frames.gratuitous(operation, address, self.mac).encode())


class GratuitousSchedule:
    """The schedule of all links. Nothing is said of an address before `announce`, save slowly."""

    def __init__(self, limit: int | None = None) -> None:
        """``limit`` is the most frames that go out on a link in a second, `LEAST_GRATUITOUS_LIMIT` or more."""
        self._limit = limit
        self._links: dict[LinkName, _LinkSchedule] = {}
        self._held: dict[AddressText, frozenset[LinkName]] = {}
        self._quiet: frozenset[LinkName] = frozenset()

    def set_links(self, links: Iterable[LinkState], now: float) -> None:
        """The announced links now. A link with another MAC announces everything that is held on it: the neighbours
        know the old one. A link that is down sends nothing; what it had to say lapses, since whether the addresses
        are still ours when it returns is ownership's to find out."""
        states = {state.name: state for state in links}
        for gone in self._links.keys() - states.keys():
            del self._links[gone]
        for name, state in states.items():
            link = self._links.get(name)
            if link is None:
                link = self._links[name] = _LinkSchedule(state, self._limit, now)
                link.quiet = name in self._quiet
                for address, where in self._held.items():
                    if name in where and frames.is_ipv4(address):
                        link.hold(address, now)
            if link.up != state.up:
                link.cancel(now)
            link.up = state.up
            if link.mac != state.mac:
                link.mac = state.mac
                if state.up:
                    link.announce_all()

    def change_answers(self, change: AnswerChange, now: float) -> None:
        """What changed in what is held; what is not held any more falls silent."""
        for address, where in change.links.items():
            before = self._held.get(address, _NOWHERE)
            if where:
                self._held[address] = where
            else:
                self._held.pop(address, None)
            if before == where or not frames.is_ipv4(address):
                continue
            for name in before ^ where:
                link = self._links.get(name)
                if link is not None and name in where:
                    link.hold(address, now)
                elif link is not None:
                    link.release(address)
        self._quiet = change.quiet | change.suspended
        for name, link in self._links.items():
            link.be_quiet(name in self._quiet, now)

    def announce(self, effect: SendGratuitous) -> None:
        """Start from the first round for these, on every link where they are held."""
        addresses = tuple(address for address in effect.addresses if frames.is_ipv4(address))
        for link in self._links.values():
            link.announce(addresses, effect.defend)

    def cancel(self, now: float) -> None:
        """Forget everything that was to be said (the loop was away too long to know whether it is still true)."""
        for link in self._links.values():
            link.cancel(now)

    def handle_timer(self, now: float) -> list[Frame]:
        """The frames that are due, in order."""
        return [frame for link in self._links.values() if link.may_send for frame in link.due(now)]

    def next_deadline(self) -> float | None:
        """When ``handle_timer`` is to be called at the latest. Up to ``SLACK_S`` earlier there may be something to send
        already."""
        moments = (link.next_deadline() for link in self._links.values() if link.may_send)
        return min((moment for moment in moments if moment is not None), default=None)


def _allowance(per_second: float, burst_s: float, now: float) -> Allowance:
    return Allowance(per_second, max(2.0, per_second * burst_s), now)


def _earliest(queue: OrderedDict[AddressText, _Moment]) -> _Moment:
    return next(iter(queue.values()))
