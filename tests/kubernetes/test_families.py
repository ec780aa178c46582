"""Both families on the real API server, which has Service ranges of both, IPv4 first."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.kubernetes.control_plane import ControlPlane
from tests.kubernetes.installation import Installation
from tests.waiting import wait_until

pytestmark = [pytest.mark.xdist_group("kubernetes"), pytest.mark.slow]


@pytest.fixture
def cluster(control_plane: ControlPlane) -> Iterator[Installation]:
    with Installation(control_plane, "families") as cluster:
        yield cluster


def service(cluster: Installation, name: str, policy: str, *families: str, asks: str = "") -> None:
    body = cluster.manifest(name, **({"metallb.io/loadBalancerIPs": asks} if asks else {}))
    body["spec"] |= {"ipFamilyPolicy": policy, **({"ipFamilies": families} if families else {})}
    cluster.apply(body)


@contextmanager
def node(control_plane: ControlPlane, name: str, address: str, pods: str) -> Iterator[None]:
    """One that the whole API server has, without a kubelet."""
    body: dict[str, Any] = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}
    body["spec"] = {"podCIDR": pods, "podCIDRs": [pods]}
    status = {"status": {"addresses": [{"type": "InternalIP", "address": address}]}}
    control_plane.kubectl("create", "-f", "-", stdin=json.dumps(body))
    try:
        control_plane.kubectl("patch", "node", name, "--subresource=status", "--type=merge", "-p", json.dumps(status))
        yield
    finally:
        control_plane.kubectl("delete", "node", name)


def test_each_policy_gets_the_families_that_it_names(cluster: Installation) -> None:
    cluster.pool("lan", "10.61.0.0/24", "2001:db8:61::/64")
    service(cluster, "four", "SingleStack")
    wait_until(lambda: cluster.address("four") == "10.61.0.0")
    service(cluster, "six", "SingleStack", "IPv6")
    wait_until(lambda: cluster.address("six") == "2001:db8:61::")
    service(cluster, "prefers", "PreferDualStack", "IPv6", "IPv4")
    wait_until(lambda: cluster.address("prefers") == "2001:db8:61::1,10.61.0.1")
    service(cluster, "requires", "RequireDualStack")
    wait_until(lambda: cluster.address("requires") == "10.61.0.2,2001:db8:61::2")
    service(cluster, "requires", "SingleStack")
    wait_until(lambda: cluster.address("requires") == "10.61.0.2")

    service(cluster, "four", "PreferDualStack")
    wait_until(lambda: cluster.address("four") == "10.61.0.0,2001:db8:61::2")
    cluster.kubectl("patch", "service", "six", "--type=merge", "-p", '{"spec": {"ipFamilyPolicy": "RequireDualStack"}}')
    wait_until(lambda: cluster.address("six") == "2001:db8:61::,10.61.0.3")
    for name in ("four", "six", "prefers", "requires"):
        assert cluster.condition(name)["reason"] == "Assigned"


def test_a_family_that_cannot_be_had_is_named(cluster: Installation) -> None:
    cluster.pool("six", "2001:db8:62::/120")
    service(cluster, "prefers", "PreferDualStack")
    wait_until(lambda: cluster.address("prefers") == "2001:db8:62::")
    service(cluster, "requires", "RequireDualStack")
    wait_until(lambda: cluster.condition("requires"))
    assert cluster.condition("requires")["reason"] == "WrongFamily"
    assert cluster.condition("requires")["message"] == 'pool "six" has no IPv4 addresses'
    service(cluster, "four", "SingleStack", asks="2001:db8:62::9")
    wait_until(lambda: cluster.condition("four"))
    assert cluster.condition("four")["reason"] == "InvalidRequest"
    assert cluster.address("requires") == cluster.address("four") == ""
    cluster.pool("six", "2001:db8:62::/120", "10.62.0.6/31")
    wait_until(lambda: cluster.address("requires") == "10.62.0.6,2001:db8:62::1", message="who has none comes first")
    wait_until(lambda: set(cluster.address("prefers").split(",")) == {"10.62.0.7", "2001:db8:62::"})


def test_what_the_cluster_uses_itself_is_left_out_of_a_huge_pool_and_its_counts(
    control_plane: ControlPlane, cluster: Installation
) -> None:
    """The Service range is a ServiceCIDR of both families, which the API server makes."""
    with node(control_plane, cluster.name, "fd00:10:96::1:7", "fd00:10:96::1:8/125"):
        cluster.pool("huge", "fd00:10:96::/48")
        asked = (
            (
                "range",
                "FD00:10:96:0::000A",
                'fd00:10:96::a is in the Service range fd00:10:96::/112 (ServiceCIDR "kubernetes")',
            ),
            ("node", "fd00:10:96::1:7", f'fd00:10:96::1:7 is an address of node "{cluster.name}"'),
            (
                "pods",
                "fd00:10:96::1:9",
                f'fd00:10:96::1:9 is in the Pod range fd00:10:96::1:8/125 of node "{cluster.name}"',
            ),
        )
        for name, address, why in asked:
            service(cluster, name, "SingleStack", "IPv6", asks=address)
            wait_until(lambda name=name, why=why: cluster.condition(name).get("message", "").startswith(why))  # type: ignore[misc]  # bound now
            assert cluster.condition(name)["reason"] == "AddressReserved"
        for name, expected in (("first", "fd00:10:96::1:0"), ("second", "fd00:10:96::1:1")):
            service(cluster, name, "SingleStack", "IPv6")
            wait_until(lambda name=name, expected=expected: cluster.address(name) == expected)  # type: ignore[misc]  # bound now

        def status() -> dict[str, Any]:
            found: dict[str, Any] = json.loads(cluster.kubectl("get", "ipaddresspool", "huge", "-o", "json"))["status"]
            return found

        wait_until(lambda: status()["assignedIPv6"] == 2)
        assert status()["availableIPv6"] == 2**63 - 1, "as many as the API's integers hold"
        overlapping = next(each for each in status()["conditions"] if each["type"] == "Overlapping")
        assert overlapping["reason"] == "NodeAddress"
        assert "fd00:10:96::/112 is in the Service range" in overlapping["message"]
        given = 2.0**80 - 2**16 - 1 - 2**3
        total = 'metallb_allocator_ipv6_addresses_total{pool="huge"}'  # metrics lag behind objects
        wait_until(lambda: cluster.metric(total) == pytest.approx(given))
        wait_until(lambda: cluster.metric('metallb_allocator_ipv6_addresses_in_use_total{pool="huge"}') == 2)
