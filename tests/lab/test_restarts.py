"""Speakers are restarted under the eyes of clients: no address changes its MAC, no connection breaks, none is refused.

The client asks for each address every 10 ms, by ARP and by Neighbour Discovery, makes requests at a steady rate, each
over a connection of its own, and keeps connections open.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from cluster.api.client import SERVICE_L2_STATUSES, SERVICES
from lab import launch
from lab.client import Lab
from lab.layout import Families, lay_out, url_host
from lab.measuring import measure
from lab.measuring.figures import longest_silence
from lab.objects import tutorial
from lab.objects.manifests import api_of
from lab.objects.workloads import start_workload
from lab.readiness import await_ready
from tests.waiting import crowd, wait_until

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("restarts")]

logger = logging.getLogger(__name__)

SERVICES_HERE = 6
SILENCE_S, DETECTION_S = 0.2, 1.0
"""Without an answer, on an idle machine, and where a killed speaker has to be missed first. A speaker that starts takes
more than two seconds; the benchmark measures milliseconds."""
PATIENCE_S = 5.0
"""With a request on a busy machine."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Lab]:
    """Three nodes that speak both families, each of which holds the addresses of some Service."""
    recipe = launch.Recipe(f"restarts-test-{os.getpid()}", lay_out(3, families=Families.DUAL))
    with launch.up(recipe) as lab:
        tutorial.apply_pool(lab)
        start_workload(lab, "nginx", replicas=3, namespace=tutorial.NAMESPACE, port=80)
        for number in range(SERVICES_HERE):
            tutorial.apply_service(lab, f"web-{number}")
        wait_until(lambda: len(addresses(lab)) == 2 * SERVICES_HERE and len(holders(lab)) == SERVICES_HERE, 20)
        assert len(set(holders(lab).values())) == 3, "every node holds something"
        yield lab


def addresses(lab: Lab) -> list[str]:
    shown = (each for page in api_of(lab).list_pages(SERVICES, tutorial.NAMESPACE) for each in page.items)
    return [ingress.ip for service in shown for ingress in service.status.load_balancer.ingress]


def holders(lab: Lab) -> dict[str, str]:
    """The node of each Service, as its status objects say."""
    shown = (each for page in api_of(lab).list_pages(SERVICE_L2_STATUSES, None) for each in page.items)
    return {each.status.service_name: each.status.node for each in shown if each.status.node}


@contextmanager
def noticing_nothing(lab: Lab, silence_s: float = SILENCE_S) -> Iterator[None]:
    """What happens in the block is nothing to a client."""
    watched = addresses(lab)
    urls = [f"http://{url_host(address)}/" for address in watched]
    before = holders(lab)
    with measure.watching(lab, *watched, url=urls, rate=20.0, connections=1, timeout=PATIENCE_S) as watch:
        wait_until(lambda: {a.address for a in watch.answers()} == set(watched), 20)
        wait_until(lambda: len({r.connection for r in watch.requests() if r.ok}) > len(watched), 20)
        since, busiest = time.monotonic(), crowd()
        yield
        at = time.monotonic()
        busiest = max(busiest, crowd())
        wait_until(lambda: {a.address for a in watch.answers() if a.at > at} == set(watched), 20)
        wait_until(lambda: {r.connection for r in watch.requests() if r.start > at} >= set(range(len(watched))), 20)
        answers, requests, late = watch.answers(), watch.requests(), watch.late_questions()
    macs: dict[str, set[str]] = {address: set() for address in watched}
    for answer in answers:
        macs[answer.address].add(answer.mac)
    assert all(len(each) == 1 for each in macs.values()), f"an address has changed its MAC: {macs}"
    silence = longest_silence(answers, since, at, late)
    logger.info("%.1f s, longest without an answer %.0f ms", at - since, 1000 * silence)
    lost = [each for each in requests if not each.ok]
    assert not lost, f"{len(lost)} of {len(requests)} requests were lost"
    assert silence < silence_s * busiest, f"no answer for {silence:.3f} s"
    assert holders(lab) == before


def test_a_rolling_restart_moves_nothing(cluster: Lab) -> None:
    """As ``kubectl rollout restart`` does it: the next one ends when the former one's successor is ready."""
    with noticing_nothing(cluster):
        for node in cluster.status().layout.nodes:
            cluster.speaker(node.name, "stop")
            cluster.speaker(node.name, "start")
            await_ready(cluster)


def test_a_speaker_that_is_killed_and_comes_back_moves_nothing(cluster: Lab) -> None:
    """Its node lives, and its kernel says so. Who asks in the moment until that is noticed asks again."""
    (node, *_) = sorted(holders(cluster).values())
    with noticing_nothing(cluster, DETECTION_S):
        cluster.speaker(node, "kill")
        cluster.speaker(node, "start")
        await_ready(cluster)
