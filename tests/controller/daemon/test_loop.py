"""The controller as a process, against an API server: outcomes in the API's objects."""

from __future__ import annotations

import base64
import http.client
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.apiserver.embedded import EmbeddedApi
from lab.machines.container import confined
from lab.shipped.rights import rights_of
from tests.waiting import ended, wait_until

pytestmark = pytest.mark.slow

POOL = {"addresses": ["172.18.255.200-172.18.255.250"]}
METALLB = "/apis/metallb.io/v1beta1/namespaces/metallb-system"
SERVICES = "/api/v1/namespaces/default/services"
RIGHTS = rights_of("controller")
LEASE_S = 2  # after a kill it must be waited out


class Cluster:
    """The API as a user sees it."""

    def __init__(self, api: EmbeddedApi, directory: Path) -> None:
        self.api = api
        self.kubeconfig = directory / "kubeconfig"
        api.kubeconfig(self.kubeconfig)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        code, answer = self.api.request(method, path, body, headers=headers or None)
        assert code < 300, answer
        return answer

    def merge(self, path: str, body: Any) -> Any:
        return self.ask("PATCH", path, body, **{"Content-Type": "application/merge-patch+json"})

    def pool(self, name: str, **spec: Any) -> None:
        metadata = {"name": name, "namespace": "metallb-system"}
        body = {"apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool", "metadata": metadata, "spec": spec}
        self.ask("POST", f"{METALLB}/ipaddresspools", body)

    def service(self, name: str, annotations: dict[str, str] | None = None, **spec: Any) -> None:
        body = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "annotations": annotations or {}},
            "spec": {"type": "LoadBalancer", "selector": {"app": name}, "ports": [{"port": 80}], **spec},
        }
        self.ask("POST", SERVICES, body)

    def services(self) -> dict[str, Any]:
        return {each["metadata"]["name"]: each for each in self.ask("GET", SERVICES)["items"]}

    def addresses(self) -> dict[str, str]:
        """Service → its address; those without one are left out."""
        return {
            name: each["status"]["loadBalancer"]["ingress"][0]["ip"]
            for name, each in self.services().items()
            if each["status"]["loadBalancer"].get("ingress")
        }

    def address(self, name: str) -> str:
        """The Service's address, once it has one."""
        return wait_until(lambda: self.addresses().get(name, ""), message=f"{name} gets no address")

    def age(self, name: str) -> tuple[str, str]:
        """Orders Services from the oldest to the newest."""
        return self.services()[name]["metadata"]["creationTimestamp"], name

    def condition(self, name: str) -> dict[str, str]:
        """The Service's ``berthlb.io/AddressAssigned``, empty where it has none."""
        conditions = self.services()[name]["status"].get("conditions", [])
        return next((each for each in conditions if each["type"] == "berthlb.io/AddressAssigned"), {})

    def configuration_state(self) -> dict[str, Any]:
        """The status of the controller's ConfigurationState, empty where there is none yet."""
        found = self.ask("GET", f"{METALLB}/configurationstates")["items"]
        return next((each.get("status", {}) for each in found if each["metadata"]["name"] == "controller"), {})

    def events(self) -> list[tuple[str, str, str, str]]:
        return [
            (each["involvedObject"]["name"], each["type"], each["reason"], each["message"])
            for each in self.ask("GET", "/api/v1/namespaces/default/events")["items"]
        ]


