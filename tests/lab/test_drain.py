"""A Deployment is rolled, and a node is drained and rebooted, under load, on a real control plane.

The pods wait for six seconds before they end (``preStop``), as a workload should that is behind a load balancer. The
client makes 200 requests a second, each over a connection of its own, and keeps some connections open.

A request is lost around the moment at which its address moves, or not at all. One that is open then may break: the new
node does not know its connection. So may one whose pod ends. Kubernetes alone would lose both, too. Whether each that
was lost was open is not asserted, since it is not seen when the client's kernel learns of the new node.
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from cluster.api.client import ENDPOINT_SLICES, SERVICES, ApiClient
from cluster.api.reflector import Change, Reflector
from cluster.drain import DRAIN_ANNOTATION
from cluster.slices import EndpointSlice
from lab import launch
from lab.client import Lab
from lab.layout import lay_out
from lab.measuring import measure
from lab.measuring.figures import HttpRequest
from lab.objects import tutorial
from lab.objects.manifests import api_of, apply_bodies
from lab.readiness import await_ready
from tests.real import kubectl, real_assets
from tests.waiting import crowd, wait_until

pytestmark = [pytest.mark.lab, pytest.mark.real, pytest.mark.xdist_group("drain"), pytest.mark.timeout(400)]

logger = logging.getLogger(__name__)

ENDS_AFTER_S = 6
MOMENT_S = 0.3
"""For a client to learn where an address is, and its request to go there."""
OVERLAP_S = 1.5
"""For which two nodes may answer in turn while an address moves, on a machine that is busy with other things."""
AT_REST_S = 1.5
"""For kube-proxy to have written its rules, and for the last requests to be answered."""
UPDATES = 2
OPEN_AT_ONCE = 30
"""Requests, at most, on a busy machine: those of 0.15 s. A gap of 0.3 s without an answer loses twice as many."""
BOUNDS_MS = (2, 5, 10, 20, 50, 100, 200, 500, 1000)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Lab]:
    """Three nodes, and a Deployment of three pods."""
    recipe = launch.Recipe(f"drain-test-{os.getpid()}", lay_out(3), node_grace=10.0, assets=real_assets())
    with launch.up(recipe) as lab:
        tutorial.apply_pool(lab)
        kubectl(lab, "apply", "-f", "-", given=DEPLOYMENT)
        await_rolled_out(lab)
        yield lab


DEPLOYMENT = f"""\
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web, namespace: default}}
spec:
  replicas: 3
  selector: {{matchLabels: {{app: web}}}}
  strategy: {{rollingUpdate: {{maxSurge: 1, maxUnavailable: 0}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      containers:
      - name: server
        image: lab
        ports: [{{name: http, containerPort: 8080}}]
        lifecycle: {{preStop: {{sleep: {{seconds: {ENDS_AFTER_S}}}}}}}
"""


def await_rolled_out(lab: Lab) -> None:
    """All pods are new and ready, and the old ones are gone."""
    wait_until(
        lambda: "successfully rolled out" in kubectl(lab, "rollout", "status", "deployment/web", "--watch=false")
    )

    def at_rest() -> bool:
        shown = kubectl(lab, "get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].status.phase}")
        return shown.split() == ["Running"] * 3

    wait_until(at_rest, 40, "the old pods do not end", every=0.2)


@contextmanager
def service(lab: Lab, policy: str) -> Iterator[str]:
    """A Service of the Deployment, and its address."""
    spec = {
        "type": "LoadBalancer",
        "externalTrafficPolicy": policy,
        "selector": {"app": "web"},
        "ports": [{"port": 80, "targetPort": "http"}],
    }
    name = policy.lower()
    apply_bodies(
        lab,
        [{"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"}, "spec": spec}],
    )
    api = api_of(lab)
    shown = wait_until(lambda: api.get(SERVICES, "default", name).status.load_balancer.ingress)
    address = shown[0].ip
    wait_until(lambda: lab.run("client", ["curl", "-sf", "--max-time", "2", f"http://{address}/"]).code == 0, 20)
    try:
        yield address
    finally:
        api.delete(SERVICES, "default", name)


class ServingNodes:
    """The nodes with an endpoint that kube-proxy sends traffic to, as the API told of them."""

    def __init__(self, api: ApiClient, service: str) -> None:
        self.told: list[tuple[float, frozenset[str]]] = []
        self._slices: dict[str, frozenset[str]] = {}
        self._service = service
        self._reflector = Reflector(api, ENDPOINT_SLICES, on_change=self._note)

    def _note(self, change: Change[EndpointSlice]) -> None:
        either = change.new or change.old
        if either is None or either.service_key != self._service:
            return
        endpoints = change.new.endpoints or () if change.new is not None else ()
        nodes = frozenset(
            each.node_name
            for each in endpoints
            if each.node_name and (each.conditions.is_staying or each.conditions.is_ending)
        )
        self._slices[either.key] = nodes
        self.told.append((time.monotonic(), frozenset[str]().union(*self._slices.values())))

    def __enter__(self) -> ServingNodes:
        self._reflector.start()
        wait_until(lambda: self.told)
        return self

    def __exit__(self, *_: object) -> None:
        self._reflector.stop()


def holders(lab: Lab, watch: measure.ClientWatch) -> list[tuple[float, str]]:
    """When each node began to answer, the one after the other. While it moves both do, in turn, for a moment."""
    names = {host.mac: host.name for host in lab.status().layout.nodes}
    found: list[tuple[float, str]] = []
    last: dict[str, float] = {}
    for answer in watch.answers():
        if answer.at > last.get(answer.mac, float("-inf")) + OVERLAP_S and (
            not found or found[-1][1] != names[answer.mac]
        ):
            found.append((answer.at, names[answer.mac]))
        last[answer.mac] = answer.at
    return found


def told(requests: Sequence[HttpRequest]) -> str:
    """The figures of requests: a histogram of their times, and what was lost."""
    new = [each for each in requests if each.connection is None]
    times = sorted(1000 * (each.end - each.start) for each in new if each.ok)
    within = Counter(next((f"≤{bound}" for bound in BOUNDS_MS if took <= bound), "more") for took in times)
    counts = {key: within[key] for key in (*(f"≤{bound}" for bound in BOUNDS_MS), "more") if within[key]}
    broken = sum(not each.ok for each in requests if each.connection is not None)
    lost = sum(not each.ok for each in new)
    return f"{len(new)} requests, {lost} lost; ms {counts}, 99% in {times[len(times) * 99 // 100]:.1f}; {broken} broken"


def assert_lost_near_a_move_alone(requests: Sequence[HttpRequest], moved_at: Sequence[float]) -> None:
    near = MOMENT_S * crowd()
    lost = [each for each in requests if not each.ok and each.connection is None]
    for each in lost:
        assert any(each.start - near < at < each.end + near for at in moved_at), f"{each} lost, moves {moved_at}"
    assert len(lost) <= OPEN_AT_ONCE * len(moved_at), lost


def run_on(watch: measure.ClientWatch) -> None:
    """Requests go on for a while, and those that began before are over."""
    since = time.monotonic()
    wait_until(lambda: (made := watch.requests()) and made[-1].start > since + AT_REST_S, 20)


def test_a_rolling_update_never_leaves_the_address_on_a_node_that_does_not_serve(cluster: Lab) -> None:
    """Each update drives the pods off the holder's node, so that it has to move once, and does not move again."""
    api = api_of(cluster)
    with (
        service(cluster, "Local") as address,
        ServingNodes(api, "default/local") as serving,
        measure.watching(cluster, address, url=f"http://{address}/", rate=200.0, connections=5) as watch,
    ):
        for _ in range(UPDATES):
            node = measure.node_of(cluster, measure.steady_holder(watch))
            before = len(holders(cluster, watch))
            kubectl(cluster, "cordon", node)
            kubectl(cluster, "rollout", "restart", "deployment/web")
            await_rolled_out(cluster)
            run_on(watch)
            assert len(holders(cluster, watch)) - before == 1, holders(cluster, watch)[before:]
            assert measure.node_of(cluster, measure.steady_holder(watch)) == holders(cluster, watch)[-1][1] != node
            kubectl(cluster, "uncordon", node)
        held, requests = holders(cluster, watch), watch.requests()
    logger.info("%d updates: %s", UPDATES, told(requests))
    assert_lost_near_a_move_alone(requests, [at for at, _ in held[1:]])
    for at, nodes in serving.told:
        holder = next((node for since, node in reversed(held) if since <= at), held[0][1])
        assert holder in nodes, f"{holder} held the address at {at}, and {set(nodes)} served; {held}"


@pytest.mark.parametrize(
    ("policy", "annotation"),
    [("Cluster", {DRAIN_ANNOTATION: "new disk"}), ("Local", {})],
    ids=["as the how-to says", "Local, by its pods alone"],
)
def test_a_drain_and_a_reboot_lose_requests_near_a_move_alone(
    cluster: Lab, policy: str, annotation: Mapping[str, Any]
) -> None:
    kubectl(cluster, "rollout", "restart", "deployment/web")  # a pod on each node
    await_rolled_out(cluster)
    with (
        service(cluster, policy) as address,
        measure.watching(cluster, address, url=f"http://{address}/", rate=200.0, connections=5) as watch,
    ):
        node = measure.node_of(cluster, measure.steady_holder(watch))
        for key, reason in annotation.items():
            kubectl(cluster, "annotate", "node", node, f"{key}={reason}")
        kubectl(cluster, "drain", node, "--ignore-daemonsets")
        wait_until(lambda: measure.node_of(cluster, measure.steady_holder(watch)) != node, 20, "it does not move")
        run_on(watch)
        cluster.stop_node(node)
        run_on(watch)
        cluster.start_node(node)
        await_ready(cluster)
        kubectl(cluster, "uncordon", node)
        for key in annotation:
            kubectl(cluster, "annotate", "node", node, f"{key}-")
        run_on(watch)
        held, requests = holders(cluster, watch), watch.requests()
    logger.info("drain and reboot with the policy %s: %s", policy, told(requests))
    assert len(held) == 2, "it moves once, and does not come back"
    assert_lost_near_a_move_alone(requests, [at for at, _ in held[1:]])
