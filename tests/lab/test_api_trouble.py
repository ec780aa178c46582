"""Trouble with the API server, on the real one, seen from the LAN: each kind once.

Whatever happens to it, the address of a Service that has one is answered by its owner and nobody else, and stays in the
Service's status; a node that dies meanwhile is replaced as always. Afterwards everything heals by itself: what was
created during the trouble gets an address, and nobody storms the server that has just come back. One lab for all;
every test leaves it as it found it.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

from cluster.api.client import (
    ENDPOINT_SLICES,
    LEASES,
    SERVICES,
    AlreadyExists,
    ApiClient,
    ApiError,
    NotFound,
    ServerError,
)
from cluster.objects import Object
from cluster.resources import Resource
from cluster.slices import SERVICE_NAME_LABEL
from lab import launch
from lab.client import Lab
from lab.control.messages import SPEC, ProcessStatus, Spec
from lab.controlplane import audit
from lab.controlplane.commands import audit_log
from lab.controlplane.credentials import DAEMONS, credentials_directory, make_api_server_certificate, token_file_of
from lab.controlplane.tokens import sign_token, write_token
from lab.layout import API_PORT, CONTROL_PLANE, lay_out
from lab.measuring import measure
from lab.measuring.figures import answered_by_two, longest_silence
from lab.objects.manifests import api_of
from lab.readiness import await_ready
from lab.shipped.kinds import Whole, by_word
from tests.lab.test_faults import ADDRESS, addresses, new_mac, page_from_client, serving
from tests.real import real_assets
from tests.waiting import wait_until

T = TypeVar("T", bound=Object)
pytestmark = [pytest.mark.lab, pytest.mark.real, pytest.mark.xdist_group("trouble")]

HEAL_S = 60.0
"""An API server that has come back needs seconds on a busy machine; what waits for it asks every 30 s at the latest."""
WATCHES = {"berthlb-controller": 2 * 10, "berthlb-speaker": 3 * 7}
"""How many kinds two controllers and three speakers follow."""
CONTROLLERS = ("controller", "controller-2")
LEASE_S = 6
"""Shorter than by default, and long enough for a busy machine."""
FLOOR_S = 1.5
"""Of D. Nothing here is about how soon a death is noticed. A speaker that a busy machine lets stand still for a third
of a second is not dead, and nobody is to take over from it."""
LEEWAY_S = 60.0
"""So long the API server still takes a token that has expired."""
NO_POD = "10.244.255.250"
"""An endpoint that nobody asks: what counts is who answers for the Service's address."""
ASKED_PER_WATCH = 12
"""Requests that a healing watch may need, and writes beside it: a storm would be hundreds."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Lab]:
    """Three nodes, and the tutorial's Service at ``ADDRESS``."""
    wanted = launch.Recipe(
        f"trouble-test-{os.getpid()}",
        lay_out(3),
        node_grace=4.0,
        assets=real_assets(),
        controllers=2,
        controller_args=(f"--lease-duration={LEASE_S}",),
        speaker_args=(f"--detection-floor={FLOOR_S}",),
    )
    with serving(wanted) as lab:
        yield lab


@pytest.fixture
def api(cluster: Lab) -> ApiClient:
    return api_of(cluster)


@contextmanager
def undisturbed(lab: Lab, api: ApiClient) -> Iterator[measure.ClientWatch]:
    """The block's trouble is not noticed on the LAN, costs the Service nothing, and is over for good at its end."""
    with measure.watching(lab, ADDRESS) as watch:
        mac = measure.steady_holder(watch)
        since = time.monotonic()
        before = api.get(SERVICES, "dev", "nginx-service")
        yield watch
        heals(lab, api)
        answers = [a for a in watch.answers() if a.at > since]
        assert {a.mac for a in answers} == {mac}
        assert longest_silence(answers, since, time.monotonic()) < 0.5
        after = api.get(SERVICES, "dev", "nginx-service")
        assert (after.status, after.metadata.annotations) == (before.status, before.metadata.annotations)
        assert after.metadata.resource_version == before.metadata.resource_version, "it was written to without need"


def heals(lab: Lab, api: ApiClient) -> None:
    """All are ready, and a new Service gets an address that is answered."""
    wait_until(lambda: can_ask(api), HEAL_S, "the API server does not come back")
    await_ready(lab)
    create(api, "healed")
    address = wait_until(lambda: addresses(api, "healed"), HEAL_S, "a new Service gets no address")[0]
    assert address != ADDRESS
    with measure.watching(lab, address) as watch:
        wait_until(watch.answers, HEAL_S, "nobody answers for a new Service")
        measure.steady_holder(watch)
        api.delete(SERVICES, "dev", "healed")
        wait_until(lambda: watch.answers()[-1].at < time.monotonic() - 0.5, HEAL_S)


