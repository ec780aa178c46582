"""Nothing of ours spins: in every state that a cluster may be in for hours, each process uses less than 1% of a core.

Both daemons run on a real control plane and are driven from state to state. In each state the CPU time of every process
is read over a window, again until all of them have settled. CPU time is counted and not guessed from how long things
take, so a busy machine makes the test slower but not red. The table of figures is printed.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cluster.api.client import IP_ADDRESS_POOLS, LEASES, SECRETS, SERVICES, ApiClient, ApiError
from cluster.resources import Resource
from lab import launch
from lab.client import Lab
from lab.controlplane.audit import NAMESPACE
from lab.layout import CONTROL_PLANE, DEFAULT_LAN, STATUS_PORT, lay_out
from lab.objects.manifests import SEEDS, api_of, apply_files
from lab.objects.workloads import start_workload
from lab.shipped.kinds import Whole
from lab.standins.real import DEFINITIONS, permissions
from tests.lab.test_faults import addresses
from tests.real import real_assets
from tests.waiting import assert_stays, wait_until

pytestmark = [pytest.mark.lab, pytest.mark.real, pytest.mark.xdist_group("rest")]

LIMIT = 0.01
"""Of a core."""
WINDOW_S = 5.0
"""Five ticks of the kernel's CPU clock are then the limit."""
SETTLE_S = 60.0
"""Retries slow down to one in half a minute within this time, and a busy machine starts its interpreters."""
CONTROLLERS = ("controller", "controller-2")
NODES = ("node-1", "node-2")
SERVICE = ("dev", "nginx-service")
KEY = "berthlb-heartbeat"
NOWHERE_PORT = 7480
ELSEWHERE = "203.0.113.7"
"""What somebody else wants a contested Service's address to be."""
BINDINGS: dict[str, Resource[Whole]] = {
    "ClusterRoleBinding": Resource(
        "rbac.authorization.k8s.io", "v1", "clusterrolebindings", "ClusterRoleBinding", False, Whole
    ),
    "RoleBinding": Resource("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding", True, Whole),
}


@dataclass
class Rest:
    """A lab, and the share of a core that each process used in each state."""

    lab: Lab
    api: ApiClient
    table: dict[str, dict[str, float]] = field(default_factory=dict)
    ours: dict[int, str] = field(default_factory=dict)
    """Daemons that the test started itself, by process id: what they are."""

    def settles(self, state: str) -> None:
        """In the state that holds now every process of ours gets below the limit, and stays there for a window."""
        shares: dict[str, float] = {}

        def settled() -> bool:
            shares.update(self._shares())
            return bool(shares) and all(share < LIMIT for share in shares.values())

        try:
            wait_until(settled, SETTLE_S)
        except AssertionError as error:
            raise AssertionError(f"{state}: {shares}") from error
        finally:
            self.table[state] = shares

    def _shares(self) -> dict[str, float]:
        """Of each process over one window. Empty where one ended or began meanwhile."""
        before, began = self._used(), time.monotonic()
        assert_stays(lambda: before, WINDOW_S)
        after, lasted = self._used(), time.monotonic() - began
        if before.keys() != after.keys():
            return {}
        return {name: (after[pid, name] - used) / lasted for (pid, name), used in before.items()}

    def _used(self) -> dict[tuple[int, str], float]:
        """CPU seconds so far, by process id and name."""
        names = {"speaker": "announcer", "speaker watcher": "watcher"}
        pids = {
            p.pid: f"{names.get(p.name, p.name)} {p.host}".removesuffix(f" {CONTROL_PLANE}")
            for p in self.lab.status().processes
            if p.running and p.name in {*CONTROLLERS, *names}
        } | self.ours
        read = self.lab.run(CONTROL_PLANE, ["sh", "-c", "cat " + " ".join(f"/proc/{pid}/stat" for pid in pids)])
        found = {}
        for line in read.output.splitlines():
            fields = line.rpartition(")")[2].split()
            pid = int(line.split()[0])
            found[pid, pids[pid]] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return found

    def restart(self) -> None:
        """All daemons begin anew in the state that holds now, whether or not they can become ready in it."""
        for name in CONTROLLERS:
            self.lab.process(CONTROL_PLANE, name, "kill")
        for node in NODES:
            self.lab.speaker(node, "kill")
        for name in CONTROLLERS:
            self.lab.process(CONTROL_PLANE, name, "start")
        for node in NODES:
            self.lab.speaker(node, "start")

    def said(self) -> str:
        processes = sorted({name for shares in self.table.values() for name in shares})
        width = max(map(len, self.table))
        lines = ["".join([f"\n{'% of a core':{width}}", *(f"{name:>20}" for name in processes)])]
        for state, shares in self.table.items():
            cells = (f"{100 * shares[name]:20.2f}" if name in shares else f"{'':>20}" for name in processes)
            lines.append("".join([f"{state:{width}}", *cells]))
        return "\n".join(lines)


