"""The command line: ``python -m lab``.

Every refusal is one line on standard error. Exit code 2 says that the command was wrong or cannot run here, 1 that
something in the lab is not as it was asked to be.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Any, NoReturn

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from lab import launch, show
from lab.assets.gather import Assets, MadeFrom, gather
from lab.assets.pinned import ALL, CONTROL_PLANE
from lab.client import Lab
from lab.directory import all_labs, check_name
from lab.errors import FailedError, LabError, UnusableError
from lab.layout import DEFAULT_LAN, LayoutError, lay_out
from lab.messages import Action, ControlPlane, ProxyMode, SpeakerProcess

app = typer.Typer(
    name="lab",
    help="A whole cluster on one machine, made of network namespaces: nodes, a LAN, clients, an API server.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
node_app = typer.Typer(help="Cut a node's power, and switch it on again.", no_args_is_help=True)
speaker_app = typer.Typer(help="Do something to a node's speaker.", no_args_is_help=True)
process_app = typer.Typer(help="Do something to any process of a host, such as etcd.", no_args_is_help=True)
link_app = typer.Typer(help="Pull a host's cable, and put it back.", no_args_is_help=True)
app.add_typer(node_app, name="node")
app.add_typer(speaker_app, name="speaker")
app.add_typer(process_app, name="process")
app.add_typer(link_app, name="link")

Name = Annotated[str, typer.Option("--name", envvar="BERTHLB_LAB", metavar="NAME", help="Which lab.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Namespace = Annotated[str, typer.Option("--namespace", "-n", metavar="NAMESPACE", help="Where no other is named.")]
NodeName = Annotated[str, typer.Argument(metavar="NODE", help="Such as node-1.")]
HostName = Annotated[str, typer.Argument(metavar="HOST", help="cp, gw, client, node-1 and so on.")]
DEFAULT_NAME = "lab"
PROGRESS_LINE_S = 10.0

out = Console(width=1000)  # lines are as long as they are, for programs and for a terminal to fold
err = Console(stderr=True)


def main() -> NoReturn:
    """Run one command and exit."""
    try:
        code = app(standalone_mode=False)
    except (LabError, LayoutError) as error:
        print(f"lab: {error}", file=sys.stderr)
        sys.exit(1 if isinstance(error, FailedError) else 2)
    except typer.TyperException as error:
        print(f"lab: {' '.join(error.format_message().split())}", file=sys.stderr)
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    except BrokenPipeError:  # `lab get … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))


# ------------------------------------------------------------------------ up and down


@app.command()
def up(
    *,
    name: Name = DEFAULT_NAME,
    nodes: Annotated[int, typer.Option(metavar="N", help="How many nodes, 1 to 100.")] = 3,
    clients: Annotated[int, typer.Option(metavar="N", help="How many clients, 1 to 8.")] = 1,
    gateway: Annotated[bool, typer.Option("--gateway/--no-gateway", help="A host gw with the default route.")] = True,
    lan: Annotated[str, typer.Option(metavar="CIDR", help="The LAN, IPv4, a /24 or larger.")] = DEFAULT_LAN,
    daemons: Annotated[bool, typer.Option("--daemons/--no-daemons", help="Our controller and speakers.")] = True,
    node_grace: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.0, help="How long a silent node's endpoints stay ready.")
    ] = 5.0,
    control_plane: Annotated[
        ControlPlane, typer.Option(help="A small one of the lab's own, or Kubernetes' programs (see `lab assets`).")
    ] = "embedded",
    proxy_mode: Annotated[ProxyMode, typer.Option(help="Of Kubernetes' kube-proxy.")] = "nftables",
    controllers: Annotated[int, typer.Option(metavar="N", min=1, max=9, help="Replicas; one leads.")] = 1,
    speaker_arg: Annotated[list[str] | None, typer.Option(metavar="ARG", help="For every speaker.")] = None,
    controller_arg: Annotated[list[str] | None, typer.Option(metavar="ARG", help="For the controller.")] = None,
    foreground: Annotated[bool, typer.Option("--foreground", help="Stay; the lab ends with this command.")] = False,
    as_json: Json = False,
) -> None:
    """Make a lab, wait until everything in it is ready, and print what it is made of."""
    check_name(name)
    layout = lay_out(nodes, clients, gateway, lan)
    wanted = launch.Wanted(
        name=name,
        layout=layout,
        assets=_gather_assets(CONTROL_PLANE) if control_plane == "kubernetes" else None,
        proxy_mode=proxy_mode,
        daemons=daemons,
        node_grace=node_grace,
        controllers=controllers,
        speaker_args=tuple(speaker_arg or ()),
        controller_args=tuple(controller_arg or ()),
    )
    with err.status(f"lab {name}") as shown:
        held = launch.up(wanted, progress=lambda what: shown.update(f"lab {name}: {what}"))
    try:
        status = held.lab.status()
        if as_json:
            print_json(show.as_object(status))
        else:
            show.print_lab(out, status)
        sys.stdout.flush()
        if foreground:
            held.wait()
        else:
            held.release()
    except KeyboardInterrupt:
        held.lab.down()
        if not foreground:
            raise


@app.command()
def down(name: Name = DEFAULT_NAME) -> None:
    """End a lab. Nothing of it is left."""
    Lab.connect(name).down()


@app.command("list")
def list_labs(as_json: Json = False) -> None:
    """Show your labs."""
    found = [lab for lab, alive in all_labs().items() if alive]
    if as_json:
        print_json(found)
    else:
        for lab in found:
            print(lab)


@app.command()
def status(
    name: Name = DEFAULT_NAME,
    memory: Annotated[bool, typer.Option("--memory", help="Measure each process' memory (PSS).")] = False,
    as_json: Json = False,
) -> None:
    """Show a lab: its hosts and its processes."""
    found = Lab.connect(name).status(memory=memory)
    if as_json:
        print_json(show.as_object(found))
    else:
        show.print_status(out, found)


def _gather_assets(wanted: Sequence[MadeFrom]) -> Assets:
    with err.status("looking for programs") as shown:
        found = gather(shown.update if err.is_terminal else _Lines(), wanted=wanted)
    for each in found.passed_over:
        print(f"lab: {each}", file=sys.stderr)
    return found


class _Lines:
    """Progress where nobody sees a line change: another line every ten seconds."""

    def __init__(self) -> None:
        self.said_at = float("-inf")

    def __call__(self, what: str) -> None:
        if time.monotonic() > self.said_at + PROGRESS_LINE_S:
            self.said_at = time.monotonic()
            print(f"lab: {what}", file=sys.stderr)


@app.command()
def assets(as_json: Json = False) -> None:
    """Find what the tests need (a real control plane, Helm, Prometheus), or make it once (some minutes); say where."""
    started = time.monotonic()
    found = _gather_assets(ALL)
    if as_json:
        print_json(show.assets_as_object(found, time.monotonic() - started))
    else:
        show.print_assets(out, found)


@app.command()
def demo(
    *,
    nodes: Annotated[int, typer.Option(metavar="N", min=2, help="How many nodes, 2 to 100.")] = 3,
    node_grace: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.0, help="How long a dead node's endpoints stay ready.")
    ] = 5.0,
    figures: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write every figure there.")] = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Of the demo's lab.")] = None,
) -> None:
    """From nothing to a Service that answers, and survives its node: a tutorial, played and measured."""
    from lab.demo import Demo  # noqa: PLC0415 (the API's client is slow to import)

    lay_out(nodes)  # refuses a number that makes no sense before anything is shown
    try:
        result = Demo(check_name(name or f"demo-{os.getpid()}"), nodes, node_grace, Console()).run()
    except UnusableError:
        raise
    except LabError as error:
        raise FailedError(str(error)) from error
    if figures is not None:
        figures.write_bytes(msgspec.json.format(msgspec.json.encode(result)) + b"\n")


# ------------------------------------------------------------------------ on hosts


@app.command("exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def execute(
    host: HostName,
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND…", help="What to run there.")],
    name: Name = DEFAULT_NAME,
) -> None:
    """Run a command on a host, with this terminal, input, output, directory and environment; its exit code is ours."""
    from lab import terminal  # noqa: PLC0415 (termios and tty are for this command only)

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
    address: Annotated[IPv4Address, typer.Argument(metavar="ADDRESS", parser=IPv4Address, help="Of a Service.")],
    name: Name = DEFAULT_NAME,
) -> None:
    """Name the node that holds an address: the one that answers a client who asks for it."""
    from lab import measure  # noqa: PLC0415 (for this command only)

    lab = Lab.connect(name)
    with measure.watching(lab, str(address)) as watch:
        print(measure.node_of(lab, measure.steady_holder(watch)))


@app.command()
def logs(
    host: HostName,
    process: Annotated[str | None, typer.Option(metavar="PROCESS", help="Only this one, such as speaker.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as more comes.")] = False,
    name: Name = DEFAULT_NAME,
) -> None:
    """Print what the processes of a host have written."""
    from lab.logs import print_logs  # noqa: PLC0415 (for this command only)

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
    from lab.workloads import start_workload  # noqa: PLC0415 (the API's client is slow to import)

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
        table.add_row(pod.key, pod.spec.node_name, pod.status.pod_ip)
    out.print(table)


# ------------------------------------------------------------------------ faults


@node_app.command("stop")
def node_stop(node: NodeName, name: Name = DEFAULT_NAME) -> None:
    """Cut a node's power: its link goes down and every process on it is killed, at once."""
    Lab.connect(name).stop_node(node)


