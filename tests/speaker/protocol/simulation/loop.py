"""The announcer's loop, as far as others can tell: when it reads what has arrived, and when it calls the protocol.

In ``Loop`` work takes no time: what arrives is read at once, unless the process is paused. In ``BusyLoop`` each call
takes its time, and what arrives meanwhile waits. As in the announcer each turn reads a bounded number of datagrams;
before the timer is handled everything that has arrived is read, but not for longer than 50 ms; and a loop that is back
later than half the detection floor throws away what is queued.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from speaker.link import LinkName
from speaker.protocol.effects import AnswerChange, Decision, Effect, SendGratuitous, SendHeartbeat, SendUnicast
from speaker.protocol.protocol import Protocol
from tests.speaker.protocol.simulation.network import Clock

READ_IN_A_TURN = 64
QUEUE = 256
"""Datagrams that a socket's buffer holds."""
JUDGING_LATE_S = 0.05

Action = Callable[[], None]
CarryOut = Callable[[AnswerChange | None, list[Effect]], None]


class Loop:
    """Of one session of a speaker: ``works`` says whether its process runs, and is not paused."""

    def __init__(
        self, protocol: Protocol, clock: Clock, rng: random.Random, works: Callable[[], bool], carry_out: CarryOut
    ) -> None:
        self._protocol = protocol
        self._clock = clock
        self._rng = rng
        self._works = works
        self._carry_out = carry_out
        self._missed: list[Action] = []
        self._timer = 0
        self._owed_at = 0.0
        """Since when something is to be done at once, if it is."""

    def receive(self, action: Action, datagram: tuple[LinkName, int] | None = None) -> None:
        """Something for the protocol: it waits while the process is paused. Of a ``datagram`` the link and octets."""
        if self._works():
            action()
            self.settle()
        else:
            self._missed.append(action)

    def settle(self) -> None:
        """Carry out what the protocol wants, and call it again when it says."""
        held = self._protocol.take_answers()
        self._carry_out(held, self._protocol.take_effects())
        deadline = self._next_deadline()
        self._timer += 1
        if deadline is not None:
            lateness = self._rng.uniform(0.0, 0.001)
            timer = self._timer
            self._clock.at(max(deadline, self._clock.now) + lateness, lambda: self._tick(timer))

    def _next_deadline(self) -> float | None:
        """The protocol's, which for what is due already is since when it was said to be."""
        deadline = self._protocol.next_deadline()
        if deadline is not None and deadline <= self._owed_at:
            return self._owed_at
        self._owed_at = self._clock.now
        return deadline

    def _tick(self, timer: int) -> None:
        if self._timer == timer and self._works():
            self._handle_timer()
            self.settle()

    def _handle_timer(self) -> None:
        self._protocol.handle_timer(self._clock.now)
        self._owed_at = self._clock.now  # whatever is still due was not owed before

    def resume(self, late_s: float, again: Action) -> None:
        """The process runs again. Where it was away for longer than ``late_s``, what its sockets queued is discarded,
        and what netlink queued is found out ``again``."""
        deadline = self._next_deadline()
        late = self._clock.now - deadline if deadline is not None else 0.0
        if late >= late_s:
            self._missed.clear()
            self._protocol.loop_late(late, self._clock.now)
            again()
        missed, self._missed = self._missed, []
        for action in missed:
            action()


@dataclass(frozen=True)
class Work:
    """Seconds that a speaker's work takes. The defaults are of a machine with several busy processes."""

    call_s: float = 0.0002
    octet_s: float = 0.000_001
    """For each that is read or said: some 20 are a claim."""
    change_s: float = 0.0002
    """For each address that is claimed or released, answered or not any more."""

    def takes(self, octets: int, held: AnswerChange | None, effects: Iterable[Effect]) -> float:
        changes = len(held.links) if held is not None else 0
        for effect in effects:
            if isinstance(effect, SendHeartbeat | SendUnicast):
                octets += len(effect.data)
            elif isinstance(effect, Decision):
                changes += 1
            elif isinstance(effect, SendGratuitous):
                changes += len(effect.addresses)
        return self.call_s + octets * self.octet_s + changes * self.change_s


class BusyLoop(Loop):
    """One call after the other, each of which takes its time."""

    def __init__(
        self,
        protocol: Protocol,
        clock: Clock,
        rng: random.Random,
        works: Callable[[], bool],
        carry_out: CarryOut,
        *,
        work: Work,
        late_s: float,
    ) -> None:
        super().__init__(protocol, clock, rng, works, carry_out)
        self._work = work
        self._late_s = late_s
        self._queue: deque[tuple[Action, tuple[LinkName, int] | None]] = deque()
        self._lost: set[LinkName] = set()
        """Links for which datagrams found no room."""
        self._deadline: float | None = None
        self._turning = False
        self._stopped: Action | None = None
        """What comes next, where the process was paused in the middle of its work."""

    def receive(self, action: Action, datagram: tuple[LinkName, int] | None = None) -> None:
        if datagram is not None and len(self._queue) >= QUEUE:
            self._lost.add(datagram[0])
            return
        self._queue.append((action, datagram))
        if not self._turning and self._works():
            self._turn()

    def settle(self) -> None:
        if not self._turning:
            self._turning = True
            self._do(lambda: None, 0, self._judge)

    def _tick(self, timer: int) -> None:
        if self._timer == timer and not self._turning and self._works():
            self._turn()

    def resume(self, late_s: float, again: Action) -> None:
        then, self._stopped = self._stopped, None
        self.receive(again)
        if then is not None:
            then()

    # ---------------------------------------------------------------------------------------------- a turn

    def _turn(self) -> None:
        self._turning = True
        now = self._clock.now
        late = now - self._deadline if self._deadline is not None else 0.0
        if late > self._late_s:
            self._queue = deque(each for each in self._queue if each[1] is None)
            self._do(lambda: self._protocol.loop_late(late, self._clock.now), 0, lambda: self._read(READ_IN_A_TURN))
        else:
            self._read(READ_IN_A_TURN)

    def _read(self, most: int) -> None:
        if self._queue and most > 0:
            action, datagram = self._queue.popleft()
            self._do(action, datagram[1] if datagram is not None else 0, lambda: self._read(most - 1))
            return
        for link in sorted(self._lost):
            self._protocol.frames_lost(link, self._clock.now)
        self._lost.clear()
        self._judge()

    def _judge(self) -> None:
        """Handle the timer if it is due, after what has arrived until then."""
        due, now = self._next_deadline(), self._clock.now
        if due is None or due > now:
            self._end()
        elif self._queue and now < due + JUDGING_LATE_S:
            action, datagram = self._queue.popleft()
            self._do(action, datagram[1] if datagram is not None else 0, self._judge)
        else:
            self._do(self._handle_timer, 0, self._end)

    def _end(self) -> None:
        self._turning = False
        self._deadline = self._next_deadline()
        if self._queue:
            self._turn()
            return
        self._timer += 1
        if self._deadline is not None:
            timer = self._timer
            self._clock.at(self._deadline + self._rng.uniform(0.0, 0.001), lambda: self._tick(timer))

    def _do(self, action: Action, octets: int, then: Action) -> None:
        action()
        held, effects = self._protocol.take_answers(), self._protocol.take_effects()

        def done() -> None:
            if not self._works():
                self._stopped = done
                return
            self._carry_out(held, effects)
            then()

        self._clock.after(self._work.takes(octets, held, effects), done)
