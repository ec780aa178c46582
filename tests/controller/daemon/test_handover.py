"""Two controllers on one API server: the leader ends, dies, is paused or loses sight, and nothing is lost or given
twice. Nobody waits for a Lease that was released, and everybody waits for one that was not; except who starts where its
holder has died.
"""

from __future__ import annotations

import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from cluster.api.client import connect
from controller.daemon.loop import Daemon
from controller.daemon.writers import WRITERS
from controller.leadership import WRITE_S
from lab.apiserver.embedded import EmbeddedApi
from tests.controller.daemon.test_loop import METALLB, SERVICES, Cluster, ControllerProcess
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

LEASE = "/apis/coordination.k8s.io/v1/namespaces/metallb-system/leases/berthlb-controller"
SHORT_S = 2
LONG_S = 60
PROMPT_S = 10.0
"""On a busy machine; far from ``LONG_S``."""

Start = Callable[..., ControllerProcess]


@pytest.fixture
def cluster(embedded_api: EmbeddedApi, tmp_path: Path) -> Cluster:
    cluster = Cluster(embedded_api, tmp_path)
    cluster.pool("pool", addresses=["10.20.0.0/16"])
    return cluster


@pytest.fixture
def start(cluster: Cluster) -> Iterator[Start]:
    running: list[ControllerProcess] = []

    def start(lease_s: int = SHORT_S, *flags: str) -> ControllerProcess:
        running.append(ControllerProcess(cluster.kubeconfig, "--lease-duration", str(lease_s), *flags))
        return running[-1].ready()

    yield start
    for each in running:
        if each.process.poll() is None:
            each.end(signal.SIGKILL)


def said(controller: ControllerProcess, message: str) -> list[dict[str, Any]]:
    return [line for line in controller.lines if line["message"] == message]


def leads(controller: ControllerProcess) -> bool:
    return "berthlb_controller_leader 1.0" in controller.ask("/metrics")[1]


def waited(cluster: Cluster, name: str, timeout: float = PROMPT_S) -> float:
    """Create a Service; the seconds until it has an address."""
    began = time.monotonic()
    cluster.service(name)
    wait_until(lambda: cluster.addresses().get(name), timeout, f"{name} gets no address")
    return time.monotonic() - began


def assert_nothing_lost_or_doubled(cluster: Cluster, before: dict[str, str]) -> None:
    after = cluster.addresses()
    assert {name: after.get(name) for name in before} == before
    assert len(set(after.values())) == len(after)


def test_a_standby_is_ready_and_writes_nothing(cluster: Cluster, start: Start) -> None:
    leader = start(LONG_S, "--identity", "first")
    standby = start(LONG_S, "--identity", "second")
    waited(cluster, "web")
    holder = cluster.ask("GET", LEASE)["spec"]["holderIdentity"]
    assert re.fullmatch(r"first-[0-9a-f]{8}", holder)
    assert [each["holder"] for each in said(standby, "standby")] == [holder]
    expected = {
        "berthlb_controller_leader 0.0",
        "berthlb_controller_lease_transitions 0.0",
        "berthlb_controller_services 1.0",
        "metallb_k8s_client_config_loaded_bool 1.0",
        "metallb_k8s_client_updates_total 0.0",
    }
    wait_until(lambda: expected <= set(standby.ask("/metrics")[1].splitlines()), message="metrics of a standby")
    assert standby.ask("/readyz") == (200, "ok\n")
    assert leads(leader)
    assert not said(standby, "restored")


def test_a_leader_that_is_told_to_end_hands_over_at_once(cluster: Cluster, start: Start) -> None:
    leader, standby = start(LONG_S), start(LONG_S)
    waited(cluster, "before")
    before = cluster.addresses()
    leader.end(signal.SIGTERM)
    assert said(leader, "released the Lease")
    waited(cluster, "after")
    assert leads(standby)
    assert cluster.ask("GET", LEASE)["spec"]["leaseTransitions"] == 1
    assert_nothing_lost_or_doubled(cluster, before)


