"""Commands that make labs, end them, and show what there is: ``lab up``, ``down``, ``list``, ``status``, ``assets``,
``demo``."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from lab import launch
from lab.assets.gather import Assets, MadeFrom, gather
from lab.assets.pinned import ALL, CONTROL_PLANE
from lab.cli import show
from lab.cli.options import DEFAULT_NAME, Json, Name, err, out, print_json
from lab.client import Lab
from lab.control.directory import all_labs, check_name
from lab.control.messages import ControlPlane, ProxyMode
from lab.errors import FailedError, LabError, UnusableError
from lab.layout import DEFAULT_LAN, Families, lay_out

app = typer.Typer()
PROGRESS_LINE_S = 10.0


@app.command()
def up(
    *,
    name: Name = DEFAULT_NAME,
    nodes: Annotated[int, typer.Option(metavar="N", help="How many nodes, 1 to 100.")] = 3,
    clients: Annotated[int, typer.Option(metavar="N", help="How many clients, 1 to 8.")] = 1,
    gateway: Annotated[bool, typer.Option("--gateway/--no-gateway", help="A host gw with the default route.")] = True,
    nat: Annotated[
        bool, typer.Option("--nat", help="A public side behind gw, which maps 203.0.113.N to node-N 1:1.")
    ] = False,
    lan: Annotated[str, typer.Option(metavar="CIDR", help="The IPv4 LAN, a /24 or larger.")] = DEFAULT_LAN,
    families: Annotated[Families, typer.Option(help="What its hosts speak.")] = Families.IPV4,
    daemons: Annotated[bool, typer.Option("--daemons/--no-daemons", help="Our controller and speakers.")] = True,
    speakers: Annotated[bool, typer.Option("--speakers/--no-speakers", help="Speakers among them.")] = True,
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
    layout = lay_out(nodes, clients, gateway, lan, families, nat=nat)
    recipe = launch.Recipe(
        name=name,
        layout=layout,
        assets=_gather_assets(CONTROL_PLANE) if control_plane == "kubernetes" else None,
        proxy_mode=proxy_mode,
        daemons=daemons,
        speakers=speakers,
        node_grace=node_grace,
        controllers=controllers,
        speaker_args=tuple(speaker_arg or ()),
        controller_args=tuple(controller_arg or ()),
    )
    with err.status(f"lab {name}") as shown:
        launched = launch.up(recipe, progress=lambda what: shown.update(f"lab {name}: {what}"))
    try:
        status = launched.lab.status()
        if as_json:
            print_json(show.as_object(status))
        else:
            show.print_lab(out, status)
        sys.stdout.flush()
        if foreground:
            launched.wait()
        else:
            launched.release()
    except KeyboardInterrupt:
        launched.lab.down()
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
    families: Annotated[Families, typer.Option(help="What its hosts speak.")] = Families.IPV4,
    figures: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write every figure there.")] = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Of the demo's lab.")] = None,
) -> None:
    """From nothing to a Service that answers, and survives its node: a tutorial, played and measured."""
    from lab.cli.demo import Demo  # noqa: PLC0415 (the API's client is slow to import)

    layout = lay_out(nodes, families=families)
    try:
        result = Demo(check_name(name or f"demo-{os.getpid()}"), layout, node_grace, Console()).run()
    except UnusableError:
        raise
    except LabError as error:
        raise FailedError(str(error)) from error
    if figures is not None:
        figures.write_bytes(msgspec.json.format(msgspec.json.encode(result)) + b"\n")
