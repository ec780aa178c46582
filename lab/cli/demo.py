"""The demo: a tutorial's manifests on a cluster made from nothing, a Service that answers, and a node that dies.

Each step says what it does, checks the outcome from outside, and ends the demo where that is wrong. The figures are
those that a client measured.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Any

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.status import Status
from rich.table import Table

from cluster.addresses import Family
from cluster.api.client import EVENTS, SERVICES, ApiClient, connect
from cluster.objects import Service
from lab import launch
from lab.client import Completed, Lab
from lab.errors import FailedError, LabError
from lab.layout import Layout, url_host
from lab.measuring import measure
from lab.measuring.figures import Outage, answered_by_two
from lab.measuring.measure import CLIENT, wait_for
from lab.objects import tutorial
from lab.objects.manifests import SEEDS, apply_files
from lab.objects.workloads import start_workload

NAMESPACE, SERVICE = tutorial.NAMESPACE, tutorial.SERVICE_NAME
EXTERNAL = "my-external-service"
QUIET_S = 1.0  # so long nobody may answer for an address that was given back
STEADY_S = 1.0  # so long every request must succeed; with a third of the replicas dead, 50 in a row would not


class StepFailedError(FailedError):
    """A step whose outcome is not as it should be."""


class DemoFigures(msgspec.Struct, omit_defaults=False):
    """Every figure of one demo. Times in seconds."""

    nodes: int = 0
    up_s: float = 0.0
    addresses: list[str] = []
    """The Service's, one of each of the lab's families, IPv4 first."""
    address_assigned_s: float = 0.0
    """From the Service's creation being answered to its addresses being seen in its status."""
    first_answer_s: float = 0.0
    """From the same moment to the first ARP Reply or Neighbour Advertisement that the client saw."""
    holder: str = ""
    checks: dict[str, str] = {}
    new_holder: str = ""
    power_cut: Outage | None = None
    answered_by_two: int = 0
    """Answers within 50 ms of one by another node, the whole demo long."""
    silent_after_delete_s: float = 0.0
    down_s: float = 0.0
    total_s: float = 0.0


class Step:
    """One step while it is shown."""

    def __init__(self, title: str, status: Status) -> None:
        self._title = title
        self._status = status
        self.findings: list[str] = []

    def doing(self, text: str) -> None:
        """What it waits for now; gone when the step is done."""
        self._status.update(f"{self._title}: [dim]{text}[/]")

    def found(self, text: str) -> None:
        """What came of it; stays on the screen."""
        self.findings.append(text)