def can_ask(api: ApiClient) -> bool:
    try:
        api.get(SERVICES, "dev", "nginx-service")
    except ApiError:
        return False
    return True


def create(api: ApiClient, name: str, **more: str) -> None:
    """A Service with an endpoint of its own: kube-controller-manager, which would make those of a selector, may wait
    for a minute before it asks an API server again that was away."""
    spec = {"type": "LoadBalancer", "ports": [{"port": 80}], **more}
    uid = made(api, SERVICES, {"metadata": {"name": name}, "spec": spec}).metadata.uid
    metadata = {
        "generateName": f"{name}-",
        "labels": {SERVICE_NAME_LABEL: name},
        "ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": name, "uid": uid}],
    }
    made(api, ENDPOINT_SLICES, {"metadata": metadata, "addressType": "IPv4", "endpoints": [{"addresses": [NO_POD]}]})


def made(api: ApiClient, resource: Resource[T], body: dict[str, Any]) -> T:
    """Tried again while an API server that has just started cannot give out ClusterIPs yet."""

    def created() -> T | None:
        try:
            return api.create(resource, "dev", body)
        except AlreadyExists:  # an error that was none
            return api.get(resource, "dev", body["metadata"]["name"])
        except ServerError:
            return None

    return wait_until(created, HEAL_S)


def create_one_that_waits(api: ApiClient, name: str, refused: Callable[[], bool]) -> None:
    """A Service whose address the controller is refused to write; one that gets it before that is made again."""
    create(api, name)

    def waits() -> bool:
        if addresses(api, name):
            api.delete(SERVICES, "dev", name)
            create(api, name)
        return refused() and not addresses(api, name)

    wait_until(waits, 2 * HEAL_S, "the controller is refused nothing")


def spec_of(lab: Lab) -> Spec:
    return msgspec.json.decode((lab.directory / SPEC).read_bytes(), type=Spec)


def asked(lab: Lab, account: str, since: float) -> list[audit.ApiRequest]:
    """What a daemon's account has asked since then (seconds since 1970)."""
    return [each for each in audit.requests(audit_log(spec_of(lab)), account) if each.at > since and each.complete]


def busy_s(lab: Lab, processes: list[int]) -> float:
    """CPU seconds of these processes so far."""
    ticks = 0
    for pid in processes:
        fields = lab.run("cp", ["cat", f"/proc/{pid}/stat"], check=True).output.rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def is_api_side(process: ProcessStatus) -> bool:
    return process.name in {*CONTROLLERS, "speaker watcher"}


def api_side(lab: Lab) -> list[int]:
    """The processes of ours that talk to the API server."""
    return [p.pid for p in lab.status().processes if p.running and is_api_side(p)]


@contextmanager
def standing_still(lab: Lab, process: str) -> Iterator[None]:
    lab.process(CONTROL_PLANE, process, "pause")
    try:
        yield
    finally:
        lab.process(CONTROL_PLANE, process, "resume")


@contextmanager
def failed_over(lab: Lab, watch: measure.ClientWatch) -> Iterator[None]:
    """The owner's power is cut, and another node takes over; at the block's end the power is back."""
    old = measure.steady_holder(watch)
    node = measure.node_of(lab, old)
    cut = time.monotonic()
    lab.stop_node(node)
    try:
        new_mac(watch, old, cut)
        yield
    finally:
        lab.start_node(node)


# ------------------------------------------------------------------------ away


def test_an_api_server_that_was_killed_and_comes_back(cluster: Lab, api: ApiClient) -> None:
    """Waiting for it costs next to nothing, and its return is no reason to storm it."""
    with undisturbed(cluster, api) as watch:
        cluster.process(CONTROL_PLANE, "apiserver", "kill")
        processes = api_side(cluster)
        began, used = time.monotonic(), busy_s(cluster, processes)
        wait_until(lambda: watch.answers()[-1].at > began + 5.0)
        assert busy_s(cluster, processes) - used < 0.1 * 5.0 * len(processes)
        back = time.time()
        cluster.process(CONTROL_PLANE, "apiserver", "start")
    for account, watches in WATCHES.items():
        requests = asked(cluster, account, back)
        assert len(requests) < ASKED_PER_WATCH * watches, [(r.verb, r.resource, r.code) for r in requests]


