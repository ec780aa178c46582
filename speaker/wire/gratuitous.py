"""When which address is announced unasked: the gratuitous schedule, without a clock and without a socket.

A client that knows an address goes on sending to the MAC that it knows. A node that takes an address over therefore
says so at once, and again for clients that missed it. What is said is the family's (``Resolution``: the first round and
every other round, one or more frames each); here is when. Each link has these queues, served in this order:

1. **First round**, up to 5,000 frames a second, most urgent first: what updates every neighbour table that has an
   entry.
2. **Repeats**, up to 1,000 frames a second: every form, 1.1 s apart, for five seconds. With so many addresses that the
   rate does not suffice, they take longer but are not left out.
3. **Slowly, for ever**, up to 100 frames a second: every address, once in four minutes. So a bridge, which forgets a
   MAC after five (IEEE 802.1Q §8.8.3), never does, and a host that heard nothing of the above is not wrong for longer.
   Beyond 12,000 addresses the period grows instead.

An answer to a rival is one round in every form, ahead of everything else. An address that is not held any more drops
out of all queues at once. One of a node that is stood in for is in none: everybody knows at which MAC it is. Nothing is
sent on a link that is down, or where others may hold by now what is held here (`Answering.quiet`), and what was to be
sent there lapses.

Where a *limit* is given, all of these together stay below it on each link, in any second. Nothing is left out for it:
what cannot be said yet waits, in the same order. (Some switches inspect ARP and shut a port that sends more than some
frames a second. Replies to questions are not limited here: a host that asks gets an answer.)
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Generic, NamedTuple, TypeVar

from cluster.addresses import Family
from speaker.link import LinkName
from speaker.protocol.effects import LinkState
from speaker.wire.addresses import WireAddress
from speaker.wire.allowance import Allowance
from speaker.wire.answering import Answering, LinkChange
from speaker.wire.resolution import Resolution, Round

REPEAT_S = 1.1
"""Seconds between repeats: just past Linux's ARP locktime of 1 s."""
REPEATS = 4
"""As many as fit into 5 s."""
FIRST_FRAMES_PER_S = 5000.0
REPEAT_FRAMES_PER_S = 1000.0
SLOW_FRAMES_PER_S = 100.0
SLOW_PERIOD_S = 240.0
"""Seconds in which each held address is announced once."""
LONGEST_ROUND = 2
"""Frames of a round, at most: the least that a limit must allow at once."""
SLACK_S = 0.05
"""So much later a repeat may come. A loop that is awake for something else sends it then, and need not be woken."""
_BURST_S = 0.01
"""First rounds are sent in bursts of at most this many seconds' worth, so that requests are answered between them."""

_Mark = TypeVar("_Mark")


class Frame(NamedTuple):
    """One gratuitous frame to send now."""

    link: LinkName
    address: WireAddress
    data: bytes


class _Queue(Generic[_Mark]):
    """Addresses in order, each once and with a mark, and how fast their frames may go out."""

    def __init__(self, round_of: Callable[[WireAddress], Round], *rates: Allowance) -> None:
        self.marks: OrderedDict[WireAddress, _Mark] = OrderedDict()
        self._round_of = round_of
        self._rates = rates

    def __bool__(self) -> bool:
        return bool(self.marks)

    @property
    def first_mark(self) -> _Mark:
        return next(iter(self.marks.values()))

    def append(self, address: WireAddress, mark: _Mark) -> None:
        """Put an address at the end, wherever it was."""
        self.marks[address] = mark
        self.marks.move_to_end(address)

    def ready_at(self) -> float:
        """When the frames of the first one may go out."""
        count = len(self._round_of(next(iter(self.marks))))
        return max(rate.ready_at(count) for rate in self._rates)

    def take(self, now: float) -> tuple[WireAddress, _Mark, Round] | None:
        """The first one with its mark and its round, out of the queue, if its frames may go out now; then they
        count."""
        if not self.marks:
            return None
        announced = self._round_of(next(iter(self.marks)))
        count = len(announced)
        for rate in self._rates:
            if rate.ready_at(count) > now:
                return None
        for rate in self._rates:
            if not rate.take(count, now):
                return None
        return *self.marks.popitem(last=False), announced