class ControllerProcess:
    """One process, with the rights of its container."""

    def __init__(self, kubeconfig: Path, *flags: str) -> None:
        python = [*confined(RIGHTS), sys.executable]
        command = [*python, "-m", "controller", "--kubeconfig", str(kubeconfig), "--listen", "127.0.0.1:0"]
        lease = ["--lease-duration", str(LEASE_S)]
        self.process = subprocess.Popen([*command, *lease, *flags], stderr=subprocess.PIPE, text=True)
        self.lines: list[dict[str, Any]] = []
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()
        (serving,) = wait_until(lambda: [line for line in self.lines if line["message"] == "serving"])
        self.port = int(serving["listen"].rpartition(":")[2])

    def _read(self) -> None:
        assert self.process.stderr is not None
        self.lines += (json.loads(line) for line in self.process.stderr)

    def ask(self, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()

    def ready(self) -> ControllerProcess:
        wait_until(lambda: self.ask("/readyz")[0] == 200, message="never ready")
        return self

    def end(self, number: int) -> int:
        """Its exit code; it has said all that it had to say by then."""
        self.process.send_signal(number)
        code = ended(self.process)
        self._reading.join(60)
        return code


@pytest.fixture
def cluster(embedded_api: EmbeddedApi, tmp_path: Path) -> Cluster:
    return Cluster(embedded_api, tmp_path)


@pytest.fixture
def start(cluster: Cluster) -> Iterator[Callable[..., ControllerProcess]]:
    running: list[ControllerProcess] = []

    def start(*flags: str) -> ControllerProcess:
        running.append(ControllerProcess(cluster.kubeconfig, *flags))
        return running[-1]

    yield start
    for each in running:
        if each.process.poll() is None:
            each.end(signal.SIGKILL)


Start = Callable[..., ControllerProcess]


def test_a_service_gets_an_address_and_the_objects_say_so(cluster: Cluster, start: Start) -> None:
    cluster.pool("kind-pool", **POOL)
    start()
    cluster.service("web")
    cluster.service("outside", type="ExternalName", externalName="example.com")
    assert cluster.address("web") == "172.18.255.200"
    web = cluster.services()["web"]
    assert web["status"]["loadBalancer"]["ingress"] == [{"ip": "172.18.255.200", "ipMode": "VIP"}]
    assert web["metadata"]["annotations"] == {"metallb.io/ip-allocated-from-pool": "kind-pool"}
    assert cluster.condition("web")["message"] == '172.18.255.200 from pool "kind-pool"'
    wait_until(lambda: cluster.events() == [("web", "Normal", "IPAllocated", 'Assigned IP ["172.18.255.200"]')])
    status = wait_until(
        lambda: (
            (found := cluster.ask("GET", f"{METALLB}/ipaddresspools/kind-pool")["status"]).get("assignedIPv4") and found
        )
    )
    assert (status["assignedIPv4"], status["availableIPv4"]) == (1, 50)
    assert {each["type"]: each["status"] for each in status["conditions"]} == {
        "Valid": "True",
        "Overlapping": "False",
        "Exhausted": "False",
    }
    state = wait_until(cluster.configuration_state)
    assert state["result"] == "Valid"


def test_a_restart_after_a_kill_writes_nothing(cluster: Cluster, start: Start) -> None:
    """A term must not end while the first controller works: the Events of what it wrote last would go with it."""
    cluster.pool("pool", **POOL)
    first = start("--lease-duration", "8")
    cluster.service("web")
    cluster.service("stuck", loadBalancerIP="10.0.0.1")
    cluster.address("web")
    wait_until(lambda: cluster.condition("stuck"))
    wait_until(lambda: len(cluster.events()) == 2)
    pool_path = f"{METALLB}/ipaddresspools/pool"
    wait_until(lambda: cluster.ask("GET", pool_path)["status"].get("assignedIPv4") == 1)
    wait_until(cluster.configuration_state)
    before = [cluster.services(), cluster.ask("GET", pool_path), cluster.events()]
    first.end(signal.SIGKILL)
    start().ready()
    cluster.service("new")  # judged after all that was there
    cluster.address("new")
    after = [{k: v for k, v in cluster.services().items() if k != "new"}, cluster.ask("GET", pool_path)]
    assert after[0] == before[0]
    assert after[1]["status"]["conditions"] == before[1]["status"]["conditions"]
    assert [event for event in cluster.events() if event[0] != "new"] == before[2]


def test_killed_in_the_middle_of_a_flood_nothing_is_given_twice(cluster: Cluster, start: Start) -> None:
    cluster.pool("pool", addresses=["10.20.0.0/16"])
    first = start().ready()
    cluster.api.inject(userAgent="berthlb-controller", verb="patch", latency=0.02)
    for number in range(60):
        cluster.service(f"s{number:02}")
    wait_until(lambda: len(cluster.addresses()) > 10)
    first.end(signal.SIGKILL)
    before = cluster.addresses()
    start()
    wait_until(lambda: len(cluster.addresses()) == 60)
    addresses = cluster.addresses()
    assert len(set(addresses.values())) == 60
    assert {name: addresses[name] for name in before} == before


def test_in_a_flood_addresses_come_before_the_news_of_them(cluster: Cluster, start: Start) -> None:
    cluster.pool("pool", addresses=["10.20.0.0/16"])
    for number in range(100):
        cluster.service(f"s{number:02}")
    cluster.api.inject(userAgent="berthlb-controller", verb="patch", latency=0.05)
    start()
    wait_until(lambda: len(cluster.addresses()) == 100)
    written = sorted(int(each["metadata"]["resourceVersion"]) for each in cluster.services().values())
    wait_until(lambda: len(cluster.events()) == 100)
    events = cluster.ask("GET", "/api/v1/namespaces/default/events")["items"]
    assert len([each for each in events if int(each["metadata"]["resourceVersion"]) < written[50]]) < 10


def test_deletion_and_change_of_type_make_room_for_those_who_wait(cluster: Cluster, start: Start) -> None:
    cluster.pool("tiny", addresses=["10.0.0.1/32"])
    start()
    cluster.service("first")
    assert cluster.address("first") == "10.0.0.1"
    for name in ("one", "other"):
        cluster.service(name)
    second, third = sorted(("one", "other"), key=cluster.age)
    wait_until(lambda: cluster.condition(third))
    reason = 'pool "tiny" has no free IPv4 address (1 of 1 in use)'
    assert (cluster.condition(third)["reason"], cluster.condition(third)["message"]) == ("PoolExhausted", reason)
    failed = (third, "Warning", "AllocationFailed", f'Failed to allocate IP for "default/{third}": {reason}')
    wait_until(lambda: failed in cluster.events())
    cluster.merge(f"{SERVICES}/first", {"spec": {"type": "ClusterIP"}})
    assert cluster.address(second) == "10.0.0.1"
    wait_until(lambda: not cluster.condition("first"))
    first = cluster.services()["first"]
    assert "metallb.io/ip-allocated-from-pool" not in first["metadata"].get("annotations", {})
    assert first["status"]["loadBalancer"] == {}
    cluster.ask("DELETE", f"{SERVICES}/{second}")
    assert cluster.address(third) == "10.0.0.1"


def test_a_change_of_type_that_nobody_saw_is_cleaned_up_at_the_next_start(cluster: Cluster, start: Start) -> None:
    cluster.pool("pool", **POOL)
    first = start()
    cluster.service("web")
    cluster.address("web")
    first.end(signal.SIGKILL)
    cluster.merge(f"{SERVICES}/web", {"spec": {"type": "NodePort"}})
    start()
    wait_until(lambda: not cluster.services()["web"]["metadata"].get("annotations"))
    assert not cluster.condition("web")


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 500, "count": 3},
        {"status": 429, "retryAfter": 1, "count": 1},
        {"status": 409, "count": 3},
        {"drop": True, "count": 3},
    ],
)
def test_a_write_that_fails_is_made_good(cluster: Cluster, start: Start, fault: dict[str, Any]) -> None:
    cluster.pool("pool", **POOL)
    start().ready()
    cluster.api.inject(userAgent="berthlb-controller", path=SERVICES, verb="patch", **fault)
    cluster.service("web")
    assert cluster.address("web") == "172.18.255.200"


