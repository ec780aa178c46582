"""Runs random schedules against the speaker's promises, on all cores, and makes what fails small.

    python -m tests.speaker.protocol.simulation [--from SEED] [--count 100000] [--kind KIND] [--again SCRIPT]

Each seed is one schedule: its kind follows from the seed, unless one is named. A line says how far it is. A schedule
that fails is shrunk, and printed as a timeline, with what runs it again; one of hundreds of nodes less so, since each
run of it takes minutes. Interrupted, it says from which seed to go on.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from collections.abc import Iterator
from time import monotonic

from rich.console import Console

from tests.speaker.protocol.simulation.shrinking import KINDS, RUNS, Script, run, shrink

BATCH = 10  # seeds that a process is given at a time
LARGE_EVERY = 10_000  # one costs as much as some two thousand others
LARGE_RUNS = 12  # to make one smaller
USUAL = ("usual", "strange", "families")
TELL_S = 1.0  # between progress lines on a terminal
TELL_LOG_S = 30.0  # and elsewhere

console = Console(stderr=True)
pages_out = Console(soft_wrap=True, highlight=False, markup=False)


def script_of(seed: int, kind: str | None) -> Script:
    return Script(kind or ("large" if seed % LARGE_EVERY == LARGE_EVERY - 1 else USUAL[seed % len(USUAL)]), seed)


def run_batch(given: tuple[int, int, str | None]) -> tuple[int, int, list[str]]:
    """Returns the first seed and the one after the last, and the pages of those that failed."""
    first, last, kind = given
    pages = []
    for seed in range(first, last):
        failure = run(script_of(seed, kind))
        if failure is not None:
            runs = LARGE_RUNS if failure.script.kind == "large" else RUNS
            smallest = shrink(failure, runs=runs)
            pages.append(f"{failure.script} breaks {failure.promise}: {failure.what}\nShrunk: {smallest}")
    return first, last, pages


class Progress:
    def __init__(self, first: int, count: int) -> None:
        self.next_seed = first
        """The first that has not run."""
        self.failed = 0
        self._ran = 0
        self._beyond: dict[int, int] = {}
        """What ran beyond it: by the first seed of each batch, the one after its last."""
        self._count = count
        self._began = self._told = monotonic()

    def note(self, first: int, last: int, failed: int) -> None:
        self._beyond[first] = last
        self._ran += last - first
        self.failed += failed
        while self.next_seed in self._beyond:
            self.next_seed = self._beyond.pop(self.next_seed)
        if monotonic() - self._told > (TELL_S if console.is_terminal else TELL_LOG_S):
            self.tell("\r" if console.is_terminal else "\n")

    def tell(self, end: str = "\n") -> None:
        self._told = monotonic()
        pace = self._ran / max(self._told - self._began, 1e-9)
        left_min = (self._count - self._ran) / max(pace, 1e-9) / 60
        failed = f", {self.failed} failed" if self.failed else ""
        line = f"{self._ran:,} of {self._count:,} schedules{failed}; {pace:.1f}/s, {left_min:.0f} min left; seed"
        console.print(f"{line} {self.next_seed}", end=end, highlight=False)


def run_all(first: int, count: int, kind: str | None, processes: int) -> int:
    """Returns how many failed."""
    last = first + count
    batches: Iterator[tuple[int, int, str | None]] = (
        (start, min(start + BATCH, last), kind) for start in range(first, last, BATCH)
    )
    progress = Progress(first, count)
    with multiprocessing.Pool(processes) as pool:
        try:
            for begun, ended, pages in pool.imap_unordered(run_batch, batches):
                for page in pages:
                    pages_out.print(f"\n{page}\n")
                progress.note(begun, ended, len(pages))
        except KeyboardInterrupt:
            pool.terminate()
            console.print(f"\nInterrupted. Go on with --from {progress.next_seed}.")
            return progress.failed or 1
    progress.tell()
    return progress.failed


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.speaker.protocol.simulation", description=__doc__)
    parser.add_argument("--from", dest="first", type=int, default=0, metavar="SEED", help="the first (%(default)s)")
    parser.add_argument("--count", type=int, default=100_000, help="schedules (%(default)s)")
    parser.add_argument("--kind", choices=KINDS, help="all of one kind")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="(%(default)s)")
    parser.add_argument("--again", metavar="SCRIPT", help="run one schedule, as a failure names it, and shrink it")
    options = parser.parse_args()
    if options.again:
        failure = run(Script.parse(options.again))
        pages_out.print(str(shrink(failure)) if failure is not None else "Every promise is kept.")
        return int(failure is not None)
    return int(run_all(options.first, options.count, options.kind, options.processes) > 0)


if __name__ == "__main__":
    sys.exit(main())
