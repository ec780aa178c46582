"""What a client notices of a power cut with Kubernetes' own defaults, on the real thing: figures of docs/failover.md.

``pytest -m long --log-cli-level=INFO tests/lab/test_failover_figures.py`` shows them.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator

import pytest

from cluster.client import SERVICES
from lab import launch, measure
from lab.client import Lab
from lab.controlplane.commands import DEFAULT_GRACE_S
from lab.figures import Outage
from lab.layout import lay_out
from lab.manifests import api_of
from tests.lab.test_faults import ADDRESS, page_from_client, with_service
from tests.real import real_assets
from tests.waiting import wait_until

pytestmark = [pytest.mark.lab, pytest.mark.real, pytest.mark.long, pytest.mark.timeout(400)]

logger = logging.getLogger(__name__)
WATCHED_S = DEFAULT_GRACE_S + 40.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[Lab]:
    """Three nodes with a replica each; everything of Kubernetes at its defaults."""
    wanted = launch.Wanted(
        f"figures-{os.getpid()}", lay_out(3), node_grace=DEFAULT_GRACE_S, assets=real_assets(), daemons=True
    )
    held = launch.up(wanted)
    try:
        with_service(held.lab)
        yield held.lab
    finally:
        held.lab.down()
        held.holder.close()


def power_cut(lab: Lab) -> Outage:
    """Cut the owner's power under load, and watch for as long as Kubernetes may need."""
    wait_until(lambda: page_from_client(lab), 30)
    with measure.watching(lab, ADDRESS, url=f"http://{ADDRESS}/", rate=20.0) as watch:
        node = measure.node_of(lab, measure.steady_owner(watch))
        cut = time.monotonic()
        lab.stop_node(node)
        wait_until(lambda: time.monotonic() > cut + WATCHED_S, WATCHED_S + 5)
        found = watch.outage(cut)
    lab.start_node(node)
    launch.await_ready(lab)
    return found


def test_policy_cluster_loses_a_share_of_requests_until_kubernetes_notices(cluster: Lab) -> None:
    found = power_cut(cluster)
    logger.info("externalTrafficPolicy Cluster: %s", found)
    assert found.answers_again_s is not None
    assert found.answers_again_s < 1.0
    assert 0.6 * DEFAULT_GRACE_S < found.succeeds_again_s < DEFAULT_GRACE_S + 20.0
    assert 0.1 * found.requests < found.lost < 0.5 * found.requests


def test_policy_local_is_whole_as_soon_as_the_address_has_moved(cluster: Lab) -> None:
    """The node that takes over sends only to its own endpoints, and none of these is dead."""
    api = api_of(cluster)
    api.patch(SERVICES, "dev", "nginx-service", {"spec": {"externalTrafficPolicy": "Local"}})
    found = power_cut(cluster)
    logger.info("externalTrafficPolicy Local: %s", found)
    assert found.answers_again_s is not None
    assert found.answers_again_s < 1.0
    assert found.succeeds_again_s < found.answers_again_s + 3.0, "a SYN that was lost is sent again after 1 and 3 s"
    assert cluster.run("client", ["curl", "--silent", f"http://{ADDRESS}/"]).output