def test_a_pool_that_cannot_be_honoured_says_so_and_the_last_good_one_stays(cluster: Cluster, start: Start) -> None:
    cluster.pool("pool", **POOL)
    start()
    cluster.service("one")
    cluster.address("one")
    pool_path = f"{METALLB}/ipaddresspools/pool"
    cluster.merge(pool_path, {"spec": {"addresses": ["10.0.0.0/24", "172.18.255.250-172.18.255.200"]}})
    reason = 'spec.addresses[1]: "172.18.255.250-172.18.255.200" starts after it ends'

    def judgement() -> dict[str, Any]:
        conditions = cluster.ask("GET", pool_path).get("status", {}).get("conditions", [])
        return next((dict(each) for each in conditions if (each["type"], each["status"]) == ("Valid", "False")), {})

    said = wait_until(judgement)
    assert (said["reason"], said["message"]) == ("Invalid", f"{reason}; the last good version stays in force")
    state_path = f"{METALLB}/configurationstates/controller"
    state = wait_until(
        lambda: (found := cluster.ask("GET", state_path).get("status", {})).get("result") == "Invalid" and found
    )
    assert state["errorSummary"] == f"IPAddressPool pool: {reason}"
    cluster.service("two")
    assert cluster.address("two") == "172.18.255.201"
    cluster.merge(pool_path, {"spec": {"addresses": ["172.18.255.201/32", "10.0.0.0/24"]}})
    wait_until(lambda: cluster.addresses() == {"one": "10.0.0.0", "two": "172.18.255.201"})
    wait_until(lambda: cluster.ask("GET", state_path)["status"]["result"] == "Valid")
    cleared = wait_until(lambda: [event for event in cluster.events() if event[2] == "ClearAssignment"])
    assert cleared == [
        (
            "one",
            "Normal",
            "ClearAssignment",
            'current IP for "default/one" not allowed by config, will attempt for new IP assignment: '
            "172.18.255.200 is in no pool",
        )
    ]


