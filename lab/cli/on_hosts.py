"""Commands that use a lab's hosts: ``lab exec``, ``holder``, ``logs``, ``workload``."""

from __future__ import annotations

import signal
from ipaddress import ip_address
from typing import Annotated

import typer
from rich.table import Table

from lab.cli.options import DEFAULT_NAME, HostName, Name, Namespace, err, out
from lab.client import Lab
from lab.errors import LabError

app = typer.Typer()


@app.command("exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def execute(
    host: HostName,
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND…", help="What to run there.")],
    name: Name = DEFAULT_NAME,
) -> None:
    """Run a command on a host, with this terminal, input, output, directory and environment; its exit code is ours."""
    from lab.cli import terminal  # noqa: PLC0415 (termios and tty are for this command only)

    argv = command[1:] if command[0] == "--" else command
    if not argv:
        raise LabError("exec: which command?")
    lab = Lab.connect(name)
    if terminal.is_terminal():
        code = terminal.run_at_terminal(lab, host, argv)
    else:
        with lab.start(host, argv, stdin=None) as running:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, lambda received, _: running.send_signal(received))
            code = running.wait()
    raise typer.Exit(code if code >= 0 else 128 - code)


@app.command()
def holder(
    address: Annotated[object, typer.Argument(metavar="ADDRESS", parser=ip_address, help="Of a Service.")],
    name: Name = DEFAULT_NAME,
) -> None:
    """Name the node that holds an address: the one that answers a client who asks for it."""
    from lab.measuring import measure  # noqa: PLC0415 (for this command only)

    lab = Lab.connect(name)
    with err.status(f"asking for {address}"), measure.watching(lab, str(address)) as watch:
        found = measure.node_of(lab, measure.steady_holder(watch))
    print(found)


@app.command()
def logs(
    host: HostName,
    process: Annotated[str | None, typer.Option(metavar="PROCESS", help="Only this one, such as speaker.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as more comes.")] = False,
    name: Name = DEFAULT_NAME,
) -> None:
    """Print what the processes of a host have written."""
    from lab.cli.logs import print_logs  # noqa: PLC0415 (for this command only)

    lab = Lab.connect(name)
    if lab.status().layout.find(host) is None:
        raise LabError(f"no host {host!r}; `lab status` shows them")
    print_logs(lab, host, process, follow=follow)


@app.command()
def workload(
    workload_name: Annotated[str, typer.Argument(metavar="NAME", help="Its pods are NAME-1, NAME-2 and so on.")],
    *,
    replicas: Annotated[int, typer.Option(metavar="N", min=0, max=500, help="How many.")] = 1,
    namespace: Namespace = "default",
    port: Annotated[int, typer.Option(metavar="PORT", min=1, max=65535, help="Where each listens.")] = 80,
    label: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Instead of app=NAME.")] = None,
    node: Annotated[
        list[str] | None, typer.Option(metavar="NODE", help="Only there; otherwise on all in turn.")
    ] = None,
    name: Name = DEFAULT_NAME,
) -> None:
    """Run small HTTP servers that answer with their node's name, their own, and the client's address."""
    from lab.objects.workloads import start_workload  # noqa: PLC0415 (the API's client is slow to import)

    pairs = [text.partition("=") for text in label or ()]
    if any(not key or not equals for key, equals, _ in pairs):
        raise LabError("--label: KEY=VALUE is wanted")
    lab = Lab.connect(name)
    labels = {key: value for key, _, value in pairs} or None
    pods = start_workload(
        lab, workload_name, replicas=replicas, namespace=namespace, port=port, labels=labels, nodes=node or ()
    )
    table = Table("POD", "NODE", "ADDRESS", box=None, pad_edge=False)
    for pod in sorted(pods, key=lambda pod: (len(pod.metadata.name), pod.metadata.name)):
        table.add_row(pod.key, pod.spec.node_name, ", ".join(pod.status.addresses))
    out.print(table)
