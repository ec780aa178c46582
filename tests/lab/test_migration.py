"""From MetalLB to BerthLB and back, in place, with the real MetalLB on a real control plane.

One history, as docs/how-to/migrate-from-metallb.md has it: MetalLB serves; BerthLB observes beside it and finds no
difference; MetalLB ends and BerthLB begins; what is left of MetalLB is removed; and all the way back. The commands are
the page's. A client asks for an address and makes requests all the while. What it saw is printed as a timeline
(``pytest -s``), and nothing that users made is written again: neither a Service nor a pool.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml

from lab import launch
from lab.assets.metallb_release import gather_metallb
from lab.client import Command, Lab
from lab.controlplane import audit
from lab.layout import CONTROL_PLANE, lay_out
from lab.machines.container import confined
from lab.measuring import measure
from lab.measuring.figures import answered_by_two, longest_silence
from lab.metallb import MetalLB
from lab.objects.manifests import SEEDS
from lab.objects.workloads import start_workload
from lab.shipped.rights import DaemonName, rights_of
from tests.real import kubectl, real_assets
from tests.waiting import ended, wait_until

pytestmark = [
    pytest.mark.lab,
    pytest.mark.real,
    pytest.mark.metallb,
    pytest.mark.xdist_group("migration"),
]

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/how-to/migrate-from-metallb.md"
MANIFEST = ROOT / "deploy/berthlb.yaml"
ACCOUNTS = ("berthlb-controller", "berthlb-speaker")
READING = {"get", "list", "watch"}
ADDRESS = "172.18.255.200"
STATUS = 7473
"""Where our daemons show their status here; MetalLB's have 7472."""
READY_S = 60.0
SETTLED_S = 20.0
"""Longer than a difference must last to be told."""
BY_TWO_S = 0.05
LONGEST_GAP_S = 60.0
"""Nobody answers from the end of one to the start of the other: some seconds, on busy cores more."""

Made = dict[str, tuple[str, int, Any]]