def test_pools_elsewhere_do_not_count(cluster: Cluster, start: Start) -> None:
    body = {"apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool", "metadata": {"name": "p"}, "spec": POOL}
    cluster.ask("POST", "/apis/metallb.io/v1beta1/namespaces/default/ipaddresspools", body)
    start()
    cluster.service("web")
    assert wait_until(lambda: cluster.condition("web"))["reason"] == "NoPool"


def test_nothing_is_given_out_before_the_nodes_are_known_and_their_addresses_never(
    cluster: Cluster, start: Start
) -> None:
    cluster.pool("pool", **POOL)
    addresses = [{"type": "InternalIP", "address": "172.18.255.200"}, {"type": "Hostname", "address": "node-1"}]
    cluster.ask("POST", "/api/v1/nodes", {"metadata": {"name": "node-1"}, "status": {"addresses": addresses}})
    cluster.api.inject(userAgent="berthlb-controller", path="/api/v1/nodes", status=503)
    controller = start()
    cluster.service("web")
    wait_until(lambda: controller.ask("/readyz")[1].startswith("waiting for the first list of nodes"))
    assert cluster.addresses() == {}
    cluster.api.clear_faults()
    assert cluster.address("web") == "172.18.255.201"


def test_the_range_of_cluster_ips_is_never_given_out(cluster: Cluster, start: Start) -> None:
    cidr, *_ = cluster.ask("GET", "/apis/networking.k8s.io/v1/servicecidrs/kubernetes")["spec"]["cidrs"]
    cluster.pool("pool", addresses=[cidr, "10.0.0.0/30"])
    start()
    cluster.service("web")
    assert cluster.address("web") == "10.0.0.0"


def test_a_server_that_knows_no_service_ranges_is_served_too(cluster: Cluster, start: Start) -> None:
    cluster.api.inject(userAgent="berthlb-controller", path="/apis/networking.k8s.io", status=404)
    cluster.pool("pool", **POOL)
    start().ready()
    cluster.service("web")
    assert cluster.address("web") == "172.18.255.200"


