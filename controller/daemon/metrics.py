"""The controller's metrics: its ``figures``, under MetalLB's names where it has one, read when somebody asks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from cluster.daemon.build import this_build
from controller.figures import PoolFigures, Snapshot
from controller.services.latency import Distribution


class ControllerCollector(Collector):
    """Register it in the registry that ``/metrics`` shows. ``take`` is called from the server's thread."""

    def __init__(self, take: Callable[[], Snapshot]) -> None:
        self._take = take

    def collect(self) -> Iterable[Metric]:
        now = self._take()
        yield InfoMetricFamily("berthlb_build", "Which build this is; always 1.", this_build()._asdict())
        yield from _pools(now)
        yield from _node_pools(now)
        yield _counter("metallb_k8s_client_updates", "Service status writes that the API took.", now.updates)
        yield _counter("metallb_k8s_client_update_errors", "Service status writes that failed.", now.update_errors)
        yield _gauge("metallb_k8s_client_config_loaded_bool", "1: a configuration was read.", now.config_loaded)
        stale = "1: some pool or advertisement is not in force as it stands in the API."
        yield _gauge("metallb_k8s_client_config_stale_bool", stale, now.config_stale)
        yield _gauge("berthlb_controller_services", "Services of type LoadBalancer that exist.", now.services)
        waiting = GaugeMetricFamily(
            "berthlb_controller_services_waiting",
            "Services without an address, or without the one that they ask for.",
            labels=["reason"],
        )
        for reason, count in sorted(now.waiting.items()):
            waiting.add_metric([reason], count)
        yield waiting
        refusals = CounterMetricFamily(
            "berthlb_controller_refusals", "Refusals reported to Services.", labels=["reason"]
        )
        for reason, count in sorted(now.refusals.items()):
            refusals.add_metric([reason], count)
        yield refusals
        queue = "Observations not yet judged, and writes not yet begun."
        yield _gauge("berthlb_controller_queue_length", queue, now.queue_length)
        yield _gauge("berthlb_controller_leader", "1: this replica decides and writes; 0: it stands by.", now.leader)
        transitions = "Times that the Lease went to another replica, as it says itself."
        yield _gauge("berthlb_controller_lease_transitions", transitions, now.lease_transitions)
        seen = "Seconds from when the controller first saw a Service until that had its first address."
        yield _histogram("berthlb_controller_assignment_seconds", seen, now.since_seen)
        created = "Seconds from a Service's creation, which is known to the second, until it had its first address."
        yield _histogram("berthlb_controller_assignment_since_creation_seconds", created, now.since_creation)


def _pools(now: Snapshot) -> Iterable[Metric]:
    columns: dict[str, tuple[str, Callable[[PoolFigures], int]]] = {
        "addresses_total": ("Addresses of the pool.", lambda pool: pool.ipv4 + pool.ipv6),
        "addresses_in_use_total": ("Addresses in use.", lambda pool: pool.ipv4_in_use + pool.ipv6_in_use),
        "ipv4_addresses_total": ("IPv4 addresses of the pool.", lambda pool: pool.ipv4),
        "ipv4_addresses_in_use_total": ("IPv4 addresses in use.", lambda pool: pool.ipv4_in_use),
        "ipv6_addresses_total": ("IPv6 addresses of the pool.", lambda pool: pool.ipv6),
        "ipv6_addresses_in_use_total": ("IPv6 addresses in use.", lambda pool: pool.ipv6_in_use),
    }
    for name, (help_, value) in columns.items():
        family = GaugeMetricFamily(f"metallb_allocator_{name}", help_, labels=["pool"])
        for pool, figures in now.pools.items():
            family.add_metric([pool], value(figures))
        yield family


def _node_pools(now: Snapshot) -> Iterable[Metric]:
    help_ = "Nodes that a NodeIPPool selects: Usable, or why they give no address."
    nodes = GaugeMetricFamily("berthlb_node_pool_nodes", help_, labels=["pool", "state"])
    services = GaugeMetricFamily(
        "berthlb_node_pool_services", "Services that have addresses of nodes.", labels=["pool"]
    )
    for pool, figures in now.node_pools.items():
        nodes.add_metric([pool, "Usable"], figures.usable)
        for why, count in sorted(Counter(why.value for why in figures.left_out.values()).items()):
            nodes.add_metric([pool, why], count)
        services.add_metric([pool], figures.services)
    yield nodes
    yield services


def _gauge(name: str, help_: str, value: float) -> Metric:
    return GaugeMetricFamily(name, help_, value=float(value))


def _histogram(name: str, help_: str, shown: Distribution) -> Metric:
    return HistogramMetricFamily(name, help_, buckets=list(shown.buckets), sum_value=shown.sum)


def _counter(name: str, help_: str, value: int) -> Metric:
    return CounterMetricFamily(name, help_, value=value)
