"""What only looks, on a real API server with MetalLB's definitions: observing daemons, and ``berthlb migrate check``.

The daemons have permissions to read and no others: not one request is refused, since none but questions are asked.
Every frame that leaves the node of the speaker is looked at: they are those of its connections to the API server.
MetalLB's part is played by its manifest and by what it writes; with the real one it is tested in tests/lab.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.assets.metallb_release import source
from tests.kubernetes.control_plane import MANIFEST, PORT, ROOT, ControlPlane
from tests.kubernetes.metallb import definitions
from tests.kubernetes.test_permissions import NODE, DaemonProcess, endpoints, metallb, service
from tests.waiting import wait_until
from tests.wire.network import Wire, WireHost

pytestmark = [pytest.mark.xdist_group("permissions"), pytest.mark.slow]

NAMESPACE = "metallb-system"
VERSION = "0.15.3"
READING = {"get", "list", "watch"}
ACCOUNTS = {"controller": "berthlb-controller", "speaker": "berthlb-speaker"}
STATUS = 7480
WAIT_S = 60.0
ETH_P_ALL, ETH_P_IP, ETH_P_ARP, TCP = 3, 0x0800, 0x0806, 6


class Outgoing:
    """Every frame that a host sends on its interface."""

    def __init__(self, host: WireHost) -> None:
        def listen() -> socket.socket:
            heard = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.htons(ETH_P_ALL))
            heard.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
            heard.bind(("eth0", ETH_P_ALL))
            return heard

        self._socket = host.call(listen)

    def kinds(self) -> set[str]:
        """What there was since the last call: ``tcp ADDRESS:PORT``, or the frame's type and its octets."""
        found: set[str] = set()
        while True:
            try:
                frame, about = self._socket.recvfrom(2048)
            except BlockingIOError:
                return found
            if about[2] == socket.PACKET_OUTGOING:
                found.add(self._kind(frame, about[1]))

    @staticmethod
    def _kind(frame: bytes, ethertype: int) -> str:
        if ethertype == ETH_P_IP and frame[23] == TCP:
            header = 14 + 4 * (frame[14] & 15)
            return f"tcp {socket.inet_ntoa(frame[30:34])}:{int.from_bytes(frame[header + 2 : header + 4])}"
        if ethertype == ETH_P_ARP:
            word = {1: "asks for", 2: "answers from"}.get(frame[21], "says")
            return f"arp {word} {socket.inet_ntoa(frame[38:42] if frame[21] == 1 else frame[28:32])}"
        return f"{ethertype:#06x} {frame.hex()}"

    def close(self) -> None:
        self._socket.close()


