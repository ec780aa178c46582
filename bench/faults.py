"""What each fault costs a client: every fault repeated, with the least, the median and the most.

    python -m bench.faults [SCENARIO…] [--families ipv6] [--runs 20] [--busy 4] [--json FILE]

Without a name all scenarios run. Each has a lab of its own, in which a client asks for the Service's address every
10 ms, by ARP or by Neighbour Discovery. In a dual-stack lab it asks for both, and the later one counts. The time of a
fault is read before the fault is caused. The daemons have the rights that ``deploy/berthlb.yaml`` gives them: change it
to see what other rights would bring. ``--busy 4`` keeps four processes busy meanwhile.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise

from bench.report import arguments, progress, show, write
from cluster.api.client import SERVICES, connect
from lab import launch
from lab.client import Lab
from lab.layout import Families, lay_out
from lab.measuring import measure
from lab.measuring.figures import NeighbourAnswer, answered_by_two, answers_again, longest_silence
from lab.measuring.measure import wait_for
from lab.objects import tutorial
from lab.objects.workloads import start_workload
from lab.readiness import await_ready

WATCHED_S = 2.0  # watched after each fault
UNPLUGGED_S = 3.0  # a cable is out for so long, and watched for as long again
TWO_WINDOW_S = 0.05  # answers of two nodes so close together are answers by two

Where = tuple[Lab, list[str]]
"""A lab, and the addresses of its Service."""
Seconds = list[float]
Result = dict[str, Seconds]


@contextmanager
def cluster(scenario: str, families: Families, *, nodes: int = 3, gateway: bool = True) -> Iterator[Where]:
    """A lab with one Service that answers; the lab and the Service's addresses."""
    layout = lay_out(nodes, gateway=gateway, families=families)
    with launch.up(launch.Recipe(f"faults-{scenario}", layout)) as lab:
        tutorial.apply_pool(lab)
        start_workload(lab, "nginx", replicas=nodes, namespace=tutorial.NAMESPACE, port=80)
        tutorial.apply_service(lab)
        client = connect(lab.kubeconfig, user_agent="berthlb-bench")

        def addresses() -> list[str]:
            service = client.get(SERVICES, tutorial.NAMESPACE, tutorial.SERVICE_NAME)
            return [ingress.ip for ingress in service.status.load_balancer.ingress]

        yield lab, wait_for(addresses, 10, "the Service's addresses")


def holder_of(lab: Lab, watch: measure.ClientWatch) -> tuple[str, str]:
    mac = measure.steady_holder(watch)
    return mac, measure.node_of(lab, mac)


def repeat(where: Where, runs: int, fault: Callable[[str], None], mend: Callable[[str], None]) -> Result:
    """Cause the fault at whichever node holds the addresses, measure, mend, and again."""
    lab, addresses = where
    result: Result = {}
    for run in range(runs):
        with measure.watching(lab, *addresses) as watch:
            _, holder = holder_of(lab, watch)
            at = time.monotonic()
            fault(holder)
            time.sleep(WATCHED_S)
            again = wait_for(lambda: answers_again(watch.answers(), at)[0], 60, "somebody answers")
            result.setdefault("answers again", []).append(again)
            result.setdefault("answered by two", []).append(answered_by_two(watch.answers(), TWO_WINDOW_S))
            progress.print(f"  run {run + 1} of {runs}: {holder}, answers again after {again:.3f} s")
            mend(holder)
            await_ready(lab)
    return result


def power_cut(runs: int, families: Families) -> Result:
    """The holder loses power; three nodes and a gateway."""
    with cluster("power-cut", families) as where:
        return repeat(where, runs, where[0].stop_node, where[0].start_node)


def two_nodes(runs: int, families: Families) -> Result:
    """The holder loses power; two nodes, no gateway, so that the survivor hears nobody else."""
    with cluster("two-nodes", families, nodes=2, gateway=False) as where:
        return repeat(where, runs, where[0].stop_node, where[0].start_node)


def announcer_killed(runs: int, families: Families) -> Result:
    """The holder's announcer is killed with SIGKILL; its node lives."""
    with cluster("announcer", families) as where:
        lab = where[0]
        return repeat(
            where,
            runs,
            lambda node: lab.speaker(node, "kill", "announcer"),
            lambda node: lab.speaker(node, "start"),
        )


