"""``python -m speaker``: reads the arguments, forks the watcher, becomes the announcer.

This process is the announcer, the one to signal and to wait for; the watcher is its child and dies with it. Nothing
heavy is imported before the fork, and the announcer's side never imports what talks to the API. What only the watcher
can tell of the arguments (whether the kubeconfig is one, whether the port is free) is awaited before anything is sent.
"""

from __future__ import annotations

import os
import select
import socket
import sys
from collections.abc import Callable
from functools import partial

from cluster import logs
from cluster.command_line import EXIT_USAGE
from speaker import child
from speaker.options import parse

PATIENCE_S = 3.0  # reading a kubeconfig takes 0.3 s of CPU, of which the announcer's own imports overlap most


def main() -> int:
    options = parse(sys.argv[1:])
    logs.set_up()

    def watch(channel: socket.socket, begun: Callable[[], object] = lambda: None) -> int:
        from speaker.watcher import main as watcher_main  # noqa: PLC0415  # only the child pays for the API client

        return watcher_main(channel, options, begun)

    heard, said = os.pipe()
    first = child.spawn(partial(watch, begun=lambda: os.write(said, b".")), keep=(said,))
    os.close(said)

    from speaker.announcer import run  # noqa: PLC0415  # after the fork: the watcher needs none of it
    from speaker.settings import Settings  # noqa: PLC0415

    if not _begins(heard) and os.waitstatus_to_exitcode(os.waitpid(first.pid, 0)[1]) == EXIT_USAGE:
        return EXIT_USAGE  # it has said why; nothing else has been said or sent yet
    return run(options.node, Settings(detection_floor_s=options.detection_floor_s), first, partial(child.spawn, watch))


def _begins(heard: int) -> bool:
    """Whether the watcher can work with its arguments; false when it ended instead of saying so. One that is slow to
    say so gets the benefit of the doubt."""
    readable, _, _ = select.select([heard], [], [], PATIENCE_S)
    answer = os.read(heard, 1) if readable else b"?"
    os.close(heard)
    return answer != b""


if __name__ == "__main__":
    sys.exit(main())
