"""The table of faults: what a client notices of each, over and over, in clusters of different sizes.

    python -m bench.faults [--faults power-cut,drain] [--repeat 20] [--nodes 3,10] [--json FILE]

Each fault has a lab of its own at each size. A client asks for the addresses of a Service every 10 ms, by ARP and by
Neighbour Discovery. Meanwhile it makes 200 requests a second, each over a connection of its own, and keeps five
connections to each address open. The time of a fault is read before the fault is caused, and a request is lost that has
no answer within a second. The row ``calm`` is what the machine does to the figures by itself.

Progress is told while it runs. ``--json FILE`` is written after every run, and what a file of before has is not
measured again: so a table that was interrupted goes on where it was. The daemons have the rights that
``deploy/berthlb.yaml`` gives them: change it to see what other rights would bring. ``--busy 4`` keeps four processes
busy beside, and ``--lasting 600 --faults loss-5`` has the network lose frames for ten minutes.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from bench.report import arguments, progress
from cluster.api.client import SERVICES
from lab import launch
from lab.client import Lab
from lab.errors import LabError, UnusableError
from lab.faults.fault import Fault, Movement, Promise
from lab.faults.run import CONNECTIONS, RATE, run
from lab.faults.seen import Seen, broken_promises
from lab.faults.table import CALM, FAULTS
from lab.layout import Families, lay_out
from lab.measuring.measure import wait_for
from lab.objects import tutorial
from lab.objects.manifests import api_of
from lab.objects.workloads import start_workload

ROWS = (CALM, *FAULTS)
BY_NAME = {fault.name: fault for fault in ROWS}
GRACE_S = 2.0
"""A silent node's endpoints stay ready for so long."""


class Setting(msgspec.Struct, frozen=True):
    """What a run was measured in. Runs of one setting are one row."""

    fault: str
    nodes: int
    families: Families
    policy: str
    busy: int
    lasting: float | None


class Run(msgspec.Struct, frozen=True):
    setting: Setting
    seen: Seen | None
    """None where it failed."""
    broken: list[str]
    """Promises that were broken, or why it failed."""


def read(file: Path | None) -> list[Run]:
    """What was measured before."""
    return msgspec.json.decode(file.read_bytes(), type=list[Run]) if file is not None and file.exists() else []


def write(file: Path | None, runs: Sequence[Run]) -> None:
    if file is not None:
        beside = file.with_name(file.name + ".new")
        beside.write_bytes(msgspec.json.format(msgspec.json.encode(runs), indent=2))
        beside.replace(file)


class Series:
    """The lab of one setting, made when it is needed, and made anew after a run that failed."""

    def __init__(self, setting: Setting, stack: ExitStack) -> None:
        self._setting, self._stack = setting, stack
        self._lab: Lab | None = None

    def run(self) -> Run:
        fault = BY_NAME[self._setting.fault]
        try:
            lab = self._lab or self._made()
            seen = run(lab, fault, tutorial.first_addresses(lab), self._setting.lasting)
        except UnusableError:
            raise
        except (LabError, TimeoutError) as error:
            self._stack.close()
            self._lab = None
            return Run(self._setting, None, [str(error).partition("\n")[0]])
        return Run(self._setting, seen, broken_promises(fault.promise, seen))

    def _made(self) -> Lab:
        """A lab with one Service that answers."""
        layout = lay_out(self._setting.nodes, families=self._setting.families)
        name = f"faults-{self._setting.fault}-{os.getpid()}"
        lab = self._stack.enter_context(launch.up(launch.Recipe(name, layout, node_grace=GRACE_S)))
        tutorial.apply_pool(lab)
        start_workload(lab, "nginx", replicas=self._setting.nodes, namespace=tutorial.NAMESPACE, port=80)
        tutorial.apply_service(lab)
        api = api_of(lab)
        policy = {"spec": {"externalTrafficPolicy": self._setting.policy}}
        api.patch(SERVICES, tutorial.NAMESPACE, tutorial.SERVICE_NAME, policy)

        def assigned() -> bool:
            service = api.get(SERVICES, tutorial.NAMESPACE, tutorial.SERVICE_NAME)
            found = [ingress.ip for ingress in service.status.load_balancer.ingress]
            return found == tutorial.first_addresses(lab)

        wait_for(assigned, 20, "the Service's addresses", 0.1)
        self._lab = lab
        return lab