def watcher_killed(runs: int, families: Families) -> Result:
    """The holder's watcher is killed with SIGKILL: nothing may happen on the wire."""
    result: Result = {}
    with cluster("watcher", families) as (lab, addresses):
        for _ in range(runs):
            with measure.watching(lab, *addresses) as watch:
                mac, holder = holder_of(lab, watch)
                at = time.monotonic()
                lab.speaker(holder, "kill", "watcher")
                time.sleep(WATCHED_S)
                answers = watch.answers()
                result.setdefault("longest silence", []).append(longest_silence(answers, at, answers[-1].at))
                others = sum(1 for a in answers if a.mac != mac)
                result.setdefault("answers by another node", []).append(others)
            await_ready(lab)
    return result


def cable(runs: int, families: Families) -> Result:
    """The holder's cable is pulled, and put back three seconds later."""
    result: Result = {}
    with cluster("cable", families) as (lab, addresses):
        for run in range(runs):
            with measure.watching(lab, *addresses) as watch:
                _, holder = holder_of(lab, watch)
                at = time.monotonic()
                lab.pull_link(holder)
                time.sleep(UNPLUGGED_S)
                again = wait_for(lambda: answers_again(watch.answers(), at)[0], 60, "somebody answers")
                back = time.monotonic()
                lab.plug_link(holder)
                time.sleep(UNPLUGGED_S)
                after = [a for a in watch.answers() if a.at > back]
                result.setdefault("pulled: answers again", []).append(again)
                result.setdefault("put back: one node answers after", []).append(last_change(after, back))
                result.setdefault("put back: answered by two", []).append(answered_by_two(after, TWO_WINDOW_S))
                result.setdefault("put back: longest silence", []).append(longest_silence(after, back, after[-1].at))
                progress.print(f"  run {run + 1} of {runs}: {holder}, answers again after {again:.3f} s")
            await_ready(lab)
    return result


def last_change(answers: list[NeighbourAnswer], since: float) -> float:
    """Seconds from ``since`` until the same MAC has answered ever after."""
    for earlier, later in reversed(list(pairwise(answers))):
        if earlier.mac != later.mac:
            return later.at - since
    return answers[0].at - since


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


def calm(minutes: float, families: Families) -> Result:
    """No fault: two busy processes per core, and nothing may move."""
    with cluster("calm", families) as (lab, addresses), measure.watching(lab, *addresses) as watch:
        mac, _ = holder_of(lab, watch)
        with busy(2 * multiprocessing.cpu_count()):
            began = time.monotonic()
            time.sleep(60 * minutes)
            answers = [a for a in watch.answers() if a.at > began]
        return {
            "answers by another node": [sum(1 for a in answers if a.mac != mac)],
            "longest silence": [longest_silence(answers, began, answers[-1].at)],
        }


def memory(_: int, families: Families) -> Result:
    """Proportional set size of each of our processes, MiB, with one Service."""
    with cluster("memory", families) as (lab, _addresses):
        processes = lab.status(memory=True).processes
        return {
            f"{process.host} {process.name}": [process.pss_kib / 1024]
            for process in processes
            if process.pss_kib is not None
        }


SCENARIOS: dict[str, Callable[[int, Families], Result]] = {
    "power-cut": power_cut,
    "two-nodes": two_nodes,
    "announcer-killed": announcer_killed,
    "watcher-killed": watcher_killed,
    "cable": cable,
    "memory": memory,
}


def main() -> None:
    parser = arguments("faults", __doc__)
    parser.add_argument("scenario", nargs="*", metavar="SCENARIO", help=f"of {', '.join([*SCENARIOS, 'calm'])}")
    parser.add_argument(
        "--families", type=Families, choices=list(Families), default=Families.IPV4, help="of the labs (%(default)s)"
    )
    parser.add_argument("--runs", type=int, default=20, metavar="N", help="of each fault (%(default)s)")
    parser.add_argument("--busy", type=int, default=0, metavar="N", help="processes that are busy beside (%(default)s)")
    parser.add_argument("--minutes", type=float, default=5, help="of calm (%(default)s)")
    args = parser.parse_args()
    unknown = [each for each in args.scenario if each not in SCENARIOS and each != "calm"]
    if unknown:
        parser.error(f"no such scenario: {', '.join(unknown)}")
    results: dict[str, Result] = {}
    for name in args.scenario or [*SCENARIOS, "calm"]:
        progress.print(f"[bold]{name}[/]")
        with busy(args.busy):
            if name == "calm":
                results[name] = calm(args.minutes, args.families)
            else:
                results[name] = SCENARIOS[name](args.runs, args.families)
    for name, result in results.items():
        rows = {
            figure: (len(values), min(values), statistics.median(values), max(values))
            for figure, values in result.items()
        }
        show(["figure", "runs", "min", "median", "max"], rows, title=name)
    write(args.json, results)


if __name__ == "__main__":
    main()
