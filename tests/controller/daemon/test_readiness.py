"""What ``/readyz`` says: what is missing at present, and no more once that has come."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from controller.daemon.elector import lease_name
from lab.apiserver.embedded import EmbeddedApi
from tests.controller.daemon.test_loop import POOL, Cluster, ControllerProcess
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

LEASE = "/apis/coordination.k8s.io/v1/namespaces/metallb-system/leases/berthlb-controller"
DEFINITIONS = "/apis/metallb.io/v1beta1/namespaces/metallb-system"

Start = Callable[..., ControllerProcess]


@pytest.fixture
def cluster(embedded_api: EmbeddedApi, tmp_path: Path) -> Cluster:
    cluster = Cluster(embedded_api, tmp_path)
    cluster.pool("pool", **POOL)
    return cluster


@pytest.fixture
def start(cluster: Cluster) -> Iterator[Start]:
    running: list[ControllerProcess] = []

    def start(*flags: str) -> ControllerProcess:
        running.append(ControllerProcess(cluster.kubeconfig, *flags))
        return running[-1]

    yield start
    for each in running:
        each.end(signal.SIGKILL)


def unready(controller: ControllerProcess) -> str:
    """Why it is not ready; empty: it is."""
    code, body = controller.ask("/readyz")
    return "" if code == 200 else body


def test_a_standby_whose_first_question_failed_is_ready_when_it_hears_of_the_leader(
    cluster: Cluster, start: Start
) -> None:
    """It hears of each renewal by its watch, and never has a reason to ask again."""
    start().ready()
    cluster.api.inject(userAgent="berthlb-controller", path=LEASE, verb="get", status=503)
    standby = start()
    wait_until(lambda: any(line["message"] == "the Lease cannot be had" for line in standby.lines))
    standby.ready()


def test_who_cannot_reach_the_api_is_not_ready_and_ready_again_afterwards(cluster: Cluster, start: Start) -> None:
    leader = start("--lease-duration", "2").ready()
    standby = start("--lease-duration", "2").ready()
    cluster.api.inject(userAgent="berthlb-controller", drop=True)
    cluster.api.inject(userAgent="berthlb-controller", closeWatches=True)
    both = (leader, standby)
    cut_off = "the Lease berthlb-controller cannot be had: no answer"
    wait_until(lambda: all(cut_off in unready(each) for each in both), 20)
    assert [each.ask("/healthz")[0] for each in both] == [200, 200]
    cluster.api.clear_faults()
    wait_until(lambda: not any(unready(each) for each in both), 40)
    cluster.service("web")
    assert cluster.address("web") == "172.18.255.200"


def test_a_kind_that_cannot_be_followed_any_more_is_named(cluster: Cluster, start: Start) -> None:
    controller = start().ready()
    cluster.api.inject(userAgent="berthlb-controller", path="/api/v1/nodes", status=403)
    cluster.api.inject(userAgent="berthlb-controller", path="/api/v1/nodes", closeWatches=True)
    wait_until(lambda: unready(controller).startswith("no news of nodes (403 Forbidden"), 20)
    cluster.api.clear_faults()
    wait_until(lambda: not unready(controller), 40)


def test_a_definition_that_is_needed_is_named_until_it_is_there(cluster: Cluster, start: Start) -> None:
    cluster.api.inject(userAgent="berthlb-controller", path=f"{DEFINITIONS}/ipaddresspools", status=404)
    controller = start()
    reason = "the server has no such kind: the definition ipaddresspools.metallb.io is not installed"
    wait_until(lambda: unready(controller) == f"waiting for the first list of ipaddresspools ({reason})\n", 20)
    cluster.api.clear_faults()
    cluster.service("web")
    assert cluster.address("web") == "172.18.255.200"
    assert not unready(controller)


@pytest.mark.parametrize("kind", ["configurationstates", "l2advertisements"])
def test_what_is_not_needed_to_give_addresses_may_be_missing(cluster: Cluster, start: Start, kind: str) -> None:
    cluster.api.inject(userAgent="berthlb-controller", path=f"{DEFINITIONS}/{kind}", status=404)
    controller = start().ready()
    cluster.service("web")
    assert cluster.address("web") == "172.18.255.200"
    named = [line for line in controller.lines if line.get("resource") == f"{kind}.metallb.io"]
    assert [line["message"] for line in named] == ["the server has no such kind"]
    assert not [line for line in controller.lines if line["message"] == "write failed"]


def test_what_is_only_said_may_be_forbidden(cluster: Cluster, start: Start) -> None:
    """An image that came before its ClusterRole may not list the pools of all namespaces."""
    for kind in ("ipaddresspools", "l2advertisements"):
        cluster.api.inject(userAgent="berthlb-controller", path=f"/apis/metallb.io/v1beta1/{kind}", status=403)
    controller = start().ready()
    cluster.service("web")
    assert cluster.address("web") == "172.18.255.200"
    said = [line["error"] for line in controller.lines if line["message"] == "list or watch failed"]
    assert said[0].startswith("403 Forbidden")
    assert len(said) <= 2, "in one line for both"


def test_each_class_has_a_lease_of_its_own() -> None:
    classes = [None, "metallb", "berthlb.io/dmz", "berthlb.io/DMZ", "berthlb-io/dmz", "dmz", "/", "x" * 300]
    names = [lease_name(each) for each in classes]
    assert len(set(names)) == len(names)
    assert names[0] == "berthlb-controller"
    assert names[2].startswith("berthlb-controller-berthlb-io-dmz-")
    assert all(len(name) <= 100 and name.strip("-.") == name == name.lower() for name in names)
