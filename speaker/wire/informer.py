"""What the announcer tells its watcher of claims, decisions and traffic, and when.

Taking over ten thousand addresses must not keep the loop from the wire, so all of it is done in bounded pieces:

- *Claims* are told as changes. A message says of an address what is so when the message is made: changes that wait
  merge, none is lost, and a watcher that does not read costs a set of addresses. That a link is suspended is told of
  the link. A new watcher is told everything.
- *Who is unheard* is told whole, at once when a peer dies or is heard again: a word of at most 256 names.
- *Decisions* become log lines and go to the watcher, some at a time. Both carry the time when a decision was taken.
- *Statistics* go out each second; of the addresses those that had traffic since the last.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from cluster.objects import AddressText, NodeName
from cluster.times import NEVER
from speaker.channel import MAX_CONFLICTS, Claims, ClaimsChange, Holding, Stats, Unheard
from speaker.directory import MAX_LINK_ADDRESSES, MAX_LISTED_LINKS, ListedLink
from speaker.link import LinkName
from speaker.passes import Passes
from speaker.protocol.effects import AnswerChange, AskRecord, Decision, LinkState
from speaker.protocol.protocol import Protocol
from speaker.protocol.timings import Timings
from speaker.wire.addresses import WireAddress
from speaker.wire.answering import Answering
from speaker.wire.keeper import WatcherKeeper
from speaker.wire.responders import Responders

CLAIMS_GAP_S = 0.05
"""Seconds between two messages of claims."""
CLAIMS_AT_ONCE = 1000
"""Addresses in one of them, which takes a millisecond or two to make and to encode."""
DECISIONS_PER_BURST = 32
DECISIONS_GAP_S = 0.01
"""Seconds between bursts of decisions, of which each takes some 50 µs to log and to pass on."""
LIFE_AND_DEATH = frozenset({"PeerDead", "PeerAlive"})
"""Decisions by which others are unheard than before."""
MAX_DECISIONS = 20_000
"""Decisions that wait; beyond it the oldest is dropped."""

logger = logging.getLogger(__name__)


class Informer:
    """Tells the watcher that the keeper has at the time."""

    def __init__(
        self,
        keeper: WatcherKeeper,
        protocol: Protocol,
        answering: Answering,
        responders: Responders,
        *,
        counters: Counter[str],
        passes: Passes,
    ) -> None:
        self._keeper = keeper
        self._protocol = protocol
        self._answering = answering
        self._responders = responders
        self._counters = counters
        self._passes = passes
        self.gratuitous: Counter[WireAddress] = Counter()
        """Frames sent since statistics were last told."""
        self.claims: dict[AddressText, int] = {}
        """Own claims with their epochs, those that are suspended included."""
        self._untold: dict[AddressText, None] = {}
        """Addresses of which the watcher is to be told, the longest waiting first."""
        self._told_suspended: frozenset[LinkName] = frozenset()
        self._is_new = True
        """The watcher has heard of no claim."""
        self._told_unheard: frozenset[NodeName] | None = None
        """None: the watcher has not been told."""
        self._looks_at_peers = False
        """Others may be unheard than were told."""
        self._claims_at = 0.0
        self._decisions: deque[Decision] = deque(maxlen=MAX_DECISIONS)
        self._decisions_at = 0.0
        self._timings = Timings()

    # ---------------------------------------------------------------- what happens

    def change_claims(self, claims: Mapping[AddressText, int | None], held: AnswerChange | None) -> None:
        """Own claims that changed, with their epochs, ``None`` for those that are no more; and what changed in where
        they are answered."""
        for address, epoch in claims.items():
            if epoch is None:
                self.claims.pop(address, None)
            else:
                self.claims[address] = epoch
        self._untold.update(dict.fromkeys(claims))
        if held is not None:
            self._untold.update(dict.fromkeys(address for address in held.links if address in self.claims))

    def decide(self, decisions: Iterable[Decision]) -> None:
        """Decisions that are taken now."""
        now, passed = time.time(), time.monotonic()
        for decision in decisions:
            self._timings.note(decision, passed)
            self._counters[f"decisions:{decision.reason}"] += 1
            if len(self._decisions) == MAX_DECISIONS:
                self._counters["reports_dropped"] += 1
            self._decisions.append(Decision(decision.reason, decision.fields, now))
            self._looks_at_peers |= decision.reason in LIFE_AND_DEATH

    def ask(self, question: AskRecord, now: float) -> None:
        """Have the watcher win a record; without a watcher nobody does."""
        self._keeper.send(question, now)

    def begin(self) -> None:
        """The watcher is another one now."""
        self._is_new = True
        self._untold = dict.fromkeys(self.claims)
        self._told_unheard = None

    # ---------------------------------------------------------------- what is told

    def next_deadline(self) -> float:
        claims_at = self._claims_at if self._has_news else NEVER
        return min(claims_at, self._decisions_at) if self._decisions else claims_at

    def handle_timer(self, now: float) -> None:
        if self._looks_at_peers:
            self._tell_unheard(now)
        if self._has_news and now >= self._claims_at:
            self._claims_at = now + CLAIMS_GAP_S
            if self._keeper.has_read(Claims, ClaimsChange):
                self._tell_claims(now)
        if self._decisions and now >= self._decisions_at:
            self._decisions_at = now + DECISIONS_GAP_S
            self._tell_decisions(now)

    def tell_statistics(
        self,
        links: tuple[LinkState, ...] | None,
        now: float,
        refused: Mapping[LinkName, str] = MappingProxyType({}),
        unusable: Mapping[LinkName, str] = MappingProxyType({}),
        kernel: tuple[AddressText, ...] = (),
    ) -> None:
        """``links`` are those that can be announced on, ``refused`` those without sockets, ``unusable`` says of others
        why they cannot; ``kernel``: addresses of the Plan for which the kernel answers. Where the last statistics were
        not read, these wait with what there is to add."""
        self._tell_unheard(now)
        if not self._keeper.has_read(Stats):
            return
        answered, sent = self._responders.take_answered(), self.gratuitous
        self.gratuitous = Counter()
        stats = Stats(
            loop_at=now,
            ready=self._protocol.ready,
            counters={**self._protocol.counters(), **self._counters},
            answered={address: count for address, count in answered.items() if address in self.claims},
            gratuitous={text: count for address, count in sent.items() if (text := address.text) in self.claims},
            peers=self._protocol.peers(),
            conflicts=tuple(itertools.islice(self._protocol.conflicts(), MAX_CONFLICTS)),
            kernel=kernel,
            links=None if links is None else tuple(state.name for state in links),
            families={state.name: tuple(sorted(state.families)) for state in links or ()},
            refused=dict(refused),
            unusable=dict(unusable),
            passes=self._passes.counts,
            passes_s=self._passes.seconds,
            lag_s=self._protocol.lateness,
            took=dict(self._timings.taken),
            own=_listed(links or ()),
            blocked=dict(self._protocol.blocked()),
        )
        self._keeper.send(stats, now)

    @property
    def _has_news(self) -> bool:
        """There is something to tell of claims."""
        return bool(self._untold) or self._is_new or self._told_suspended != self._answering.suspended

    def _tell_claims(self, now: float) -> None:
        told: dict[AddressText, Holding | None] = {}
        for address in list(itertools.islice(self._untold, CLAIMS_AT_ONCE)):
            del self._untold[address]
            told[address] = self._holding(address)
        self._told_suspended = self._answering.suspended
        suspended = tuple(sorted(self._told_suspended))
        if self._is_new:
            self._is_new = False
            held = {address: holding for address, holding in told.items() if holding is not None}
            self._keeper.send(Claims(self._keeper.plan_revision, held, suspended), now)
        else:
            self._keeper.send(ClaimsChange(self._keeper.plan_revision, told, suspended), now)

    def _tell_unheard(self, now: float) -> None:
        """What was not read is told with the next statistics."""
        self._looks_at_peers = False
        unheard = self._protocol.unheard()
        if unheard != self._told_unheard and self._keeper.has_read(Unheard):
            self._told_unheard = unheard
            self._keeper.send(Unheard(tuple(sorted(unheard))), now)

    def _holding(self, address: AddressText) -> Holding | None:
        epoch = self.claims.get(address)
        return None if epoch is None else Holding(epoch, tuple(sorted(self._answering.links_of(address))))

    def _tell_decisions(self, now: float) -> None:
        for _ in range(min(len(self._decisions), DECISIONS_PER_BURST)):
            told = self._decisions.popleft()
            record = logger.makeRecord(logger.name, logging.INFO, "", 0, told.reason, (), None, extra=told.fields)
            record.created = told.at
            logger.handle(record)
            self._keeper.send(told, now)


def _listed(links: tuple[LinkState, ...]) -> tuple[ListedLink, ...]:
    """How other speakers are told of these links: of those with carrier."""
    up = (state for state in links if state.up)
    return tuple(
        ListedLink(state.name, state.mac, state.own[-MAX_LINK_ADDRESSES:])
        for state in itertools.islice(up, MAX_LISTED_LINKS)
    )
