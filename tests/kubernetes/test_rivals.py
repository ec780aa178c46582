"""Others that write what the controller writes, on a real API server: tools that replace whole objects, controllers
that fill a status, people who falsify one, and another installation on the same addresses.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from functools import partial

import pytest

from tests.kubernetes.control_plane import ControlPlane
from tests.kubernetes.installation import Installation
from tests.waiting import wait_until

pytestmark = [pytest.mark.xdist_group("kubernetes"), pytest.mark.slow]

POOL_ANNOTATION = "metallb.io/ip-allocated-from-pool"
UPDATES = "metallb_k8s_client_updates_total"


@pytest.fixture
def cluster(control_plane: ControlPlane) -> Iterator[Installation]:
    with Installation(control_plane, "rivals") as cluster:
        yield cluster


def annotations_of(cluster: Installation, name: str) -> dict[str, str]:
    found: dict[str, str] = cluster.get(name)["metadata"].get("annotations", {})
    return found


def test_what_replaces_the_whole_service_is_no_rival(cluster: Installation) -> None:
    """It takes our annotation away each time, and touches no status."""
    cluster.pool("lan", "10.44.0.0/28")
    manifest = json.dumps(cluster.manifest("web"))
    cluster.kubectl("create", "-f", "-", stdin=manifest)
    wait_until(lambda: cluster.address("web") == "10.44.0.0")
    for _ in range(5):
        cluster.kubectl("replace", "-f", "-", stdin=manifest)
        assert cluster.address("web") == "10.44.0.0"
        wait_until(lambda: annotations_of(cluster, "web") == {POOL_ANNOTATION: "lan"}, message="it does not come back")
    condition = cluster.condition("web")
    assert (condition["status"], condition["reason"]) == ("True", "Assigned")
    assert cluster.metric('berthlb_controller_services_waiting{reason="Contested"}') == 0.0
    wait_until(lambda: cluster.events() == ["IPAllocated"])
    for _ in range(20):
        cluster.kubectl("replace", "-f", "-", stdin=manifest)
    assert cluster.address("web") == "10.44.0.0"
    assert cluster.metric(UPDATES) <= 8.0, "it answers each time"


def test_an_old_annotation_that_gitops_keeps_is_not_fought_over(cluster: Installation) -> None:
    cluster.pool("lan", "10.44.1.0/28")
    cluster.service("web")
    wait_until(lambda: cluster.address("web") == "10.44.1.0")
    kept = {"metallb.universe.tf/ip-allocated-from-pool": "of-old"}
    for _ in range(12):
        cluster.apply(cluster.manifest("web", **kept), "--server-side", "--force-conflicts", "--field-manager=gitops")
    cluster.service("other")
    wait_until(lambda: cluster.address("other"))
    assert cluster.metric(UPDATES) <= 3.0
    wait_until(lambda: cluster.events().count("IPAllocated") == 2)
    assert cluster.events().count("deprecatedAnnotation") <= 1
    assert cluster.condition("web")["reason"] == "Assigned"


def test_a_rival_that_writes_an_annotation_after_the_status_is_noticed(cluster: Installation) -> None:
    cluster.pool("lan", "10.44.2.0/28")
    cluster.service("web")
    wait_until(lambda: cluster.address("web") == "10.44.2.0")
    for number in range(8):
        cluster.rewrite("web", "192.168.1.7", "their-controller")
        cluster.kubectl("annotate", "service", "web", "--overwrite", f"their.example/synced={number}")
        if number < 2:
            wait_until(lambda: cluster.address("web") == "10.44.2.0", message="a slip of the hand is corrected")
    wait_until(lambda: cluster.condition("web")["reason"] == "Contested")
    assert cluster.condition("web")["message"].startswith('"their-controller" keeps replacing')
    assert cluster.address("web") == "192.168.1.7"
    assert cluster.metric(UPDATES) <= 5.0
    wait_until(lambda: "Contested" in cluster.events())
    assert cluster.events().count("Contested") == 1


def test_a_neighbours_address_is_taken_out_of_a_status_each_time_and_nobody_moves(cluster: Installation) -> None:
    cluster.pool("lan", "10.44.3.0/28")
    for name in ("thief", "victim"):
        cluster.service(name)
        wait_until(partial(cluster.address, name))
    own, theirs = cluster.address("thief"), cluster.address("victim")
    for _ in range(5):
        cluster.rewrite("thief", theirs, "kubectl")
        wait_until(lambda: cluster.address("thief") == own, 5.0, "the duplicate stands")
        assert cluster.address("victim") == theirs
    assert cluster.events().count("Contested") <= 1
    assert cluster.condition("thief")["status"] == "True"
    cluster.controller.end(signal.SIGKILL)
    cluster.rewrite("thief", theirs, "kubectl")
    cluster.start()
    cluster.controller.ready()
    wait_until(lambda: cluster.address("thief") == own, message="the duplicate stands")
    assert cluster.address("victim") == theirs
    cluster.service("new")
    wait_until(lambda: cluster.address("new") not in {"", own, theirs})


def test_the_addresses_of_a_service_that_is_being_deleted_are_nobody_else_s(cluster: Installation) -> None:
    """Finalizers hold it for as long as they like; meanwhile somebody falsifies its status, or wipes it with the
    condition, which is the record."""
    cluster.pool("lan", "10.44.7.0-10.44.7.1", "2001:db8:44::-2001:db8:44::1")
    dying = cluster.manifest("dying")
    dying["metadata"]["finalizers"] = ["example.com/wait"]
    dying["spec"]["ipFamilyPolicy"] = "RequireDualStack"
    cluster.apply(dying)
    wait_until(lambda: cluster.address("dying") == "10.44.7.0,2001:db8:44::")
    cluster.kubectl("delete", "service", "dying", "--wait=false")
    for shown in ("10.44.7.0", "2001:db8:44::"):  # a third time would be a contest
        cluster.rewrite("dying", shown, "somebody")
        wait_until(lambda: cluster.address("dying") == "10.44.7.0,2001:db8:44::", message="it is not put right")
    cluster.service("other")
    wait_until(lambda: cluster.address("other") == "10.44.7.1")
    cluster.controller.end(signal.SIGKILL)
    cluster.rewrite("dying", "10.44.7.1", "somebody")
    cluster.start()
    cluster.service("third")
    wait_until(lambda: cluster.condition("third").get("reason") == "PoolExhausted")
    wait_until(lambda: "10.44.7.1" not in cluster.address("dying"), message="the duplicate stands")
    assert cluster.address("other") == "10.44.7.1"
    cluster.kubectl("patch", "service", "dying", "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    wait_until(lambda: cluster.address("third") == "10.44.7.0")


def test_who_shows_more_than_it_was_given_loses_only_that(cluster: Installation) -> None:
    """Two addresses in one status, its own and a neighbour's; a host name beside them is let alone or goes."""
    cluster.pool("lan", "10.44.8.0/28")
    for name in ("thief", "victim"):
        cluster.service(name)
        wait_until(partial(cluster.address, name))
    own, theirs = cluster.address("thief"), cluster.address("victim")
    for ingress in ([{"ip": own}, {"ip": theirs}], [{"ip": theirs}, {"hostname": "lb.example"}], [{"ip": theirs}] * 2):
        patch = json.dumps({"status": {"loadBalancer": {"ingress": ingress}}})
        cluster.kubectl("patch", "service", "thief", "--subresource=status", "--type=merge", "-p", patch)
        wait_until(lambda: theirs not in cluster.kubectl("get", "service", "thief", "-o", "jsonpath={.status}"), 10)
        assert cluster.address("victim") == theirs
    wait_until(lambda: cluster.address("thief") == own)
    assert cluster.condition("victim")["reason"] == "Assigned"