@node_app.command("start")
def node_start(node: NodeName, name: Name = DEFAULT_NAME) -> None:
    """Switch a node on again."""
    Lab.connect(name).start_node(node)


@link_app.command("down")
def link_down(host: HostName, name: Name = DEFAULT_NAME) -> None:
    """Pull a host's cable: it loses its carrier."""
    Lab.connect(name).pull_link(host)


@link_app.command("up")
def link_up(host: HostName, name: Name = DEFAULT_NAME) -> None:
    """Put a host's cable back."""
    Lab.connect(name).plug_link(host)


Process = Annotated[SpeakerProcess, typer.Option("--process", help="Which of its processes.")]


def _speaker_command(action: Action, text: str) -> Callable[..., None]:
    def act(node: NodeName, process: Process = "both", name: Name = DEFAULT_NAME) -> None:
        Lab.connect(name).speaker(node, action, process)

    act.__doc__ = text
    return act


@speaker_app.command("stop")
def speaker_stop(node: NodeName, name: Name = DEFAULT_NAME) -> None:
    """End it as Kubernetes ends a pod (SIGTERM), and wait until it has ended."""
    Lab.connect(name).speaker(node, "stop")


@speaker_app.command("start")
def speaker_start(node: NodeName, name: Name = DEFAULT_NAME) -> None:
    """Start it, where none runs."""
    Lab.connect(name).speaker(node, "start")


