"""A power failure of the whole site, on a real control plane: nodes, API server, etcd and controllers lose power at
once, and when all is back every address is answered by the node that had it."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator

import pytest

from cluster.api.client import ENDPOINT_SLICES, NODES, SERVICE_L2_STATUSES, SERVICES, ApiClient, ApiError
from cluster.drain import DRAIN_ANNOTATION
from cluster.l2status import EPOCH_ANNOTATION, NODE_LABEL
from cluster.slices import SERVICE_NAME_LABEL
from lab import launch
from lab.client import Lab
from lab.layout import CONTROL_PLANE, lay_out
from lab.measuring import measure
from lab.objects import tutorial
from lab.objects.manifests import api_of
from lab.readiness import await_ready
from tests.real import real_assets
from tests.waiting import wait_until

pytestmark = [pytest.mark.lab, pytest.mark.real, pytest.mark.xdist_group("whole-site")]

logger = logging.getLogger(__name__)

SERVICES_THERE = 6
PROCESSES = ("etcd", "apiserver", "kube-controller-manager", "controller")
FLOOR_S = 1.5
"""Of D: nothing here is about how soon a death is noticed, and a busy machine lets speakers stand still."""
AGAIN_S = 90.0
"""After which everything is back on a busy machine; a Lease of before is stale after 50 s."""


@pytest.fixture
def cluster() -> Iterator[Lab]:
    recipe = launch.Recipe(
        f"whole-site-test-{os.getpid()}",
        lay_out(3),
        node_grace=4.0,
        assets=real_assets(),
        speaker_args=(f"--detection-floor={FLOOR_S}",),
    )
    with launch.up(recipe) as lab:
        tutorial.apply_pool(lab)
        yield lab


def create(api: ApiClient, name: str) -> str:
    """A Service with an endpoint that nobody asks, and the address that it gets."""
    spec = {"type": "LoadBalancer", "ports": [{"port": 80}]}
    api.create(SERVICES, "default", {"metadata": {"name": name}, "spec": spec})
    metadata = {"name": f"{name}-x", "labels": {SERVICE_NAME_LABEL: name}}
    endpoints = [{"addresses": ["10.244.255.250"]}]
    api.create(ENDPOINT_SLICES, "default", {"metadata": metadata, "addressType": "IPv4", "endpoints": endpoints})
    return str(wait_until(lambda: address_of(api, name), 30))


def drain(api: ApiClient, node: str, why: str | None) -> None:
    """None: the node is in use again."""
    api.patch(NODES, "", node, {"metadata": {"annotations": {DRAIN_ANNOTATION: why}}})


def address_of(api: ApiClient, name: str) -> str:
    ingress = api.get(SERVICES, "default", name).status.load_balancer.ingress
    return ingress[0].ip if ingress else ""


def records(api: ApiClient) -> dict[str, tuple[str, int]]:
    """By record: the node in label and status, and the epoch. Empty while the API server cannot be asked."""
    try:
        found = [each for page in api.list_pages(SERVICE_L2_STATUSES, "metallb-system") for each in page.items]
    except ApiError:
        return {}
    return {
        each.metadata.name: (each.status.node, int(each.metadata.annotations.get(EPOCH_ANNOTATION, "0")))
        for each in found
        if each.status.node == each.metadata.labels.get(NODE_LABEL)
    }


def answer(watch: measure.ClientWatch, since: float) -> dict[str, set[str]]:
    """The MACs that answered for each address lately."""
    lately: dict[str, set[str]] = {}
    for each in watch.answers():
        if each.at > since:
            lately.setdefault(each.address, set()).add(each.mac)
    return lately


def test_every_address_comes_back_to_the_node_that_had_it(cluster: Lab) -> None:
    api = api_of(cluster)
    *others, last = [host.name for host in cluster.status().layout.nodes]
    drain(api, last, "before the others")
    addresses = [create(api, f"web-{number}") for number in range(SERVICES_THERE)]

    def all_on_record_with(*nodes: str) -> dict[str, tuple[str, int]] | None:
        there = records(api)
        right = len(there) == SERVICES_THERE and {each for each, _ in there.values()} == set(nodes)
        return there if right else None

    wait_until(lambda: all_on_record_with(*others), AGAIN_S, "two nodes do not share the addresses")
    drain(api, last, None)
    for node in others:
        drain(api, node, "after the last")
    before = wait_until(lambda: all_on_record_with(last), AGAIN_S, "the last node does not have all")
    for node in others:  # nothing moves: from now on all addresses are where no ranking has them
        drain(api, node, None)
    with measure.watching(cluster, *addresses) as watch:
        mac = measure.steady_holder(watch)
        assert measure.node_of(cluster, mac) == last
        for name in PROCESSES:
            cluster.process(CONTROL_PLANE, name, "kill")
        for node in (*others, last):
            cluster.stop_node(node)
        off = time.monotonic()
        for name in PROCESSES:
            cluster.process(CONTROL_PLANE, name, "start")
        wait_until(lambda: records(api) == before, AGAIN_S, "the API server does not come back with what it had")
        on = time.monotonic()
        for node in (*others, last):
            cluster.start_node(node)
        everything = {address: {mac} for address in addresses}
        wait_until(lambda: answer(watch, time.monotonic() - 1.0) == everything, AGAIN_S)
        took = {a: min(each.at for each in watch.answers() if each.address == a and each.at > on) for a in addresses}
        meanwhile = {each.mac for each in watch.answers() if each.at > off} - {mac}
        logger.info(
            "whole site",
            extra={"first_s": min(took.values()) - on, "last_s": max(took.values()) - on, "others": sorted(meanwhile)},
        )
    await_ready(cluster)
    after = wait_until(lambda: all_on_record_with(last), AGAIN_S)
    assert all(after[name][1] > before[name][1] for name in before), "the epochs go on"
