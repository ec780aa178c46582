"""What a watcher reads of who held what before, and what it leaves on record, on a real API server in process."""

from __future__ import annotations

import pytest

from cluster.l2status import EPOCH_ANNOTATION, status_name
from cluster.objects import AddressText, NodeName
from lab.apiserver.embedded import EmbeddedApi
from speaker.api import publisher
from speaker.channel import FormerHolders, WholePlan
from speaker.plan import BundleId
from speaker.protocol.effects import FormerHolder
from tests.speaker.api.watched import SERVICES, STATUSES, WEB, Cluster, ListeningAnnouncer, Start
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

DB = AddressText("192.0.2.2")


def uid_of(cluster: Cluster, service: str) -> BundleId:
    return BundleId(cluster.ask("GET", f"{SERVICES}/{service}")["metadata"]["uid"])


def record(cluster: Cluster, service: str, node: str, epoch: int) -> str:
    """As the speaker on a node left it."""
    name = status_name(uid_of(cluster, service))
    labels = {
        "metallb.io/node": node,
        "metallb.io/service-name": service,
        "metallb.io/service-namespace": "default",
    }
    annotations = {EPOCH_ANNOTATION: str(epoch)}
    cluster.ask("POST", STATUSES, {"metadata": {"name": name, "labels": labels, "annotations": annotations}})
    status = {"node": node, "serviceName": service, "serviceNamespace": "default"}
    cluster.ask("PATCH", f"{STATUSES}/{name}/status", {"status": status})
    return name


def told(announcer: ListeningAnnouncer) -> dict[BundleId, FormerHolder]:
    return {id_: holder for each in announcer.of(FormerHolders) for id_, holder in each.holders.items()}


def test_who_held_what_before_is_told_before_the_plan(cluster: Cluster, start: Start) -> None:
    cluster.add_service()
    cluster.add_service("db", DB)
    cluster.add_service("new", "192.0.2.3")
    record(cluster, "web", "node-1", 4)
    record(cluster, "db", "node-2", 6)
    _, announcer = start()
    wait_until(lambda: WEB in announcer.announced())
    kinds = [type(each) for each in announcer.received]
    assert kinds.index(FormerHolders) < kinds.index(WholePlan)
    assert told(announcer) == {
        uid_of(cluster, "web"): FormerHolder(NodeName("node-1"), 4),
        uid_of(cluster, "db"): FormerHolder(NodeName("node-2"), 6),
    }


def test_a_plan_does_not_wait_for_ever_for_the_records(
    cluster: Cluster, embedded_api: EmbeddedApi, start: Start
) -> None:
    cluster.add_service()
    record(cluster, "web", "node-2", 6)
    embedded_api.inject(userAgent="berthlb-speaker", path=STATUSES, status=503)
    _, announcer = start()
    wait_until(lambda: announcer.announced() == {WEB}, timeout=20)
    assert told(announcer) == {}
    embedded_api.clear_faults()
    wait_until(lambda: told(announcer) == {uid_of(cluster, "web"): FormerHolder(NodeName("node-2"), 6)}, timeout=60)


@pytest.mark.parametrize("status", [403, 404])
def test_a_plan_does_not_wait_where_there_are_no_records_to_be_read(
    cluster: Cluster, embedded_api: EmbeddedApi, start: Start, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("speaker.api.former.WAIT_S", 3600.0)
    cluster.add_service()
    embedded_api.inject(userAgent="berthlb-speaker", path=STATUSES, status=status)
    _, announcer = start()
    wait_until(lambda: announcer.announced() == {WEB})
    assert told(announcer) == {}


def test_a_record_of_this_node_stays_until_its_service_can_be_announced_again(
    cluster: Cluster, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power failure of the whole site endpoints come back minutes later than speakers. By then the record
    still says whose the Service was."""
    monkeypatch.setattr(publisher, "SUCCESSOR_S", 0.05)
    cluster.add_service(endpoints=False)
    cluster.add_service("db", DB)
    cluster.add_service("taken", "192.0.2.3")
    for service in ("web", "db", "taken"):
        record(cluster, service, "node-1", 4)
    _, announcer = start()
    wait_until(lambda: DB in announcer.announced())
    cluster.add_service("later", "192.0.2.4")
    wait_until(lambda: "192.0.2.4" in announcer.announced())
    assert cluster.statuses() == dict.fromkeys(("web", "db", "taken"), "node-1"), "the announcer may still claim all"
    announcer.hold(DB)
    announcer.report()
    wait_until(lambda: cluster.statuses() == {"web": "node-1", "db": "node-1"})
    cluster.add_slice("web")
    wait_until(lambda: WEB in announcer.announced())
    announcer.hold(DB, WEB)
    wait_until(lambda: epochs(cluster) == {"web": "1", "db": "1"})
    assert cluster.statuses() == {"web": "node-1", "db": "node-1"}


def epochs(cluster: Cluster) -> dict[str, str]:
    return {
        each["metadata"]["labels"]["metallb.io/service-name"]: each["metadata"]["annotations"][EPOCH_ANNOTATION]
        for each in cluster.items(STATUSES)
    }


def test_the_epoch_is_on_record_with_the_node(cluster: Cluster, start: Start) -> None:
    cluster.add_service()
    _, announcer = start()
    wait_until(lambda: announcer.announced() == {WEB})
    announcer.hold(WEB)
    wait_until(lambda: cluster.statuses() == {"web": "node-1"})
    assert epochs(cluster) == {"web": "1"}


def test_a_record_of_an_earlier_release_gets_its_epoch(cluster: Cluster, start: Start) -> None:
    cluster.add_service()
    name = record(cluster, "web", "node-1", 4)
    cluster.ask("PATCH", f"{STATUSES}/{name}", {"metadata": {"annotations": None}})
    _, announcer = start()
    wait_until(lambda: announcer.announced() == {WEB})
    assert told(announcer) == {uid_of(cluster, "web"): FormerHolder(NodeName("node-1"), 0)}
    announcer.hold(WEB)
    wait_until(lambda: cluster.items(STATUSES)[0]["metadata"].get("annotations") == {EPOCH_ANNOTATION: "1"})
    assert not cluster.events("nodeAssigned"), "it is no news"