@speaker_app.command("pause")
def speaker_pause(
    node: NodeName,
    process: Process = "both",
    seconds: Annotated[
        float | None, typer.Option("--for", metavar="SECONDS", min=0.0, help="Let it go on after that long.")
    ] = None,
    name: Name = DEFAULT_NAME,
) -> None:
    """Stop it where it stands (SIGSTOP), until ``resume``."""
    Lab.connect(name).speaker(node, "pause", process, seconds)


speaker_app.command("kill")(_speaker_command("kill", "Kill it (SIGKILL): announcer, watcher or both."))
speaker_app.command("resume")(_speaker_command("resume", "Let a paused one go on."))


def _process_command(action: Action, text: str) -> None:
    def act(
        host: HostName,
        process: Annotated[str, typer.Argument(metavar="PROCESS", help="As `lab status` shows it.")],
        name: Name = DEFAULT_NAME,
    ) -> None:
        Lab.connect(name).process(host, process, action)

    act.__doc__ = text
    process_app.command(action)(act)


_process_command("stop", "End it (SIGTERM), and wait until it has ended.")
_process_command("start", "Start again one of the lab's own that has ended.")
_process_command("kill", "Kill it (SIGKILL).")
_process_command("pause", "Stop it where it stands (SIGSTOP), until ``resume``.")
_process_command("resume", "Let a paused one go on.")


