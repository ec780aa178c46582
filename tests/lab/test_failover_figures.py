"""What a client notices of a power cut with Kubernetes' own defaults, on the real thing: figures of docs/failover.md.

``pytest -m long --log-cli-level=INFO tests/lab/test_failover_figures.py`` shows them.
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from cluster.api.client import SERVICES
from lab import launch
from lab.client import Lab
from lab.controlplane.commands import DEFAULT_GRACE_S
from lab.layout import lay_out
from lab.measuring import measure
from lab.measuring.figures import Outage
from lab.objects.manifests import api_of
from lab.readiness import await_ready
from tests.lab.test_faults import ADDRESS, page_from_client, serving
from tests.real import real_assets
from tests.waiting import wait_until

pytestmark = [pytest.mark.lab, pytest.mark.real, pytest.mark.long]

logger = logging.getLogger(__name__)
WATCHED_S = DEFAULT_GRACE_S + 40.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[Lab]:
    """Three nodes with a replica each; everything of Kubernetes at its defaults."""
    wanted = launch.Recipe(f"figures-{os.getpid()}", lay_out(3), node_grace=DEFAULT_GRACE_S, assets=real_assets())
    with serving(wanted) as lab:
        yield lab


@dataclass(frozen=True)
class Seen:
    """What a client saw of a power cut."""

    outage: Outage
    lost_at: tuple[float, ...]
    """When the requests began that were lost, seconds after the cut."""

    def __str__(self) -> str:
        by_ten = Counter(int(at // 10) * 10 for at in self.lost_at)
        return f"{self.outage}; lost by ten seconds: {dict(sorted(by_ten.items()))}"


def power_cut(lab: Lab) -> Seen:
    """Cut the owner's power under load, and watch for as long as Kubernetes may need."""
    wait_until(lambda: page_from_client(lab), 30)
    with measure.watching(lab, ADDRESS, url=f"http://{ADDRESS}/", rate=20.0) as watch:
        node = measure.node_of(lab, measure.steady_holder(watch))
        cut = time.monotonic()
        lab.stop_node(node)
        wait_until(lambda: (made := watch.requests()) and made[-1].start > cut + WATCHED_S, WATCHED_S + 5)
        lost = tuple(each.start - cut for each in watch.requests() if not each.ok and each.end > cut)
        found = Seen(watch.outage(cut), lost)
    lab.start_node(node)
    await_ready(lab)
    return found


def test_policy_cluster_loses_a_share_of_requests_until_kubernetes_notices(cluster: Lab) -> None:
    """After that a request is lost only where a client uses a source port again of which connection tracking still
    knows a connection to the dead pod (kube-proxy does not forget those of TCP)."""
    found = power_cut(cluster)
    logger.info("externalTrafficPolicy Cluster: %s", found)
    assert found.outage.answers_again_s is not None
    assert found.outage.answers_again_s < 1.0
    unnoticed = [at for at in found.lost_at if at < DEFAULT_GRACE_S + 15.0]
    assert max(unnoticed) > 0.6 * DEFAULT_GRACE_S
    assert 0.1 * found.outage.requests < len(unnoticed) < 0.5 * found.outage.requests
    assert len(found.lost_at) - len(unnoticed) < 0.02 * found.outage.requests


def test_policy_local_is_whole_as_soon_as_the_address_has_moved(cluster: Lab) -> None:
    """The node that takes over sends only to its own endpoints, and none of these is dead."""
    api = api_of(cluster)
    api.patch(SERVICES, "dev", "nginx-service", {"spec": {"externalTrafficPolicy": "Local"}})
    found = power_cut(cluster)
    logger.info("externalTrafficPolicy Local: %s", found)
    assert found.outage.answers_again_s is not None
    assert found.outage.answers_again_s < 1.0
    # A SYN that was lost is sent again after 1 and 3 s.
    assert found.outage.succeeds_again_s < found.outage.answers_again_s + 3.0
    assert cluster.run("client", ["curl", "--silent", f"http://{ADDRESS}/"]).output
