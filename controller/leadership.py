"""Which of several replicas decides: one Lease, and what makes writing under it safe. Pure; the shell is ``elector``.

**Mechanism.** A Lease names its holder. The holder renews it by compare-and-swap, and leads while its latest renewal
that succeeded was *sent* less than the renew deadline ago. A record that has not been seen to change for its own
duration has expired, and the replica that swaps it for one of its own leads from then on. Only the process's own clock
counts, never the times in the record. That clock has to go on while the machine is suspended (CLOCK_BOOTTIME) and while
the process is stopped. An identity is never used twice, not even by the same pod: a replica takes only a record for its
own that it wrote itself.

**Writes end with the Lease.** A Lease cannot fence writes to other objects. So each of them gets a time limit that lies
within the Lease under which it is sent (``write_limit``): by then it has taken effect or never will. A new leader has
waited the Lease out, and with it every write of the old one. It may write at once. So may one that finds the Lease
released: a holder releases it only after its last write has ended.

**A dead holder need not be waited for.** The record says in which ``Place`` its holder runs, and how long its writes
may take. A process that has that place now knows that the old holder has ended. It waits for the time of a write, and
then leads. A write may take two seconds; where the API server is slower, twice as long, from the moment on at which the
record says so.

**Terms.** A term is leadership without a gap. A replica that loses the lead and gets it back begins a new term and
knows nothing: what was decided in an earlier term must not be written.

**Not promised.** A process may be stopped between its last look at the clock and the sending of a write, for longer
than its Lease lasts; and a network may deliver late what was sent in time. No client can prevent either. Both meet the
``resourceVersion`` that every write carries, and what gets past that is corrected when it is seen.

Times are seconds of a clock that never stands still; ``wall`` is for the people who read the Lease.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, Final

from cluster.objects import Lease
from cluster.times import LONG_AGO
from cluster.timestamps import micro_timestamp

LEASE_S = 15
"""client-go's own duration; the other times are its own as well, in proportion."""
LEAST_LEASE_S = 1
WRITE_S = 2.0
"""A write is answered in some milliseconds, in bad times in some hundred. This is what a new process waits for the
writes of the one that died in its place, so it is short."""
HOLDER = "berthlb.io/holder"
"""Annotation of the Lease: the holder's place (or "-"), how many seconds its writes may take, and its identity."""
MODEST_REFUSALS = 2
"""Refusals in a row after which a swap is tried again at once; then it waits."""


@dataclass(frozen=True, slots=True)
class Timing:
    """What follows from the Lease's duration. Seconds; the examples are for one of 15."""

    lease_s: int

    @property
    def deadline_s(self) -> float:
        """10: after the sending of a renewal that succeeded, so long does its sender lead."""
        return self.lease_s * 2 / 3

    @property
    def writes_end_s(self) -> float:
        """14: by then every write of the term has ended. The rest is for clocks that differ and threads that wait."""
        return self.lease_s * 14 / 15

    @property
    def renew_s(self) -> float:
        """2: between renewals, and before a failed request is repeated."""
        return self.lease_s * 2 / 15

    @property
    def look_s(self) -> float:
        """5: between the looks of a standby at a record that its watch does not show to change."""
        return self.lease_s / 3

    @property
    def request_s(self) -> float:
        """5: the limit of a request about the Lease. A server that is slower than half the deadline cannot be led on,
        since a renewal's answer and the next one's must both come within it."""
        return self.deadline_s / 2


@dataclass(frozen=True, slots=True)
class Place:
    """Where this process runs, and nobody else does while it lives (``controller.daemon.place``)."""

    name: str
    """The same for everybody who was or will be here, and for nobody else. Without blanks."""
    since: float
    """By then whoever was here before had ended."""


@dataclass(frozen=True, slots=True)
class Look:
    """Read the Lease."""


@dataclass(frozen=True, slots=True)
class Put:
    """Write the Lease: create it, or patch it as it was judged (``resourceVersion`` is in the body)."""

    body: dict[str, Any]
    create: bool = False


Step = Look | Put


