"""What a watcher on a real API server in process sends its announcer, and what it shows; the test is the announcer."""

from __future__ import annotations

import base64
import threading
import time
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from cluster.config import GRACE_S
from cluster.objects import AddressText, NodeName
from lab.apiserver.embedded import EmbeddedApi
from speaker.api.feed import AT_ONCE, SPACING_S
from speaker.api.metrics import SpeakerCollector
from speaker.channel import Credentials, ExcludedInterfaces, Stats, WholePlan
from speaker.exclusion import DEFAULT
from speaker.plan import PlanChange
from speaker.protocol.effects import PeerView
from tests.speaker.api.watched import KEY, OWN, WEB, Cluster, Start
from tests.waiting import wait_until

pytestmark = pytest.mark.slow


# ------------------------------------------------------------------------ the Plan


def test_credentials_and_one_whole_plan_are_sent_and_then_changes(cluster: Cluster, start: Start) -> None:
    cluster.add_service()
    _, announcer = start()
    wait_until(lambda: announcer.announced() == {WEB})
    kube_system = cluster.ask("GET", "/api/v1/namespaces/kube-system")["metadata"]["uid"]
    wait_until(lambda: announcer.of(Credentials) == [Credentials(kube_system, (KEY,))])
    assert len(announcer.of(WholePlan)) == 1
    cluster.add_service("db", "192.0.2.2")
    wait_until(lambda: announcer.announced() == {WEB, "192.0.2.2"})
    cluster.delete_service("web")
    wait_until(lambda: announcer.announced() == {"192.0.2.2"})
    assert len(announcer.of(WholePlan)) == 1
    revisions = [each.revision for each in announcer.of(PlanChange)]
    assert revisions == sorted(set(revisions))


def test_of_many_changes_in_a_row_few_go_out(cluster: Cluster, start: Start) -> None:
    """Sent one by one they cost twice the time, when there is the least of it."""
    _, announcer = start()
    wait_until(lambda: announcer.of(WholePlan))
    began = time.monotonic()
    wanted = {AddressText(f"192.0.2.{number}") for number in range(1, 61)}
    for address in sorted(wanted):
        cluster.add_service(f"web-{address.rpartition('.')[2]}", address)
    wait_until(lambda: announcer.announced() == wanted)
    lasted = time.monotonic() - began
    assert len(announcer.of(PlanChange)) <= AT_ONCE + 1 + lasted / SPACING_S


def test_pools_and_advertisements_that_are_made_again_at_once_are_no_news(cluster: Cluster, start: Start) -> None:
    """``kubectl replace --force``, and hooks of Helm and Argo CD. Those that stay away are missed after a while."""
    cluster.add_service()
    _, announcer = start()
    wait_until(lambda: announcer.announced() == {WEB})
    cluster.ask("DELETE", f"{OWN}/ipaddresspools/lan")
    cluster.ask("DELETE", f"{OWN}/l2advertisements/all")
    cluster.add_service("other", "192.0.2.2")
    wait_until(lambda: announcer.announced() == {WEB, "192.0.2.2"})
    cluster.add_pool()
    cluster.add_advertisement()
    cluster.ask("DELETE", f"{OWN}/l2advertisements/all")
    cluster.add_service("third", "192.0.2.3")
    wait_until(lambda: announcer.announced() == {WEB, "192.0.2.2", "192.0.2.3"})
    assert [each for each in announcer.of(PlanChange) if each.removed] == []
    wait_until(lambda: announcer.announced() == set(), timeout=GRACE_S + 20)


def test_no_plan_before_every_cache_is_synced(cluster: Cluster, embedded_api: EmbeddedApi, start: Start) -> None:
    """A Plan without the slices would take every address away."""
    cluster.add_service()
    embedded_api.inject(path="/apis/discovery.k8s.io", status=503)
    watcher, announcer = start()
    wait_until(lambda: announcer.of(Credentials))
    wait_until(lambda: "not synced: endpointslices" in (watcher.ready() or ""))
    assert announcer.of(WholePlan) == []
    embedded_api.clear_faults()
    wait_until(lambda: announcer.of(WholePlan), timeout=20)
    assert announcer.announced() == {WEB}