@pytest.fixture
def rest(capsys: pytest.CaptureFixture[str]) -> Iterator[Rest]:
    recipe = launch.Recipe(
        f"rest-test-{os.getpid()}", lay_out(2), node_grace=10.0, assets=real_assets(), controllers=len(CONTROLLERS)
    )
    with launch.up(recipe) as lab:
        rest = Rest(lab, api_of(lab))
        try:
            yield rest
        finally:
            with capsys.disabled():
                print(rest.said())  # noqa: T201  # these figures are what the test is for


def test_no_process_spins_in_any_state(rest: Rest) -> None:
    lab, api = rest.lab, rest.api
    rest.settles("neither pool nor Service")
    apply_files(lab, [SEEDS / "kind-metallb-pool.yaml"])
    rest.settles("a pool, no Service")
    start_workload(lab, "nginx", replicas=2, namespace="dev", port=80)
    apply_files(lab, [SEEDS / "kind-nginx-service.yaml"])
    wait_until(lambda: addresses(api, SERVICE[1]), 20)
    rest.settles("a Service, one controller stands by")
    with somebody_else_writes(api):
        rest.settles("a contested Service")
    with without_address(lab, NODES[1]):
        rest.settles("node-2 has no usable interface")
        says(lab, NODES[1], "node node-2 has no interface to announce on")
        assert "NoUsableInterface" in lab.log(NODES[1], "speaker").read_text()
    with leased_to_somebody(api):
        rest.settles("the Lease is somebody else's")
    with without_key(rest):
        rest.settles("no key")
        says(lab, NODES[1], f"Secret {NAMESPACE}/{KEY} does not exist")
        api.create(SECRETS, NAMESPACE, {"metadata": {"name": KEY}, "data": {"current": "bm9uZQ=="}})
        rest.settles("a bad key")
    with in_a_namespace_that_does_not_exist(rest):
        rest.settles("a namespace that does not exist")
        says(lab, NODES[0], "namespace nowhere", NOWHERE_PORT)
    with without_permission(rest):
        rest.settles("no permission")
        says(lab, NODES[1], "ipaddresspools (403 Forbidden")
    definitions = [each for page in api.list_pages(DEFINITIONS) for each in page.items]
    for definition in definitions:
        api.delete(DEFINITIONS, None, definition.metadata.name)
    wait_until(lambda: refused(lambda: api.list_page(IP_ADDRESS_POOLS)), 30)
    rest.restart()
    rest.settles("no definitions of the custom resources")
    says(lab, NODES[1], "ipaddresspools.metallb.io is not installed")
    lab.process(CONTROL_PLANE, "apiserver", "kill")
    rest.settles("the API server is away")
    rest.restart()
    rest.settles("the API server is away from the start")


def says(lab: Lab, host: str, what: str, port: int = STATUS_PORT) -> None:
    """A speaker says of its readiness what is missing."""
    asked = ["curl", "--silent", f"http://127.0.0.1:{port}/readyz"]
    wait_until(lambda: what in lab.run(host, asked).output, 20, f"{host} does not say: {what}")


def refused(request: Callable[[], object]) -> bool:
    try:
        request()
    except ApiError:
        return True
    return False


