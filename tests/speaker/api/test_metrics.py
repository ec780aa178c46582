"""What is exposed of the announcer's counters, whatever their names."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from cluster.objects import AddressText, NodeName
from speaker.api.metrics import MAX_COUNTERS, SpeakerCollector, SpeakerFigures
from speaker.channel import Stats
from speaker.durations import Durations
from speaker.link import LinkName
from speaker.protocol.effects import ConflictView, PeerView


def exposed(view: SpeakerFigures) -> dict[str, float]:
    """Samples by name and labels, as a Prometheus server reads them."""
    registry = CollectorRegistry()
    registry.register(SpeakerCollector(lambda: view))
    return {
        sample.name + "".join(f"|{key}={sample.labels[key]}" for key in sorted(sample.labels)): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
    }


def a_view(counters: dict[str, int]) -> SpeakerFigures:
    return SpeakerFigures(NodeName("node-1"), Stats(1.0, True, counters))


def test_counters_get_the_label_that_fits_them() -> None:
    samples = exposed(a_view({"late_loops": 1, "decisions:Claimed": 2, "sent:heartbeats": 3, "novel:why": 4}))
    assert samples["berthlb_speaker_late_loops_total"] == 1
    assert samples["berthlb_speaker_decisions_total|reason=Claimed"] == 2
    assert samples["berthlb_speaker_sent_total|what=heartbeats"] == 3
    assert samples["berthlb_speaker_novel_total|reason=why"] == 4


def test_a_name_that_is_no_metric_name_does_not_spoil_the_page() -> None:
    samples = exposed(a_view({"Bad Name": 1, "": 2, "good": 3, 'quoted:a"b\nc': 4}))
    assert samples["berthlb_speaker_good_total"] == 3
    assert samples['berthlb_speaker_quoted_total|reason=a"b\nc'] == 4
    assert not any("Bad" in name for name in samples)


def test_counters_are_bounded() -> None:
    samples = exposed(a_view({f"counter_{i:04}": i for i in range(3 * MAX_COUNTERS)}))
    assert sum(name.startswith("berthlb_speaker_counter_") for name in samples) == MAX_COUNTERS


def test_before_the_announcers_first_report_the_page_is_there() -> None:
    samples = exposed(SpeakerFigures(NodeName("node-1"), None))
    assert samples["metallb_k8s_client_config_loaded_bool"] == 0
    assert not any(name.startswith("metallb_layer2") for name in samples)


def test_conflicts_are_counted_by_whether_the_address_is_withheld() -> None:
    found = [
        ConflictView(AddressText(f"192.0.2.{i}"), "02:00:00:00:00:99", LinkName("eth0"), "stranger", "", "", i > 1)
        for i in range(3)
    ]
    samples = exposed(SpeakerFigures(NodeName("node-1"), Stats(1.0, True, {}, conflicts=tuple(found))))
    assert samples["berthlb_speaker_address_conflicts|withheld=true"] == 1
    assert samples["berthlb_speaker_address_conflicts|withheld=false"] == 2


def test_peers_are_counted_by_what_is_believed_of_them() -> None:
    peers = (
        PeerView(NodeName("a"), True, 0.4, 0.0, 2, heartbeats=90, missed=10),
        PeerView(NodeName("b"), True, 0.4, 0.0, 0, suspected=True),
        PeerView(NodeName("c"), False, 0.4, 0.0, 0),
        PeerView(NodeName("d"), True, 0.4, 0.0, 0),
    )
    samples = exposed(SpeakerFigures(NodeName("node-1"), Stats(1.0, True, {}, peers=peers)))
    states = {state: samples[f"berthlb_speaker_peers|state={state}"] for state in ("alive", "suspected", "dead")}
    assert states == {"alive": 2, "suspected": 1, "dead": 1}
    assert samples["berthlb_speaker_peer_heartbeats_total|peer=a"] == 90
    assert samples["berthlb_speaker_peer_heartbeats_missed_total|peer=a"] == 10


def test_what_took_how_long_is_a_histogram_of_each_cause() -> None:
    took = {"takeover:death": Durations().with_one(0.3).with_one(70.0), "no such:death": Durations()}
    samples = exposed(SpeakerFigures(NodeName("node-1"), Stats(1.0, True, {}, took=took)))
    name = "berthlb_speaker_takeover_seconds"
    assert samples[f"{name}_bucket|cause=death|le=0.25"] == 0
    assert samples[f"{name}_bucket|cause=death|le=0.5"] == 1
    assert samples[f"{name}_bucket|cause=death|le=60.0"] == 1
    assert samples[f"{name}_count|cause=death"] == 2
    assert samples[f"{name}_sum|cause=death"] == 70.3
    assert not any("no such" in each for each in samples)
