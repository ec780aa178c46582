"""Pools on the real API server: made again, and who gets which of their addresses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.kubernetes.control_plane import ControlPlane
from tests.kubernetes.installation import Installation
from tests.waiting import wait_until

pytestmark = [pytest.mark.xdist_group("kubernetes"), pytest.mark.slow]


@pytest.fixture
def cluster(control_plane: ControlPlane) -> Iterator[Installation]:
    with Installation(control_plane, "pools") as cluster:
        yield cluster


def all_at_once(cluster: Installation, *objects: dict[str, Any]) -> None:
    cluster.kubectl("create", "-f", "-", stdin=yaml.safe_dump_all(objects))


def addresses(cluster: Installation) -> dict[str, str]:
    found = json.loads(cluster.kubectl("get", "services", "-o", "json"))["items"]
    shown = {each["metadata"]["name"]: each["status"]["loadBalancer"].get("ingress", ()) for each in found}
    return {name: ",".join(each["ip"] for each in ingress) for name, ingress in shown.items()}


def test_a_pool_that_is_replaced_by_force_moves_nobody(cluster: Installation) -> None:
    cluster.pool("lan", "10.30.0.0/24")
    for name in ("r0", "r1", "r2", "r3"):
        cluster.service(name)
        wait_until(lambda name=name: cluster.address(name) == f"10.30.0.{name[1]}")  # type: ignore[misc]  # bound now
    cluster.service("pinned", **{"metallb.io/loadBalancerIPs": "10.30.0.100"})
    wait_until(lambda: cluster.address("pinned") == "10.30.0.100")
    cluster.kubectl("delete", "service", "r0", "r2")
    before = addresses(cluster)
    written = {"r1": cluster.get("r1"), "r3": cluster.get("r3"), "pinned": cluster.get("pinned")}
    body = json.loads(cluster.kubectl("get", "ipaddresspool", "lan", "-o", "json"))
    uid = body["metadata"]["uid"]
    made = {key: body[key] for key in ("apiVersion", "kind", "spec")} | {"metadata": {"name": "lan"}}
    cluster.kubectl("replace", "--force", "-f", "-", stdin=json.dumps(made))
    renewed = json.loads(cluster.kubectl("get", "ipaddresspool", "lan", "-o", "json"))
    assert renewed["metadata"]["uid"] != uid
    status = ("get", "ipaddresspool", "lan", "-o", "jsonpath={.status.assignedIPv4}")
    wait_until(lambda: cluster.kubectl(*status) == "3", message="the new object is reported on")
    assert addresses(cluster) == before
    assert {name: cluster.get(name) for name in written} == written
    wait_until(lambda: set(cluster.events()) == {"IPAllocated"})
    cluster.service("r2")
    wait_until(lambda: cluster.address("r2") == "10.30.0.2")


def test_services_made_together_have_their_addresses_in_the_order_of_their_names(cluster: Installation) -> None:
    names = [f"s{number:02}" for number in range(12)]
    all_at_once(cluster, *(cluster.manifest(name) for name in reversed(names)))
    cluster.pool("lan", "10.33.0.0/24")
    wait_until(lambda: all(addresses(cluster).values()))
    items = json.loads(cluster.kubectl("get", "services", "-o", "json"))["items"]
    ages = {each["metadata"]["name"]: each["metadata"]["creationTimestamp"] for each in items}
    expected = sorted(names, key=lambda name: (ages[name], name))
    assert len(set(ages.values())) < len(names), "some are of one second"
    assert addresses(cluster) == {name: f"10.33.0.{number}" for number, name in enumerate(expected)}


def test_one_address_asked_for_and_one_of_the_other_family(cluster: Installation) -> None:
    cluster.pool("lan", "10.34.0.0/24", "2001:db8:34::/64")
    web = cluster.manifest("web", **{"metallb.io/loadBalancerIPs": "10.34.0.7"})
    web["spec"]["ipFamilyPolicy"] = "PreferDualStack"
    cluster.apply(web)
    wait_until(lambda: cluster.address("web") == "10.34.0.7,2001:db8:34::")
    web["metadata"]["annotations"]["metallb.io/loadBalancerIPs"] = "10.34.0.8"
    cluster.apply(web)
    wait_until(lambda: cluster.address("web") == "10.34.0.8,2001:db8:34::")
