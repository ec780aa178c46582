"""What a lab's hosts speak on the LAN, as their kernels say it, and how its daemons are reached."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from cluster.addresses import Family
from cluster.resources import NODES
from lab.client import Lab
from lab.errors import LabError
from lab.layout import STATUS_PORT, Families, Host, url_host
from lab.objects.manifests import api_of
from tests.lab.conftest import end, make
from tests.pages import ROOT
from tests.waiting import wait_until

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("network")]


@pytest.fixture(scope="module", params=Families)
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """One node with daemons, whose speaker listens at every address."""
    made = make(nodes=1, families=request.param, daemons=True, speaker_args=(f"--listen=:{STATUS_PORT}",))
    yield made
    end(made)


def ip(lab: Lab, host: Host, *words: str) -> list[dict[str, Any]]:
    """What iproute2 shows on a host."""
    found: list[dict[str, Any]] = json.loads(lab.run(host.name, ["ip", "-json", *words], check=True).output or "[]")
    return found


def test_a_host_has_the_addresses_of_its_lab_and_no_others_on_the_lan(lab: Lab) -> None:
    layout = lab.status().layout
    for host in layout.hosts:
        (eth0,) = ip(lab, host, "address", "show", "dev", "eth0")
        by_scope: dict[str, set[str]] = {"global": set(), "link": set()}
        for each in eth0["addr_info"]:
            by_scope[each["scope"]].add(each["local"])
            assert not {"tentative", "dadfailed"} & each.keys(), "no address is waited for"
        assert by_scope["global"] == set(host.addresses.values())
        assert len(by_scope["link"]) == (Family.IPV6 in layout.families)


def test_the_gateway_is_the_default_route_in_each_family_and_forwards(lab: Lab) -> None:
    layout = lab.status().layout
    gateway = layout.gateway
    assert gateway is not None
    for family in Family:
        for host in (layout.nodes[0], layout.clients[0]):
            ways = [each["gateway"] for each in ip(lab, host, f"-{family}", "route", "show", "default")]
            assert ways == ([gateway.addresses[family]] if family in layout.families else [])
    for family, setting in ((Family.IPV4, "ipv4/ip_forward"), (Family.IPV6, "ipv6/conf/eth0/forwarding")):
        for host in layout.hosts if family in layout.families else ():
            forwards = lab.run(host.name, ["cat", f"/proc/sys/net/{setting}"], check=True).output.strip()
            assert forwards == str(int(host.role in {"node", "gateway"}))


def test_daemons_are_reached_in_each_family_and_reach_the_api_server_in_the_first(lab: Lab) -> None:
    layout = lab.status().layout
    inside = f"http://{url_host(layout.control_plane.address)}:6443"
    assert f'"server":"{inside}"' in (lab.directory / "kubeconfig-inside").read_text().replace(" ", "")
    for family in layout.families:
        for host, metric in ((layout.nodes[0], "berthlb_speaker_"), (layout.control_plane, "berthlb_controller_")):
            url = f"http://{url_host(host.addresses[family])}:{STATUS_PORT}/metrics"
            ask = ["curl", "--silent", "--max-time", "2", url]
            wait_until(lambda ask=ask, metric=metric: metric in lab.run("client", ask).output, message=url)  # type: ignore[misc]


def test_the_node_says_its_addresses_in_the_api_and_the_lab_on_its_command_line(lab: Lab) -> None:
    layout = lab.status().layout
    node = api_of(lab).get(NODES, None, "node-1")
    internal = [each.address for each in node.status.addresses if each.type == "InternalIP"]
    assert internal == list(layout.nodes[0].addresses.values())
    argv = [sys.executable, "-m", "lab", "status", "--name", lab.name]
    shown = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, check=True).stdout
    assert f"http://{url_host(layout.control_plane.address)}:6443" in shown
    assert all(network.pool_range in shown for network in layout.networks.values())
    told = json.loads(subprocess.run([*argv, "--json"], capture_output=True, text=True, cwd=ROOT, check=True).stdout)
    assert [each["family"] for each in told["networks"]] == [family.text for family in layout.families]
    assert told["hosts"][0]["addresses"] == list(layout.control_plane.addresses.values())


def test_the_switch_drops_what_it_is_told_to_and_nothing_else(lab: Lab) -> None:
    (node,) = lab.status().layout.nodes
    url = f"http://{url_host(node.address)}:{STATUS_PORT}/metrics"

    def reaches(host: str) -> bool:
        return lab.run(host, ["curl", "--silent", "--max-time", "1", url]).code == 0

    wait_until(lambda: reaches("client") and reaches("gw"), 20)
    lab.drop('iifname "client" oifname "node-1"')
    assert not reaches("client")
    wait_until(lambda: reaches("gw"))
    with pytest.raises(LabError, match="syntax error"):
        lab.drop("nonsense")
    assert not reaches("client"), "what is refused changes nothing"
    lab.drop('iifname "node-1" oifname "gw"')
    wait_until(lambda: reaches("client"))
    assert not reaches("gw")
    lab.drop()
    wait_until(lambda: reaches("gw"))