class Beside:
    """BerthLB's daemons in a lab that MetalLB serves: as many as a cluster would have, each with its rights."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self.running: dict[str, Command] = {}

    def start(self, *flags: str) -> None:
        for account in ACCOUNTS:
            token = kubectl(self._lab, "create", "token", account, "--namespace=metallb-system", "--duration=1h")
            (self._lab.directory / f"credentials/{account}.token").write_text(token)
        self._start(CONTROL_PLANE, "controller", *flags)
        for node in self._lab.status().layout.nodes:
            self._start(node.name, "speaker", f"--node-name={node.name}", *flags)

    def _start(self, host: str, daemon: DaemonName, *flags: str) -> None:
        kubeconfig = self._lab.directory / f"credentials/berthlb-{daemon}.kubeconfig"
        arguments = (f"--kubeconfig={kubeconfig}", f"--listen=127.0.0.1:{STATUS}", *flags)
        argv = [*confined(rights_of(daemon)), sys.executable, "-m", daemon, *arguments]
        log = self._lab.log(host, daemon)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as writing:
            environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
            self.running[host] = self._lab.start(host, argv, stderr=writing, environment=environment)

    def end(self) -> None:
        for command in self.running.values():
            command.terminate()
        for command in self.running.values():
            with command:
                assert ended(command) == 0
        self.running.clear()

    def await_ready(self) -> None:
        give_up = time.monotonic() + READY_S
        while unready := {host: said for host in self.running if (said := self.ask(host, "/readyz"))[0] != 200}:
            for host in unready:
                assert self.running[host].poll() is None, f"{host}: {self.last_line(host)}"
            assert time.monotonic() < give_up, f"{unready}: {[self.last_line(host) for host in unready]}"

    def last_line(self, host: str) -> str:
        log = self._lab.log(host, "controller" if host == CONTROL_PLANE else "speaker")
        return (log.read_text().splitlines() or ["nothing"])[-1]

    def ask(self, host: str, path: str) -> tuple[int, str]:
        asked = ["curl", "--silent", "--max-time", "2", "--write-out", "\n%{http_code}"]
        done = self._lab.run(host, [*asked, f"http://127.0.0.1:{STATUS}{path}"])
        body, _, code = done.output.rpartition("\n")
        return int(code or 0), body

    def differences(self) -> dict[str, float]:
        """How many there are, on all hosts, by kind."""
        found: dict[str, float] = {}
        for host in self.running:
            text = self.ask(host, "/metrics")[1]
            for kind, value in re.findall(
                r'^berthlb_observe_differences\{difference="(\w+)"\} (\S+)$', text, re.MULTILINE
            ):
                found[kind] = found.get(kind, 0.0) + float(value)
        return found

    def sockets(self, host: str) -> set[str]:
        """The tables of the kernel in which a daemon has sockets: ``tcp``, ``udp``, ``packet``, ``netlink`` …"""
        inodes = set(re.findall(r"socket:\[(\d+)\]", self._sockets_of(host)))
        assert inodes
        tables = ("tcp", "tcp6", "udp", "udp6", "raw", "raw6", "icmp", "packet", "netlink", "unix")
        return {table for table in tables if inodes & self._inodes(host, table)}

    def _sockets_of(self, host: str) -> str:
        return self._lab.run(host, ["ls", "-l", f"/proc/{self.running[host].pid}/fd"], check=True).output

    def _inodes(self, host: str, table: str) -> set[str]:
        return set(re.findall(r"\b\d+\b", self._lab.run(host, ["cat", f"/proc/net/{table}"]).output))


class Timeline:
    """What happened, and what the client on the LAN saw of it."""

    def __init__(self, lab: Lab, watch: measure.ClientWatch) -> None:
        self._lab = lab
        self._watch = watch
        self._began = time.monotonic()
        self._events: list[tuple[float, str]] = []

    def note(self, what: str) -> float:
        now = time.monotonic()
        self._events.append((now, what))
        return now

    def figures(self, since: float) -> tuple[float, int, int, int]:
        """From then on: the longest time without an answer, answers by two, requests, and how many were lost."""
        now = time.monotonic()
        answers = [each for each in self._watch.answers() if each.at >= since]
        requests = [each for each in self._watch.requests() if each.start >= since]
        lost = sum(not each.ok for each in requests)
        return longest_silence(answers, since, now), answered_by_two(answers, BY_TWO_S), len(requests), lost

    def answerers(self, since: float) -> set[str]:
        """The MACs that have answered from then on."""
        return {each.mac for each in self._watch.answers() if each.at >= since}

    def show(self) -> None:
        lines = list(self._events)
        last: str | None = None
        before = self._began
        for answer in self._watch.answers():
            if answer.mac != last or answer.at - before > 0.5:
                silent = f" after {answer.at - before:.2f} s without an answer" if answer.at - before > 0.5 else ""
                lines.append((answer.at, f"  {measure.node_of(self._lab, answer.mac)} answers for {ADDRESS}{silent}"))
            last, before = answer.mac, answer.at
        lost = [each.start for each in self._watch.requests() if not each.ok]
        lines += [(at, "  a request is lost") for at in lost[:20]]
        sys.stdout.writelines(["\n", *(f"{at - self._began:7.2f} s  {what}\n" for at, what in sorted(lines))])


@pytest.fixture
def lab() -> Iterator[Lab]:
    recipe = launch.Recipe(f"migration-{os.getpid()}", lay_out(3), daemons=False, node_grace=4.0, assets=real_assets())
    with launch.up(recipe) as lab:
        yield lab


@contextmanager
def serving(lab: Lab) -> Iterator[MetalLB]:
    """MetalLB, with Services that have addresses and are announced."""
    metallb = MetalLB(lab, gather_metallb())
    metallb.install()
    metallb.start()
    try:
        kubectl(lab, "apply", f"--filename={SEEDS / 'kind-metallb-pool.yaml'}")
        start_workload(lab, "nginx", replicas=3, namespace="dev", port=80)
        kubectl(lab, "apply", f"--filename={SEEDS / 'kind-nginx-service.yaml'}")
        wait_until(lambda: ADDRESS in addresses(lab).values(), 30.0)
        for name in ("second", "third"):
            kubectl(lab, "create", "--filename=-", given=json.dumps(service(name)))
        kubectl(lab, "create", "--filename=-", given=json.dumps(service("others", loadBalancerClass="example.com/lb")))
        wait_until(lambda: sum(map(bool, addresses(lab).values())) == 3, 30.0)
        wait_until(lambda: len(announced(lab, "MetalLB")) == 3, 30.0)
        yield metallb
    finally:
        metallb.stop()


def service(name: str, **spec: Any) -> dict[str, Any]:
    ports = [{"port": 80, "targetPort": 80}]
    wanted = {"type": "LoadBalancer", "selector": {"app": "nginx"}, "ports": ports, **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "dev"}, "spec": wanted}


def objects(lab: Lab, kind: str, *where: str) -> list[Any]:
    found: list[Any] = json.loads(kubectl(lab, "get", kind, *(where or ("--all-namespaces",)), "--output=json"))[
        "items"
    ]
    return found


def addresses(lab: Lab) -> dict[str, str]:
    """Of each Service that asks for one."""
    return {
        each["metadata"]["name"]: ",".join(i["ip"] for i in each["status"]["loadBalancer"].get("ingress", ()))
        for each in objects(lab, "services", "--namespace=dev")
    }


def announced(lab: Lab, by: Literal["MetalLB", "BerthLB"]) -> dict[str, str]:
    """The node of each Service, by the status objects. MetalLB's belong to a Pod, ours to nobody."""
    statuses = [
        each.get("status", {})
        for each in objects(lab, "servicel2statuses")
        if bool(each["metadata"].get("ownerReferences")) == (by == "MetalLB")
    ]
    return {each["serviceName"]: each["node"] for each in statuses if each}