@pytest.mark.parametrize("process", ["etcd", "apiserver"])
def test_a_node_that_dies_while_the_control_plane_stands_still_is_replaced(
    cluster: Lab, api: ApiClient, process: str
) -> None:
    with measure.watching(cluster, ADDRESS) as watch, ExitStack() as power:
        with standing_still(cluster, process):
            power.enter_context(failed_over(cluster, watch))
        wait_until(lambda: can_ask(api), HEAL_S)
        power.close()
        await_ready(cluster)
        new = measure.steady_holder(watch)
        back = time.monotonic()
        heals(cluster, api)
        assert {a.mac for a in watch.answers() if a.at > back} == {new}
        assert addresses(api, "nginx-service") == [ADDRESS]
        assert answered_by_two(watch.answers(), 0.05) == 0
    wait_until(lambda: page_from_client(cluster), HEAL_S)


@pytest.mark.parametrize("seconds", [pytest.param(4.0), pytest.param(30.0, marks=pytest.mark.long)])
def test_etcd_that_stands_still(cluster: Lab, api: ApiClient, seconds: float) -> None:
    with undisturbed(cluster, api):
        cluster.process(CONTROL_PLANE, "etcd", "pause", seconds)
        with suppress(ApiError):
            create(api, "delayed")  # the server answers when it can, or that it cannot
        wait_until(lambda: can_ask(api), seconds + HEAL_S)
        delete(api, SERVICES, "dev", "delayed")


def delete(api: ApiClient, resource: Resource[Any], namespace: str | None, name: str) -> None:
    """Whether or not it is there."""
    try:
        api.delete(resource, namespace, name)
    except NotFound:
        return


def test_a_history_that_was_compacted(cluster: Lab, api: ApiClient) -> None:
    """What was deleted and made while nobody could follow is found by listing anew."""
    create(api, "old")
    released = wait_until(lambda: addresses(api, "old"))[0]
    paused = [p for p in cluster.status().processes if p.running and is_api_side(p)]
    with undisturbed(cluster, api):
        told = gone_is_said(cluster)
        for each in paused:
            cluster.run(each.host, ["kill", "-STOP", str(each.pid)], check=True)
        api.delete(SERVICES, "dev", "old")
        create(api, "new", loadBalancerIP=released)
        compact_history(cluster, api)
        cluster.process(CONTROL_PLANE, "apiserver", "kill")
        for each in paused:
            cluster.run(each.host, ["kill", "-CONT", str(each.pid)], check=True)
        cluster.process(CONTROL_PLANE, "apiserver", "start")
        wait_until(lambda: can_ask(api), HEAL_S)
        wait_until(lambda: addresses(api, "new") == [released], HEAL_S, "the address was not released")
        assert gone_is_said(cluster) > told, "nobody was told that the history is gone"
    with measure.watching(cluster, released) as watch:
        wait_until(watch.answers, HEAL_S)
        measure.steady_holder(watch)
    api.delete(SERVICES, "dev", "new")


def gone_is_said(lab: Lab) -> int:
    """How often our daemons were told so (410)."""
    logs = [
        *(lab.log(CONTROL_PLANE, name) for name in CONTROLLERS),
        *(lab.log(f"node-{n}", "speaker") for n in (1, 2, 3)),
    ]
    return sum(log.read_text().count('"error":"410 ') for log in logs)


def compact_history(lab: Lab, api: ApiClient) -> None:
    """Have etcd forget everything before now, by its JSON gateway."""
    revision = api.get(SERVICES, "dev", "new").metadata.resource_version
    body = json.dumps({"revision": revision, "physical": True})
    url = "http://127.0.0.1:2379/v3/kv/compaction"
    lab.run(CONTROL_PLANE, ["curl", "--silent", "--fail", "--data", body, url], check=True)


# ------------------------------------------------------------------------ there, and unwell


def test_an_api_server_that_is_slow(cluster: Lab, api: ApiClient) -> None:
    """It runs for a sixth of the time only, so that every request takes a few hundred milliseconds."""
    over = threading.Event()

    def slow_down() -> None:
        while not over.wait(0.3):
            cluster.process(CONTROL_PLANE, "apiserver", "pause", 0.25)

    slowness = threading.Thread(target=slow_down)
    with undisturbed(cluster, api):
        slowness.start()
        try:
            create(api, "slow")
            wait_until(lambda: addresses(api, "slow"), HEAL_S)
        finally:
            over.set()
            slowness.join()
        api.delete(SERVICES, "dev", "slow")


FLOWS = Resource("flowcontrol.apiserver.k8s.io", "v1", "flowschemas", "FlowSchema", False, Whole)
LEVELS = Resource(
    "flowcontrol.apiserver.k8s.io", "v1", "prioritylevelconfigurations", "PriorityLevelConfiguration", False, Whole
)
WEBHOOKS = Resource(
    "admissionregistration.k8s.io",
    "v1",
    "validatingwebhookconfigurations",
    "ValidatingWebhookConfiguration",
    False,
    Whole,
)


