"""The watcher against a real API server in process; the test is the announcer, at the other end of the channel."""

from __future__ import annotations

import base64
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from cluster.api.client import connect
from cluster.config import GRACE_S
from cluster.objects import AddressText, NodeName
from lab.apiserver.embedded import EmbeddedApi
from speaker.api import backlog, pace, publisher, troubles
from speaker.api.feed import AT_ONCE, SPACING_S
from speaker.api.metrics import SpeakerCollector
from speaker.api.watcher import Watcher
from speaker.channel import (
    AnnouncerEnd,
    Claims,
    Credentials,
    Holding,
    Stats,
    ToAnnouncer,
    WholePlan,
    announcer_end,
    watcher_end,
)
from speaker.link import LinkName
from speaker.options import Options
from speaker.plan import Plan, PlanChange, apply_change
from speaker.protocol.effects import Decision, PeerView
from tests.waiting import assert_stays, wait_until

pytestmark = pytest.mark.slow

M = TypeVar("M")

NODE = NodeName("node-1")
WEB = AddressText("192.0.2.1")
KEY = bytes(range(32))
OWN = "/apis/metallb.io/v1beta1/namespaces/metallb-system"
SERVICES = "/api/v1/namespaces/default/services"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
STATUSES = f"{OWN}/servicel2statuses"
STATES = f"{OWN}/configurationstates"
SPEAKERS_LABEL = {"metallb.io/component-type": "speaker"}
KINDS = {
    "configurationstates": "ConfigurationState",
    "ipaddresspools": "IPAddressPool",
    "l2advertisements": "L2Advertisement",
    "servicel2statuses": "ServiceL2Status",
}