def all_answer(lab: Lab, given: dict[str, str]) -> bool:
    """Whether the client gets an answer at each address. (MetalLB's status objects are not waited for where its
    speakers have just begun: of a Service that changed hands then, one may go on naming the first.)"""
    asked = ["curl", "--silent", "--fail", "--max-time", "2", "--output", "/dev/null"]
    return all(lab.run("client", [*asked, f"http://{address}/"]).code == 0 for address in given.values() if address)


def made_by_users(lab: Lab) -> Made:
    """What nobody may make anew or change: Services, pools and advertisements, each with its identity and its wish."""
    return {
        f"{kind}/{each['metadata']['name']}": (
            each["metadata"]["uid"],
            each["metadata"].get("generation", 0),
            each.get("spec"),
        )
        for kind in ("services", "ipaddresspools", "l2advertisements")
        for each in objects(lab, kind)
        if each["metadata"]["namespace"] in {"dev", "metallb-system"} and "webhook" not in each["metadata"]["name"]
    }


def commands(section: str) -> list[list[str]]:
    """The page's kubectl commands under that heading."""
    text = PAGE.read_text().partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"^```console\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    words = [shlex.split(line) for line in lines]
    return [each[1:] for each in words if each[0] == "kubectl"]


def carry_out(lab: Lab, section: str, **files: Path) -> None:
    """Run them; ``files`` says where a file is that a command names, without its suffix."""
    wanted = commands(section)
    assert wanted
    for arguments in wanted:
        kubectl(lab, *(_with_paths(each, files) for each in arguments))


def _with_paths(argument: str, files: Mapping[str, Path]) -> str:
    if not argument.startswith("--filename="):
        return argument
    name = Path(argument.partition("=")[2])
    return f"--filename={files.get(name.stem, ROOT / name)}"


def read_only() -> str:
    """Our accounts, with the rights of the manifest that read and no others."""
    kept = []
    for each in yaml.safe_load_all(MANIFEST.read_text()):
        if each["kind"] in {"Role", "ClusterRole"}:
            rules = [{**rule, "verbs": sorted(READING.intersection(rule["verbs"]))} for rule in each["rules"]]
            kept.append({**each, "rules": [rule for rule in rules if rule["verbs"]]})
        elif each["kind"] in {"ServiceAccount", "RoleBinding", "ClusterRoleBinding"}:
            kept.append(each)
    return yaml.safe_dump_all(kept)


