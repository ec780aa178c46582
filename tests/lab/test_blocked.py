"""Segments that do not forward what speakers say to each other, as a client on the LAN sees them: one node answers, and
when that one loses power another one does.

The nodes' own packet filters drop what arrives, before any program sees it, as a switch or a cloud would on the way.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from cluster.api.client import CONFIGURATION_STATES, SERVICE_L2_STATUSES
from lab import launch
from lab.client import Lab
from lab.layout import STATUS_PORT, Families, lay_out
from lab.measuring import measure
from lab.measuring.figures import answered_by_two
from lab.objects import tutorial
from lab.objects.manifests import api_of
from lab.readiness import await_ready
from tests.lab.test_faults import announcing, new_mac, page_from_client, serving, still_answers_alone, watching
from tests.waiting import wait_until

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("blocked")]

NOTHING = "udp dport 7948 drop"
GROUPS = "udp dport 7948 ether daddr & 01:00:00:00:00:00 == 01:00:00:00:00:00 drop"
"""Multicast, of either family."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Lab]:
    """Three nodes, and the tutorial's Service at an address of each family."""
    layout = lay_out(3, families=Families.DUAL)
    with serving(launch.Recipe(f"blocked-test-{os.getpid()}", layout, node_grace=2.0)) as lab:
        yield lab


@contextmanager
def dropping(lab: Lab, rule: str) -> Iterator[None]:
    """All speakers start anew where the nodes take no such frames."""
    nodes = lab.status().layout.nodes
    for host in nodes:
        lab.speaker(host.name, "stop")
        chain = f"type filter hook ingress device {host.interface} priority -500;"
        lab.run(
            host.name, ["nft", "-f", "-"], input=f"table netdev drops {{\n chain in {{\n {chain}\n {rule}\n }}\n}}\n"
        )
    for host in nodes:
        lab.speaker(host.name, "start")
    await_ready(lab)
    try:
        yield
    finally:
        for host in nodes:
            lab.run(host.name, ["nft", "delete", "table", "netdev", "drops"])  # a node that lost power has none
        await_ready(lab)


def entries(lab: Lab) -> set[str]:
    """The MACs that the client's neighbour table has for the Service's addresses."""
    service = tutorial.first_addresses(lab)
    shown = json.loads(lab.run("client", ["ip", "-json", "neighbour", "show", "dev", "eth0"], check=True).output)
    macs = {each["dst"]: each.get("lladdr", "") for each in shown}
    return {macs.get(address, "") for address in service}


def test_where_multicast_does_not_pass_a_power_cut_moves_the_address_as_ever(cluster: Lab) -> None:
    with dropping(cluster, GROUPS):
        wait_until(lambda: len(announcing(cluster)) == 1, 20)
        with watching(cluster) as watch:
            old = measure.steady_holder(watch)
            wait_until(lambda: page_from_client(cluster), 20)
            assert entries(cluster) == {old}
            node = measure.node_of(cluster, old)
            cut = time.monotonic()
            cluster.stop_node(node)
            new = new_mac(watch, old, cut)
            wait_until(lambda: entries(cluster) == {new})
            wait_until(lambda: page_from_client(cluster) not in {"", node}, 20)
            cluster.start_node(node)
            await_ready(cluster)
            still_answers_alone(watch, new, time.monotonic(), 2.0)
            assert answered_by_two([a for a in watch.answers() if a.at > cut], 0.05) == 0
    assert len(announcing(cluster)) == 1


def troubled(lab: Lab, node: str) -> bool:
    """The node's speaker says in its metrics and in its ConfigurationState that heartbeats are blocked, and where."""
    shown = lab.run(node, ["curl", "--silent", f"http://127.0.0.1:{STATUS_PORT}/metrics"]).output
    state = api_of(lab).get(CONFIGURATION_STATES, "metallb-system", f"speaker-{node}")
    said = next((each for each in state.status.conditions if each.type == "announcerHealthy"), None)
    return (
        'berthlb_speaker_trouble{reason="HeartbeatsBlocked"} 1' in shown
        and said is not None
        and said.reason == "HeartbeatsBlocked"
        and "UDP port 7948" in said.message
        and "eth0" in said.message
    )


def on_record(lab: Lab) -> list[str]:
    """The node that each status object names."""
    pages = api_of(lab).list_pages(SERVICE_L2_STATUSES, "metallb-system")
    return [each.status.node for page in pages for each in page.items]


def test_where_no_datagram_passes_one_node_answers_and_a_power_cut_moves_the_address_by_the_record(
    cluster: Lab,
) -> None:
    nodes = [host.name for host in cluster.status().layout.nodes]
    with watching(cluster) as watch, dropping(cluster, NOTHING):
        wait_until(lambda: len(announcing(cluster)) == 1, 30)
        old = measure.steady_holder(watch)
        begun = time.monotonic()
        node = measure.node_of(cluster, old)
        wait_until(lambda: on_record(cluster) == [node], 20)
        wait_until(lambda: all(troubled(cluster, each) for each in nodes), 40, "each says what is to be opened")
        still_answers_alone(watch, old, begun, 1.0)
        wait_until(lambda: page_from_client(cluster), 20)
        assert entries(cluster) == {old}
        cut = time.monotonic()
        cluster.stop_node(node)
        wait_until(lambda: [a for a in watch.answers() if a.at > cut + 1.0], 90)
        assert time.monotonic() - cut > 30.0, "not before the Lease is stale"
        new = new_mac(watch, old, cut + 1.0)
        wait_until(lambda: entries(cluster) == {new})
        wait_until(lambda: page_from_client(cluster) not in {"", node}, 20)
        wait_until(lambda: on_record(cluster) == [measure.node_of(cluster, new)], 20)
        cluster.start_node(node)
        await_ready(cluster)
        back = time.monotonic()
        still_answers_alone(watch, new, back, 5.0)
        assert answered_by_two([a for a in watch.answers() if a.at > begun], 0.05) == 0
    with watching(cluster) as watch:
        still_answers_alone(watch, new, time.monotonic(), 5.0)
        wait_until(lambda: not any(troubled(cluster, each) for each in nodes), 20)
        cut = time.monotonic()
        cluster.stop_node(measure.node_of(cluster, new))
        new_mac(watch, new, cut)
