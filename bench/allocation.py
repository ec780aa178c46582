"""What one allocation costs, and what one taken address weighs, with a million addresses taken.

    python -m bench.allocation [--taken 1000000] [--json FILE]

Each case runs in a process of its own:

1. It fills a ledger as the controller fills it. Memory is what the process grew by meanwhile, with the names of the
   Services, divided by the addresses taken.
2. It makes allocations one at a time: choose an address, record it, and give it back, so that the case stays as it is.
   Their times are the median and the 99th percentile.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import random
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.report import Figures, arguments, progress, show, write
from cluster.addresses import Address, Family, parse_address, parse_range
from cluster.config import Config, load
from cluster.objects import IPAddressPool, IPAddressPoolSpec, ObjectMeta, PoolName, Service, ServicePort, ServiceSpec
from cluster.sharing import read_sharer
from controller.allocation.allocator import AddressRequest, allocate
from controller.allocation.ledger import Ledger
from controller.allocation.outcomes import Allocation

ROUNDS = 5000
PATIENCE_US = 5e6
BIG = {Family.IPV4: "10.0.0.0/8", Family.IPV6: "2001:db8::/64"}


@dataclass(frozen=True)
class Case:
    name: str
    pool: str
    """The pool that is asked …"""
    family: Family
    taken: Callable[[int], Iterator[tuple[int, Service]]]
    """… while so many addresses of the big pool of this family are taken: the place of each, and its Service."""
    asking: Service
    address: str = ""


def service(number: int, key: str = "", *ports: int) -> Service:
    meta = ObjectMeta(name=f"service-{number}", namespace=f"team-{number % 100}")
    if key:
        meta = ObjectMeta(name=meta.name, namespace=meta.namespace, annotations={"metallb.io/allow-shared-ip": key})
    return Service(metadata=meta, spec=ServiceSpec(ports=tuple(ServicePort(port=port) for port in ports or (80,))))


def in_a_row(count: int) -> Iterator[tuple[int, Service]]:
    return ((place, service(place)) for place in range(count))


def every_second(count: int) -> Iterator[tuple[int, Service]]:
    return ((2 * place + 1, service(place)) for place in range(count))


def at_random(count: int) -> Iterator[tuple[int, Service]]:
    chance = random.Random(1)
    return ((place, service(place)) for place in chance.sample(range(8 * count), count))


def one_key(count: int) -> Iterator[tuple[int, Service]]:
    return ((place, service(place, "shared", 80)) for place in range(count))


def pairs_of_one_key(count: int) -> Iterator[tuple[int, Service]]:
    for place in range(count // 2):
        yield place, service(2 * place, "shared", 80)
        yield place, service(2 * place + 1, "shared", 443, 1000 + place % 100)


def many_keys(count: int) -> Iterator[tuple[int, Service]]:
    return ((place, service(place, f"key-{place // 10}", 80)) for place in range(count))


def a_thousand_on_each(count: int) -> Iterator[tuple[int, Service]]:
    return ((place // 1000, service(place, "shared", 1000 + place % 1000)) for place in range(count))


NEW = service(10**9)
SHARING = service(10**9, "shared", 80)
CASES = (
    Case("/29, all else full", "192.168.0.0/29", Family.IPV4, in_a_row, NEW),
    Case("/8 IPv4, in a row", "", Family.IPV4, in_a_row, NEW),
    Case("/64 IPv6, in a row", "", Family.IPV6, in_a_row, NEW),
    Case("/64 IPv6, every second", "", Family.IPV6, every_second, NEW),
    Case("/64 IPv6, at random", "", Family.IPV6, at_random, NEW),
    Case("/64 IPv6, asked for", "", Family.IPV6, at_random, NEW, "2001:db8::ffff:ffff:0:1"),
    Case("one key for all, port taken", "", Family.IPV6, one_key, SHARING),
    Case("one key for all, port free", "", Family.IPV6, one_key, service(10**9, "shared", 8080)),
    Case("one key, two on each", "", Family.IPV6, pairs_of_one_key, SHARING),
    Case("a key for every ten", "", Family.IPV6, many_keys, service(10**9, "key-777", 80)),
    Case("a thousand on each", "", Family.IPV6, a_thousand_on_each, service(10**9, "shared", 1500)),
)


def configuration(case: Case) -> Config:
    pools = {"big": BIG[case.family]} | ({"asked": case.pool} if case.pool else {})
    return load(
        [
            IPAddressPool(metadata=ObjectMeta(name=name), spec=IPAddressPoolSpec(addresses=(span,)))
            for name, span in pools.items()
        ],
        [],
        None,
    ).config


def resident_octets() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def measure(case: Case, count: int) -> Figures:
    config = configuration(case)
    ledger = Ledger()
    ledger.set_pools(config.pools)
    first = parse_range(BIG[case.family]).first
    gc.collect()
    before, started = resident_octets(), time.perf_counter()
    for place, holder in case.taken(count):
        ledger.take(Address(case.family, first + place), read_sharer(holder))
    filled = time.perf_counter() - started
    addresses = ledger.counts(PoolName("big"), case.family)[0]
    gc.collect()
    octets = resident_octets() - before
    gc.freeze()
    asked = (parse_address(case.address),) if case.address else ()
    want = AddressRequest(
        read_sharer(case.asking),
        ((case.family,),),
        pool=PoolName("asked") if case.pool else None,
        addresses=asked,
    )
    times: list[float] = []
    while len(times) < ROUNDS and sum(times) < PATIENCE_US:
        begun = time.perf_counter_ns()
        outcome = allocate(config, ledger, want)
        if not isinstance(outcome, Allocation):
            raise SystemExit(f"{case.name}: {outcome}")
        ledger.take(outcome.addresses[0], want.sharer)
        times.append((time.perf_counter_ns() - begun) / 1000)
        ledger.give_back(outcome.addresses[0], want.sharer.service)
    return {
        "median_us": statistics.median(times),
        "p99_us": statistics.quantiles(times, n=100)[-1],
        "octets_per_address": octets / addresses,
        "octets_per_holder": octets / count,
        "filled_us": filled / count * 1e6,
    }


COLUMNS = {
    "median_us": "median, µs",
    "p99_us": "p99, µs",
    "octets_per_address": "octets/address",
    "octets_per_holder": "octets/holder",
    "filled_us": "fill, µs",
}


def main() -> None:
    parser = arguments("allocation", __doc__)
    parser.add_argument("--taken", type=int, default=1_000_000, metavar="N", help="default: %(default)s")
    parser.add_argument("--case", metavar="TEXT", default="", help="only the cases whose name contains this")
    options = parser.parse_args()
    results: dict[str, Figures] = {}
    for case in CASES:
        if options.case not in case.name:
            continue
        progress.print(case.name)
        with multiprocessing.get_context("spawn").Pool(1) as process:
            results[case.name] = process.apply(measure, (case, options.taken))
    rows = {name: [figures[column] for column in COLUMNS] for name, figures in results.items()}
    show([f"{options.taken:,} holders", *COLUMNS.values()], rows)
    write(options.json, results)


if __name__ == "__main__":
    main()