class World:
    def __init__(self, wire: Wire, plane: ControlPlane, logs: Path) -> None:
        self.plane = plane
        self.node = wire.host("node-1")
        self.node.run("sysctl", "-qw", "net.ipv6.conf.eth0.disable_ipv6=1")  # whose frames are the kernel's own
        self.node_address = wire.address(self.node)
        self.hosts = {"controller": plane.host, "speaker": self.node}
        self.logs = {name: logs / f"{name}.log" for name in ACCOUNTS}
        self.daemons: list[DaemonProcess] = []

    def apply(self, *objects: dict[str, Any]) -> None:
        self.plane.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(objects))

    def may_only_read(self) -> None:
        roles = [each for each in yaml.safe_load_all(MANIFEST.read_text()) if each["kind"] in {"Role", "ClusterRole"}]
        for role in roles:
            rules = [{**rule, "verbs": sorted(READING.intersection(rule["verbs"]))} for rule in role["rules"]]
            role["rules"] = [rule for rule in rules if rule["verbs"]]
        self.apply(*roles)

    def give(self, name: str, address: str) -> None:
        """An address, as MetalLB does."""
        patch = {
            "metadata": {"annotations": {"metallb.io/ip-allocated-from-pool": "lan"}},
            "status": {"loadBalancer": {"ingress": [{"ip": address}]}},
        }
        arguments = ("--subresource=status", "--type=merge", "--field-manager=metallb-controller")
        self.plane.kubectl("patch", "service", name, *arguments, f"--patch={json.dumps(patch)}")

    def announce(self, name: str) -> None:
        """Record that the node announces a Service, as MetalLB does."""
        labels = {"node": "node-1", "service-name": name, "service-namespace": "default"}
        body = metallb("ServiceL2Status", f"l2-{name}")
        body["metadata"]["labels"] = {f"metallb.io/{key}": value for key, value in labels.items()}
        self.apply(body)
        status = {"status": {"node": "node-1", "serviceName": name, "serviceNamespace": "default"}}
        arguments = (
            f"--namespace={NAMESPACE}",
            "--subresource=status",
            "--type=merge",
            f"--patch={json.dumps(status)}",
        )
        self.plane.kubectl("patch", "servicel2status", f"l2-{name}", *arguments)

    def written(self) -> list[str]:
        """Everything that a daemon of ours ever writes."""
        kinds = "services,ipaddresspools,l2advertisements,servicel2statuses,configurationstates,events,leases,secrets"
        return [self.plane.kubectl("get", kinds, "-n", where, "-oyaml") for where in ("default", NAMESPACE)]

    def observe(self) -> None:
        for name, account in ACCOUNTS.items():
            kubeconfig = self.plane.kubeconfig(self.plane.token(account), on_the_wire=True)
            arguments = [f"--kubeconfig={kubeconfig}", "--observe", f"--listen=127.0.0.1:{STATUS}"]
            if name == "speaker":
                arguments.append("--node-name=node-1")
            self.daemons.append(DaemonProcess(self.hosts[name], self.logs[name], name, *arguments))  # type: ignore[arg-type]

    def ask(self, name: str, path: str) -> str:
        """The answer; empty where it is none of 200."""

        def get() -> str:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{STATUS}{path}", timeout=5) as answer:
                    return str(answer.read().decode())
            except OSError:
                return ""

        return self.hosts[name].call(get)

    def differences(self) -> dict[str, int]:
        """All that there are, by kind."""
        text = "".join(self.ask(name, "/metrics") for name in ACCOUNTS)
        found = re.findall(r'^berthlb_observe_differences\{difference="(\w+)"\} (\d+)', text, re.MULTILINE)
        return {kind: int(count) for kind, count in found if int(count)}

    def said(self, message: str) -> set[tuple[str, str]]:
        """The kind and the object of each such line."""
        lines = [json.loads(line) for log in self.logs.values() for line in log.read_text().splitlines()]
        return {(line["kind"], line["about"]) for line in lines if line["message"] == message}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    wire, directory = Wire(), tmp_path_factory.mktemp("beside-metallb")
    plane = ControlPlane(wire, directory, definitions=definitions(VERSION))
    try:
        plane.start()
        made = World(wire, plane, directory)
        yield made
        for daemon in made.daemons:
            daemon.end()
    finally:
        plane.end()
        wire.end()


def test_observers_say_what_would_be_otherwise_and_neither_write_nor_send(world: World) -> None:
    world.may_only_read()
    world.apply(NODE, metallb("IPAddressPool", "lan", addresses=["192.0.2.200-192.0.2.250"]))
    world.apply(metallb("L2Advertisement", "lan"))
    for number, name in enumerate(("web", "quiet")):
        world.apply(service(name), endpoints(name))
        world.give(name, f"192.0.2.{220 + number}")
    world.announce("web")
    before = world.written()
    frames = Outgoing(world.node)
    try:
        world.observe()
        wait_until(lambda: world.ask("controller", "/readyz"), WAIT_S, "the controller is not ready")
        wait_until(lambda: world.ask("speaker", "/readyz"), WAIT_S, "the speaker is not ready")
        wait_until(lambda: world.differences() == {"announced_by_nobody": 1}, WAIT_S, "quiet is not told of")
        after = world.written()
        assert after == before

        # MetalLB does what we would not, and leaves undone what we would.
        world.apply(service("waits"))
        world.announce("gone")
        world.give("web", "203.0.113.1")
        everything = {"announced_by_nobody": 1, "not_announced": 2, "address_given": 1, "address_changes": 1}
        wait_until(lambda: world.differences() == everything, WAIT_S, "not all is told")
        assert world.said("difference") == {
            ("announced_by_nobody", "default/quiet"),
            ("not_announced", "default/gone"),
            ("not_announced", "default/web"),
            ("address_given", "default/waits"),
            ("address_changes", "default/web"),
        }

        # It sees to it; what is no difference any more is one no longer.
        world.give("web", "192.0.2.220")
        world.give("waits", "192.0.2.230")
        world.plane.kubectl("delete", "servicel2status", "l2-gone", f"--namespace={NAMESPACE}")
        world.announce("quiet")
        wait_until(lambda: world.differences() == {}, WAIT_S, "some difference stays")
        assert world.said("difference over") == world.said("difference")

        server = f"{world.plane.address}"
        allowed = {f"tcp {server}:{PORT}", f"arp asks for {server}", f"arp answers from {world.node_address}"}
        seen = frames.kinds()
        assert f"tcp {server}:{PORT}" in seen
        assert seen <= allowed
    finally:
        frames.close()
    for account in ACCOUNTS.values():
        requests = world.plane.requests(account)
        assert requests
        assert {request.verb for request in requests} <= READING
        unserved = {request.resource for request in requests if request.code == 404}
        assert unserved <= {"nodeippools"}, "MetalLB serves all but that"
        assert {request.code for request in requests} <= {200, 404}, "some request was refused"