def test_a_lone_controller_that_is_restarted_does_not_wait(cluster: Cluster, start: Start) -> None:
    only = start(LONG_S)
    waited(cluster, "before")
    before = cluster.addresses()
    only.end(signal.SIGTERM)
    start(LONG_S)
    waited(cluster, "after")
    assert_nothing_lost_or_doubled(cluster, before)


def test_a_lone_controller_that_was_killed_waits_for_its_writes_and_not_for_its_lease(
    cluster: Cluster, start: Start
) -> None:
    """One of these writes takes effect only after the next controller has started."""
    only = start(LONG_S)
    waited(cluster, "before")
    before = cluster.addresses()
    cluster.api.inject(userAgent="berthlb-controller", path=SERVICES, verb="patch", latency=1.2, count=1)
    cluster.service("under-way")
    wait_until(lambda: cluster.ask("GET", "/lab/faults")[0]["count"] == 0)
    only.end(signal.SIGKILL)
    start(LONG_S)
    wait = waited(cluster, "after", WRITE_S + PROMPT_S)
    cluster.address("under-way")
    assert wait < LONG_S / 2
    assert_nothing_lost_or_doubled(cluster, before)
    assert cluster.ask("GET", LEASE)["spec"]["leaseTransitions"] == 1


def test_a_write_that_takes_too_long_gets_longer_and_succeeds(cluster: Cluster, start: Start) -> None:
    start(LONG_S)
    waited(cluster, "before")
    cluster.api.inject(userAgent="berthlb-controller", path=SERVICES, verb="patch", latency=WRITE_S + 0.5)
    cluster.service("slow")
    cluster.address("slow")
    assert float(cluster.ask("GET", LEASE)["metadata"]["annotations"]["berthlb.io/holder"].split()[1]) > WRITE_S


def test_a_leader_told_to_end_in_the_middle_of_a_flood_loses_nothing(cluster: Cluster, start: Start) -> None:
    leader, _ = start(LONG_S), start(LONG_S)
    cluster.api.inject(userAgent="berthlb-controller", path=SERVICES, verb="patch", latency=0.02)
    for number in range(60):
        cluster.service(f"s{number:02}")
    wait_until(lambda: len(cluster.addresses()) > 10)
    leader.end(signal.SIGTERM)
    before = cluster.addresses()
    wait_until(lambda: len(cluster.addresses()) == 60, PROMPT_S)
    assert_nothing_lost_or_doubled(cluster, before)


def test_the_lease_of_a_leader_that_was_killed_is_waited_out(cluster: Cluster, start: Start) -> None:
    leader, standby = start(), start()
    for number in range(20):
        cluster.service(f"s{number:02}")
    wait_until(lambda: len(cluster.addresses()) > 3)
    leader.end(signal.SIGKILL)
    before = cluster.addresses()
    version = cluster.ask("GET", LEASE)["metadata"]["resourceVersion"]
    wait = waited(cluster, "after", SHORT_S + PROMPT_S)
    assert wait > SHORT_S * (1 - 2 / 15) - 0.2  # it may have been renewed that long ago
    assert leads(standby)
    assert cluster.ask("GET", LEASE)["metadata"]["resourceVersion"] != version
    wait_until(lambda: len(cluster.addresses()) == 21)
    assert_nothing_lost_or_doubled(cluster, before)


def test_a_write_that_hangs_keeps_the_lease_from_being_released(cluster: Cluster, start: Start) -> None:
    """It may yet take effect; the successor waits it out, with the Lease."""
    leader, standby = start(SHORT_S), start(SHORT_S)
    cluster.api.inject(userAgent="berthlb-controller", path=SERVICES, verb="patch", latency=SHORT_S + 3, count=1)
    cluster.service("hangs")
    wait_until(lambda: cluster.ask("GET", "/lab/faults")[0]["count"] == 0)
    leader.end(signal.SIGTERM)
    assert not said(leader, "released the Lease")
    cluster.address("hangs")
    assert leads(standby)