class Demo:
    """One run. ``console`` shows it; ``figures`` collects."""

    def __init__(self, name: str, layout: Layout, node_grace: float, console: Console) -> None:
        self.name = name
        self.layout = layout
        self.nodes = len(layout.nodes)
        self.node_grace = node_grace
        self.console = console
        self.figures = DemoFigures(nodes=self.nodes)

    def run(self) -> DemoFigures:
        """All steps. Raises ``LabError`` at the first that fails; the lab is gone afterwards either way."""
        began = time.monotonic()
        self.console.print(
            Panel.fit(f"[bold]BerthLB[/]: {self.nodes} nodes, a client, and a Service that survives its node")
        )
        with self._step(f"Building a cluster of {self.nodes} nodes and a client out of network namespaces") as step:
            recipe = launch.Recipe(self.name, self.layout, node_grace=self.node_grace)
            launched = launch.up(recipe, progress=step.doing)
            self.figures.up_s = time.monotonic() - began
            step.found(f"API server, controller and {self.nodes} speakers are ready after {self.figures.up_s:.1f} s")
        with launched as lab:
            self._play(lab)
            with self._step("Taking it all down") as step:
                before = time.monotonic()
                lab.down()
                self.figures.down_s = time.monotonic() - before
                if lab.directory.exists():
                    raise StepFailedError(f"{lab.directory} is still there")
                step.found("nothing is left")
        self.figures.total_s = time.monotonic() - began
        self._summary()
        return self.figures

    def _play(self, lab: Lab) -> None:
        client = connect(lab.kubeconfig, user_agent="berthlb-demo")
        self._apply(lab)
        service = self._address(lab, client)
        self._traffic(lab, service)
        self._external_name(client)
        self._power_cut(lab)
        self._delete(lab, client)

    # -------------------------------------------------------------------- steps

    def _apply(self, lab: Lab) -> None:
        how = "unchanged" if self.layout.families == (Family.IPV4,) else "with the families of this LAN"
        with self._step(f"Applying a tutorial's manifests, {how}, and starting its workload") as step:
            tutorial.apply_pool(lab)
            apply_files(lab, [SEEDS / "kind-external-name.yaml"])
            start_workload(lab, "nginx", replicas=self.nodes, namespace=NAMESPACE, port=80)
            ranges = " and ".join(network.pool_range for network in self.layout.networks.values())
            step.found(f"pool {ranges}, an empty L2Advertisement, {self.nodes} replicas of nginx")

    def _address(self, lab: Lab, client: ApiClient) -> Service:
        with self._step("A Service of type LoadBalancer gets an address, and one node answers for it") as step:
            with measure.watching(lab, *tutorial.first_addresses(lab)) as watch:
                tutorial.apply_service(lab)
                created = time.monotonic()
                service = wait_for(lambda: _with_address(client), 10.0, "the Service's address")
                self.figures.address_assigned_s = time.monotonic() - created
                holder = measure.node_of(lab, measure.steady_holder(watch))
                answers = watch.answers()
                self.figures.first_answer_s = max(0.0, answers[0].at - created)
                self.figures.answered_by_two += answered_by_two(answers, window=0.05)
            self.figures.addresses = [ingress.ip for ingress in service.status.load_balancer.ingress]
            self.figures.holder = holder
            step.found(
                f"[bold]{holder}[/] answers for {self._shown_addresses}, "
                f"{1000 * self.figures.first_answer_s:.0f} ms after the Service was created"
            )
        return service

    def _traffic(self, lab: Lab, service: Service) -> None:
        node = self.layout.nodes[-1]
        port = service.spec.ports[0]
        routes = {
            "LoadBalancer, from the client": (CLIENT, self.figures.addresses, port.port),
            "NodePort, from the client": (CLIENT, list(node.addresses.values()), port.node_port),
            f"ClusterIP, from {node.name}": (node.name, service.spec.cluster_ips, port.port),
        }
        with self._step("All three layers of the Service carry traffic") as step:
            for what, (host, addresses, number) in routes.items():
                urls = [f"http://{url_host(address)}:{number}/" for address in addresses]
                answered = [f"{url} answered by {_curl(lab, host, url)['node']}" for url in urls]
                self.figures.checks[what] = ", ".join(answered)
                step.found(escape(f"{what}: {', '.join(answered)}"))

    def _external_name(self, client: ApiClient) -> None:
        with self._step("The ExternalName Service is left alone") as step:
            service = client.get(SERVICES, NAMESPACE, EXTERNAL)
            if service.status.load_balancer.ingress or service.status.conditions or service.metadata.annotations:
                raise StepFailedError(f"{EXTERNAL} was touched: {service}")
            events = [
                event
                for page in client.list_pages(
                    EVENTS, NAMESPACE, field_selector=f"involvedObject.name={EXTERNAL},involvedObject.kind=Service"
                )
                for event in page.items
            ]
            if events:
                raise StepFailedError(f"{EXTERNAL} has {len(events)} Events")
            self.figures.checks["ExternalName"] = "no address, no condition, no Event"
            step.found("no address, no condition, no Event")

    def _power_cut(self, lab: Lab) -> None:
        url = f"http://{url_host(self.figures.addresses[-1])}/"
        with (
            self._step(f"Cutting the power of [bold]{self.figures.holder}[/] under load") as step,
            measure.watching(lab, *self.figures.addresses, url=url) as watch,
        ):
            wait_for(lambda: _succeeds(watch, STEADY_S), 20.0, "every request succeeds before the fault")
            fault_at = time.monotonic()
            lab.stop_node(self.figures.holder)
            step.doing("50 requests a second go on")
            wait_for(
                lambda: time.monotonic() > fault_at + self.node_grace and _succeeds(watch, STEADY_S),
                60.0 + 2 * self.node_grace,
                "every request succeeds again",
            )
            cost = self.figures.power_cut = watch.outage(fault_at)
            self.figures.answered_by_two += answered_by_two(watch.answers(), window=0.05)
            if cost.answers_again_s is None or cost.answered_by is None:
                raise StepFailedError(f"nobody took {' and '.join(self.figures.addresses)} over")
            self.figures.new_holder = measure.node_of(lab, cost.answered_by)
            again = f"{1000 * cost.answers_again_s:.0f} ms"
            step.found(f"[bold]{self.figures.new_holder}[/] answers [bold]{again}[/] after the cut")
            step.found(
                f"every request succeeds again after {cost.succeeds_again_s:.1f} s; {cost.lost} of {cost.requests} "
                f"lost (the dead node's replica is taken out after {self.node_grace:g} s, as Kubernetes does after 50)"
            )

    def _delete(self, lab: Lab, client: ApiClient) -> None:
        with (
            self._step("Deleting the Service") as step,
            measure.watching(lab, *self.figures.addresses) as watch,
        ):
            measure.steady_holder(watch)
            deleted = time.monotonic()
            client.delete(SERVICES, NAMESPACE, SERVICE)

            def silent_since() -> float | None:
                """From the deletion on at the earliest: a busy machine may have asked nobody just before it."""
                since = max(_last(watch), deleted)
                return since if since < time.monotonic() - QUIET_S else None

            silent = wait_for(silent_since, 20.0, f"nobody answers for {' or '.join(self.figures.addresses)}")
            self.figures.silent_after_delete_s = silent - deleted
            step.found(
                f"nobody answers for {self._shown_addresses} any more "
                f"(last answer {1000 * self.figures.silent_after_delete_s:.0f} ms after the deletion)"
            )

    # -------------------------------------------------------------------- showing

    @property
    def _shown_addresses(self) -> str:
        return " and ".join(f"[bold]{address}[/]" for address in self.figures.addresses)

    @contextmanager
    def _step(self, title: str) -> Iterator[Step]:
        """A step of the demo: a spinner while it runs, what was found when it is done."""
        began = time.monotonic()
        with self.console.status(title) as status:
            step = Step(title, status)
            try:
                yield step
            except BaseException:
                self.console.print(f"[red]✗[/] {title}", soft_wrap=True)
                raise
        self.console.print(f"[green]✓[/] {title} [dim]({time.monotonic() - began:.1f} s)[/]", soft_wrap=True)
        for line in step.findings:
            self.console.print(f"  {line}", soft_wrap=True)

    def _summary(self) -> None:
        cost = self.figures.power_cut
        if cost is None or cost.answers_again_s is None:
            return
        table = Table(title="What the client saw", title_justify="left", show_header=False)
        table.add_row("Service created → address in its status", f"{1000 * self.figures.address_assigned_s:.0f} ms")
        table.add_row("Service created → first answer to a client", f"{1000 * self.figures.first_answer_s:.0f} ms")
        table.add_row(
            f"{self.figures.holder} loses power → {self.figures.new_holder} answers",
            f"{1000 * cost.answers_again_s:.0f} ms",
        )
        table.add_row("… → every request succeeds again", f"{cost.succeeds_again_s:.2f} s")
        table.add_row("requests lost", f"{cost.lost} of {cost.requests}")
        table.add_row("answers by two nodes at once", str(self.figures.answered_by_two))
        table.add_row("the whole demo", f"{self.figures.total_s:.0f} s")
        self.console.print(table)