def test_kinds_that_people_only_read_are_not_missed(
    cluster: Cluster, embedded_api: EmbeddedApi, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    """The definitions of an older MetalLB are installed, without ConfigurationState or ServiceL2Status."""
    for plural in ("configurationstates", "servicel2statuses"):
        embedded_api.inject(path=f"{OWN}/{plural}", status=404)
    cluster.add_service()
    watcher, announcer = start()
    wait_until(lambda: announcer.announced() == {WEB})
    announcer.hold(WEB)
    announcer.report()
    wait_until(lambda: watcher.ready() is None)
    wait_until(lambda: watcher.figures().write_errors >= 8)
    missing = [vars(each)["resource"] for each in caplog.records if each.message == "the server has no such kind"]
    assert sorted(missing) == ["configurationstates.metallb.io", "servicel2statuses.metallb.io"]
    failed = [vars(each)["write"] for each in caplog.records if each.message == "write failed"]
    assert 0 < len(failed) < watcher.figures().write_errors
    assert not [each for each in caplog.records if each.message == "list or watch failed"]


def test_an_api_server_that_is_away_changes_nothing(cluster: Cluster, embedded_api: EmbeddedApi, start: Start) -> None:
    cluster.add_service()
    watcher, announcer = start()
    wait_until(lambda: announcer.announced() == {WEB})
    failures = watcher.figures().watch_failures
    embedded_api.inject(userAgent="berthlb-speaker", status=503)
    embedded_api.inject(userAgent="berthlb-speaker", closeWatches=True)
    wait_until(lambda: all(watcher.figures().watch_failures[each] > failures[each] for each in failures))
    announcer.channel.send(Stats(time.clock_gettime(time.CLOCK_BOOTTIME), True, {}))
    wait_until(lambda: watcher.ready() is None)
    assert watcher.healthy() is None
    assert announcer.announced() == {WEB}
    assert announcer.of(PlanChange) == []


def test_a_pool_that_does_not_parse_leaves_the_plan_alone_and_is_named_once(cluster: Cluster, start: Start) -> None:
    cluster.add_service()
    _, announcer = start()
    wait_until(lambda: announcer.announced() == {WEB})
    states = f"{OWN}/configurationstates/speaker-node-1"
    wait_until(lambda: cluster.ask("GET", f"{OWN}/configurationstates")["items"])
    wait_until(lambda: cluster.ask("GET", states).get("status", {}).get("result") == "Valid")
    cluster.ask("PATCH", f"{OWN}/ipaddresspools/lan", {"spec": {"addresses": ["192.0.2.9-192.0.2.1"]}})
    state = wait_until(lambda: (found := cluster.ask("GET", states))["status"]["result"] == "Invalid" and found)
    assert "IPAddressPool lan: spec.addresses[0]" in state["status"]["errorSummary"]
    assert state["metadata"]["labels"] == {"metallb.io/component-type": "speaker", "metallb.io/node-name": "node-1"}
    assert announcer.announced() == {WEB}
    cluster.ask("PATCH", f"{OWN}/ipaddresspools/lan", {"spec": {"addresses": ["192.0.2.0/25"]}})
    state = wait_until(lambda: (found := cluster.ask("GET", states))["status"]["result"] == "Valid" and found)
    assert not state["status"].get("errorSummary")
    assert announcer.announced() == {WEB}


# ------------------------------------------------------------------------ excluded interfaces


def test_excluded_interfaces_take_effect_as_they_come_and_a_bad_list_is_named(cluster: Cluster, start: Start) -> None:
    """The ConfigMap that MetalLB's users have."""
    _, announcer = start()
    wait_until(lambda: announcer.of(WholePlan))
    kinds = [type(message) for message in announcer.received]
    assert kinds.index(ExcludedInterfaces) < kinds.index(WholePlan)
    assert announcer.of(ExcludedInterfaces) == [ExcludedInterfaces(DEFAULT.patterns)]
    maps, name = "/api/v1/namespaces/metallb-system/configmaps", "metallb-excludel2"

    def data(*patterns: str) -> dict[str, Any]:
        lines = ["announcedInterfacesToExclude:", *(f"- {pattern}" for pattern in patterns)]
        return {"data": {"excludel2.yaml": "\n".join(lines)}}

    cluster.ask("POST", maps, {"metadata": {"name": "another"}, **data("^eth")})
    cluster.ask("POST", maps, {"metadata": {"name": name}, **data("^lo$", "^wl")})
    wait_until(lambda: announcer.of(ExcludedInterfaces)[-1] == ExcludedInterfaces(("^lo$", "^wl")))
    cluster.ask("PATCH", f"{maps}/{name}", data("^lo$", "(?=wl)"))
    wait_until(lambda: cluster.state().get("result") == "Invalid")
    assert "ConfigMap metallb-excludel2: data[excludel2.yaml]" in cluster.state()["errorSummary"]
    cluster.ask("PATCH", f"{maps}/{name}", data("^lo$"))
    wait_until(lambda: cluster.state().get("result") == "Valid")
    wait_until(lambda: [len(each.patterns) for each in announcer.of(ExcludedInterfaces)] == [14, 2, 1])


# ------------------------------------------------------------------------ the key


def test_without_a_key_it_is_not_ready_and_says_so_until_there_is_one(embedded_api: EmbeddedApi, start: Start) -> None:
    cluster = Cluster(embedded_api)
    watcher, announcer = start()
    wait_until(lambda: announcer.of(WholePlan))
    assert "no heartbeat key: Secret metallb-system/berthlb-heartbeat does not exist" in (watcher.ready() or "")
    cluster.add_key(b"short")
    wait_until(lambda: "has a current that has 5 bytes" in (watcher.ready() or ""))
    assert announcer.of(Credentials) == []
    secret = "/api/v1/namespaces/metallb-system/secrets/berthlb-heartbeat"
    cluster.ask("PATCH", secret, {"data": {"current": base64.b64encode(KEY).decode()}})
    wait_until(lambda: [each.keys for each in announcer.of(Credentials)] == [(KEY,)])
    newer = {"current": base64.b64encode(b"n" * 32).decode(), "previous": base64.b64encode(KEY).decode()}
    cluster.ask("PATCH", secret, {"data": newer})
    wait_until(lambda: announcer.of(Credentials)[-1].keys == (b"n" * 32, KEY))


def test_a_key_of_its_own_needs_no_secret(embedded_api: EmbeddedApi, start: Start) -> None:
    embedded_api.inject(path="/api/v1/namespaces/metallb-system/secrets", status=403)
    _, announcer = start(key=b"f" * 32)
    wait_until(lambda: [each.keys for each in announcer.of(Credentials)] == [(b"f" * 32,)])


# ------------------------------------------------------------------------ what is shown


def test_announced_is_only_what_is_answered(cluster: Cluster, start: Start) -> None:
    cluster.add_service()
    watcher, announcer = start()
    wait_until(lambda: announcer.announced() == {WEB})
    announcer.hold(WEB)
    wait_until(lambda: watcher.figures().announced == (("default/web", WEB),))
    wait_until(lambda: cluster.statuses() == {"web": "node-1"})
    announcer.hold(WEB, answered=False)
    wait_until(lambda: watcher.figures().announced == ())
    assert cluster.statuses() == {"web": "node-1"}


def test_health_is_the_age_of_the_announcers_last_loop(cluster: Cluster, start: Start) -> None:
    watcher, announcer = start()
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    announcer.channel.send(Stats(now - 60, True, {}))
    wait_until(lambda: (watcher.healthy() or "").startswith("the announcer's last loop was 60"))
    announcer.channel.send(Stats(now, True, {}))
    wait_until(lambda: watcher.healthy() is None)


def test_ready_once_key_caches_and_announcer_are(cluster: Cluster, start: Start) -> None:
    watcher, announcer = start()
    wait_until(lambda: watcher.ready() == "the announcer is not ready")
    announcer.channel.send(Stats(time.clock_gettime(time.CLOCK_BOOTTIME), True, {}))
    wait_until(lambda: watcher.ready() is None)


def test_metrics_have_the_names_that_dashboards_know(cluster: Cluster, start: Start) -> None:
    cluster.add_service()
    watcher, announcer = start()
    wait_until(lambda: announcer.announced() == {WEB})
    announcer.hold(WEB)
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    counters = {"frames_dropped:not_held": 5, "conflicts": 2}
    peers = (PeerView(NodeName("node-2"), True, 0.4, 0.01, 3),)
    announcer.channel.send(
        Stats(now, True, counters, {WEB: 7}, {WEB: 9}, peers, passes=(5, 1, 0, 0, 0, 1), passes_s=0.75)
    )
    registry = CollectorRegistry()
    registry.register(SpeakerCollector(watcher.figures))
    wait_until(lambda: watcher.figures().announced and watcher.figures().stats)
    lines = generate_latest(registry).decode().splitlines()
    for line in (
        'metallb_speaker_announced{ip="192.0.2.1",node="node-1",protocol="layer2",service="default/web"} 1.0',
        'metallb_layer2_requests_received{ip="192.0.2.1"} 7.0',
        'metallb_layer2_responses_sent{ip="192.0.2.1"} 7.0',
        'metallb_layer2_gratuitous_sent{ip="192.0.2.1"} 9.0',
        "metallb_k8s_client_config_loaded_bool 1.0",
        "metallb_k8s_client_config_stale_bool 0.0",
        'berthlb_speaker_frames_dropped_total{reason="not_held"} 5.0',
        "berthlb_speaker_conflicts_total 2.0",
        'berthlb_speaker_loop_seconds_bucket{le="0.005"} 6.0',
        'berthlb_speaker_loop_seconds_bucket{le="+Inf"} 7.0',
        "berthlb_speaker_loop_seconds_sum 0.75",
        'berthlb_speaker_peer_detection_seconds{peer="node-2"} 0.4',
    ):
        assert line in lines
    assert any(line.startswith("metallb_k8s_client_updates_total ") for line in lines)


def test_the_watcher_ends_with_the_announcer(cluster: Cluster, start: Start) -> None:
    _, announcer = start()
    wait_until(lambda: announcer.of(WholePlan))
    announcer.channel.close()
    # The fixture asserts that the thread has ended; ``stop`` comes after a look that it ended by itself.
    wait_until(lambda: not [each for each in threading.enumerate() if each.name == "reflect-services"])