def test_a_service_that_is_made_again_gets_its_address_back_also_from_another_controller(
    cluster: Cluster, start: Start
) -> None:
    cluster.pool("pool", **POOL)
    first = start()
    pool_path = f"{METALLB}/ipaddresspools/pool"
    for name in ("a", "b", "c"):
        cluster.service(name)
        cluster.address(name)
    for name in ("a", "b"):
        cluster.ask("DELETE", f"{SERVICES}/{name}")

    def listed() -> dict[str, list[str]]:
        releases = cluster.ask("GET", pool_path)["status"].get("recentReleases", [])
        return {each["service"]: each["addresses"] for each in releases if each["time"].endswith("Z")}

    a, b = {"default/a": ["172.18.255.200"]}, {"default/b": ["172.18.255.201"]}
    wait_until(lambda: listed() == a | b)
    first.end(signal.SIGKILL)
    start().ready()
    cluster.service("b")
    cluster.service("d")
    assert (cluster.address("b"), cluster.address("d")) == ("172.18.255.201", "172.18.255.203")
    wait_until(lambda: listed() == a)


def test_no_release_is_remembered_where_none_shall_be(cluster: Cluster, start: Start) -> None:
    cluster.pool("pool", **POOL)
    start("--remember-releases", "0")
    for name in ("a", "b"):
        cluster.service(name)
        cluster.address(name)
    pool_path = f"{METALLB}/ipaddresspools/pool"

    def status(assigned: int) -> Any:
        """The pool's status, once it counts so many."""
        return wait_until(
            lambda: (
                (found := dict(cluster.ask("GET", pool_path).get("status", {}))).get("assignedIPv4") == assigned
                and found
            )
        )

    status(2)
    cluster.ask("DELETE", f"{SERVICES}/a")
    assert "recentReleases" not in status(1)
    cluster.service("c")
    assert cluster.address("c") == "172.18.255.200"


def test_only_its_own_class_is_served(cluster: Cluster, start: Start) -> None:
    cluster.pool("pool", **POOL)
    start("--lb-class", "example.com/berth")
    cluster.service("plain")
    cluster.service("classed", loadBalancerClass="example.com/berth")
    assert cluster.address("classed") == "172.18.255.200"
    assert cluster.condition("plain") == {}


def test_a_deprecated_annotation_is_told_though_nothing_is_written(cluster: Cluster, start: Start) -> None:
    cluster.pool("pool", **POOL)
    start()
    cluster.service("web")
    cluster.address("web")
    cluster.merge(f"{SERVICES}/web", {"metadata": {"annotations": {"metallb.universe.tf/address-pool": "pool"}}})
    message = 'annotation "metallb.universe.tf/address-pool" is deprecated; use "metallb.io/address-pool"'
    wait_until(lambda: ("web", "Warning", "deprecatedAnnotation", message) in cluster.events())


def test_the_heartbeat_key_is_made_once(cluster: Cluster, start: Start) -> None:
    path = "/api/v1/namespaces/metallb-system/secrets"
    first = start()
    (secret,) = wait_until(lambda: list(cluster.ask("GET", path)["items"]))
    assert secret["metadata"]["name"] == "berthlb-heartbeat"
    assert len(base64.b64decode(secret["data"]["current"])) == 32
    first.end(signal.SIGTERM)
    start().ready()
    assert cluster.ask("GET", path)["items"] == [secret]


def test_not_ready_but_alive_while_the_api_server_fails(cluster: Cluster, start: Start) -> None:
    cluster.api.inject(userAgent="berthlb-controller", status=503)
    controller = start()
    code, body = controller.ask("/readyz")
    assert code == 503
    assert "waiting for the first list of services" in body
    assert controller.ask("/healthz") == (200, "ok\n")
    cluster.api.clear_faults()
    controller.ready()