class Cluster:
    """The API as its users change it."""

    def __init__(self, api: EmbeddedApi) -> None:
        self.api = api

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        if method == "POST" and path.startswith(OWN):
            body = {"apiVersion": "metallb.io/v1beta1", "kind": KINDS[path.rpartition("/")[2]], **body}
        content = {"Content-Type": "application/merge-patch+json"} if method == "PATCH" else None
        status, answer = self.api.request(method, path, body, content)
        assert status < 300, answer
        return answer

    def items(self, path: str) -> list[Any]:
        items: list[Any] = self.ask("GET", path)["items"]
        return items

    def add_key(self, current: bytes = KEY) -> None:
        body = {"metadata": {"name": "berthlb-heartbeat"}, "data": {"current": base64.b64encode(current).decode()}}
        self.ask("POST", "/api/v1/namespaces/metallb-system/secrets", body)

    def add_node(self, name: str) -> None:
        self.ask("POST", "/api/v1/nodes", {"metadata": {"name": name}})
        ready = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
        self.ask("PATCH", f"/api/v1/nodes/{name}/status", ready)

    def add_pool(self, name: str = "lan", *addresses: str) -> None:
        spec = {"addresses": list(addresses) or ["192.0.2.0/24"]}
        self.ask("POST", f"{OWN}/ipaddresspools", {"metadata": {"name": name}, "spec": spec})

    def add_advertisement(self, name: str = "all", **spec: Any) -> None:
        self.ask("POST", f"{OWN}/l2advertisements", {"metadata": {"name": name}, "spec": spec})

    def add_service(self, name: str = "web", address: str = WEB, *, endpoints: bool = True) -> None:
        spec = {"type": "LoadBalancer", "ports": [{"port": 80}], "selector": {"app": name}}
        self.ask("POST", SERVICES, {"metadata": {"name": name}, "spec": spec})
        if endpoints:
            self.add_slice(name)
        status = {"status": {"loadBalancer": {"ingress": [{"ip": address}]}}}
        self.ask("PATCH", f"{SERVICES}/{name}/status", status)

    def add_slice(self, service: str) -> None:
        body = {
            "metadata": {"name": f"{service}-x", "labels": {"kubernetes.io/service-name": service}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.244.1.5"], "conditions": {"ready": True}, "nodeName": "node-1"}],
            "ports": [],
        }
        self.ask("POST", SLICES, body)

    def delete_service(self, name: str) -> None:
        self.ask("DELETE", f"{SERVICES}/{name}")

    def state(self, node: str = "node-1") -> dict[str, Any]:
        """The status of a speaker's ConfigurationState; empty where there is none."""
        found = [each for each in self.items(STATES) if each["metadata"]["name"] == f"speaker-{node}"]
        return dict(found[0].get("status", {})) if found else {}

    def health(self) -> dict[str, Any]:
        """The condition in which the speaker on node-1 says what keeps it from doing its part."""
        conditions = [each for each in self.state().get("conditions", ()) if each["type"] == "announcerHealthy"]
        return dict(conditions[0]) if conditions else {}

    def events(self, reason: str) -> list[Any]:
        return [each for each in self.items("/api/v1/namespaces/default/events") if each["reason"] == reason]

    def statuses(self) -> dict[str, str]:
        """The node that announces each Service, on record."""
        return {
            each["metadata"]["labels"]["metallb.io/service-name"]: each["status"]["node"]
            for each in self.items(STATUSES)
            if "status" in each
        }


class ListeningAnnouncer:
    """What the watcher takes for the announcer, and what it has been told."""

    def __init__(self, channel: AnnouncerEnd) -> None:
        self.channel = channel
        self.received: list[ToAnnouncer] = []
        self.plan: Plan | None = None

    def look(self) -> None:
        for message in self.channel.receive():
            self.received.append(message)
            if isinstance(message, WholePlan):
                self.plan = message.plan
            elif isinstance(message, PlanChange):
                assert self.plan is not None, "a change before the Plan that it changes"
                self.plan = apply_change(self.plan, message)

    def announced(self) -> set[AddressText]:
        """The addresses in the Plan, as of now."""
        self.look()
        """Addresses that the Plan says are to be announced."""
        serving = [bundle for bundle in self.plan.bundles if bundle.serving] if self.plan else []
        return {address for bundle in serving for address in bundle.addresses}

    def of(self, kind: type[M]) -> list[M]:
        self.look()
        return [message for message in self.received if isinstance(message, kind)]

    def hold(self, *addresses: AddressText, answered: bool = True) -> None:
        where: tuple[LinkName, ...] = (LinkName("eth0"),) if answered else ()
        self.channel.send(Claims(1, dict.fromkeys(addresses, Holding(1, where))))

    def tell_links(self, *names: str | None) -> None:
        """The links that there are; None: they are not known yet."""
        links = None if names == (None,) else tuple(LinkName(str(name)) for name in names)
        self.report(links=links)

    def report(self, *, ready: bool = True, links: tuple[LinkName, ...] | None = None, hears: str = "") -> None:
        """Statistics, as each second."""
        peers = (PeerView(NodeName(hears), True, 0.4, 0.01, 0),) if hears else ()
        self.channel.send(Stats(time.clock_gettime(time.CLOCK_BOOTTIME), ready, {}, peers=peers, links=links))


Start = Callable[..., tuple[Watcher, ListeningAnnouncer]]


@pytest.fixture
def cluster(embedded_api: EmbeddedApi) -> Cluster:
    """A cluster with a node, a pool, an advertisement and a heartbeat key."""
    cluster = Cluster(embedded_api)
    cluster.add_node("node-1")
    cluster.add_pool()
    cluster.add_advertisement()
    cluster.add_key()
    return cluster


@pytest.fixture
def start(embedded_api: EmbeddedApi, tmp_path: Path) -> Iterator[Start]:
    """Start a watcher, which ends with the test: ``start()`` or ``start(key=…)`` with fields of ``Options``."""
    running: list[tuple[Watcher, threading.Thread, ListeningAnnouncer]] = []

    def start_one(**options: Any) -> tuple[Watcher, ListeningAnnouncer]:
        ours, theirs = socket.socketpair()
        client = connect(embedded_api.kubeconfig(tmp_path / "kubeconfig"), user_agent="berthlb-speaker")
        watcher = Watcher(client, watcher_end(theirs), Options(**{"node": NODE, **options}))
        thread = threading.Thread(target=watcher.run, daemon=True)
        thread.start()
        announcer = ListeningAnnouncer(announcer_end(ours))
        running.append((watcher, thread, announcer))
        return watcher, announcer

    yield start_one
    for watcher, thread, announcer in running:
        watcher.stop()
        thread.join(10)
        announcer.channel.close()
        assert not thread.is_alive()


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
    embedded_api.inject(userAgent="berthlb-speaker", status=503)
    embedded_api.inject(userAgent="berthlb-speaker", closeWatches=True)
    failures = watcher.figures().watch_failures
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


# ------------------------------------------------------------------------ what is told


def test_a_held_service_gets_a_status_object_and_one_event(cluster: Cluster, start: Start) -> None:
    cluster.add_service()
    _, announcer = start()
    wait_until(lambda: announcer.announced() == {WEB})
    announcer.hold(WEB)
    wait_until(lambda: cluster.statuses() == {"web": "node-1"})
    (event,) = wait_until(lambda: cluster.events("nodeAssigned"))
    assert event["message"] == 'announcing from node "node-1" with protocol "layer2"'
    assert event["type"] == "Normal"
    assert event["involvedObject"]["name"] == "web"
    (status,) = cluster.items(STATUSES)
    assert status["metadata"]["labels"] == {
        "metallb.io/node": "node-1",
        "metallb.io/service-name": "web",
        "metallb.io/service-namespace": "default",
    }
    assert not status["metadata"].get("ownerReferences")
    announcer.hold(WEB)
    cluster.add_service("db", "192.0.2.2")
    wait_until(lambda: "192.0.2.2" in announcer.announced())
    announcer.hold(WEB, AddressText("192.0.2.2"))
    wait_until(lambda: cluster.statuses() == {"web": "node-1", "db": "node-1"})
    wait_until(lambda: len(cluster.events("nodeAssigned")) == 2)


def test_endpoints_that_are_away_for_a_moment_change_what_the_plan_says_and_nothing_on_record(
    cluster: Cluster, start: Start
) -> None:
    cluster.add_service()
    _, announcer = start()
    wait_until(lambda: announcer.announced() == {WEB})
    announcer.hold(WEB)
    wait_until(lambda: cluster.statuses() == {"web": "node-1"})
    wait_until(lambda: cluster.events("nodeAssigned"))
    (record,) = cluster.items(STATUSES)
    for serving in (False, True):
        (endpoint,) = cluster.ask("GET", f"{SLICES}/web-x")["endpoints"]
        changed = [{**endpoint, "conditions": {"ready": serving}}]
        cluster.ask("PATCH", f"{SLICES}/web-x", {"endpoints": changed})
        wait_until(lambda serving=serving: announcer.announced() == ({WEB} if serving else set()))  # type: ignore[misc]
    cluster.add_service("db", "192.0.2.2")
    wait_until(lambda: "192.0.2.2" in announcer.announced())
    announcer.hold(WEB, AddressText("192.0.2.2"))
    wait_until(lambda: len(cluster.events("nodeAssigned")) == 2)
    assert [each for each in cluster.items(STATUSES) if each["metadata"]["uid"] == record["metadata"]["uid"]] == [
        record
    ]
    assert not any(each.removed for each in announcer.of(PlanChange))


def test_interfaces_are_on_record_where_an_advertisement_names_them(
    cluster: Cluster, embedded_api: EmbeddedApi, start: Start
) -> None:
    cluster.ask("PATCH", f"{OWN}/l2advertisements/all", {"spec": {"interfaces": ["eth1"]}})
    cluster.add_service()
    _, announcer = start()
    wait_until(lambda: announcer.announced() == {WEB})
    announcer.hold(WEB)
    wait_until(
        lambda: [each.get("status", {}).get("interfaces") for each in cluster.items(STATUSES)] == [[{"name": "eth1"}]]
    )
    cluster.ask("PATCH", f"{OWN}/l2advertisements/all", {"spec": {"interfaces": []}})
    wait_until(lambda: not cluster.items(STATUSES)[0]["status"].get("interfaces"))


def without_interface(cluster: Cluster) -> list[str] | None:
    """What this node's ConfigurationState says of advertisements whose interfaces it lacks; None: nothing."""
    states = cluster.items(f"{OWN}/configurationstates")
    found: list[str] | None = states[0].get("status", {}).get("advertisementsWithoutInterface") if states else None
    return found


def test_a_node_without_the_interfaces_that_an_advertisement_names_says_so_once(cluster: Cluster, start: Start) -> None:
    cluster.ask("PATCH", f"{OWN}/l2advertisements/all", {"spec": {"interfaces": ["eth1", "eth2"]}})
    cluster.add_service()
    _, announcer = start()
    wait_until(lambda: announcer.announced() == {WEB})
    announcer.tell_links(None)
    announcer.tell_links("eth0", "eth9")
    wait_until(lambda: without_interface(cluster) == ["all"])
    message = (
        'node "node-1" cannot announce: it has no interface "eth1", "eth2", as the L2Advertisement demands; '
        "another node announces if it can"
    )
    (event,) = wait_until(lambda: cluster.events("announceFailed"))
    assert (event["involvedObject"]["name"], event["type"], event["message"]) == ("web", "Warning", message)
    state = cluster.items(f"{OWN}/configurationstates")[0]["status"]
    assert (state["result"], state["errorSummary"]) == ("Valid", "")
    announcer.tell_links("eth0")
    announcer.tell_links("eth0", "eth2")
    wait_until(lambda: without_interface(cluster) == [])
    cluster.add_advertisement("other", interfaces=["eth7"])
    wait_until(lambda: without_interface(cluster) == ["other"])
    assert len(cluster.events("announceFailed")) == 1


def test_an_advertisement_for_other_nodes_is_not_missed_here(cluster: Cluster, start: Start) -> None:
    selectors = [{"matchLabels": {"rack": "a"}}]
    cluster.ask("PATCH", f"{OWN}/l2advertisements/all", {"spec": {"interfaces": ["eth1"], "nodeSelectors": selectors}})
    _, announcer = start()
    wait_until(lambda: announcer.of(WholePlan))
    announcer.tell_links("eth0")
    wait_until(lambda: without_interface(cluster) == [])
    cluster.ask("PATCH", "/api/v1/nodes/node-1", {"metadata": {"labels": {"rack": "a"}}})
    wait_until(lambda: without_interface(cluster) == ["all"])


def test_the_next_holder_takes_the_status_object_over_and_the_former_leaves_it(
    cluster: Cluster, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "SUCCESSOR_S", 0.05)
    cluster.add_node("node-2")
    cluster.add_service()
    _, announcer = start()
    wait_until(lambda: announcer.announced() == {WEB})
    announcer.hold(WEB)
    wait_until(lambda: cluster.statuses() == {"web": "node-1"})
    (before,) = cluster.items(STATUSES)
    name = before["metadata"]["name"]
    # What the speaker on node-2 does when it takes over.
    cluster.ask("PATCH", f"{STATUSES}/{name}", {"metadata": {"labels": {"metallb.io/node": "node-2"}}})
    cluster.ask("PATCH", f"{STATUSES}/{name}/status", {"status": {"node": "node-2"}})
    announcer.hold()
    cluster.add_service("db", "192.0.2.2")
    wait_until(lambda: "192.0.2.2" in announcer.announced())
    announcer.hold(AddressText("192.0.2.2"))
    wait_until(lambda: cluster.statuses() == {"web": "node-2", "db": "node-1"})
    announcer.hold(WEB)
    wait_until(lambda: cluster.statuses() == {"web": "node-1"})
    (after,) = cluster.items(STATUSES)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]