def test_beside_metallb_observers_find_no_difference(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    with_a_client(lab, capsys, observe)


@pytest.mark.long
def test_there_and_back(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    with_a_client(lab, capsys, history)


def with_a_client(
    lab: Lab,
    capsys: pytest.CaptureFixture[str],
    live: Callable[[Lab, MetalLB, Beside, Timeline, measure.ClientWatch], object],
) -> None:
    """Have that happen while a client watches, and show what it saw."""
    with serving(lab) as metallb, measure.watching(lab, ADDRESS, url=f"http://{ADDRESS}/") as watch:
        ours = Beside(lab)
        timeline = Timeline(lab, watch)
        try:
            live(lab, metallb, ours, timeline, watch)
        finally:
            with capsys.disabled():
                timeline.show()
            for command in ours.running.values():
                command.close()


def observe(lab: Lab, _: MetalLB, ours: Beside, timeline: Timeline, watch: measure.ClientWatch) -> None:
    """Beside MetalLB, with permissions to read and no others."""
    measure.steady_holder(watch)
    began = timeline.note("MetalLB serves")
    kubectl(lab, "apply", "--filename=-", given=read_only())
    versions = [each["metadata"]["resourceVersion"] for each in objects(lab, "services", "--namespace=dev")]
    since = time.time()
    ours.start("--observe")
    ours.await_ready()
    ready = timeline.note("BerthLB observes")
    for host in ours.running:
        assert ours.sockets(host) <= {"tcp", "tcp6", "unix"}, "an observer could send a frame"
    wait_until(lambda: watch.answers()[-1].at > ready + SETTLED_S, SETTLED_S + 5.0)
    differences = ours.differences()
    assert len(differences) == 8
    assert set(differences.values()) == {0.0}
    assert [each["metadata"]["resourceVersion"] for each in objects(lab, "services", "--namespace=dev")] == versions
    for account in ACCOUNTS:
        asked = [each for each in audit.requests(lab.directory / "audit.log", account) if each.at > since]
        assert asked
        assert {each.verb for each in asked} <= READING
        assert {each.code for each in asked} == {200}, "some request was refused"
    assert len(timeline.answerers(began)) == 1


def history(lab: Lab, metallb: MetalLB, ours: Beside, timeline: Timeline, watch: measure.ClientWatch) -> None:
    given, made = addresses(lab), made_by_users(lab)

    def unchanged() -> None:
        assert addresses(lab) == given
        assert made_by_users(lab) == made

    observe(lab, metallb, ours, timeline, watch)

    # MetalLB ends, BerthLB begins.
    changing = timeline.note("MetalLB is scaled to zero")
    carry_out(lab, "Stop MetalLB")
    metallb.stop()
    ours.end()
    beginning = timeline.note("MetalLB has ended; BerthLB begins")
    carry_out(lab, "Begin with BerthLB")
    ours.start()
    ours.await_ready()
    wait_until(lambda: len(announced(lab, "BerthLB")) == 3, 60.0, "BerthLB does not announce")
    measure.steady_holder(watch)
    timeline.note("BerthLB serves")
    unchanged()
    assert_gap(timeline, changing)
    assert timeline.figures(beginning)[1] == 0

    # What is left of MetalLB.
    kubectl(lab, "apply", "--filename=-", given=json.dumps(metallb.webhook()))
    refused = pytest.raises(AssertionError, match="metallb-webhook-service")
    with refused:  # a webhook that nobody answers any more: no pool can be made or changed
        kubectl(lab, "annotate", "ipaddresspools", "--all", "--namespace=metallb-system", "example.com/edited=no")
    removing = timeline.note("MetalLB's remains are removed")
    carry_out(lab, "Remove what is left of MetalLB")
    kubectl(lab, "annotate", "ipaddresspools", "--all", "--namespace=metallb-system", "example.com/edited=yes")
    left = {f"{each['kind']}/{each['metadata']['name']}" for each in metallb_objects(lab, metallb)}
    assert left == set()
    ours.await_ready()
    unchanged()
    assert len(timeline.answerers(removing)) == 1

    # And back.
    back = timeline.note("BerthLB is scaled to zero")
    ours.end()
    manifest = lab.directory / "metallb.yaml"
    manifest.write_text(yaml.safe_dump_all(metallb.objects()))
    carry_out(lab, "Go back to MetalLB", **{"metallb-native": manifest})
    timeline.note("BerthLB has ended; MetalLB begins")
    metallb.start()
    wait_until(lambda: all_answer(lab, given), 60.0, "MetalLB does not announce")
    measure.steady_holder(watch)
    timeline.note("MetalLB serves")
    unchanged()
    assert_gap(timeline, back)


def assert_gap(timeline: Timeline, since: float) -> None:
    """A change-over that lasts from then until now. MetalLB's speakers answer beside each other for a moment where they
    end or begin one after the other; that is counted, and not ours to forbid."""
    silence, by_two, requests, lost = timeline.figures(since)
    timeline.note(
        f"  since then: longest silence {silence:.2f} s, answered by two {by_two}, {lost} of {requests} requests lost"
    )
    assert silence < LONGEST_GAP_S


def metallb_objects(lab: Lab, metallb: MetalLB) -> list[Any]:
    """Those of MetalLB's manifest that are still there, but for the definitions and the namespace, which we share."""
    names = [
        f"{each['kind']}.{group(each)}/{each['metadata']['name']}".lower()
        for each in [*metallb.objects(), metallb.webhook()]
        if each["kind"] not in {"CustomResourceDefinition", "Namespace"}
    ]
    found = kubectl(lab, "get", *names, "--namespace=metallb-system", "--ignore-not-found", "--output=json")
    return json.loads(found).get("items", [found]) if found.strip() else []


def group(body: dict[str, Any]) -> str:
    group, _, version = body["apiVersion"].rpartition("/")
    return f"{version}.{group}"
