"""What a person decides about nodes acts within seconds, each time and both ways, as a client on the LAN sees it."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping

import pytest

from cluster.api.client import L2_ADVERTISEMENTS, NODES
from lab import launch
from lab.client import Lab
from lab.layout import lay_out
from lab.measuring import measure
from lab.objects.manifests import api_of
from speaker.api.ranking import EXCLUDE_LABEL
from tests.lab.test_faults import serving, watching
from tests.real import real_assets
from tests.waiting import wait_until

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("decisions"), pytest.mark.timeout(180)]

logger = logging.getLogger(__name__)

PREFERRED = "example.com/preferred"
PREFERENCE = {"weight": 50, "preference": {"matchLabels": {PREFERRED: "yes"}}}
ACTS_S = 2.0
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
        selectors = [{"matchExpressions": [{"key": PREFERRED, "operator": "DoesNotExist"}]}]
        api.patch(L2_ADVERTISEMENTS, "metallb-system", "empty", {"spec": {"nodeSelectors": selectors}})
        moves("selected no more", there=False)
        api.patch(L2_ADVERTISEMENTS, "metallb-system", "empty", {"spec": {"nodeSelectors": None}})
        moves("selected again", there=True)