def test_two_holders_on_both_sides_of_a_partition_do_not_overwrite_each_other_in_turns(
    cluster: Cluster, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "SUCCESSOR_S", 0.05)
    monkeypatch.setattr(publisher, "LOOK_S", 0.05)
    cluster.add_service()
    watcher, announcer = start()
    wait_until(lambda: announcer.announced() == {WEB})
    announcer.hold(WEB)
    wait_until(lambda: cluster.statuses() == {"web": "node-1"})
    name = cluster.items(STATUSES)[0]["metadata"]["name"]
    cluster.ask("PATCH", f"{STATUSES}/{name}", {"metadata": {"labels": {"metallb.io/node": "node-2"}}})
    cluster.ask("PATCH", f"{STATUSES}/{name}/status", {"status": {"node": "node-2"}})
    looked = watcher.figures().writes + 3
    wait_until(lambda: watcher.figures().writes >= looked)
    cluster.add_service("db", "192.0.2.2")
    wait_until(lambda: "192.0.2.2" in announcer.announced())
    announcer.hold(WEB, AddressText("192.0.2.2"))
    wait_until(lambda: "db" in cluster.statuses())
    assert cluster.statuses()["web"] == "node-2"


def test_a_status_object_that_somebody_deletes_comes_back(
    cluster: Cluster, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "LOOK_S", 0.05)
    cluster.add_service()
    _, announcer = start()
    wait_until(lambda: announcer.announced() == {WEB})
    announcer.hold(WEB)
    wait_until(lambda: cluster.statuses() == {"web": "node-1"})
    (before,) = cluster.items(STATUSES)
    cluster.ask("DELETE", f"{STATUSES}/{before['metadata']['name']}")
    wait_until(lambda: cluster.statuses() == {"web": "node-1"})
    assert cluster.items(STATUSES)[0]["metadata"]["uid"] != before["metadata"]["uid"]


