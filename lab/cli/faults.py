"""Commands that break a lab and mend it: ``lab node``, ``link``, ``speaker``, ``process``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from lab.cli.options import DEFAULT_NAME, HostName, Name, NodeName
from lab.client import Lab
from lab.control.messages import Action, SpeakerProcess

app = typer.Typer()
node_app = typer.Typer(help="Cut a node's power, and switch it on again.", no_args_is_help=True)
speaker_app = typer.Typer(help="Do something to a node's speaker.", no_args_is_help=True)
process_app = typer.Typer(help="Do something to any process of a host, such as etcd.", no_args_is_help=True)
link_app = typer.Typer(help="Pull a host's cable, and put it back.", no_args_is_help=True)
app.add_typer(node_app, name="node")
app.add_typer(speaker_app, name="speaker")
app.add_typer(process_app, name="process")
app.add_typer(link_app, name="link")


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
