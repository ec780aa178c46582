"""A watcher's own Lease, the directory of the others', and records that are to be won, on a real API server in
process."""

from __future__ import annotations

import time
from typing import Any

import pytest

from cluster.l2status import status_name
from cluster.node_report import REPORT_ANNOTATION
from cluster.objects import NodeName
from speaker.api.own_lease import LINKS_ANNOTATION, WrittenLease, lease_body, read_links
from speaker.api.own_report import HOLD_S
from speaker.channel import Brisk, Stats, Unheard
from speaker.directory import DirectoryChange, ListedLink, ListedSpeaker
from speaker.link import LinkName
from speaker.plan import BundleId
from speaker.protocol.effects import AskRecord, RecordAnswer
from tests.speaker.api.watched import STATUSES, WEB, Cluster, Start
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

LEASES = "/apis/coordination.k8s.io/v1/namespaces/metallb-system/leases"
OWN = ListedLink(LinkName("eth0"), b"\2\x42\0\0\0\x0b", ("192.0.2.11/24",))
OTHER = ListedLink(LinkName("eth0"), b"\2\x42\0\0\0\x0c", ("192.0.2.12/24",))


def stats(*links: ListedLink) -> Stats:
    at = time.clock_gettime(time.CLOCK_BOOTTIME)
    return Stats(at, True, {}, links=tuple(link.name for link in links), own=links)


def lease_of(cluster: Cluster, name: str = "berthlb-speaker-node-1") -> dict[str, Any]:
    return next((each for each in cluster.items(LEASES) if each["metadata"]["name"] == name), {})


def test_a_speaker_s_lease_says_where_it_is_and_goes_with_its_node(cluster: Cluster, start: Start) -> None:
    _, announcer = start()

    def told_lease() -> dict[str, Any]:
        announcer.channel.send(stats(OWN))  # as each second
        return lease_of(cluster)

    lease = wait_until(told_lease) or {}
    assert read_links(lease["metadata"]["annotations"][LINKS_ANNOTATION]) == (OWN,)
    assert lease["spec"]["holderIdentity"] == "node-1"
    announcer.channel.send(stats(OTHER))
    wait_until(
        lambda: read_links(lease_of(cluster)["metadata"]["annotations"][LINKS_ANNOTATION]) == (OTHER,), 5, "at once"
    )
    cluster.ask("DELETE", "/api/v1/nodes/node-1")
    wait_until(lambda: not lease_of(cluster))


def test_the_announcer_is_told_where_the_others_are(cluster: Cluster, start: Start) -> None:
    cluster.add_node("node-2")
    uid = cluster.ask("GET", "/api/v1/nodes/node-2")["metadata"]["uid"]
    cluster.ask(
        "POST", LEASES, lease_body(NodeName("node-2"), WrittenLease(uid, (OTHER,)), "2026-01-01T00:00:00.000000Z")
    )
    _, announcer = start()
    whole = wait_until(lambda: next(iter(announcer.of(DirectoryChange)), None))
    assert whole == DirectoryChange((ListedSpeaker(NodeName("node-2"), (OTHER,), True),), whole=True)
    renewal = {"spec": {"renewTime": "2026-01-01T00:00:10.000000Z"}}
    cluster.ask("PATCH", f"{LEASES}/berthlb-speaker-node-2", renewal)
    wait_until(lambda: announcer.of(DirectoryChange)[-1] == DirectoryChange(renewed=(NodeName("node-2"),)))
    cluster.ask("DELETE", f"{LEASES}/berthlb-speaker-node-2")
    wait_until(lambda: announcer.of(DirectoryChange)[-1] == DirectoryChange(removed=(NodeName("node-2"),)))


NODE_POOLS = "/apis/berthlb.io/v1alpha1/namespaces/metallb-system/nodeippools"


def test_who_is_unheard_is_in_the_lease_while_there_is_a_node_pool(cluster: Cluster, start: Start) -> None:
    for name in ("node-2", "node-3"):
        cluster.add_node(name)
    _, announcer = start()

    def reported() -> str:
        announcer.channel.send(stats(OWN))  # as each second
        return str(lease_of(cluster).get("metadata", {}).get("annotations", {}).get(REPORT_ANNOTATION))

    announcer.channel.send(Unheard((NodeName("node-2"),)))
    wait_until(lambda: reported() == "{}")
    assert announcer.of(Brisk) == [Brisk(False)]
    body = {"apiVersion": "berthlb.io/v1alpha1", "kind": "NodeIPPool", "metadata": {"name": "nodes"}, "spec": {}}
    cluster.ask("POST", NODE_POOLS, body)
    wait_until(lambda: announcer.of(Brisk) == [Brisk(False), Brisk(True)])
    wait_until(lambda: '"unheard":["node-2"]' in reported())
    announcer.channel.send(Unheard((NodeName("node-2"), NodeName("node-3"))))
    wait_until(lambda: '"unheard":["node-2","node-3"]' in reported(), 1.0, "at once")
    announcer.channel.send(Unheard(()))
    cluster.ask("DELETE", "/api/v1/nodes/node-3")
    wait_until(lambda: '"unheard":["node-2"]' in reported(), 1.0, "at once")
    wait_until(lambda: "unheard" not in reported(), HOLD_S + 5.0)
    cluster.ask("DELETE", f"{NODE_POOLS}/nodes")
    wait_until(lambda: reported() == "{}")
    wait_until(lambda: announcer.of(Brisk)[-1] == Brisk(False))


def test_the_announcer_s_question_for_a_record_is_answered(cluster: Cluster, start: Start) -> None:
    cluster.add_service()
    _, announcer = start()
    wait_until(lambda: announcer.announced() == {WEB})
    assert announcer.plan is not None
    bundle = announcer.plan.bundles[0]
    announcer.channel.send(AskRecord(bundle.id, bundle.services, 6, (NodeName("node-2"),)))
    announcer.channel.send(AskRecord(BundleId("no such"), bundle.services, 6, ()))
    wait_until(lambda: announcer.of(RecordAnswer) == [RecordAnswer(bundle.id, 6, NodeName("node-1"))])
    (record,) = cluster.items(STATUSES)
    assert record["metadata"]["name"] == status_name(bundle.id)
    assert record["metadata"]["annotations"] == {"berthlb.io/epoch": "6"}
