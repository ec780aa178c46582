"""Several candidates for one Lease, and all that can happen to them: never two that may write."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.objects import Lease
from controller.leadership import Leadership, Look, Place, Put
from tests.controller.test_leadership import LEASE_S, WALL, Record

TICK_S = 0.1


@dataclass
class SteppedProcess:
    """A candidate as the simulation sees it. Its clock starts anywhere and goes at the true rate."""

    core: Leadership
    place: str
    clock_offset: float
    step: Look | Put | None = None
    sent: float = 0.0
    answer_at: float = 0.0
    answer: Callable[[float], None] | None = None
    hears: list[tuple[float, Lease]] = field(default_factory=list)
    paused_until: float = 0.0
    writes_end: float = -1.0
    """When the last of its writes will have taken effect."""
    alive: bool = True
    stopping: bool = False


class Simulation:
    """Candidates with pauses, kills, stops and restarts on an API that is slow, loses answers and goes away."""

    def __init__(self, seed: int, candidates: int) -> None:
        self.rng = random.Random(seed)
        self.record = Record()
        self.now = 0.0
        self.names = 0
        self.arrivals: list[tuple[float, SteppedProcess, Put, bool]] = []
        self.away_until = 0.0
        self.processes: list[SteppedProcess] = []
        self.dead: list[SteppedProcess] = []
        self.writes = 0
        self.leaders: set[str] = set()
        for _ in range(candidates):
            self.begin()

    def begin(self, after: SteppedProcess | None = None) -> None:
        """A new process, perhaps where another one has ended."""
        self.names += 1
        name, offset = (after.place, after.clock_offset) if after else (f"p{self.names}", self.rng.uniform(0.0, 1e6))
        place = Place(name, self.now + offset) if self.rng.random() < 0.8 else None
        core = Leadership(f"c{self.names}", LEASE_S, random.Random(self.rng.random()), place)
        self.processes.append(SteppedProcess(core, name, offset))

    def run(self, until: float, *, faults: bool) -> Iterator[None]:
        while self.now < until:
            self.now += TICK_S
            if faults:
                self.do_harm()
            for arrival in [each for each in self.arrivals if each[0] <= self.now]:
                self.arrivals.remove(arrival)
                self.arrive(*arrival[1:])
            for process in self.processes:
                if process.alive and process.paused_until <= self.now:
                    self.turn(process, faults=faults)
            yield

    def do_harm(self) -> None:
        rng = self.rng
        if rng.random() < 0.002:
            self.away_until = self.now + rng.uniform(1.0, 40.0)
        for process in list(self.processes):
            if rng.random() < 0.003:
                process.paused_until = self.now + rng.choice([0.5, 3.0, 9.0, 14.0, 16.0, 40.0])
            elif rng.random() < 0.0015:
                process.stopping = True
            elif rng.random() < 0.0015:
                self.end(process)

    def end(self, process: SteppedProcess) -> None:
        process.alive = False
        self.processes.remove(process)
        self.dead.append(process)
        self.begin(process if self.rng.random() < 0.7 else None)

    def arrive(self, process: SteppedProcess, put: Put, lost: bool) -> None:
        """The server carries out a write of the Lease; its answer may be lost, and the others hear of it, or not."""
        lease = self.record.put(put)
        if lease is not None:
            for each in self.processes:
                if self.rng.random() < 0.8:
                    each.hears.append((self.now + self.rng.choice([0.0, 0.1, 3.0, 20.0]), lease))
        if lost:
            return
        process.answer_at = self.now + self.rng.choice([0.0, 0.1, 0.1, 2.0])
        if lease is not None:
            sent = process.sent
            process.answer = lambda now: process.core.put_made(lease, sent, now)
        else:
            process.answer = process.core.put_refused

    def turn(self, process: SteppedProcess, *, faults: bool) -> None:
        core, now = process.core, self.now + process.clock_offset
        for heard in [each for each in process.hears if each[0] <= self.now]:
            process.hears.remove(heard)
            core.heard(heard[1], now)
        if process.step is not None:
            self.listen(process, now)
        if process.step is None and not process.stopping and (step := core.next_step(now, WALL + self.now)) is not None:
            self.send(process, step, now, faults=faults)
        term = core.term(now)
        if term is None:
            if process.stopping:
                self.end(process)
            return
        if process.stopping:
            self.stop(process, now)
        elif self.rng.random() < 0.5:
            limit = core.write_limit(term, now)
            assert limit is not None
            assert limit > 0.0
            self.write(process, limit)

    def stop(self, process: SteppedProcess, now: float) -> None:
        """A SIGTERM: it writes no more, and releases once its writes have ended."""
        if process.step is not None or process.writes_end > self.now:
            return
        put = process.core.release(now, WALL + self.now)
        if put is not None and self.away_until <= self.now:
            self.arrive(process, put, lost=True)
        self.end(process)

    def write(self, process: SteppedProcess, limit: float) -> None:
        """A write to some Service is sent: nobody else's may be on its way."""
        for other in (*self.processes, *self.dead):
            if other is not process:
                assert other.writes_end <= self.now, (
                    f"{process.core.identity} writes at {self.now:.1f}, and a write of {other.core.identity} "
                    f"takes effect at {other.writes_end:.1f}"
                )
        self.writes += 1
        self.leaders.add(process.core.identity)
        takes = limit * 0.999 if self.rng.random() < 0.5 else limit * self.rng.random()
        process.writes_end = max(process.writes_end, self.now + takes)
        if takes > limit * 0.99 and self.rng.random() < 0.2:
            process.core.write_took_too_long(self.now + process.clock_offset)

    def send(self, process: SteppedProcess, step: Look | Put, now: float, *, faults: bool) -> None:
        rng = self.rng
        process.step, process.sent, process.answer = step, now, None
        process.answer_at = self.now + process.core.timing.request_s  # it gives up then
        if self.away_until > self.now or (faults and rng.random() < 0.1):
            return
        delay = rng.choice([0.0, 0.1, 0.1, 1.0, 4.0, 12.0]) if faults else 0.0
        if isinstance(step, Put):
            self.arrivals.append((self.now + delay, process, step, faults and rng.random() < 0.1))
        elif delay < process.core.timing.request_s:
            lease = self.record.view()
            process.answer_at = self.now + delay
            process.answer = lambda at: process.core.observed(lease, at)

    def listen(self, process: SteppedProcess, now: float) -> None:
        if process.answer_at > self.now:
            return
        process.step = None
        if process.answer is not None and now <= process.sent + process.core.timing.request_s:
            process.answer(now)
        else:
            process.core.failed(now)


@settings(max_examples=120)
@given(seed=st.integers(0, 2**32), candidates=st.integers(2, 3))
def test_no_write_of_one_leader_is_on_its_way_when_another_writes_and_after_bad_times_somebody_leads(
    seed: int, candidates: int
) -> None:
    simulation = Simulation(seed, candidates)
    for _ in simulation.run(150.0, faults=True):
        pass
    simulation.away_until = 0.0
    for process in simulation.processes:
        process.paused_until = 0.0
    before = simulation.writes
    for _ in simulation.run(simulation.now + 2 * LEASE_S + 15.0, faults=False):
        pass
    assert simulation.writes > before


def test_the_simulation_has_leaders_that_change() -> None:
    leaders = []
    for seed in range(10):
        simulation = Simulation(seed, 2)
        for _ in simulation.run(150.0, faults=True):
            pass
        leaders.append(len(simulation.leaders))
    assert sum(leaders) > 15