def _last(watch: measure.ClientWatch) -> float:
    """When an address was last answered for; in a watch that has seen an answer."""
    return max(answer.at for answer in watch.answers())


def _with_address(client: ApiClient) -> Service | None:
    service = client.get(SERVICES, NAMESPACE, SERVICE)
    addresses = [ip_address(ingress.ip) for ingress in service.status.load_balancer.ingress]
    return service if addresses else None


def _succeeds(watch: measure.ClientWatch, seconds: float) -> bool:
    """Whether every request of the last ``seconds`` succeeded, and there were some."""
    since = time.monotonic() - seconds
    requests = watch.requests()
    if not requests or requests[0].start > since:
        return False
    recent = [r for r in requests if r.end > since]
    return bool(recent) and all(r.ok for r in recent)


def _curl(lab: Lab, host: str, url: str) -> dict[str, Any]:
    """A GET from a host; the workload's answer."""
    argv = ["curl", "--silent", "--show-error", "--fail", "--max-time", "3", url]

    said = "it was not run"

    def ask() -> Completed | None:
        nonlocal said
        completed = lab.run(host, argv)
        said = completed.errors.strip()
        return completed if completed.code == 0 else None

    try:
        completed = wait_for(ask, 10.0, f"{url} from {host}")
    except LabError as error:
        raise StepFailedError(f"{error}: {said}") from error
    answer: dict[str, Any] = json.loads(completed.output)
    return answer
