"""What a watcher tells a real API server in process of what is wrong."""

from __future__ import annotations

import pytest

from speaker.api import troubles
from speaker.channel import WholePlan
from speaker.link import LinkName
from speaker.protocol.effects import Decision
from tests.speaker.api.watched import KEY, OWN, SPEAKERS_LABEL, STATES, WEB, Cluster, Start
from tests.waiting import assert_stays, wait_until

pytestmark = pytest.mark.slow


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