@contextmanager
def somebody_else_writes(api: ApiClient) -> Iterator[None]:
    """Another writer insists on another address for the Service, each time that ours is written."""
    over = threading.Event()
    body = {"status": {"loadBalancer": {"ingress": [{"ip": ELSEWHERE}]}}}

    def insist() -> None:
        while not over.wait(0.05):
            with suppress(ApiError):
                if addresses(api, SERVICE[1]) != [ELSEWHERE]:
                    api.patch(SERVICES, *SERVICE, body, subresource="status")

    writer = threading.Thread(target=insist)
    writer.start()
    try:
        yield
    finally:
        over.set()
        writer.join()


@contextmanager
def without_address(lab: Lab, node: str) -> Iterator[None]:
    """The node reaches the API server by an address that none of its LAN's interfaces has."""
    host = next(each for each in lab.status().layout.nodes if each.name == node)
    own, there = f"{host.address}/32 dev lo", f"{DEFAULT_LAN} dev eth0"
    move = f"ip addr add {own}; ip addr flush dev eth0; ip route add {there} src {host.address}"
    back = f"ip route del {there}; ip addr add {host.address}/16 dev eth0; ip addr del {own}"
    lab.run(node, ["sh", "-e", "-c", move], check=True)
    try:
        yield
    finally:
        lab.run(node, ["sh", "-e", "-c", back], check=True)


@contextmanager
def leased_to_somebody(api: ApiClient) -> Iterator[None]:
    lease = api.get(LEASES, NAMESPACE, "berthlb-controller")
    theirs = {"holderIdentity": "somebody", "leaseDurationSeconds": 3600}
    api.patch(LEASES, NAMESPACE, lease.metadata.name, {"spec": theirs})
    try:
        yield
    finally:
        api.delete(LEASES, NAMESPACE, lease.metadata.name)


@contextmanager
def without_key(rest: Rest) -> Iterator[None]:
    """No speaker has one: it is gone, and they begin anew. Its maker makes it once, when it begins to lead."""
    rest.api.delete(SECRETS, NAMESPACE, KEY)
    for node in NODES:
        rest.lab.speaker(node, "kill")
        rest.lab.speaker(node, "start")
    yield


@contextmanager
def in_a_namespace_that_does_not_exist(rest: Rest) -> Iterator[None]:
    """One more of each daemon, which may do everything, and is told to look there. A node has one speaker."""
    rest.lab.speaker(NODES[0], "kill")
    kubeconfig = rest.lab.status().kubeconfig_inside
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    common = [f"--kubeconfig={kubeconfig}", "--namespace=nowhere", f"--listen=127.0.0.1:{NOWHERE_PORT}"]
    with ExitStack() as running:
        for host, what, arguments in (
            (CONTROL_PLANE, "controller", ()),
            (NODES[0], "speaker", (f"--node-name={NODES[0]}",)),
        ):
            log = running.enter_context((rest.lab.directory / f"{what}-nowhere.log").open("wb"))
            argv = [sys.executable, "-m", what, *common, *arguments]
            started = rest.lab.start(host, argv, stdout=log, stderr=log, environment=environment)
            running.enter_context(started)
            rest.ours[started.pid] = f"{what} nowhere"
        try:
            wait_until(lambda: watcher_of(rest), 30)
            yield
        finally:
            rest.ours.clear()
    rest.lab.speaker(NODES[0], "start")


def watcher_of(rest: Rest) -> bool:
    """Note the watcher of the speaker that the test started."""
    announcer = next(pid for pid, name in rest.ours.items() if name == "speaker nowhere")
    children = rest.lab.run(NODES[0], ["cat", f"/proc/{announcer}/task/{announcer}/children"]).output.split()
    for child in children:
        rest.ours[int(child)] = "watcher nowhere"
    return bool(children)


@contextmanager
def without_permission(rest: Rest) -> Iterator[None]:
    """Nobody has bound the roles to the daemons' accounts."""
    bindings: list[dict[str, Any]] = [body for body in permissions() if body["kind"] in BINDINGS]
    for body in bindings:
        rest.api.delete(BINDINGS[body["kind"]], body["metadata"].get("namespace"), body["metadata"]["name"])
    rest.restart()
    yield
    for body in bindings:
        rest.api.create(BINDINGS[body["kind"]], body["metadata"].get("namespace"), body)
