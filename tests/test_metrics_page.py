"""docs/reference/metrics.md lists every metric of both daemons, with its type and labels, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from cluster.daemon.observing import DifferencesCollector
from cluster.objects import AddressText, NodeName, PoolName
from controller import observation
from controller.daemon.metrics import ControllerCollector
from controller.figures import PoolFigures, Snapshot
from controller.nodeip.cluster import NodePoolFigures
from controller.nodeip.reasons import LeftOut
from controller.services.latency import FirstAddresses
from speaker.api import comparison
from speaker.api.metrics import COUNTERS, DURATIONS, SpeakerCollector, SpeakerFigures
from speaker.api.statistics import Totals
from speaker.channel import Stats
from speaker.durations import Durations
from speaker.passes import BOUNDS_S
from speaker.protocol.effects import PeerView

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/reference/metrics.md"
ADDRESS = AddressText("192.0.2.1")

Metrics = dict[str, tuple[str, frozenset[str]]]
"""Name → type and labels."""


def controller_registry() -> CollectorRegistry:
    distribution = FirstAddresses(None).since_seen.distribution()
    full = Snapshot(
        pools={PoolName("p"): PoolFigures()},
        node_pools={PoolName("n"): NodePoolFigures(1, {NodeName("a"): LeftOut.NOT_READY})},
        waiting={"NoPool": 1},
        refusals={"NoPool": 1},
        since_seen=distribution,
        since_creation=distribution,
    )
    registry = CollectorRegistry()
    registry.register(ControllerCollector(lambda: full))
    return registry


def speaker_registry() -> CollectorRegistry:
    counters = {f"{name}:x" if label else name: 1 for name, (_, label) in COUNTERS.items()}
    peer = PeerView(NodeName("node-2"), True, 0.5, 0.1, 1)
    took = {f"{name}:death": Durations().with_one(0.3) for name in DURATIONS}
    stats = Stats(1.0, True, counters, peers=(peer,), passes=(1,) * (len(BOUNDS_S) + 1), took=took)
    full = SpeakerFigures(
        NodeName("node-1"),
        stats,
        Totals({ADDRESS: 1}, {ADDRESS: 1}),
        (("default/web", ADDRESS),),
        loop_age_s=0.0,
        plan_age_s=0.0,
        watch_failures={"services": 0},
        troubles=("NobodyHeard",),
    )
    registry = CollectorRegistry()
    registry.register(SpeakerCollector(lambda: full))
    ProcessCollector(registry=registry)
    return registry


def observers_registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(DifferencesCollector(lambda: {"other_node": 0}))
    return registry


def exposed(registry: CollectorRegistry) -> Metrics:
    """What a Prometheus server reads."""
    return {
        family.name + ("_total" if family.type == "counter" else ""): (
            family.type,
            frozenset(label for sample in family.samples for label in sample.labels) - {"le"},
        )
        for family in text_string_to_metric_families(generate_latest(registry).decode())
    }


def told(daemon: str) -> Metrics:
    section = re.search(rf"^## {daemon}$(.*?)(?=^## |\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert section
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|([^|]*)\| [^|]+\. \|$", section[1], re.MULTILINE)
    return {name: (kind, frozenset(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}


@pytest.mark.parametrize(
    ("daemon", "registry"),
    [
        ("Controller", controller_registry()),
        ("Speaker", speaker_registry()),
        ("Observing daemons", observers_registry()),
    ],
)
def test_the_page_lists_every_metric_and_no_other(daemon: str, registry: CollectorRegistry) -> None:
    assert told(daemon) == exposed(registry)


@pytest.mark.parametrize(
    "module", ["speaker/wire/announcer.py", "speaker/wire/informer.py", "speaker/protocol/drops.py"]
)
def test_what_the_announcer_counts_is_explained(module: str) -> None:
    counted = re.findall(r"""(?:_counters\[|_count\()f?["']([a-z_]+)""", (ROOT / module).read_text())
    assert counted
    assert set(counted) <= COUNTERS.keys()


def test_every_kind_of_difference_is_explained() -> None:
    page = (ROOT / "docs/how-to/migrate-from-metallb.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == {*observation.KINDS, *comparison.KINDS}
