"""What the embedded API server and the real one must both make of a Service's families, in a dual-stack cluster."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from lab.layout import SERVICE_NETWORKS
from tests.kubernetes.access import Access, Answer
from tests.kubernetes.bodies import service
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

V4, V6 = "IPv4", "IPv6"
NETWORKS = {family.text: ip_network(network) for family, network in SERVICE_NETWORKS.items()}
SELECTED = {"selector": {"app": "web"}}
HEADLESS = {"clusterIP": "None"}


def asked(policy: str | None, *families: str, **spec: Any) -> dict[str, Any]:
    chosen = {"ipFamilyPolicy": policy} if policy else {}
    return SELECTED | chosen | ({"ipFamilies": list(families)} if families else {}) | spec


def addressed(*addresses: str) -> dict[str, Any]:
    return {"clusterIP": addresses[0], "clusterIPs": list(addresses)}


def families_of(spec: dict[str, Any]) -> list[str]:
    """Of a Service's ClusterIPs, of which the first is also ``clusterIP``, and each is of the cluster's networks."""
    addresses = [ip_address(each) for each in spec["clusterIPs"]]
    assert spec["clusterIP"] == spec["clusterIPs"][0]
    assert all(address in NETWORKS[f"IPv{address.version}"] for address in addresses)
    return [f"IPv{address.version}" for address in addresses]


@pytest.mark.parametrize(
    ("spec", "policy", "families"),
    [
        (asked(None), "SingleStack", [V4]),
        (asked("SingleStack"), "SingleStack", [V4]),
        (asked(None, V6), "SingleStack", [V6]),
        (asked("PreferDualStack"), "PreferDualStack", [V4, V6]),
        (asked("RequireDualStack"), "RequireDualStack", [V4, V6]),
        (asked("PreferDualStack", V6), "PreferDualStack", [V6, V4]),
        (asked("RequireDualStack", V6, V4), "RequireDualStack", [V6, V4]),
        (asked(None, clusterIPs=["fd00:10:96::77"], clusterIP="fd00:10:96::77"), "SingleStack", [V6]),
        (asked(None, clusterIP="fd00:10:96::78"), "SingleStack", [V6]),
        (asked("RequireDualStack", clusterIP="fd00:10:96::79"), "RequireDualStack", [V6, V4]),
    ],
)
def test_a_service_gets_a_cluster_address_of_each_of_its_families(
    access: Access, spec: dict[str, Any], policy: str, families: list[str]
) -> None:
    made = access.made(f"{access.core}/services", service("a", **spec))["spec"]
    assert (made["ipFamilyPolicy"], made["ipFamilies"], families_of(made)) == (policy, families, families)
    if wanted := spec.get("clusterIP"):
        assert made["clusterIP"] == wanted
    assert access.delete(f"{access.core}/services/a").status == 200


@pytest.mark.parametrize(
    ("spec", "policy", "families"),
    [
        (HEADLESS, "RequireDualStack", [V4, V6]),
        (HEADLESS | {"ipFamilies": [V6]}, "RequireDualStack", [V6, V4]),
        (HEADLESS | {"ipFamilyPolicy": "SingleStack", "ipFamilies": [V6]}, "SingleStack", [V6]),
        (asked(None, **HEADLESS), "SingleStack", [V4]),
        (asked("PreferDualStack", **HEADLESS), "PreferDualStack", [V4, V6]),
    ],
)
def test_a_headless_service_has_families_and_no_address(
    access: Access, spec: dict[str, Any], policy: str, families: list[str]
) -> None:
    made = access.made(f"{access.core}/services", service("a", **spec))["spec"]
    assert (made["ipFamilyPolicy"], made["ipFamilies"], made["clusterIPs"]) == (policy, families, ["None"])


@pytest.mark.parametrize(
    ("spec", "fields"),
    [
        (asked(None, V4, V6), ["spec.ipFamilyPolicy"]),
        (asked("SingleStack", V4, V6), ["spec.ipFamilyPolicy"]),
        (asked("SingleStack", **addressed("10.96.7.7", "fd00:10:96::7")), ["spec.ipFamilyPolicy"]),
        (asked("RequireDualStack", V4, V4), ["spec.ipFamilies[1]"]),
        (asked(None, "IPv5"), ["spec.ipFamilies[0]"]),
        (asked("Dual"), ["spec.ipFamilyPolicy"]),
        (asked("RequireDualStack", **addressed("10.96.7.7", "10.96.7.8")), ["spec.clusterIPs"]),
        (asked("RequireDualStack", **addressed("10.96.7.7", "fd00:10:96::7", "fd00:10:96::8")), ["spec.clusterIPs"]),
        (asked(None, V4, clusterIP="fd00:10:96::7"), ["spec.clusterIPs[0]"]),
        (
            asked("RequireDualStack", V6, V4, **addressed("10.96.7.7", "fd00:10:96::7")),
            ["spec.clusterIPs[0]", "spec.clusterIPs[1]"],
        ),
        (asked(None, clusterIP="10.96.7.7", clusterIPs=["10.96.7.8"]), ["spec.clusterIPs"]),
        (asked(None, clusterIPs=["10.96.7.8"]), ["spec.clusterIPs"]),
        (asked(None, clusterIP="nonsense"), ["spec.clusterIPs[0]"]),
        (asked(None, clusterIP="192.0.2.1"), ["spec.clusterIPs"]),
        (asked("RequireDualStack", **addressed("10.96.7.7", "2001:db8::1")), ["spec.clusterIPs"]),
        (asked("RequireDualStack", **addressed("None", "10.96.7.7")), ["spec.clusterIPs"]),
    ],
)
def test_families_that_contradict_each_other_are_refused(
    access: Access, spec: dict[str, Any], fields: list[str]
) -> None:
    answer = access.create(f"{access.core}/services", service("a", **spec))
    assert answer.status == 422, answer.body
    assert sorted(answer.fields) == fields, answer.body["message"]


def test_a_taken_second_address_is_refused(access: Access) -> None:
    path = f"{access.core}/services"
    both = {"ipFamilyPolicy": "RequireDualStack", **SELECTED}
    taken = access.made(path, service("a", **both))["spec"]["clusterIPs"][1]
    answer = access.create(path, service("b", **addressed("10.96.77.7", taken), **both))
    assert (answer.status, answer.fields) == (422, ["spec.clusterIPs"])


def test_a_service_gets_a_second_family_and_gives_it_back(access: Access) -> None:
    path = f"{access.core}/services"
    one = access.made(path, service("a", **SELECTED))["spec"]["clusterIPs"]
    both = patched(access, ipFamilyPolicy="RequireDualStack")
    assert both["clusterIPs"][:1] == one
    assert families_of(both) == both["ipFamilies"] == [V4, V6]
    prefers = patched(access, ipFamilyPolicy="PreferDualStack")
    assert prefers["clusterIPs"] == both["clusterIPs"]
    back = patched(access, ipFamilyPolicy="SingleStack")
    assert (back["clusterIPs"], back["ipFamilies"]) == (one, [V4])
    other = service("b", clusterIP=both["clusterIPs"][1], **SELECTED)
    # kube-apiserver frees it at once, or where that fails with its next repair of IPAddress objects, minutes later
    wait_until(lambda: access.create(path, other).status == 201, 300.0, "the second address is never free again", 0.1)


def test_a_replacement_that_says_nothing_of_families_keeps_them(access: Access) -> None:
    path = f"{access.core}/services"
    made = access.made(path, service("a", **asked("RequireDualStack", V6, V4)))
    replaced = access.ask("PUT", f"{path}/a", service("a", **SELECTED))
    assert replaced.status == 200, replaced.body
    assert replaced.body["spec"] == made["spec"]


def test_a_service_that_becomes_an_external_name_gives_both_back(access: Access) -> None:
    path = f"{access.core}/services"
    made = access.made(path, service("a", **asked("RequireDualStack")))["spec"]
    gone = access.merge(f"{path}/a", {"spec": {"type": "ExternalName", "externalName": "example.com"}})
    assert gone.status == 200, gone.body
    assert not {"clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"} & set(gone.body["spec"])
    other = access.made(path, service("b", **addressed(*made["clusterIPs"]), **asked("RequireDualStack")))
    assert other["spec"]["clusterIPs"] == made["clusterIPs"]


@pytest.mark.parametrize(
    ("change", "fields"),
    [
        ({"ipFamilies": [V6, V4]}, ["spec.clusterIPs[0]", "spec.clusterIPs[1]"]),
        ({"ipFamilies": [V4]}, ["spec.ipFamilyPolicy"]),
        ({"clusterIPs": ["10.96.88.8"], "clusterIP": "10.96.88.8"}, ["spec.ipFamilyPolicy"]),
        ({"ipFamilyPolicy": "Dual"}, ["spec.ipFamilyPolicy"]),
    ],
)
def test_a_dual_stack_service_refuses_what_its_policy_does_not_say(
    access: Access, change: dict[str, Any], fields: list[str]
) -> None:
    access.made(f"{access.core}/services", service("a", **asked("RequireDualStack")))
    answer: Answer = access.merge(f"{access.core}/services/a", {"spec": change})
    assert answer.status == 422, answer.body
    assert sorted(answer.fields) == fields, answer.body["message"]


def test_the_first_family_does_not_change_where_there_is_an_address(access: Access) -> None:
    access.made(f"{access.core}/services", service("a", **SELECTED))
    answer = access.merge(f"{access.core}/services/a", {"spec": {"ipFamilies": [V6]}})
    assert (answer.status, answer.fields) == (422, ["spec.clusterIPs[0]"])
    access.made(f"{access.core}/services", service("b", **HEADLESS, **SELECTED))
    headless = access.merge(f"{access.core}/services/b", {"spec": {"ipFamilies": [V6]}})
    assert (headless.status, headless.body["spec"]["ipFamilies"]) == (200, [V6])


def patched(access: Access, **spec: Any) -> dict[str, Any]:
    answer = access.merge(f"{access.core}/services/a", {"spec": spec})
    assert answer.status == 200, answer.body
    changed: dict[str, Any] = answer.body["spec"]
    return changed