def throttle(api: ApiClient) -> None:
    """429 to every request of our daemons: a priority level without any seat."""
    limited = {"nominalConcurrencyShares": 0, "lendablePercent": 0, "limitResponse": {"type": "Reject"}}
    limited["borrowingLimitPercent"] = 0
    api.create(LEVELS, None, {"metadata": {"name": "trouble"}, "spec": {"type": "Limited", "limited": limited}})
    subjects = [
        {"kind": "ServiceAccount", "serviceAccount": {"namespace": audit.NAMESPACE, "name": name}} for name in DAEMONS
    ]
    everything = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": True}
    rules = [{"subjects": subjects, "resourceRules": [everything]}]
    spec = {"priorityLevelConfiguration": {"name": "trouble"}, "matchingPrecedence": 2, "rules": rules}
    api.create(FLOWS, None, {"metadata": {"name": "trouble"}, "spec": spec})


def stop_throttling(api: ApiClient) -> None:
    delete(api, FLOWS, None, "trouble")
    delete(api, LEVELS, None, "trouble")


def break_writes(api: ApiClient) -> None:
    """500 to every write of a Service's status: a webhook that must be asked, and is not there."""
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["services/status"], "operations": ["UPDATE"]}
    webhook = {
        "name": "trouble.berthlb.io",
        "clientConfig": {"url": "https://127.0.0.1:9/"},
        "rules": [rule],
        "failurePolicy": "Fail",
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "timeoutSeconds": 1,
    }
    api.create(WEBHOOKS, None, {"metadata": {"name": "trouble"}, "webhooks": [webhook]})


def mend_writes(api: ApiClient) -> None:
    delete(api, WEBHOOKS, None, "trouble")


@pytest.mark.parametrize(
    ("code", "spoil", "mend"),
    [pytest.param(429, throttle, stop_throttling, id="429"), pytest.param(500, break_writes, mend_writes, id="500")],
)
def test_an_api_server_that_refuses(
    cluster: Lab, api: ApiClient, code: int, spoil: Callable[[ApiClient], None], mend: Callable[[ApiClient], None]
) -> None:
    def refused_writes() -> int:
        made = asked(cluster, "berthlb-controller", since)
        return len([each for each in made if (each.resource, each.code) == ("services/status", code)])

    with undisturbed(cluster, api) as watch:
        since = time.time()
        spoil(api)
        try:
            create_one_that_waits(api, "refused", lambda: refused_writes() >= 3)
            assert addresses(api, "refused") == []
            tried = len(asked(cluster, "berthlb-controller", since))
            began = time.monotonic()
            wait_until(lambda: watch.answers()[-1].at > began + 3.0)
            later = asked(cluster, "berthlb-controller", since)[tried:]
            assert len(later) < 30, Counter((each.verb, each.resource, each.code) for each in later)
        finally:
            mend(api)
        wait_until(lambda: addresses(api, "refused"), HEAL_S)
        api.delete(SERVICES, "dev", "refused")


# ------------------------------------------------------------------------ who is who


def served_certificate(lab: Lab) -> bytes:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with lab.open_socket("client", socket.AF_INET) as plain:
        plain.settimeout(5.0)
        plain.connect((lab.status().layout.control_plane.address, API_PORT))
        with context.wrap_socket(plain) as wrapped:
            return wrapped.getpeercert(binary_form=True) or b""


def test_a_certificate_that_was_rotated(cluster: Lab, api: ApiClient) -> None:
    """As a cluster's tools do it: a new key and certificate of the same authority, then a restart."""
    before = served_certificate(cluster)
    with undisturbed(cluster, api):
        make_api_server_certificate(credentials_directory(spec_of(cluster)))
        cluster.process(CONTROL_PLANE, "apiserver", "kill")
        cluster.process(CONTROL_PLANE, "apiserver", "start")
        wait_until(lambda: can_ask(api), HEAL_S)
        assert served_certificate(cluster) != before


