"""What a speaker shows about itself: MetalLB's metrics, so that its dashboards go on working, and our own.

``SpeakerCollector`` asks for the figures whenever the metrics are read, and counts nothing itself. The announcer
counts, and sends its counters each second; the watcher knows what it announces.

MetalLB's counters by address have names without ``_total``, which the format now demands of counters. They keep their
names and are exposed without a type.

The number of counters taken from the announcer is bounded by ``MAX_COUNTERS``, and labels by what is announced, by the
peers, and by the reasons in the code.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client import Metric
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    UnknownMetricFamily,
)
from prometheus_client.registry import Collector

from cluster.daemon.build import this_build
from cluster.objects import AddressText, NodeName
from speaker.api.backlog import Lag
from speaker.api.statistics import Totals
from speaker.channel import Stats
from speaker.durations import BOUNDS_S as DURATION_BOUNDS_S
from speaker.passes import BOUNDS_S
from speaker.protocol.timings import DETECTION, HANDOVER, STAND_IN, TAKEOVER

MAX_COUNTERS = 256  # names of counters taken from the announcer

_NAME = re.compile(r"[a-z][a-z0-9_]*")

COUNTERS: dict[str, tuple[str, str]] = {
    "claims_refused": ("Claims of peers of a later release that this one cannot understand.", "reason"),
    "decisions": ("Decisions of the protocol that were logged: claims, releases, deaths, conflicts.", "reason"),
    "frames_dropped": ("ARP and Neighbour Discovery frames that were not answered.", "reason"),
    "frames_lost": ("Frames that the kernel dropped, because the speaker did not read them in time.", "what"),
    "heartbeats_dropped": ("Heartbeat datagrams that were dropped.", "reason"),
    "reports_dropped": ("Decisions that were not logged, because there were too many at once.", ""),
    "sent_claims": ("Datagrams with claims, their repetitions included.", ""),
    "sent_heartbeats": ("Heartbeats sent by multicast, one for each link.", ""),
    "late_loops": ("Times that the announcer's loop came back too late to know what it still held.", ""),
    "sends_failed": ("Frames and datagrams that the kernel did not take.", "what"),
    "sent": ("Frames and datagrams sent, replies and gratuitous frames apart.", "what"),
}
"""What the announcer's counters mean, and the name of their label. It may send others."""


DURATIONS: dict[str, str] = {
    DETECTION: "From the last sign of life of another speaker until this one declared it dead.",
    STAND_IN: "For how long this node stood in for another one's speaker, by how that ended.",
    HANDOVER: "From when this node offered an address until another one was heard to claim it.",
    TAKEOVER: "From when an address had no holder until this node claimed it.",
}
"""What took how long, in seconds, by cause."""
_BOUNDS = (*map(str, DURATION_BOUNDS_S), "+Inf")


@dataclass(frozen=True, slots=True)
class SpeakerFigures:
    """What is known when somebody asks."""

    node: NodeName
    stats: Stats | None
    """The announcer's latest; None before the first."""
    traffic: Totals = field(default_factory=lambda: Totals({}, {}))
    announced: tuple[tuple[str, AddressText], ...] = ()
    """Services, each with an address of its that is answered here."""
    claims: int = 0
    """Addresses that the announcer claims."""
    loop_age_s: float | None = None
    plan_revision: int = 0
    plan_age_s: float | None = None
    """Since all that it is made of was last followed; None before the first Plan."""
    bundles: int = 0
    updates: int = 0
    """Changes of API objects that were taken in."""
    update_errors: int = 0
    config_loaded: bool = False
    config_stale: bool = False
    writes: int = 0
    write_errors: int = 0
    lag: Lag = field(default_factory=Lag)
    """Of the writes to the API."""
    watch_failures: Mapping[str, int] = field(default_factory=dict)
    """By plural, failures in a row; 0 when all is well."""
    troubles: tuple[str, ...] = ()
    """Reasons of what keeps the speaker from doing its part."""


