"""A real Prometheus reads the daemons of a lab: nothing fires while all is well, each alert fires by its fault, and all
queries of the dashboard, and of those written for MetalLB, return data.

The rules are those that are installed, with short durations: ``for`` is gone, windows last five seconds, and what may
be late for ten minutes may be so for two seconds. One lab for all; every test leaves it as it found it.
"""

from __future__ import annotations

import json
import os
import re
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.api.client import NODES
from cluster.drain import DRAIN_ANNOTATION
from lab import launch
from lab.client import Lab
from lab.layout import CONTROL_PLANE, lay_out
from lab.objects.manifests import api_of, apply_each, delete_each
from lab.readiness import await_ready
from tests.lab.prometheus import OPEN, Prometheus
from tests.lab.test_faults import ADDRESS, announcing, serving
from tests.waiting import wait_until

pytestmark = [pytest.mark.lab, pytest.mark.real, pytest.mark.xdist_group("monitoring")]

ROOT = Path(__file__).parents[2]
FIRE_S = 90.0
"""Until an alert fires: the slowest is six failed requests to an API server, ever further apart."""
LEASE_S = 6
"""A write has to be answered within it."""
MANY = 150
POOL = "example"
"""The tutorial's."""
CEASE_S = 100.0
"""Until an alert ceases: a watch that has nothing to tell says once a minute that it goes on."""
CONTROLLERS = ("controller", "controller-2")


def rules() -> dict[str, Any]:
    """As they are installed."""
    objects = yaml.safe_load_all((ROOT / "deploy/monitoring.yaml").read_text())
    (found,) = [each["spec"] for each in objects if each["kind"] == "PrometheusRule"]
    assert isinstance(found, dict)
    return found


def impatient(installed: dict[str, Any]) -> dict[str, Any]:
    for rule in installed["groups"][0]["rules"]:
        del rule["for"]
        rule["expr"] = re.sub(r"\[\d+m\]", "[5s]", rule["expr"]).replace("> 600", "> 2")
    return installed


ALERTS = [each["alert"] for each in rules()["groups"][0]["rules"]]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Lab]:
    wanted = launch.Recipe(
        f"monitoring-test-{os.getpid()}",
        lay_out(3),
        node_grace=2.0,
        controllers=2,  # as installed: who only stands by must not count
        controller_args=(f"--lease-duration={LEASE_S}",),
        speaker_args=OPEN,
    )
    with serving(wanted) as lab:
        yield lab