def test_a_status_object_that_another_holder_wrote_over_and_gave_up_comes_back(
    cluster: Cluster, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two nodes hold an address for a moment. The one that loses it deletes the object, which names it by then, and
    nobody tells the other, whose watch shows only what names itself."""
    monkeypatch.setattr(publisher, "SUCCESSOR_S", 0.3)
    monkeypatch.setattr(publisher, "LOOK_S", 0.05)
    cluster.add_node("node-2")
    cluster.add_service()
    _, first = start()
    _, second = start(node=NodeName("node-2"))
    for announcer in (first, second):
        wait_until(lambda announcer=announcer: announcer.announced() == {WEB})  # type: ignore[misc]
    first.hold(WEB)
    wait_until(lambda: cluster.statuses() == {"web": "node-1"})
    second.hold(WEB)
    wait_until(lambda: cluster.statuses() == {"web": "node-2"})
    second.hold()
    wait_until(lambda: cluster.statuses() == {"web": "node-1"})


def test_the_status_object_goes_with_its_service_and_with_what_was_left_over(
    cluster: Cluster, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "SUCCESSOR_S", 0.05)
    left_over = {"metadata": {"name": "l2-old", "labels": {"metallb.io/node": "node-1"}}}
    cluster.ask("POST", STATUSES, left_over)
    elsewhere = {"metadata": {"name": "l2-elsewhere", "labels": {"metallb.io/node": "node-2"}}}
    cluster.ask("POST", STATUSES, elsewhere)
    cluster.add_service()
    _, announcer = start()
    wait_until(lambda: announcer.announced() == {WEB})
    announcer.hold(WEB)
    wait_until(lambda: cluster.statuses() == {"web": "node-1"})
    cluster.delete_service("web")
    wait_until(lambda: announcer.announced() == set())
    announcer.hold()
    wait_until(lambda: [each["metadata"]["name"] for each in cluster.items(STATUSES)] == ["l2-elsewhere"])


def test_where_the_node_on_record_is_immutable_the_object_is_made_anew(
    cluster: Cluster, embedded_api: EmbeddedApi, start: Start
) -> None:
    """MetalLB's own CRD refuses to change ``status.node``."""
    cluster.add_service()
    _, announcer = start()
    wait_until(lambda: announcer.announced() == {WEB})
    embedded_api.inject(path=STATUSES, verb="patch", status=422, count=1)
    announcer.hold(WEB)
    wait_until(lambda: cluster.statuses() == {"web": "node-1"})


def test_a_watcher_that_starts_anew_repeats_no_event(cluster: Cluster, start: Start) -> None:
    cluster.add_service()
    first, announcer = start()
    wait_until(lambda: announcer.announced() == {WEB})
    announcer.hold(WEB)
    wait_until(lambda: cluster.statuses() == {"web": "node-1"})
    wait_until(lambda: len(cluster.events("nodeAssigned")) == 1)
    first.stop()
    _, announcer = start()
    announcer.hold(WEB)
    wait_until(lambda: announcer.announced() == {WEB})
    cluster.add_service("db", "192.0.2.2")
    wait_until(lambda: "192.0.2.2" in announcer.announced())
    announcer.hold(WEB, AddressText("192.0.2.2"))
    wait_until(lambda: cluster.statuses().get("db"))
    wait_until(lambda: len(cluster.events("nodeAssigned")) > 1)
    assert sorted(each["involvedObject"]["name"] for each in cluster.events("nodeAssigned")) == ["db", "web"]


def test_a_new_service_is_recorded_without_asking_what_is_there(
    cluster: Cluster, embedded_api: EmbeddedApi, start: Start
) -> None:
    cluster.add_service()
    _, announcer = start()
    wait_until(lambda: announcer.announced() == {WEB})
    embedded_api.inject(userAgent="berthlb-speaker", path=STATUSES, verb="get", status=503)
    announcer.hold(WEB)
    wait_until(lambda: cluster.statuses() == {"web": "node-1"})


def test_of_very_many_services_at_once_the_events_that_nobody_would_read_become_one_on_the_node(
    cluster: Cluster, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its status object tells of each Service; and while Services still wait for their addresses little is written."""
    monkeypatch.setattr(backlog, "MAX_NEWS", 5)
    addresses = [AddressText(f"192.0.2.{number}") for number in range(1, 31)]
    for number, address in enumerate(addresses):
        cluster.add_service(f"s{number}", address)
    watcher, announcer = start()
    wait_until(lambda: announcer.announced() == set(addresses))
    announcer.hold(*addresses)
    wait_until(lambda: len(cluster.statuses()) == len(addresses), 30)
    wait_until(lambda: watcher.figures().lag.writes == 0, 30)
    events = cluster.events("nodeAssigned")
    assert watcher.figures().lag.oldest_s == 0.0
    kinds = Counter(event["involvedObject"]["kind"] for event in events)
    merged = [event["message"] for event in events if event["involvedObject"]["kind"] == "Node"]
    assert kinds["Service"] + sum(int(message.split()[1]) for message in merged) == len(addresses)
    assert 1 <= len(merged) <= 3
    assert "more Services from node" in merged[0]


def test_while_services_wait_for_addresses_little_is_written_and_warnings_all_the_same(
    cluster: Cluster, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "BURST", 4)
    for name in ("QUIET_S", "REFILL_S", "HOLD_S"):
        monkeypatch.setattr(pace, name, 3600.0)
    addresses = [AddressText(f"192.0.2.{number}") for number in range(1, 7)]
    for number, address in enumerate(addresses):
        cluster.add_service(f"s{number}", address)
    watcher, announcer = start()
    wait_until(lambda: announcer.announced() == set(addresses))
    announcer.hold(*addresses)
    waiting = 2 * len(addresses) - 4  # a status object and an Event for each
    wait_until(lambda: watcher.figures().lag.writes == waiting)
    announcer.channel.send(Decision("AddressConflict", {"address": addresses[0], "mac": "02:00:00:00:00:99"}))
    wait_until(lambda: cluster.events("AddressConflict"))
    wait_until(lambda: watcher.figures().lag.oldest_s > 0.5)
    assert watcher.figures().lag.writes == waiting


def test_news_that_is_no_longer_true_when_its_turn_comes_is_not_told(
    cluster: Cluster, embedded_api: EmbeddedApi, start: Start
) -> None:
    for name, address in (("web", WEB), ("db", "192.0.2.2"), ("mail", "192.0.2.3")):
        cluster.add_service(name, address)
    watcher, announcer = start()
    wait_until(lambda: len(announcer.announced()) == 3)
    embedded_api.inject(userAgent="berthlb-speaker", path=STATUSES, verb="create", latency=1.0, status=503, count=1)
    announcer.hold(WEB, AddressText("192.0.2.2"))
    wait_until(lambda: watcher.figures().lag.writes >= 3)
    announcer.hold(AddressText("192.0.2.2"), AddressText("192.0.2.3"))
    wait_until(lambda: len(cluster.events("nodeAssigned")) == 2)
    assert {each["involvedObject"]["name"] for each in cluster.events("nodeAssigned")} == {"db", "mail"}


def test_writes_that_fail_are_repeated_and_never_hold_the_plan_up(
    cluster: Cluster, embedded_api: EmbeddedApi, start: Start
) -> None:
    cluster.add_service()
    _, announcer = start()
    wait_until(lambda: announcer.announced() == {WEB})
    embedded_api.inject(path=STATUSES, verb="create", latency=2.0, status=503, count=1)
    announcer.hold(WEB)
    cluster.add_service("db", "192.0.2.2")
    wait_until(lambda: "192.0.2.2" in announcer.announced())
    assert cluster.statuses() == {}, "the Plan waited for a write"
    wait_until(lambda: cluster.statuses() == {"web": "node-1"})


def test_a_rival_is_named_in_one_event(cluster: Cluster, start: Start) -> None:
    cluster.add_service()
    _, announcer = start()
    wait_until(lambda: announcer.announced() == {WEB})
    announcer.hold(WEB)
    for mac in ("02:00:00:00:00:99", "02:00:00:00:00:99", "02:00:00:00:00:77"):
        announcer.channel.send(Decision("AddressConflict", {"address": WEB, "mac": mac, "link": "eth0"}))
    wait_until(lambda: len(cluster.events("AddressConflict")) == 2)
    first, second = cluster.events("AddressConflict")
    assert first["type"] == "Warning"
    assert "02:00:00:00:00:99 on eth0 also answers for 192.0.2.1" in first["message"]
    assert "02:00:00:00:00:77" in second["message"]


def test_a_machine_of_the_same_name_is_told_of_on_the_node(cluster: Cluster, start: Start) -> None:
    watcher, announcer = start()
    wait_until(lambda: announcer.of(WholePlan))
    twin = {"node": "node-1", "mac": "02:00:00:00:00:99", "address": "192.0.2.99", "link": "eth0"}
    for _ in range(3):
        announcer.channel.send(Decision("DuplicateNode", dict(twin), at=1_790_000_000.0))
    (event,) = wait_until(lambda: cluster.events("DuplicateNode"))
    uid = cluster.ask("GET", "/api/v1/nodes/node-1")["metadata"]["uid"]
    involved = {"apiVersion": "v1", "kind": "Node", "name": "node-1", "uid": uid}
    assert (event["type"], event["involvedObject"]) == ("Warning", involved)
    assert "MAC 02:00:00:00:00:99, address 192.0.2.99" in event["message"]
    assert event["firstTimestamp"] == "2026-09-21T14:13:20Z", "the time of the decision"
    announcer.report()
    wait_until(lambda: "calls itself node-1 too" in cluster.health().get("message", ""))
    wait_until(lambda: watcher.ready() is None)
    assert "calls itself node-1 too" in (watcher.remarks() or "")
    assert watcher.figures().troubles == ("DuplicateNode",)


def test_who_hears_nobody_though_others_run_speakers_says_so(
    cluster: Cluster, start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(troubles, "PATIENCE_S", 0.2)
    caplog.set_level("INFO")
    cluster.add_node("node-2")
    watcher, announcer = start()
    wait_until(lambda: announcer.of(WholePlan))

    def told(hears: str = "") -> str:
        announcer.report(links=(LinkName("eth0"),), hears=hears)
        return watcher.remarks() or ""

    assert_stays(lambda: not told(), 0.5, "node-2 runs no speaker")
    cluster.ask("POST", STATES, {"metadata": {"name": "speaker-node-2", "labels": SPEAKERS_LABEL}})
    wait_until(lambda: "no other speaker is heard" in told())
    assert "UDP port 7948" in told()
    assert "there are speakers on node-2" in told()
    (event,) = wait_until(lambda: cluster.events("NobodyHeard"))
    assert event["involvedObject"]["kind"] == "Node"
    wait_until(lambda: cluster.health().get("reason") == "NobodyHeard")
    wait_until(lambda: told("node-2") == "")
    wait_until(lambda: cluster.health().get("status") == "True")
    said = [(each.message, vars(each)["reason"]) for each in caplog.records if each.message.startswith("trouble")]
    assert said == [("trouble", "NobodyHeard"), ("trouble over", "NobodyHeard")]


def test_a_node_without_usable_interface_says_so(
    cluster: Cluster, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(troubles, "BARE_S", 0.1)
    watcher, announcer = start()

    def told() -> str:
        announcer.report(ready=False, links=())
        return watcher.ready() or ""

    wait_until(lambda: "node node-1 has no interface to announce on" in told())
    wait_until(lambda: cluster.health().get("reason") == "NoUsableInterface")
    wait_until(lambda: cluster.events("NoUsableInterface"))


def test_an_interface_that_is_named_and_cannot_be_announced_on_is_told_of(cluster: Cluster, start: Start) -> None:
    """The loopback interface is there, on every machine."""
    cluster.ask("PATCH", f"{OWN}/l2advertisements/all", {"spec": {"interfaces": ["lo", "eth0"]}})
    watcher, announcer = start()
    wait_until(lambda: announcer.of(WholePlan))

    def told() -> str:
        announcer.tell_links("eth0")
        return watcher.remarks() or ""

    wait_until(lambda: "names lo, which node node-1 has" in told())
    wait_until(lambda: cluster.health().get("reason") == "UnusableInterface")


def test_a_namespace_that_does_not_exist_is_named(cluster: Cluster, start: Start) -> None:
    watcher, announcer = start(namespace="nowhere", key=KEY)

    def told() -> str:
        announcer.report()
        return watcher.ready() or ""

    wait_until(lambda: "namespace nowhere" in told())
    cluster.ask("POST", "/api/v1/namespaces", {"metadata": {"name": "nowhere"}})
    pool = {"metadata": {"name": "lan"}, "spec": {"addresses": ["192.0.2.0/24"]}}
    kind = {"apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool"}
    cluster.ask("POST", "/apis/metallb.io/v1beta1/namespaces/nowhere/ipaddresspools", {**kind, **pool})
    wait_until(lambda: not told())


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