def test_metrics_have_metallbs_names(cluster: Cluster, start: Start) -> None:
    cluster.pool("pool", **POOL)
    controller = start()
    cluster.service("web")
    cluster.service("stuck", {"metallb.io/address-pool": "none"})
    expected = [
        'metallb_allocator_addresses_total{pool="pool"} 51.0',
        'metallb_allocator_addresses_in_use_total{pool="pool"} 1.0',
        'metallb_allocator_ipv4_addresses_in_use_total{pool="pool"} 1.0',
        "metallb_k8s_client_updates_total 2.0",
        "metallb_k8s_client_update_errors_total 0.0",
        "metallb_k8s_client_config_loaded_bool 1.0",
        "metallb_k8s_client_config_stale_bool 0.0",
        'berthlb_controller_services_waiting{reason="UnknownPool"} 1.0',
        'berthlb_controller_refusals_total{reason="UnknownPool"} 1.0',
        "berthlb_controller_queue_length 0.0",
        "berthlb_controller_assignment_seconds_count 1.0",
        'berthlb_controller_assignment_since_creation_seconds_bucket{le="+Inf"} 1.0',
    ]
    wait_until(lambda: set(expected) <= set(controller.ask("/metrics")[1].splitlines()), message="metrics")


def test_restored_services_did_not_wait(cluster: Cluster, start: Start) -> None:
    cluster.pool("pool", **POOL)
    first = start()
    cluster.service("web")
    cluster.address("web")
    first.end(signal.SIGTERM)
    controller = start().ready()
    wait_until(lambda: "berthlb_controller_services 1.0" in controller.ask("/metrics")[1])
    assert "berthlb_controller_assignment_seconds_count 0.0" in controller.ask("/metrics")[1]


def test_it_ends_at_once_when_told_to_even_while_the_api_server_hangs(cluster: Cluster, start: Start) -> None:
    cluster.pool("pool", **POOL)
    controller = start().ready()
    cluster.api.inject(userAgent="berthlb-controller", verb="patch", latency=30)
    cluster.service("web")
    wait_until(lambda: "berthlb_controller_services 1.0" in controller.ask("/metrics")[1])
    assert controller.end(signal.SIGTERM) == 0
    assert controller.lines[-1]["message"] == "stopped"


def test_a_server_that_is_too_old_is_said_once_and_served_until_it_is_upgraded(cluster: Cluster, start: Start) -> None:
    cluster.api.server.version = "v1.29.4-eks-1"
    cluster.pool("kind-pool", **POOL)
    controller = start()
    advice = "the API server is Kubernetes v1.29.4-eks-1, and 1.30 or newer is needed: upgrade the cluster"
    wait_until(lambda: controller.ask("/readyz") == (503, f"{advice}\n"))
    cluster.service("web")
    assert cluster.address("web") == "172.18.255.200"
    cluster.api.server.version = "v1.30.0"
    wait_until(lambda: controller.ask("/readyz")[0] == 200, 30)
    assert [line["advice"] for line in controller.lines if "too old" in line["message"]] == [advice]


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (("--listen", "nowhere"), '"nowhere" is not ADDRESS:PORT'),
        (("--kubeconfig", "/does/not/exist"), 'there is no file "/does/not/exist"'),
        (("--frobnicate",), "--frobnicate"),
        (("--namespace=$(NAMESPACE)",), "there is no NAMESPACE in the container's environment: give it one (env)"),
        (("--listen=[$(POD_IP)]:7472",), "no POD_IP in the container's environment"),
        (("--remember-releases", "1001"), '"1001" is no number from 0 to 1000'),
        ((), "cluster"),
    ],
)
def test_bad_arguments_are_one_line_and_exit_code_2(flags: tuple[str, ...], complaint: str) -> None:
    command = [sys.executable, "-m", "controller", *flags]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, env={})
    assert result.returncode == 2
    assert complaint in result.stderr
    assert result.stderr.count("\n") == 1
