"""What a person decides about nodes acts within seconds, each time and both ways, as a client on the LAN sees it."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping

import pytest

from cluster.api.client import L2_ADVERTISEMENTS, NODES, SERVICE_L2_STATUSES, ApiClient
from cluster.drain import DRAIN_ANNOTATION
from cluster.nodes import EXCLUDE_LABEL, OUT_OF_SERVICE_TAINT
from lab import launch
from lab.client import Lab
from lab.layout import lay_out
from lab.measuring import measure
from lab.objects import tutorial
from lab.objects.manifests import api_of
from tests.lab.test_faults import EVENTS, serving, watching
from tests.real import real_assets
from tests.waiting import crowd, wait_until

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("decisions"), pytest.mark.timeout(180)]

logger = logging.getLogger(__name__)

PREFERRED = "example.com/preferred"
PREFERENCE = {"weight": 50, "preference": {"matchLabels": {PREFERRED: "yes"}}}
ACTS_S = 2.0
DRAINS = 5
SAID_S = 30.0
"""A drain is said to be over, or not, ten seconds after it began."""
MOMENT_S = 0.3
"""For a client to learn where an address is, and its request to go there."""
CLUSTERS = ["embedded", pytest.param("kubernetes", marks=pytest.mark.real)]


@pytest.fixture(scope="module", params=CLUSTERS)
def cluster(request: pytest.FixtureRequest) -> Iterator[Lab]:
    assets = real_assets() if request.param == "kubernetes" else None
    with serving(launch.Recipe(f"decisions-test-{os.getpid()}", lay_out(3), node_grace=2.0, assets=assets)) as lab:
        yield lab


def drain(api: ApiClient, node: str, why: str | None) -> None:
    """None: the node is in use again."""
    api.patch(NODES, "", node, {"metadata": {"annotations": {DRAIN_ANNOTATION: why}}})


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
        prefer()
        label(PREFERRED, None)


def test_drains_lose_requests_near_a_move_alone(cluster: Lab) -> None:
    """Each request is a connection of its own. Where one is open while its address moves, the new node does not know
    it."""
    api = api_of(cluster)
    (address,) = tutorial.first_addresses(cluster)
    moved_at: list[float] = []
    with measure.watching(cluster, address, url=f"http://{address}/", rate=200.0) as watch:
        for _ in range(DRAINS):
            holder = measure.steady_holder(watch)
            node = measure.node_of(cluster, holder)
            drain(api, node, "new disk")

            def moved(holder: str = holder, before: float = time.monotonic()) -> float | None:
                return next((each.at for each in watch.answers() if each.at > before and each.mac != holder), None)

            moved_at.append(wait_until(moved, ACTS_S, "nothing moved") or 0.0)
            measure.steady_holder(watch)
            drain(api, node, None)
        requests = watch.requests()
    lost = [each for each in requests if not each.ok]
    near = MOMENT_S * crowd()
    closest = [(each, min(moved_at, key=lambda at: abs(each.start - at))) for each in lost]
    when = [f"from {1000 * (each.start - at):.0f} to {1000 * (each.end - at):.0f}" for each, at in closest]
    logger.info("%d drains: %d requests, %d lost; ms after a move: %s", DRAINS, len(requests), len(lost), when)
    assert len(requests) > len(lost)
    for each in lost:
        assert any(each.start - near < at < each.end + near for at in moved_at), f"{each} was lost, moves at {moved_at}"


def test_what_a_drained_node_keeps_says_so(cluster: Lab) -> None:
    """All nodes are drained, so the holder keeps the address; then another one is in use again, and has it."""
    api = api_of(cluster)
    with watching(cluster) as watch:
        holder = measure.steady_holder(watch)
        node = measure.node_of(cluster, holder)
        others = sorted(each.name for each in cluster.status().layout.nodes if each.name != node)

        def records() -> list[tuple[str, str]]:
            """Who announces the Service, and why although it is drained."""
            found = (
                each.status for page in api.list_pages(SERVICE_L2_STATUSES, "metallb-system") for each in page.items
            )
            return [(each.node, each.kept) for each in found]

        def said(namespace: str, reason: str) -> list[str]:
            events = [each for page in api.list_pages(EVENTS, namespace) for each in page.items]
            return [each.message for each in events if each.reason == reason]

        wait_until(lambda: records() == [(node, "")])
        for each in (*others, node):
            drain(api, each, "new disk")
        why = f"annotation {DRAIN_ANNOTATION}: new disk; none of the others that may announce it takes it: "
        why += ", ".join(others)
        wait_until(lambda: records() == [(node, why)], SAID_S, "the record does not say why the node keeps it")
        (kept,) = wait_until(lambda: said("dev", "KeptByDrainedNode"), SAID_S, "no Event on the Service")
        assert kept == f'announcing from node "{node}", which people have drained: {why}'
        wait_until(lambda: said("default", "DrainIncomplete"), SAID_S, "no Event on the Node")
        assert {each.mac for each in watch.answers()} == {holder}
        drain(api, others[0], None)
        wait_until(lambda: records() == [(others[0], "")], SAID_S, "the new holder's record says that it is kept")
        for each in (others[1], node):
            drain(api, each, None)