@pytest.fixture(scope="module")
def prometheus(cluster: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    started = Prometheus(cluster, tmp_path_factory.mktemp("prometheus"), impatient(rules()))
    try:
        started.await_all()
        yield started
    finally:
        started.end()


# ------------------------------------------------------------------------ faults


@contextmanager
def api_fails(lab: Lab, *rules: dict[str, Any]) -> Iterator[None]:
    url = f"{lab.status().api_server}/lab/faults"

    def ask(method: str, body: bytes | None) -> None:
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"}, method=method)
        urllib.request.urlopen(request, timeout=5).close()

    ask("POST", json.dumps(rules).encode())
    try:
        yield
    finally:
        ask("DELETE", None)


@contextmanager
def applied(lab: Lab, directory: Path, *objects: dict[str, Any]) -> Iterator[None]:
    """These objects, until the block ends."""
    file = directory / f"{objects[0]['metadata']['name']}.yaml"
    file.write_text(yaml.safe_dump_all(objects))
    api = api_of(lab)
    assert [each.reason for each in apply_each(api, [file], "default") if each.verdict == "refused"] == []
    try:
        yield
    finally:
        list(delete_each(api, [file], "default"))


def service(name: str, pool: str = "") -> dict[str, Any]:
    annotations = {"metallb.io/address-pool": pool} if pool else {}
    metadata = {"name": name, "namespace": "default", "annotations": annotations}
    spec = {"type": "LoadBalancer", "ports": [{"port": 80}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}


def pool(name: str, addresses: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "metallb-system"}
    spec = {"addresses": [addresses], "autoAssign": False}
    return {"apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool", "metadata": metadata, "spec": spec}


@contextmanager
def without_controllers(lab: Lab) -> Iterator[None]:
    for name in CONTROLLERS:
        lab.process(CONTROL_PLANE, name, "stop")
    try:
        yield
    finally:
        for name in CONTROLLERS:
            lab.process(CONTROL_PLANE, name, "start")


@contextmanager
def without_power(lab: Lab, node: str) -> Iterator[None]:
    lab.stop_node(node)
    try:
        yield
    finally:
        lab.start_node(node)


@contextmanager
def paused(lab: Lab, node: str) -> Iterator[None]:
    lab.speaker(node, "pause", "announcer")
    try:
        yield
    finally:
        lab.speaker(node, "resume", "announcer")


@contextmanager
def divided(lab: Lab) -> Iterator[None]:
    """No node hears another; the client hears all of them."""
    hosts = {each.name: each for each in lab.status().layout.nodes}
    for name, host in hosts.items():
        others = ", ".join(each.mac for each in hosts.values() if each.name != name)
        chain = f"type filter hook ingress device {host.interface} priority -500;"
        table = f"table netdev apart {{\n chain in {{\n {chain}\n ether saddr {{ {others} }} drop\n }}\n}}\n"
        lab.run(name, ["nft", "-f", "-"], input=table, check=True)
    try:
        yield
    finally:
        for name in hosts:
            lab.run(name, ["nft", "delete", "table", "netdev", "apart"], check=True)


@contextmanager
def speaker_that_reads_nothing(lab: Lab) -> Iterator[None]:
    """It starts while the API server does not answer it."""
    with api_fails(lab, {"userAgent": "berthlb-speaker", "path": "/apis/metallb.io", "drop": True}):
        lab.speaker("node-2", "stop")
        lab.speaker("node-2", "start")
        yield


@contextmanager
def told_to_wait(lab: Lab, directory: Path) -> Iterator[None]:
    """A Service that gets its address only after six seconds, when the API server wants to be asked again."""
    path = "/api/v1/namespaces/default/services/late"
    slow = {
        "userAgent": "berthlb-controller",
        "verb": "patch",
        "path": path,
        "status": 429,
        "retryAfter": 6,
        "count": 1,
    }
    with api_fails(lab, slow), applied(lab, directory, service("late", POOL)):
        yield


@contextmanager
def slow_writes(lab: Lab, directory: Path) -> Iterator[None]:
    slow = {"userAgent": "berthlb-controller", "verb": "patch", "path": "/api/v1/namespaces/default", "latency": 3}
    many = [service(f"many-{at}", "nowhere") for at in range(MANY)]
    with api_fails(lab, slow), applied(lab, directory, *many):
        yield


def tenants(count: int) -> list[dict[str, Any]]:
    return [service(f"tenant-{at}", "tiny") for at in range(count)]


@contextmanager
def failing_records(lab: Lab, directory: Path) -> Iterator[None]:
    """Another node answers, which is to be recorded, and the server refuses every record."""
    (owner,) = announcing(lab)
    with api_fails(lab, *NO_RECORDS), without_power(lab, owner):
        yield


Fault = Callable[[Lab, Path], AbstractContextManager[None]]

NO_LEASE = {"userAgent": "berthlb-controller", "path": "/apis/coordination.k8s.io", "status": 500}
NO_RECORDS = [
    {"userAgent": "berthlb-speaker", "path": path, "verb": verb, "status": 503}
    for path in ("/apis/metallb.io", "/api/v1/namespaces")
    for verb in ("create", "patch")
]
NO_SERVICES: list[dict[str, Any]] = [
    {"userAgent": "berthlb-speaker", "path": "/api/v1/services", "drop": True},
    {"closeWatches": True},
]

LOOPBACK = {
    "apiVersion": "metallb.io/v1beta1",
    "kind": "L2Advertisement",
    "metadata": {"name": "loopback", "namespace": "metallb-system"},
    "spec": {"interfaces": ["lo"]},
}
"""It names an interface that each node has, and on which nothing can be announced."""

FAULTS: dict[str, Fault] = {
    "BerthLBControllerAbsent": lambda lab, _: without_controllers(lab),
    "BerthLBControllerWithoutLeader": lambda lab, _: api_fails(lab, NO_LEASE),
    "BerthLBSpeakerDown": lambda lab, _: without_power(lab, "node-3"),
    "BerthLBConfigurationNotInForce": lambda lab, d: applied(lab, d, pool("bad", "192.0.2.9-192.0.2.1")),
    "BerthLBConfigurationNotLoaded": lambda lab, _: speaker_that_reads_nothing(lab),
    "BerthLBServicesWithoutAddress": lambda lab, d: applied(lab, d, service("nowhere", "no-such-pool")),
    "BerthLBSlowAssignment": told_to_wait,
    "BerthLBControllerFallsBehind": slow_writes,
    "BerthLBAddressAnnouncedTwice": lambda lab, _: divided(lab),
    "BerthLBSpeakerTrouble": lambda lab, d: applied(lab, d, LOOPBACK),
    "BerthLBRecordsLate": failing_records,
    "BerthLBAnnouncerStalls": lambda lab, _: paused(lab, "node-1"),
    "BerthLBCannotReachAPI": lambda lab, _: api_fails(lab, *NO_SERVICES),
    "BerthLBPoolAlmostExhausted": lambda lab, d: applied(lab, d, pool("tiny", "192.0.2.1-192.0.2.10"), *tenants(10)),
    "BerthLBPoolExhausted": lambda lab, d: applied(lab, d, pool("tiny", "192.0.2.1-192.0.2.2"), *tenants(2)),
}
"""Alert → what makes it fire. docs/reference/alerts.md tells the same in words."""


def test_every_alert_has_a_fault() -> None:
    assert set(FAULTS) == set(ALERTS)


def test_nothing_fires_while_all_is_well(prometheus: Prometheus) -> None:
    wait_until(lambda: len(prometheus.ask("metallb_speaker_announced")) == 1)
    wait_until(lambda: prometheus.firing() == set(), 60, "alerts fire")


@pytest.mark.parametrize("alert", FAULTS)
def test_an_alert_fires_by_its_fault_and_ceases(
    cluster: Lab, prometheus: Prometheus, tmp_path: Path, alert: str
) -> None:
    wait_until(lambda: alert not in prometheus.firing(), 60, f"{alert} fires before")
    begun = time.monotonic()
    with FAULTS[alert](cluster, tmp_path):
        wait_until(lambda: prometheus.has_fired(alert, time.monotonic() - begun), FIRE_S, f"{alert} does not fire")
    await_ready(cluster)
    wait_until(lambda: alert not in prometheus.firing(), CEASE_S, f"{alert} does not cease")


# ------------------------------------------------------------------------ queries

DASHBOARD = json.loads((ROOT / "deploy/dashboard.json").read_text())
PANELS = {
    f"{panel['title']} {target['refId']}": target["expr"]
    for panel in DASHBOARD["panels"]
    for target in panel.get("targets", [])
}
NAMED = {
    name
    for text in (*PANELS.values(), yaml.safe_dump(rules()))
    for name in re.findall(r"\b(?:berthlb|metallb)_\w+", text)
}
"""The series that the dashboard and the alerts name. A query may return data without them: ``or vector(0)`` does."""
METALLBS = [
    'metallb_k8s_client_config_stale_bool{job="metallb"}',
    'metallb_k8s_client_config_loaded_bool{job="metallb"}',
    "metallb_allocator_addresses_in_use_total * on(pool) group_left() metallb_allocator_addresses_total",
    "(metallb_allocator_addresses_in_use_total / on(pool) metallb_allocator_addresses_total) * 100",
    "sum by (pool) (metallb_allocator_addresses_total)",
    "sum by (pool) (metallb_allocator_addresses_in_use_total)",
    "sum(metallb_allocator_ipv4_addresses_in_use_total) by (pool)",
    'metallb_speaker_announced{protocol="layer2"}',
    "count by (node) (metallb_speaker_announced)",
    "sum by (service, node, ip) (metallb_speaker_announced)",
    "sum(rate(metallb_k8s_client_updates_total[1m])) by (container)",
    "sum(rate(metallb_k8s_client_update_errors_total[1m])) by (container)",
    "sum by (ip) (rate(metallb_layer2_requests_received[1m]))",
    "sum by (ip) (rate(metallb_layer2_responses_sent[1m]))",
    "sum by (ip) (rate(metallb_layer2_gratuitous_sent[1m]))",
    'up{job="metallb"}',
]
"""What rules and dashboards ask that were written for MetalLB's mode of layer 2: its metrics with their labels, joined
by pool, under the job that its monitors name."""


def move_by_a_drain(lab: Lab) -> None:
    api = api_of(lab)
    (holder,) = announcing(lab)

    def drain(why: str | None) -> None:
        api.patch(NODES, "", holder, {"metadata": {"annotations": {DRAIN_ANNOTATION: why}}})

    drain("new disk")
    wait_until(lambda: (found := announcing(lab)) and holder not in found, 10, "it does not move")
    drain(None)


@pytest.fixture(scope="module")
def lively(cluster: Lab, prometheus: Prometheus, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """There is something to see of everything: a refusal, an address just given, a trouble, a move, a request from the
    LAN."""
    directory = tmp_path_factory.mktemp("lively")
    given = [service("refused", "no-such-pool"), pool("tiny", "192.0.2.1-192.0.2.10"), *tenants(1), LOOPBACK]
    with applied(cluster, directory, *given):
        move_by_a_drain(cluster)
        cluster.run("client", ["arping", "-c", "2", "-I", "eth0", ADDRESS])  # its new holder counts it
        yield prometheus


@pytest.mark.parametrize("query", PANELS.values(), ids=PANELS)
def test_every_query_of_the_dashboard_returns_data(lively: Prometheus, query: str) -> None:
    asked = query.replace("$__rate_interval", "1m")
    assert "$" not in asked
    wait_until(lambda: [each for each in lively.ask(asked) if each["value"] != "NaN"], 20, "no data")


@pytest.mark.parametrize("name", sorted(NAMED))
def test_every_series_that_the_dashboard_or_an_alert_names_is_there(lively: Prometheus, name: str) -> None:
    wait_until(lambda: lively.ask(name), 20, "no such series")


@pytest.mark.parametrize("query", METALLBS)
def test_what_was_written_for_metallb_returns_data(lively: Prometheus, query: str) -> None:
    wait_until(lambda: lively.ask(query), 20, "no data")