@pytest.mark.parametrize("seconds", [pytest.param(3.0), pytest.param(60.0, marks=pytest.mark.long)])
def test_a_token_that_expires_and_is_renewed_late(cluster: Lab, api: ApiClient, seconds: float) -> None:
    spec = spec_of(cluster)

    def give(account: str, lifetime_s: float) -> Path:
        metadata = api.get(by_word("serviceaccount"), audit.NAMESPACE, account).metadata
        file = token_file_of(spec, account)
        write_token(file, sign_token(credentials_directory(spec), metadata, time.time(), lifetime_s))
        return file

    def refused() -> int:
        return sum(cluster.log(CONTROL_PLANE, name).read_text().count("401 Unauthorized") for name in CONTROLLERS)

    with undisturbed(cluster, api):
        for account in DAEMONS:
            give(account, seconds - LEEWAY_S)
        already = refused()
        # Every watch begins anew, the daemons read the token, and it expires under them (and, seconds later, under the
        # server's memory of it).
        cluster.process(CONTROL_PLANE, "apiserver", "kill")
        cluster.process(CONTROL_PLANE, "apiserver", "start")
        wait_until(lambda: can_ask(api), HEAL_S)
        create_one_that_waits(api, "expired", lambda: refused() > already)
        for account in DAEMONS:
            give(account, 3600.0)
        wait_until(lambda: addresses(api, "expired"), HEAL_S)
        api.delete(SERVICES, "dev", "expired")


# ------------------------------------------------------------------------ two that believe to lead


def leader(lab: Lab) -> str:
    """The replica that the Lease names."""
    found = api_of(lab).get(LEASES, audit.NAMESPACE, "berthlb-controller").spec.holder_identity or ""
    return found.rpartition("-")[0]  # behind it stands something random


def test_both_controllers_of_a_pair_paused_in_turn(cluster: Lab, api: ApiClient) -> None:
    """Each goes on where it stood still, believing to lead; what it had decided by then, it must not write."""
    with undisturbed(cluster, api):
        for number in (1, 2):
            old = wait_until(lambda: leader(cluster), HEAL_S)
            cluster.process(CONTROL_PLANE, old, "pause")
            create(api, f"paused-{number}")  # seen by the one that stands still when it goes on, and by the other now
            wait_until(lambda: leader(cluster) not in {"", old}, HEAL_S, "nobody took over")  # noqa: B023 (called here)
            wait_until(lambda: addresses(api, f"paused-{number}"), HEAL_S)  # noqa: B023 (called here)
            cluster.process(CONTROL_PLANE, old, "resume")
            create(api, f"resumed-{number}")
            wait_until(lambda: addresses(api, f"resumed-{number}"), HEAL_S)  # noqa: B023 (called here)
        names = [f"{what}-{number}" for what in ("paused", "resumed") for number in (1, 2)]
        given = [address for name in (*names, "nginx-service") for address in addresses(api, name)]
        assert len(given) == len(set(given)) == len(names) + 1
        for name in names:
            api.delete(SERVICES, "dev", name)


@pytest.mark.long
def test_a_watch_that_goes_silent_without_closing(cluster: Lab, api: ApiClient) -> None:
    """The nodes' connections live, and nothing that the server says on them arrives: the missing bookmarks tell."""
    rule = f"tcp sport {API_PORT} ip length > 80 tcp dport . ip daddr @silent drop"
    table = f"""table ip trouble {{
        set silent {{ type inet_service . ipv4_addr; }}
        chain out {{ type filter hook output priority 0; {rule}; }}
    }}"""
    nodes = {node.address for node in cluster.status().layout.nodes}
    with undisturbed(cluster, api):
        shown = cluster.run(CONTROL_PLANE, ["cat", "/proc/net/tcp6"], check=True).output
        silent = ", ".join(f"{port} . {peer}" for port, peer in connections(shown) if peer in nodes)
        cluster.run(CONTROL_PLANE, ["nft", "-f", "-"], input=table, check=True)
        cluster.run(CONTROL_PLANE, ["nft", "add", "element", "ip", "trouble", "silent", f"{{ {silent} }}"], check=True)
        try:
            create(api, "unheard")
            address = wait_until(lambda: addresses(api, "unheard"), HEAL_S)[0]
            with measure.watching(cluster, address) as watch:
                wait_until(watch.answers, 150.0, "the speakers do not notice")
        finally:
            cluster.run(CONTROL_PLANE, ["nft", "delete", "table", "ip", "trouble"], check=True)
        api.delete(SERVICES, "dev", "unheard")


def connections(table: str) -> list[tuple[int, str]]:
    """Port and IPv4 address of the peer of each connection to the API server, from ``/proc/net/tcp6``."""
    found = []
    for line in table.splitlines()[1:]:
        local, remote, state = line.split()[1:4]
        if state == "01" and int(local.partition(":")[2], 16) == API_PORT:
            host, _, port = remote.partition(":")
            found.append((int(port, 16), socket.inet_ntoa(bytes.fromhex(host[-8:])[::-1])))
    return found