def test_two_that_are_paused_in_turn_never_give_one_address_twice(cluster: Cluster, start: Start) -> None:
    """Each has writes under way when it is stopped, and believes that it leads when it goes on."""
    pair = [start(), start()]
    for turn in range(4):
        pause(cluster, pair[turn % 2], [f"s{turn}{number}" for number in range(7)])
        assert len(set(cluster.addresses().values())) == 7 * (turn + 1)
    assert sum(len(said(each, "lost the lead")) for each in pair) == 4


def pause(cluster: Cluster, leader: ControllerProcess, names: list[str]) -> None:
    """Stop the leader while it writes, for longer than its Lease; Services of these names come before and during it.

    What it was about to send when it stopped it sends when it goes on (decision 0013, "not excluded"), and that may be
    what its successor has given to another by now: then it is taken back as soon as it is seen.
    """
    wait_until(lambda: leads(leader), message="it does not lead")
    before = cluster.addresses()
    cluster.api.inject(userAgent="berthlb-controller", path=SERVICES, verb="patch", latency=SHORT_S + 1, count=3)
    for name in names[1:]:
        cluster.service(name)
    wait_until(lambda: cluster.ask("GET", "/lab/faults")[-1]["count"] == 0, message="no write is under way")
    leader.process.send_signal(signal.SIGSTOP)
    waited(cluster, names[0], SHORT_S + PROMPT_S)
    leader.process.send_signal(signal.SIGCONT)
    wait_until(lambda: not leads(leader), message="two lead")
    wait_until(lambda: len(set(cluster.addresses().values())) == len(before) + len(names))
    assert_nothing_lost_or_doubled(cluster, before)


def test_what_a_leader_had_decided_before_it_was_paused_is_dropped(cluster: Cluster, start: Start) -> None:
    """When it goes on, what it had queued would give addresses that the pool does not have any more."""
    leader, _ = start(), start()
    cluster.api.inject(userAgent="berthlb-controller", path=SERVICES, verb="patch", latency=0.3)
    for number in range(40):
        cluster.service(f"s{number:02}")
    wait_until(lambda: len(cluster.addresses()) > 3)
    leader.process.send_signal(signal.SIGSTOP)
    cluster.api.clear_faults()
    path = f"{METALLB}/ipaddresspools/pool"
    cluster.merge(path, {"spec": {"addresses": ["10.30.0.0/16"]}})

    def all_moved() -> bool:
        addresses = cluster.addresses()
        return len(addresses) == 40 and all(each.startswith("10.30.") for each in addresses.values())

    wait_until(all_moved, SHORT_S + PROMPT_S, "the standby does not serve them")
    before = {name: each["metadata"]["resourceVersion"] for name, each in cluster.services().items()}
    cluster.api.inject(
        userAgent="berthlb-controller", path=SERVICES, verb="patch", count=1000
    )  # does no harm: it counts
    leader.process.send_signal(signal.SIGCONT)
    wait_until(lambda: said(leader, "lost the lead"))
    wait_until(lambda: "berthlb_controller_queue_length 0.0" in leader.ask("/metrics")[1], message="it is not dropped")
    waited(cluster, "after")
    assert (
        1000 - cluster.ask("GET", "/lab/faults")[0]["count"] <= WRITERS + 1
    )  # what was just being sent, and the new one
    after = {name: each["metadata"]["resourceVersion"] for name, each in cluster.services().items()}
    assert {name: after[name] for name in before} == before


def test_an_api_server_that_is_away_costs_the_lead_and_nothing_else(cluster: Cluster, start: Start) -> None:
    """Longer than the Lease; then the same process leads again, in a new term, and finds everything as it was."""
    only = start()
    waited(cluster, "before")
    before = cluster.addresses()
    versions = {name: each["metadata"]["resourceVersion"] for name, each in cluster.services().items()}
    cluster.api.inject(userAgent="berthlb-controller", status=503)
    wait_until(lambda: said(only, "lost the lead"))
    assert only.ask("/healthz")[0] == 200
    cluster.api.clear_faults()
    waited(cluster, "after")
    assert len(said(only, "restored")) == 2
    assert_nothing_lost_or_doubled(cluster, before)
    assert {name: cluster.services()[name]["metadata"]["resourceVersion"] for name in versions} == versions