def test_a_service_that_waits_is_not_believed_what_its_request_does_not_allow(cluster: Installation) -> None:
    cluster.pool("lan", "10.44.4.0/28")
    cluster.pool("other", "10.44.5.0/32", autoAssign=False)
    cluster.service("holder", **{"metallb.io/address-pool": "other"})
    wait_until(lambda: cluster.address("holder") == "10.44.5.0")
    for pool in ("other", "none"):
        cluster.service("web", **{"metallb.io/address-pool": pool})
        wait_until(lambda: cluster.condition("web"))
        cluster.rewrite("web", "10.44.4.3", "somebody")
        wait_until(lambda: not cluster.address("web"), message="it is believed")
        assert cluster.condition("web")["status"] == "False"


def test_two_installations_that_gave_one_address_agree_on_who_gives_way(control_plane: ControlPlane) -> None:
    """Each Service looks as its own controller wrote it, in the same moment."""
    with (
        Installation(control_plane, "one", start=False) as one,
        Installation(control_plane, "other", start=False) as other,
    ):
        both = (one, other)
        for each in both:
            each.pool("lan", "10.44.6.0/28")
            each.service("web")
            condition = {
                "type": "berthlb.io/AddressAssigned",
                "status": "True",
                "reason": "Assigned",
                "message": '10.44.6.0 from pool "lan"',
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }
            each.rewrite("web", "10.44.6.0", "berthlb-controller", conditions=[condition])
        older, newer = sorted(both, key=age)
        for each in both:
            each.start()
        wait_until(lambda: newer.address("web") == "10.44.6.1", message="both show it")
        assert older.address("web") == "10.44.6.0"
        wait_until(lambda: "ClearAssignment" in newer.events())
        said = newer.kubectl("get", "events", "-o", "jsonpath={.items[*].message}")
        assert f"10.44.6.0 belongs to {older.name}/web, which is older" in said
        for each in both:
            assert each.condition("web")["reason"] == "Assigned"
            each.service("second")
        wait_until(lambda: all(each.address("second") for each in both))
        addresses = {each.address(name) for each in both for name in ("web", "second")}
        assert len(addresses) == 4


def age(installation: Installation) -> tuple[str, str]:
    """Within one second the name decides."""
    return installation.get("web")["metadata"]["creationTimestamp"], f"{installation.name}/web"