class SpeakerCollector(Collector):
    """Registers with a registry and asks for the figures each time that the metrics are read."""

    def __init__(self, figures: Callable[[], SpeakerFigures]) -> None:
        self._figures = figures

    def describe(self) -> Iterable[Metric]:
        """Nothing in advance, so that registering asks nothing."""
        return ()

    def collect(self) -> Iterator[Metric]:
        figures = self._figures()
        yield InfoMetricFamily("berthlb_build", "Which build this is; always 1.", this_build()._asdict())
        yield _announced(figures)
        yield from _single(figures)
        failures = GaugeMetricFamily(
            "berthlb_watch_failures", "Requests to list or watch a kind that failed in a row.", labels=["resource"]
        )
        for resource, count in figures.watch_failures.items():
            failures.add_metric([resource], count)
        yield failures
        troubles = GaugeMetricFamily(
            "berthlb_speaker_trouble", "1 while something keeps the speaker from doing its part.", labels=["reason"]
        )
        for reason in figures.troubles:
            troubles.add_metric([reason], 1)
        yield troubles
        if figures.stats:
            yield from _by_address(figures.traffic)
            yield _passes(figures.stats)
            yield GaugeMetricFamily(
                "berthlb_speaker_loop_lag_seconds",
                "How late the announcer's loop has come back lately.",
                figures.stats.lag_s,
            )
            yield GaugeMetricFamily("berthlb_speaker_claims", "Addresses that this speaker claims.", figures.claims)
            yield from _took(figures.stats)
            yield from _peers(figures.stats)
            yield _conflicts(figures.stats)
            yield from _counters(figures.stats)


def _announced(figures: SpeakerFigures) -> Metric:
    family = GaugeMetricFamily(
        "metallb_speaker_announced",
        "Services whose addresses this node answers for, by address.",
        labels=["service", "protocol", "node", "ip"],
    )
    for service, address in figures.announced:
        family.add_metric([service, "layer2", figures.node, address], 1)
    return family


def _single(figures: SpeakerFigures) -> Iterator[Metric]:
    yield CounterMetricFamily("metallb_k8s_client_updates", "Changes of API objects taken in.", figures.updates)
    yield CounterMetricFamily(
        "metallb_k8s_client_update_errors", "Changes of API objects that could not be taken in.", figures.update_errors
    )
    yield GaugeMetricFamily(
        "metallb_k8s_client_config_loaded_bool", "1 once a configuration has been read.", int(figures.config_loaded)
    )
    yield GaugeMetricFamily(
        "metallb_k8s_client_config_stale_bool",
        "1 while some object's last good version is in force, because the present one cannot be.",
        int(figures.config_stale),
    )
    yield GaugeMetricFamily("berthlb_speaker_plan_revision", "Changes of the Plan so far.", figures.plan_revision)
    yield GaugeMetricFamily("berthlb_speaker_plan_bundles", "Bundles in the Plan.", figures.bundles)
    yield CounterMetricFamily("berthlb_speaker_api_writes", "Writes to the API that worked.", figures.writes)
    yield CounterMetricFamily("berthlb_speaker_api_write_errors", "Writes that the API refused.", figures.write_errors)
    yield GaugeMetricFamily(
        "berthlb_speaker_api_writes_waiting", "Writes that are still to be made.", figures.lag.writes
    )
    yield GaugeMetricFamily(
        "berthlb_speaker_api_oldest_write_seconds", "Age of the write that waits longest.", figures.lag.oldest_s
    )
    if figures.plan_age_s is not None:
        yield GaugeMetricFamily(
            "berthlb_speaker_plan_age_seconds",
            "Since everything that the Plan is made of was last followed in the API.",
            figures.plan_age_s,
        )
    if figures.loop_age_s is not None:
        yield GaugeMetricFamily(
            "berthlb_speaker_loop_age_seconds", "Since the announcer was last heard of.", figures.loop_age_s
        )


def _by_address(traffic: Totals) -> Iterator[Metric]:
    families: tuple[tuple[str, str, Mapping[AddressText, int]], ...] = (
        (
            "requests_received",
            "ARP Requests and Neighbour Solicitations received for an address that this node holds.",
            traffic.answered,
        ),
        ("responses_sent", "ARP Replies and solicited Neighbour Advertisements sent for an address.", traffic.answered),
        (
            "gratuitous_sent",
            "Gratuitous ARP frames and unsolicited Neighbour Advertisements sent for an address.",
            traffic.gratuitous,
        ),
    )
    for name, documentation, counts in families:
        family = UnknownMetricFamily(f"metallb_layer2_{name}", documentation, labels=["ip"])
        for address, count in counts.items():
            family.add_metric([address], count)
        yield family


