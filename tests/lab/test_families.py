"""IPv6-only and dual-stack clusters on the real control plane, as a client on the LAN meets them.

One lab for each. Every test leaves it as it found it. In IPv4 alone the same is in ``test_faults`` and ``test_seeds``.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.addresses import Family
from lab.client import Lab
from lab.launch import Recipe
from lab.layout import STATUS_PORT, Families, lay_out, url_host
from lab.measuring import measure
from lab.objects import tutorial
from lab.objects.workloads import start_workload
from lab.readiness import await_ready
from tests.lab.conftest import new_name
from tests.lab.test_faults import new_mac, page_from_client, serving, still_answers_alone, watching
from tests.real import delete_service, kubectl, real_assets
from tests.waiting import assert_stays, wait_until

PAGE = Path(__file__).parents[2] / "docs/how-to/use-ipv6.md"

pytestmark = [pytest.mark.lab, pytest.mark.real, pytest.mark.xdist_group("families")]


@pytest.fixture(scope="module", params=[Families.IPV6, Families.DUAL])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """Three nodes, our daemons, the tutorial's pool and its Service, of both families where there are two. Speakers
    show their metrics to everybody."""
    layout, assets = lay_out(3, families=request.param), real_assets()
    recipe = Recipe(new_name(), layout, node_grace=4.0, assets=assets, speaker_args=(f"--listen=:{STATUS_PORT}",))
    with serving(recipe) as made:
        start_workload(made, "lone", replicas=1, nodes=["node-2"])
        yield made


def apply(lab: Lab, name: str, **spec: Any) -> None:
    body = {"type": "LoadBalancer", "ports": [{"port": 80, "targetPort": "http"}], "selector": {"app": "lone"}, **spec}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": body}
    kubectl(lab, "apply", "-f", "-", given=json.dumps(service))


def addresses(lab: Lab, name: str, count: int, namespace: str = "default") -> list[str]:
    """So many of a Service."""

    def given() -> list[str] | None:
        shown = kubectl(lab, "get", "service", name, f"--namespace={namespace}", "-o", "json")
        found = json.loads(shown)["status"]["loadBalancer"]
        ingress = [each["ip"] for each in found.get("ingress", ())]
        return ingress if len(ingress) == count else None

    return wait_until(given, 20, f"{name} has not {count} addresses")


def answer(lab: Lab, address: str) -> dict[str, str]:
    """What the client gets from an address, once it gets anything."""

    def page() -> dict[str, str] | None:
        done = lab.run("client", ["curl", "--silent", "--fail", "--max-time", "2", f"http://{url_host(address)}/"])
        return json.loads(done.output) if done.code == 0 else None

    return wait_until(page, 20, f"{address} does not answer the client")


def test_each_policy_gets_its_addresses_and_each_of_them_answers(lab: Lab) -> None:
    families = ["IPv6" if ":" in each else "IPv4" for each in tutorial.first_addresses(lab)]
    apply(lab, "single", ipFamilyPolicy="SingleStack", ipFamilies=families[-1:])
    apply(lab, "prefer", ipFamilyPolicy="PreferDualStack")
    wanted = {"single": families[-1:], "prefer": families}
    if len(families) > 1:
        apply(lab, "require", ipFamilyPolicy="RequireDualStack", ipFamilies=families[::-1])
        wanted["require"] = families[::-1]
    for name, expected in wanted.items():
        found = addresses(lab, name, len(expected))
        assert ["IPv6" if ":" in each else "IPv4" for each in found] == expected
        assert {answer(lab, each)["pod"] for each in found} == {"lone-1"}
    for name in wanted:
        delete_service(lab, name)


def test_the_same_manifests_work_in_a_cluster_of_either_kind(lab: Lab) -> None:
    """Those of the page about IPv6. Where the cluster has one family, the pool's other one is left alone, again and
    again."""
    pool, service = re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    kubectl(lab, "apply", "-f", "-", given=pool)
    kubectl(lab, "apply", "--namespace=dev", "-f", "-", given=service)
    expected = {Family.IPV4: "172.18.255.100", Family.IPV6: "fd00:b1b::255:100"}
    families = lab.status().layout.families
    assert addresses(lab, "both", len(families), "dev") == [expected[family] for family in families]
    for family in families:
        assert answer(lab, expected[family])["pod"].startswith("nginx-")
    get = ("get", "service", "both", "--namespace=dev", "-o", "jsonpath={.metadata.resourceVersion}")
    version = kubectl(lab, *get)
    assert_stays(lambda: kubectl(lab, *get) == version, 2.0, "the Service is written again")
    delete_service(lab, "both", "dev")
    kubectl(lab, "delete", "-f", "-", given=pool)


def test_policy_local_shows_the_client_and_is_announced_where_the_endpoint_is(lab: Lab) -> None:
    apply(lab, "local", ipFamilyPolicy="PreferDualStack", externalTrafficPolicy="Local")
    layout = lab.status().layout
    client = layout.clients[0]
    found = addresses(lab, "local", len(layout.families))
    for each, family in zip(found, layout.families, strict=True):
        assert answer(lab, each) == {"node": "node-2", "pod": "lone-1", "client": client.addresses[family], "path": "/"}
    with measure.watching(lab, *found) as watch:
        assert measure.node_of(lab, measure.steady_holder(watch)) == "node-2"
    delete_service(lab, "local")


def test_metrics_are_read_at_every_address_of_a_node_and_of_the_controller(lab: Lab) -> None:
    layout = lab.status().layout
    speakers = [(node, "berthlb_speaker_plan_revision") for node in layout.nodes]
    for host, metric in [*speakers, (layout.control_plane, "berthlb_controller_services")]:
        for address in host.addresses.values():
            url = f"http://{url_host(address)}:{STATUS_PORT}/metrics"
            assert metric in lab.run("client", ["curl", "--silent", url]).output, url


FAULTS: dict[str, tuple[Callable[[Lab, str], None], Callable[[Lab, str], None]]] = {
    "power": (Lab.stop_node, Lab.start_node),
    "cable": (Lab.pull_link, Lab.plug_link),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_moves_every_address_of_the_service_to_one_node(lab: Lab, fault: str) -> None:
    break_, mend = FAULTS[fault]
    with watching(lab) as watch:
        old = measure.steady_holder(watch)
        node = measure.node_of(lab, old)
        broken = time.monotonic()
        break_(lab, node)
        new = new_mac(watch, old, broken)
        wait_until(lambda: page_from_client(lab), 30, "the Service does not answer by HTTP")
        mended = time.monotonic()
        mend(lab, node)
        await_ready(lab)
        still_answers_alone(watch, new, mended, 2.0)