class _LinkSchedule:
    """The queues of one link."""

    def __init__(
        self, state: LinkState, resolutions: Mapping[Family, Resolution], limit: int | None, now: float
    ) -> None:
        self.name = state.name
        self.mac = state.mac
        self.up = state.up
        self.quiet = False
        """Nothing may be sent: nobody is heard here. Nothing is kept for later either."""

        def first_round(address: WireAddress) -> Round:
            return resolutions[address.family].first_round

        def every_round(address: WireAddress) -> Round:
            return resolutions[address.family].every_round

        # One round at once, and the rest of the limit in a second.
        together = () if limit is None else (Allowance(limit - LONGEST_ROUND, LONGEST_ROUND, now),)
        at_once = _allowance(FIRST_FRAMES_PER_S, _BURST_S, now)
        self._defend = _Queue[None](every_round, at_once, *together)
        self._first = _Queue[None](first_round, at_once, *together)
        repeats = _allowance(REPEAT_FRAMES_PER_S, SLACK_S, now)
        self._repeat = _Queue[tuple[float, int]](every_round, repeats, *together)
        """When due, and how many are left after it. In order of time, as each is appended one interval ahead."""
        self._slow = _Queue[float](every_round, _allowance(SLOW_FRAMES_PER_S, SLACK_S, now), *together)
        """When each held address was announced last, in that order."""
        self._cancelled_at = now

    def hold(self, address: WireAddress, now: float) -> None:
        self._slow.append(address, now)

    def release(self, address: WireAddress) -> None:
        for queue in (self._defend, self._first, self._repeat, self._slow):
            queue.marks.pop(address, None)

    def announce(self, addresses: Iterable[WireAddress], defend: bool) -> None:
        if self.quiet:
            return
        for address in addresses:
            if address in self._slow.marks:
                if defend:
                    self._defend.marks[address] = None
                else:
                    self._repeat.marks.pop(address, None)
                    self._first.marks[address] = None

    def announce_all(self) -> None:
        self.announce(tuple(self._slow.marks), defend=False)

    def cancel(self, now: float) -> None:
        """Forget what was to be said; the slow rounds begin a period from now."""
        for queue in (self._defend, self._first, self._repeat):
            queue.marks.clear()
        self._cancelled_at = now

    def be_quiet(self, quiet: bool, now: float) -> None:
        if quiet != self.quiet:
            self.cancel(now)
        self.quiet = quiet

    @property
    def may_send(self) -> bool:
        return self.up and not self.quiet

    def due(self, now: float) -> Iterator[Frame]:
        while defended := self._defend.take(now):
            address, _, frames = defended
            yield from self._frames(address, frames)
        while not self._defend and (first := self._first.take(now)):
            address, _, frames = first
            yield from self._say(address, frames, REPEATS, now)
        while self._repeat and self._repeat.first_mark[0] <= now and (repeated := self._repeat.take(now)):
            address, (_, left), frames = repeated
            yield from self._say(address, frames, left, now)
        while self._slow and self._slow_due() <= now and (slow := self._slow.take(now)):
            address, _, frames = slow
            yield from self._say(address, frames, 0, now)

    def next_deadline(self) -> float | None:
        moments: list[float] = []
        if waiting := self._defend or self._first:
            moments.append(waiting.ready_at())
        if self._repeat:
            moments.append(max(self._repeat.first_mark[0], self._repeat.ready_at()) + SLACK_S)
        if self._slow:
            moments.append(max(self._slow_due(), self._slow.ready_at()) + SLACK_S)
        return min(moments, default=None)

    def _slow_due(self) -> float:
        """The one announced longest ago; many together are spread over the period by the rate."""
        return max(self._slow.first_mark, self._cancelled_at) + SLOW_PERIOD_S

    def _say(self, address: WireAddress, frames: Round, left: int, now: float) -> Iterator[Frame]:
        """The frames of a round, after which so many repeats are left."""
        if left:
            self._repeat.append(address, (now + REPEAT_S, left - 1))
        self._slow.append(address, now)
        yield from self._frames(address, frames)

    def _frames(self, address: WireAddress, frames: Round) -> Iterator[Frame]:
        for make in frames:
            yield Frame(self.name, address, make(address, self.mac))


class GratuitousSchedule:
    """The schedule of all links. Nothing is said of an address before `announce`, save slowly."""

    def __init__(
        self, resolutions: Mapping[Family, Resolution], answering: Answering, limit: int | None = None
    ) -> None:
        """``limit`` is the most frames that go out on a link in a second, `LEAST_GRATUITOUS_LIMIT` or more."""
        self._resolutions = resolutions
        self._answering = answering
        self._limit = limit
        self._links: dict[LinkName, _LinkSchedule] = {}

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
                link = self._links[name] = _LinkSchedule(state, self._resolutions, self._limit, now)
                link.quiet = name in self._answering.quiet
                for address, mac in self._answering.on(name):
                    if mac is None:
                        link.hold(address, now)
            if link.up != state.up:
                link.cancel(now)
            link.up = state.up
            if link.mac != state.mac:
                link.mac = state.mac
                if state.up:
                    link.announce_all()

    def follow(self, differences: Mapping[LinkName, LinkChange], now: float) -> None:
        """What the ledger says from now on; what is not held any more falls silent."""
        for name, difference in differences.items():
            if link := self._links.get(name):
                for address, mac in difference.gained.items():
                    if mac is None:
                        link.hold(address, now)
                    else:
                        link.release(address)
                for address in difference.lost:
                    link.release(address)
        for name, link in self._links.items():
            link.be_quiet(name in self._answering.quiet, now)

    def announce(self, addresses: Iterable[WireAddress], defend: bool = False) -> None:
        """Start from the first round for these, most urgent first, on every link where they are held; or answer a
        rival by one round."""
        announced = tuple(addresses)
        for link in self._links.values():
            link.announce(announced, defend)

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