def _passes(stats: Stats) -> Metric:
    counts = itertools.accumulate(stats.passes)
    bounds = (*map(str, BOUNDS_S), "+Inf")
    return HistogramMetricFamily(
        "berthlb_speaker_loop_seconds",
        "How long a pass of the announcer's loop took, waiting for work apart.",
        buckets=list(zip(bounds, counts, strict=True)),
        sum_value=stats.passes_s,
    )


def _took(stats: Stats) -> Iterator[Metric]:
    families = {
        name: HistogramMetricFamily(f"berthlb_speaker_{name}_seconds", documentation, labels=["cause"])
        for name, documentation in DURATIONS.items()
    }
    for key, durations in sorted(stats.took.items())[:MAX_COUNTERS]:
        name, _, cause = key.partition(":")
        if name in families:
            buckets = list(zip(_BOUNDS, itertools.accumulate(durations.counts), strict=True))
            families[name].add_metric([cause], buckets, durations.seconds)
    yield from families.values()


def _peers(stats: Stats) -> Iterator[Metric]:
    alive = GaugeMetricFamily(
        "berthlb_speaker_peer_alive", "1 while another speaker is believed alive.", labels=["peer"]
    )
    detection = GaugeMetricFamily(
        "berthlb_speaker_peer_detection_seconds",
        "Silence of a speaker that is needed to believe it dead.",
        labels=["peer"],
    )
    lateness = GaugeMetricFamily(
        "berthlb_speaker_peer_lateness_seconds", "How late a speaker's heartbeats are, smoothed.", labels=["peer"]
    )
    claims = GaugeMetricFamily("berthlb_speaker_peer_claims", "Addresses that a speaker claims.", labels=["peer"])
    heard = CounterMetricFamily(
        "berthlb_speaker_peer_heartbeats", "Heartbeats of a speaker that were heard in its session.", labels=["peer"]
    )
    missed = CounterMetricFamily(
        "berthlb_speaker_peer_heartbeats_missed", "Heartbeats of a speaker that did not come in time.", labels=["peer"]
    )
    peers = GaugeMetricFamily("berthlb_speaker_peers", "Other speakers, by what is believed of them.", labels=["state"])
    states = Counter("suspected" if peer.suspected else "alive" if peer.alive else "dead" for peer in stats.peers)
    for state in ("alive", "suspected", "dead"):
        peers.add_metric([state], states[state])
    for peer in stats.peers:
        heard.add_metric([peer.node], peer.heartbeats)
        missed.add_metric([peer.node], peer.missed)
        alive.add_metric([peer.node], int(peer.alive))
        detection.add_metric([peer.node], peer.detection_s)
        lateness.add_metric([peer.node], peer.lateness_s)
        claims.add_metric([peer.node], peer.claims)
    yield from (peers, alive, detection, lateness, claims, heard, missed)


def _conflicts(stats: Stats) -> Metric:
    family = GaugeMetricFamily(
        "berthlb_speaker_address_conflicts",
        "Addresses of Services that somebody else on the LAN has, 32 at most.",
        labels=["withheld"],
    )
    for withheld in (False, True):
        count = sum(view.withheld is withheld for view in stats.conflicts)
        family.add_metric([str(withheld).lower()], count)
    return family


def _counters(stats: Stats) -> Iterator[Metric]:
    families: dict[str, CounterMetricFamily] = {}
    for key, count in sorted(stats.counters.items())[:MAX_COUNTERS]:
        name, _, reason = key.partition(":")
        if not _NAME.fullmatch(name):
            continue
        family = families.get(name)
        if family is None:
            documentation, label = COUNTERS.get(name, (f"{name.replace('_', ' ').capitalize()}.", "reason"))
            labels = [label] if reason else []
            family = CounterMetricFamily(f"berthlb_speaker_{name}", documentation, labels=labels)
            families[name] = family
        family.add_metric([reason] if reason else [], count)
    yield from families.values()
