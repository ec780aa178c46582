"""What a watcher writes to a real API server in process about what its announcer holds."""

from __future__ import annotations

from collections import Counter

import pytest

from cluster.objects import AddressText, NodeName
from lab.apiserver.embedded import EmbeddedApi
from speaker.api import backlog, pace, publisher
from speaker.channel import WholePlan
from speaker.plan import PlanChange
from speaker.protocol.effects import Decision
from tests.speaker.api.watched import OWN, SLICES, STATUSES, WEB, Cluster, Start
from tests.waiting import wait_until

pytestmark = pytest.mark.slow


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
    announcer.report()
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
