"""Makes a schedule that breaks a promise as small as it can, so that a person sees what matters.

Steps, nodes, Services, weather and delays are left out, one after the other, as long as the same promise is broken by
what is left. Chance plays a part in whether it is: what fails no more is tried with other luck.

A ``Script`` says what a schedule is in one line, from which it can be run again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace

from tests.speaker.protocol.simulation.both_families import FamilySchedule
from tests.speaker.protocol.simulation.large import LargeSchedule
from tests.speaker.protocol.simulation.promises import PROMISES, BrokenPromiseError
from tests.speaker.protocol.simulation.schedules import WHOLE, Schedule, Without
from tests.speaker.protocol.simulation.strange import StrangeSchedule
from tests.speaker.protocol.simulation.timeline import told
from tests.speaker.protocol.simulation.world import World

KINDS: dict[str, type[Schedule]] = {
    "usual": Schedule,
    "strange": StrangeSchedule,
    "families": FamilySchedule,
    "large": LargeSchedule,
}
LUCK = 3  # draws of what chance decides, before something is believed to matter
RUNS = 300  # of a schedule, to make it smaller


@dataclass(frozen=True)
class Script:
    kind: str
    seed: int
    without: Without = WHOLE

    def __str__(self) -> str:
        words = [self.kind, str(self.seed)]
        for field in fields(Without):
            left_out = getattr(self.without, field.name)
            if isinstance(left_out, frozenset):
                words += [f"{field.name}={','.join(map(str, sorted(left_out)))}"] if left_out else []
            elif left_out:
                words.append(f"{field.name}={int(left_out)}")
        return " ".join(words)

    @staticmethod
    def parse(text: str) -> Script:
        """The inverse of ``str``."""
        kind, seed, *words = text.split()
        given = dict(word.split("=") for word in words)
        without = Without(
            frozenset(int(step) for step in given.get("steps", "").split(",") if step),
            frozenset(name for name in given.get("nodes", "").split(",") if name),
            frozenset(int(number) for number in given.get("bundles", "").split(",") if number),
            weather=given.get("weather") == "1",
            lags=given.get("lags") == "1",
            spread=given.get("spread") == "1",
            luck=int(given.get("luck", 0)),
        )
        return Script(kind, int(seed), without)

    def schedule(self) -> Schedule:
        return KINDS[self.kind](self.seed, without=self.without)


@dataclass(frozen=True)
class Failure:
    script: Script
    promise: str
    """Its short name, or that of an exception."""
    what: str
    world: World

    def __str__(self) -> str:
        """A page for people."""
        left = len(self.world.nodes)
        return "\n".join(
            [
                f"{self.promise} is broken: {PROMISES.get(self.promise, 'the simulation goes on')}",
                f"{left} nodes. To run it again: python -m tests.speaker.protocol.simulation --again '{self.script}'",
                "  seconds  what happened",
                told(self.world.trace, self.what),
            ]
        )


def run(script: Script) -> Failure | None:
    schedule = script.schedule()
    try:
        schedule.run()
    except BrokenPromiseError as error:
        return Failure(script, error.promise, error.what, schedule.world)
    except Exception as error:  # noqa: BLE001 - whatever a speaker raises is a failure that is made smaller, too
        return Failure(script, type(error).__name__, str(error).partition("\n")[0], schedule.world)
    return None


def shrink(failure: Failure, *, runs: int = RUNS, progress: Callable[[Failure], None] = lambda _: None) -> Failure:
    """The smallest schedule found that breaks the same promise, after so many runs at most."""
    whole = Script(failure.script.kind, failure.script.seed).schedule()
    smallest, left = failure, runs
    shrunk = True
    while shrunk and left > 0:
        shrunk = False
        for without in _smaller(whole, smallest.script.without):
            if left <= 0:
                break
            found, used = _fails(replace(smallest.script, without=without), failure.promise)
            left -= used
            if found is not None:
                smallest, shrunk = found, True
                progress(found)
                break
    return smallest


def _fails(script: Script, promise: str) -> tuple[Failure | None, int]:
    """Whether the promise is broken by a schedule, with any luck; and how often it was run."""
    first = script.without.luck
    for used, luck in enumerate((first, *(luck for luck in range(LUCK) if luck != first)), 1):
        failure = run(replace(script, without=replace(script.without, luck=luck)))
        if failure is not None and failure.promise == promise:
            return failure, used
    return None, used


def _smaller(whole: Schedule, without: Without) -> Iterator[Without]:
    """Schedules with something less, those first with which most is gained."""
    steps = [step for step in range(whole.faults) if step not in without.steps]
    size = len(steps)
    while size > 1:
        size = (size + 1) // 2
        for first in range(0, len(steps), size):
            yield replace(without, steps=without.steps | set(steps[first : first + size]))
    calmer = (replace(without, weather=True), replace(without, lags=True), replace(without, spread=True))
    yield from (each for each in calmer if each != without)
    nodes = sorted(whole.world.nodes.keys() - without.nodes)
    size = len(nodes)
    while size > 1 and len(nodes) > 2:
        size //= 2
        for first in range(0, len(nodes) - size + 1, size):
            if len(nodes) - size >= 2:
                yield replace(without, nodes=without.nodes | set(nodes[first : first + size]))
    bundles = sorted(set(range(whole.first_bundles)) - without.bundles)
    size = len(bundles)
    while size > 1:
        size //= 2
        for first in range(0, len(bundles), size):
            yield replace(without, bundles=without.bundles | set(bundles[first : first + size]))