def test_a_new_leader_sees_what_its_watch_had_not_brought_yet(cluster: Cluster, start: Start, tmp_path: Path) -> None:
    """Its copies are from before the old leader's last writes; it decides by a list of its own."""
    leader = start(LONG_S)
    cluster.service("known")
    cluster.address("known")
    client = connect(cluster.api.kubeconfig(tmp_path / "standby"), user_agent="standby")
    standby = Daemon(
        client, "metallb-system", None, CollectorRegistry(), name="standby", lease_s=LONG_S, remember_releases=0
    )
    thread = threading.Thread(target=standby.run, daemon=True)
    thread.start()
    try:
        wait_until(lambda: standby.not_ready() is None)
        cluster.api.inject(userAgent="standby", path="/api/v1/services", verb="watch", lag=3600)
        for number in range(5):
            waited(cluster, f"s{number}")
        before = cluster.addresses()
        cluster.service("waits", {"metallb.io/address-pool": "later"})
        wait_until(lambda: cluster.condition("waits"))
        cluster.api.inject(userAgent="standby", path="/api/v1/services", verb="watch", latency=1.0, count=1)
        leader.end(signal.SIGTERM)
        wait_until(lambda: standby.not_ready() == "restoring addresses", message="it does not wait for its list")
        cluster.pool("later", addresses=["10.30.0.0/24"])
        assert cluster.address("waits") == "10.30.0.0"
        assert_nothing_lost_or_doubled(cluster, before)
    finally:
        standby.stop()
        thread.join(PROMPT_S)
        standby.close()


def test_a_duplicate_is_cleared_and_the_newer_service_loses(cluster: Cluster, start: Start) -> None:
    """As an old leader would write it that was stopped between its last look at the clock and the sending."""
    start(LONG_S)
    for name in ("one", "other"):
        waited(cluster, name)
    older, newer = sorted(("one", "other"), key=cluster.age)
    before = cluster.addresses()
    write_status(cluster, newer, before[older])
    wait_until(lambda: cluster.addresses() == before, message="the duplicate stays")
    wait_until(
        lambda: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()) > cluster.age(newer)[0]
    )  # ages are in seconds
    cluster.service("waits", {"metallb.io/address-pool": "none"})
    wait_until(lambda: cluster.condition("waits"))
    cluster.merge(f"{SERVICES}/waits", {"metadata": {"annotations": {"metallb.io/address-pool": None}}})
    write_status(cluster, "waits", before[older])
    wait_until(lambda: len(set(cluster.addresses().values())) == 3, message="the duplicate stays")
    addresses = cluster.addresses()
    assert {name: addresses[name] for name in before} == before


def write_status(cluster: Cluster, name: str, address: str) -> None:
    body = {"status": {"loadBalancer": {"ingress": [{"ip": address}]}}}
    cluster.merge(f"{SERVICES}/{name}/status", body)


def test_without_access_to_the_lease_it_is_not_ready_and_says_why(cluster: Cluster) -> None:
    cluster.api.inject(userAgent="berthlb-controller", path=LEASE, status=403)
    controller = ControllerProcess(cluster.kubeconfig)
    try:
        wait_until(lambda: "the Lease berthlb-controller cannot be had: 403" in controller.ask("/readyz")[1])
        cluster.service("web")
        assert not cluster.condition("web")
    finally:
        controller.end(signal.SIGKILL)


def test_two_copies_with_one_name_are_two(cluster: Cluster, start: Start) -> None:
    one = start(LONG_S, "--identity", "same")
    other = start(LONG_S, "--identity", "same")
    assert [leads(one), leads(other)] == [True, False]
    one.end(signal.SIGKILL)
    third = start(LONG_S, "--identity", "same")
    assert [leads(other), leads(third)] == [False, False]