class Leadership:
    """See the module's docstring. Do what ``next_step`` says, and tell what became of it: of a ``Look`` by
    ``observed``, of a ``Put`` by ``put_made`` or ``put_refused``, of either by ``failed``. ``heard`` takes what a watch
    says."""

    def __init__(self, identity: str, lease_s: int, rng: random.Random, place: Place | None = None) -> None:
        self.identity: Final = identity
        self.timing: Final = Timing(lease_s)
        self._place = place
        self._write_s = min(WRITE_S, self.timing.writes_end_s)
        """What the next renewal says that writes may take …"""
        self._write_s_said = 0.0
        """… and what the latest one that succeeded has said."""
        self.lost: str | None = None
        """Why the latest term ended."""
        self._rng = rng
        self._term = 0
        self._renewed_at: float | None = None
        """When the latest renewal that succeeded was sent; None: no leader."""
        self._known: Lease | None = None
        self._must_look = True
        self._refusals = 0
        self._free_at = LONG_AGO
        """When what is known may be swapped, if it does not change."""
        self._next_at = LONG_AGO

    # -------------------------------------------------------------------- who leads

    def term(self, now: float) -> int | None:
        """The number of the term in which this process leads; None: it does not."""
        self._expire(now)
        return self._term if self._renewed_at is not None else None

    def write_limit(self, term: int, now: float) -> float | None:
        """Seconds after which a write that is sent now must have ended; None: the term is over, do not send it."""
        if self.term(now) != term or self._renewed_at is None:
            return None
        return min(self._write_s_said, self._renewed_at + self.timing.writes_end_s - now)

    def write_took_too_long(self, now: float) -> None:
        """A write was not answered within its limit: those to come get more, once the Lease says so."""
        if self._write_s <= self._write_s_said:
            self._write_s = min(2 * self._write_s, self.timing.writes_end_s)
        if self._renewed_at is not None and self._write_s > self._write_s_said:
            self._next_at = min(self._next_at, now)

    @property
    def holder(self) -> str:
        """The identity that the Lease names, as far as is known; empty: none."""
        return _holder(self._known)

    @property
    def exists(self) -> bool:
        """Whether there is a Lease, as far as is known."""
        return self._known is not None

    @property
    def transitions(self) -> int:
        """How often the Lease has gone to another holder, as it says itself."""
        return (self._known.spec.lease_transitions or 0) if self._known else 0

    # -------------------------------------------------------------------- what to do

    def next_deadline(self) -> float:
        """When ``next_step`` has something to do."""
        return self._next_at

    def next_step(self, now: float, wall: float) -> Step | None:
        """What to ask of the API now; None: nothing yet."""
        self._expire(now)
        if now < self._next_at:
            return None
        if self._must_look or (self._renewed_at is None and now < self._free_at):
            return Look()
        return self._put(wall)

    def release(self, now: float, wall: float) -> Put | None:
        """Give up the Lease, for good; to be called when no write is under way any more. None: it is not ours."""
        if self.term(now) is None or self._known is None:
            return None
        version = self._known.metadata.resource_version
        spec = {"holderIdentity": "", "renewTime": micro_timestamp(wall)}
        return Put({"metadata": {"resourceVersion": version}, "spec": spec})

    def _put(self, wall: float) -> Put:
        at = micro_timestamp(wall)
        spec: dict[str, Any] = {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": self.timing.lease_s,
            "renewTime": at,
        }
        where = self._place.name if self._place else "-"
        metadata: dict[str, Any] = {"annotations": {HOLDER: f"{where} {self._write_s:g} {self.identity}"}}
        if self._known is None:
            spec |= {"acquireTime": at, "leaseTransitions": 0}
            return Put({"metadata": metadata, "spec": spec}, create=True)
        if self.holder != self.identity:
            spec |= {"acquireTime": at, "leaseTransitions": self.transitions + 1}
        return Put({"metadata": metadata | {"resourceVersion": self._known.metadata.resource_version}, "spec": spec})

    # -------------------------------------------------------------------- what came of it

    def observed(self, lease: Lease | None, now: float) -> None:
        """A ``Look`` found this; None: there is no Lease."""
        self._expire(now)
        self._must_look = False
        if lease is not None:
            self._learn(lease, now)
        elif self._known is not None:
            if self._renewed_at is not None:
                self._end_term("the Lease is gone", now)
            elif self.holder not in {"", self.identity}:  # its holder may not have noticed yet
                self._free_at = now + self._duration()
            self._known = None
        self._plan(now)

    def heard(self, lease: Lease | None, now: float) -> None:
        """A watch brought this; None: the Lease is gone. A watch may lag: only what is newer than what is known counts,
        and that a Lease is gone is a reason to look."""
        self._expire(now)
        if lease is None:
            self._must_look = True
            self._next_at = now
        elif self._known is None or _is_newer(lease, self._known):
            self._learn(lease, now)
            self._plan(now)

    def put_made(self, lease: Lease, sent: float, now: float) -> None:
        """A ``Put`` that was sent at ``sent`` took effect."""
        self._expire(now)
        self._refusals = 0
        if self._known is None or not _is_newer(self._known, lease):
            self._known = lease
        if self.holder != self.identity:  # a watch was faster, and told who has it by now
            self._must_look, self._next_at = True, now
            return
        if self._renewed_at is None:
            self._term += 1
        self._renewed_at, self._write_s_said = sent, _read_holder(lease)[1]
        self._next_at = sent + self.timing.renew_s * self._rng.uniform(0.8, 1.0)
        self._expire(now)

    def put_refused(self, now: float) -> None:
        """A ``Put`` met a Lease that is another one than was judged: look, and judge anew."""
        self._must_look = True
        self._refusals += 1
        self._next_at = now if self._refusals <= MODEST_REFUSALS else now + self._pause()

    def failed(self, now: float, retry_after: float = 0.0) -> None:
        """A request was not answered, or refused otherwise; it may have taken effect."""
        self._must_look = True
        self._next_at = now + max(self._pause(), min(retry_after, self.timing.lease_s))

    # -------------------------------------------------------------------- within

    def _learn(self, lease: Lease, now: float) -> None:
        before, self._known = self._known, lease
        if before is not None and before.metadata.resource_version == lease.metadata.resource_version:
            return
        if self._renewed_at is not None and self.holder != self.identity:
            self._end_term(f'the Lease names "{self.holder}"', now)
        self._free_at = now if self.holder in {"", self.identity} else now + self._duration()
        place, write_s = _read_holder(lease)
        if self._place is not None and place == self._place.name:
            self._free_at = min(self._free_at, self._place.since + write_s)

    def _plan(self, now: float) -> None:
        """When to do the next thing, after something was learnt."""
        if self._renewed_at is not None:
            self._next_at = now
        else:
            look_at = now + self.timing.look_s * self._rng.uniform(0.8, 1.2)
            self._next_at = max(now, min(self._free_at, look_at))

    def _expire(self, now: float) -> None:
        if self._renewed_at is not None and now >= self._renewed_at + self.timing.deadline_s:
            self._end_term("the Lease could not be renewed in time", now)
            self._must_look = True
            self._next_at = min(self._next_at, now)

    def _end_term(self, why: str, now: float) -> None:
        self._renewed_at = None
        self._free_at = now  # of what is ours, or of nobody: whoever learns of another holder sets it after this
        self.lost = why

    def _duration(self) -> float:
        """How long what is known is to be left alone."""
        said = self._known.spec.lease_duration_seconds if self._known else None
        return float(said) if said and said > 0 else float(self.timing.lease_s)

    def _pause(self) -> float:
        return self.timing.renew_s * self._rng.uniform(0.5, 1.0)


def _holder(lease: Lease | None) -> str:
    return (lease.spec.holder_identity or "") if lease else ""


def _read_holder(lease: Lease) -> tuple[str, float]:
    """The place of the one who holds the Lease, empty where that is not told, and how long its writes may take."""
    place, _, rest = lease.metadata.annotations.get(HOLDER, "").partition(" ")
    seconds, _, identity = rest.partition(" ")
    try:
        write_s = float(seconds)
    except ValueError:
        return "", 0.0
    return (place, write_s) if identity == _holder(lease) and write_s > 0.0 else ("", 0.0)


def _is_newer(one: Lease, than: Lease) -> bool:
    """Whether ``one`` was written later. Resource versions of one kind are numbers (documented since Kubernetes 1.35);
    where a server has others, everything that differs counts as newer, and a look tells."""
    version, other = one.metadata.resource_version, than.metadata.resource_version
    if version.isdecimal() and other.isdecimal():
        return int(version) > int(other)
    return version != other
