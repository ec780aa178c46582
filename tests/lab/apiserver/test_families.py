"""Services in a cluster of one family. What both families do is a matter of the contract with the real server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from cluster.addresses import Family
from lab.apiserver.embedded import EmbeddedApi
from lab.layout import SERVICE_NETWORKS

SERVICES = "/api/v1/namespaces/default/services"


@pytest.fixture(scope="module", params=list(Family))
def api(request: pytest.FixtureRequest) -> Iterator[EmbeddedApi]:
    with EmbeddedApi(service_networks={request.param: SERVICE_NETWORKS[request.param]}) as api:
        yield api


def ask(api: EmbeddedApi, name: str, **spec: Any) -> tuple[int, Any]:
    body = {"metadata": {"name": name}, "spec": {"ports": [{"port": 80}], "selector": {"app": "web"}, **spec}}
    return api.request("POST", SERVICES, body)


def only(api: EmbeddedApi) -> str:
    """The cluster's family, as its ServiceCIDR says it."""
    cidrs = api.request("GET", "/apis/networking.k8s.io/v1/servicecidrs/kubernetes")[1]["spec"]["cidrs"]
    assert len(cidrs) == 1
    return "IPv6" if ":" in cidrs[0] else "IPv4"


@pytest.mark.parametrize("policy", ["SingleStack", "PreferDualStack"])
def test_a_service_has_the_one_family_that_there_is(api: EmbeddedApi, policy: str) -> None:
    code, made = ask(api, policy.lower(), ipFamilyPolicy=policy)
    assert (code, made["spec"]["ipFamilyPolicy"], made["spec"]["ipFamilies"]) == (201, policy, [only(api)])
    (address,) = made["spec"]["clusterIPs"]
    assert (":" in address) == (only(api) == "IPv6")
    path = f"{SERVICES}/{policy.lower()}"
    again = api.request("PUT", path, {"metadata": {}, "spec": {"ports": [{"port": 81}], "selector": {"app": "web"}}})[1]
    assert again["spec"]["clusterIPs"] == [address]


def test_two_families_and_the_other_one_are_refused(api: EmbeddedApi) -> None:
    other = {"IPv4": "IPv6", "IPv6": "IPv4"}[only(api)]
    refused: dict[str, dict[str, Any]] = {
        "spec.ipFamilyPolicy": {"ipFamilyPolicy": "RequireDualStack"},
        "spec.ipFamilies[0]": {"ipFamilies": [other]},
        "spec.ipFamilies[1]": {"ipFamilies": [only(api), other], "ipFamilyPolicy": "PreferDualStack"},
        "spec.clusterIPs[0]": {"clusterIP": "fd00:10:96::5" if other == "IPv6" else "10.96.0.5"},
    }
    for field, spec in refused.items():
        code, answer = ask(api, "refused", **spec)
        causes = {cause["field"] for cause in answer["details"]["causes"]}
        assert (code, field in causes) == (422, True), answer["message"]


def test_a_service_that_selects_nothing_and_has_no_address_has_both(api: EmbeddedApi) -> None:
    code, made = ask(api, "headless", clusterIP="None", selector={})
    assert (code, made["spec"]["clusterIPs"]) == (201, ["None"])
    assert made["spec"]["ipFamilies"] == sorted(["IPv4", "IPv6"], key=lambda family: family != only(api))
