"""What a person decides about nodes acts within seconds, each time and both ways, as a client on the LAN sees it."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping

import pytest

from cluster.api.client import L2_ADVERTISEMENTS, NODES
from cluster.drain import DRAIN_ANNOTATION
from cluster.nodes import EXCLUDE_LABEL, OUT_OF_SERVICE_TAINT
from lab import launch
from lab.client import Lab
from lab.layout import lay_out
from lab.measuring import measure
from lab.objects import tutorial
from lab.objects.manifests import api_of
from tests.lab.test_faults import serving, watching
from tests.real import real_assets
from tests.waiting import crowd, wait_until

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("decisions"), pytest.mark.timeout(180)]

logger = logging.getLogger(__name__)

PREFERRED = "example.com/preferred"
PREFERENCE = {"weight": 50, "preference": {"matchLabels": {PREFERRED: "yes"}}}
ACTS_S = 2.0
DRAINS = 5
MOMENT_S = 0.3
"""For a client to learn where an address is, and its request to go there."""
CLUSTERS = ["embedded", pytest.param("kubernetes", marks=pytest.mark.real)]


@pytest.fixture(params=CLUSTERS)
def cluster(request: pytest.FixtureRequest) -> Iterator[Lab]:
    assets = real_assets() if request.param == "kubernetes" else None
    with serving(launch.Recipe(f"decisions-test-{os.getpid()}", lay_out(3), node_grace=2.0, assets=assets)) as lab:
        yield lab


def test_what_a_person_decides_acts_within_seconds_both_ways(cluster: Lab) -> None:
    api = api_of(cluster)
    with watching(cluster) as watch:
        holder = measure.steady_holder(watch)
        chosen = next(node for node in cluster.status().layout.nodes if node.mac != holder)

        def prefer(*preferences: Mapping[str, object]) -> None:
            api.patch(
                L2_ADVERTISEMENTS, "metallb-system", "empty", {"spec": {"preferredNodeSelectors": list(preferences)}}
            )

        def label(name: str, value: str | None) -> None:
            api.patch(NODES, "", chosen.name, {"metadata": {"labels": {name: value}}})

        def moves(decision: str, *, there: bool) -> None:
            decided = time.monotonic()
            wait_until(
                lambda: (last := watch.answers()[-1]).at > decided and (last.mac == chosen.mac) is there,
                ACTS_S,
                f"{decision}: nothing moved",
            )
            took = time.monotonic() - decided
            now_holds = measure.steady_holder(watch)
            assert (now_holds == chosen.mac) is there
            logger.info("%s: acts after %.2f s, %s", decision, took, watch.outage(decided))

        prefer(PREFERENCE)
        label(PREFERRED, "yes")
        moves("preferred by a label", there=True)
        for _ in range(2):
            label(EXCLUDE_LABEL, "")
            moves("excluded", there=False)
            label(EXCLUDE_LABEL, None)
            moves("included again", there=True)
        for where, drained, in_use in (
            ("annotations", {DRAIN_ANNOTATION: "new disk"}, {DRAIN_ANNOTATION: None}),
            ("taints", [{"key": OUT_OF_SERVICE_TAINT, "value": "nodeshutdown", "effect": "NoExecute"}], []),
        ):
            place = "metadata" if where == "annotations" else "spec"
            api.patch(NODES, "", chosen.name, {place: {where: drained}})
            moves(f"drained by its {where}", there=False)
            api.patch(NODES, "", chosen.name, {place: {where: in_use}})
            moves("in use again", there=True)
        selectors = [{"matchExpressions": [{"key": PREFERRED, "operator": "DoesNotExist"}]}]
        api.patch(L2_ADVERTISEMENTS, "metallb-system", "empty", {"spec": {"nodeSelectors": selectors}})
        moves("selected no more", there=False)
        api.patch(L2_ADVERTISEMENTS, "metallb-system", "empty", {"spec": {"nodeSelectors": None}})
        moves("selected again", there=True)


def test_drains_lose_no_request_but_those_that_are_open_at_that_moment(cluster: Lab) -> None:
    """Each request is a connection of its own. Where one is open while its address moves, the new node does not know
    it. The others are lost by nobody."""
    api = api_of(cluster)
    (address,) = tutorial.first_addresses(cluster)
    moved_at: list[float] = []
    with measure.watching(cluster, address, url=f"http://{address}/", rate=200.0) as watch:
        for _ in range(DRAINS):
            holder = measure.steady_holder(watch)
            node = measure.node_of(cluster, holder)
            api.patch(NODES, "", node, {"metadata": {"annotations": {DRAIN_ANNOTATION: "new disk"}}})

            def moved(holder: str = holder, before: float = time.monotonic()) -> float | None:
                return next((each.at for each in watch.answers() if each.at > before and each.mac != holder), None)

            moved_at.append(wait_until(moved, ACTS_S, "nothing moved") or 0.0)
            measure.steady_holder(watch)
            api.patch(NODES, "", node, {"metadata": {"annotations": {DRAIN_ANNOTATION: None}}})
        requests = watch.requests()
    lost = [each for each in requests if not each.ok]
    near = MOMENT_S * crowd()
    logger.info("%d drains: %d requests, %d lost, of which each was open", DRAINS, len(requests), len(lost))
    assert len(requests) > len(lost)
    for each in lost:
        assert any(each.start - near < at < each.end + near for at in moved_at), f"{each} was lost, moves at {moved_at}"