def check(kubeconfig: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cli", "migrate", "check", f"--kubeconfig={kubeconfig}", *flags]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT, env=environment)


def found(world: World, *flags: str) -> tuple[int, dict[str, Any]]:
    """The exit code, and the findings by reason."""
    done = check(world.plane.kubeconfig(), "--json", *flags)
    return done.returncode, {each["reason"]: each for each in json.loads(done.stdout)["findings"]}


def test_the_check_reads_an_installation_of_metallb(world: World) -> None:
    plane = world.plane
    world.apply(
        metallb("IPAddressPool", "lan", addresses=["192.0.2.200-192.0.2.250"]), metallb("L2Advertisement", "lan")
    )
    manifest = source(VERSION, os.environ) / "config/manifests/metallb-native.yaml"
    plane.kubectl("apply", f"--filename={manifest}")
    try:
        code, reasons = found(world)
        assert (code, set(reasons)) == (0, {"StopMetalLB", "OwnedDefinitions", "Webhook"})
        assert len(reasons["OwnedDefinitions"]["objects"]) == 9
        assert "kubectl delete -f" in reasons["OwnedDefinitions"]["text"]
        assert reasons["Webhook"]["objects"] == ["ValidatingWebhookConfiguration metallb-webhook-configuration"]

        plane.kubectl("delete", "validatingwebhookconfiguration", "metallb-webhook-configuration")
        release = ("meta.helm.sh/release-name=lb", f"meta.helm.sh/release-namespace={NAMESPACE}")
        plane.kubectl("annotate", "crd", "--all", *release)
        world.apply(metallb("BGPAdvertisement", "everywhere"))
        code, reasons = found(world)
        assert (code, set(reasons)) == (1, {"StopMetalLB", "OwnedDefinitions", "BGPAdvertisement"})
        assert f"helm uninstall lb --namespace {NAMESPACE}" in reasons["OwnedDefinitions"]["text"]

        world.apply(metallb("IPAddressPool", "routed", addresses=["198.51.100.0/28"]))
        plane.kubectl("patch", "l2advertisement", "lan", f"--namespace={NAMESPACE}", "--type=merge",
                      '--patch={"spec":{"ipAddressPools":["lan"]}}')  # fmt: skip
        done = check(plane.kubeconfig())
        assert done.returncode == 3
        assert "Blocks the migration:\n  PoolByBGP: IPAddressPool routed: announced by BGP alone" in done.stdout
    finally:
        plane.kubectl("delete", "bgpadvertisements", "--all", f"--namespace={NAMESPACE}")


def test_a_cluster_that_cannot_be_read_is_told_apart_from_one_with_nothing_in_the_way(world: World) -> None:
    done = check(world.plane.kubeconfig(world.plane.token("berthlb-speaker")))
    assert (done.returncode, done.stdout) == (2, "")
    assert "not allowed to list" in done.stderr
    done = check(Path("/nonexistent"))
    assert done.returncode == 2
    assert done.stderr.startswith("berthlb migrate check: kubeconfig /nonexistent: ")