# ------------------------------------------------------------------------ objects

Files = Annotated[list[Path] | None, typer.Option("--filename", "-f", metavar="FILE", help="A manifest.")]


@app.command()
def apply(
    filename: Files = None,
    more: Annotated[list[Path] | None, typer.Argument(metavar="[FILE]…", help="More manifests.")] = None,
    namespace: Namespace = "default",
    name: Name = DEFAULT_NAME,
    as_json: Json = False,
) -> None:
    """Create what manifests describe, or merge them into what exists."""
    from lab import manifests  # noqa: PLC0415 (the API's client is slow to import)

    files = [*(filename or ()), *(more or ())]
    if not files:
        raise LabError("apply: -f FILE is wanted")
    _tell(manifests.apply_each(manifests.api_of(Lab.connect(name)), files, namespace), as_json=as_json)


@app.command()
def delete(
    kind: Annotated[str | None, typer.Argument(metavar="[KIND]", help="Such as service.")] = None,
    object_name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Of the object.")] = None,
    *,
    filename: Files = None,
    namespace: Namespace = "default",
    name: Name = DEFAULT_NAME,
    as_json: Json = False,
) -> None:
    """Delete an object, or what manifests describe."""
    from lab import kinds, manifests  # noqa: PLC0415 (the API's client is slow to import)

    if bool(filename) == bool(kind) or bool(kind) != bool(object_name):
        raise LabError("delete: either KIND NAME or -f FILE is wanted")
    api = manifests.api_of(Lab.connect(name))
    if kind and object_name:
        resource = kinds.by_word(kind)
        _tell([manifests.delete_one(api, resource, namespace, object_name)], as_json=as_json)
    else:
        _tell(manifests.delete_each(api, filename or (), namespace), as_json=as_json)


def _tell(outcomes: Any, *, as_json: bool) -> None:
    """Say what became of each object; fail if one was refused or was not there."""
    said = []
    for outcome in outcomes:
        said.append(outcome)
        if not as_json:
            line = f"{outcome.what} {outcome.verdict}" + (f": {outcome.reason}" if outcome.reason else "")
            print(line, file=sys.stderr if outcome.verdict in {"refused", "not found"} else sys.stdout)
    if as_json:
        print_json(msgspec.to_builtins(said))
    if any(outcome.verdict in {"refused", "not found"} for outcome in said):
        raise typer.Exit(1)


@app.command()
def get(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="Such as services, svc, nodes, ipaddresspools.")],
    object_name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Of one object.")] = None,
    *,
    namespace: Namespace = "default",
    everywhere: Annotated[bool, typer.Option("--all-namespaces", "-A", help="In every namespace.")] = False,
    output: Annotated[str, typer.Option("--output", "-o", metavar="json|wide|name", help="How.")] = "",
    name: Name = DEFAULT_NAME,
) -> None:
    """Show objects."""
    from lab import kinds, objects  # noqa: PLC0415 (the API's client is slow to import)

    if output not in {"", "json", "wide", "name"}:
        raise LabError(f"--output: {output!r} is none of json, wide, name")
    resource = kinds.by_word(kind)
    found = objects.fetch(Lab.connect(name), resource, None if everywhere else namespace, object_name)
    if output == "json":
        print_json(found[0] if object_name else {"apiVersion": "v1", "kind": "List", "items": found})
    elif output == "name":
        for body in found:
            print(f"{resource.kind.lower()}/{body['metadata']['name']}")
    else:
        objects.print_table(out, resource, found, wide=output == "wide", everywhere=everywhere)