def burn() -> None:
    """Keep one core busy."""
    while True:
        pass


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Keep so many processes busy for as long as the block lasts."""
    processes = [multiprocessing.Process(target=burn, daemon=True) for _ in range(count)]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.kill()


def measure(settings: Sequence[Setting], repeat: int, runs: list[Run], file: Path | None) -> None:
    """Add what is missing to the runs, and to the file after each."""
    missing = {each: repeat - sum(one.setting == each for one in runs) for each in settings}
    to_do = sum(max(0, count) for count in missing.values())
    began, done = time.monotonic(), 0
    for setting, count in missing.items():
        with ExitStack() as stack:
            series = Series(setting, stack)
            for number in range(repeat - count, repeat):
                runs.append(series.run())
                write(file, runs)
                done += 1
                left = (time.monotonic() - began) / done * (to_do - done)
                where = f"{setting.fault}, {setting.nodes} nodes, run {number + 1} of {repeat}"
                progress.print(
                    f"{where}: {in_words(runs[-1])}; {done} of {to_do}, {left / 60:.0f} min left", soft_wrap=True
                )


def in_words(found: Run) -> str:
    if found.seen is None:
        return f"[red]failed: {found.broken[0]}[/]"
    seen = found.seen
    silence = ", ".join(f"{name} {seconds:.3f} s" for name, seconds in seen.silence_s.items())
    told = f"{silence}, {seen.lost} lost, {seen.broken} broken, {'moved' if seen.moved else 'stayed'}"
    return told + (f" [red]({'; '.join(found.broken)})[/]" if found.broken else "")


def table(nodes: int, runs: Sequence[Run]) -> Table:
    """Medians and maxima; what is promised stands behind the bar."""
    titles = ("fault", "runs", "no answer: ARP, s", "NS, s", "requests again, s", "lost", "broken", "two answer, s")
    shown = Table(*titles, "moved", "not as promised", title=f"{nodes} nodes: median / maximum | promised", box=None)
    for setting in dict.fromkeys(each.setting for each in runs if each.setting.nodes == nodes):
        mine = [each for each in runs if each.setting == setting]
        shown.add_row(setting.fault, *row(mine, BY_NAME[setting.fault].promise))
    return shown


def row(runs: Sequence[Run], promise: Promise) -> list[str]:
    seen = [each.seen for each in runs if each.seen is not None]

    def cell(figure: Callable[[Seen], float | None], promised: float | None = None) -> str:
        values = [value for each in seen if (value := figure(each)) is not None]
        if not values:
            return ""
        told = f"{number(statistics.median(values))} / {number(max(values))}"
        return told if promised is None else f"{told} | {number(promised)}"

    moved = f"{sum(each.moved for each in seen)} of {len(seen)}"
    return [
        str(len(runs)),
        cell(lambda each: each.silence_s.get("ARP"), promise.silence_s),
        cell(lambda each: each.silence_s.get("NS"), promise.silence_s),
        cell(lambda each: each.succeeds_again_s),
        cell(lambda each: each.lost, promise.lost),
        cell(lambda each: each.broken, promise.broken),
        cell(lambda each: each.two_answer_s, promise.two_answer_s),
        moved if promise.move is Movement.EITHER else f"{moved} | {promise.move}",
        str(sum(bool(each.broken) for each in runs) or ""),
    ]


def number(value: float) -> str:
    return f"{value:.0f}" if value == int(value) else f"{value:.3f}" if value < 10 else f"{value:.1f}"


def chosen(names: str) -> list[Fault]:
    """The faults of these names, or all of them. Raises ``argparse.ArgumentTypeError``."""
    unknown = [name for name in names.split(",") if name and name not in BY_NAME]
    if unknown:
        raise argparse.ArgumentTypeError(f"no such fault: {', '.join(unknown)}; there are {', '.join(BY_NAME)}")
    return [BY_NAME[name] for name in names.split(",") if name] or list(ROWS)


def sizes(numbers: str) -> list[int]:
    return [int(each) for each in numbers.split(",")]


def main() -> None:
    parser = arguments("faults", __doc__)
    parser.add_argument("--faults", type=chosen, default=list(ROWS), metavar="NAME,…", help="only these (all)")
    parser.add_argument("--repeat", type=int, default=20, metavar="N", help="runs of each fault (%(default)s)")
    parser.add_argument("--nodes", type=sizes, default=[3, 10], metavar="N,…", help="of the clusters (3,10)")
    parser.add_argument(
        "--families", type=Families, choices=list(Families), default=Families.DUAL, help="of the labs (%(default)s)"
    )
    parser.add_argument(
        "--policy", choices=["Local", "Cluster"], default="Local", help="the Service's externalTrafficPolicy (Local)"
    )
    parser.add_argument("--busy", type=int, default=0, metavar="N", help="processes that are busy beside (%(default)s)")
    parser.add_argument("--lasting", type=float, metavar="SECONDS", help="of faults that last, instead of their own")
    args = parser.parse_args()
    settings = [
        Setting(fault.name, nodes, args.families, args.policy, args.busy, args.lasting)
        for nodes in args.nodes
        for fault in args.faults
    ]
    runs = read(args.json)
    try:
        with busy(args.busy):
            measure(settings, args.repeat, runs, args.json)
    except UnusableError as error:
        parser.exit(2, f"faults: {error}\n")
    except KeyboardInterrupt:
        progress.print("interrupted; what was measured follows")
    runs = [each for each in runs if each.setting in settings]
    open_now = CONNECTIONS * len(args.families.each)
    print(f"{RATE:g} requests were made a second, and {open_now} connections were open.")
    for nodes in args.nodes:
        Console(width=190).print(table(nodes, runs))


if __name__ == "__main__":
    main()
