"""``python -m speaker``: reads the arguments, forks the watcher, and becomes the announcer.

1. This process is the announcer, the one to signal and to wait for. The watcher is its child and dies with it.
2. Nothing heavy is imported before the fork, and the announcer's side never imports what talks to the API.
3. What only the watcher can tell of the arguments (whether the kubeconfig is one, whether the port is free) is awaited
   before anything is sent, for as long as that takes: without a watcher there is nothing to announce.

With ``--liveness-only`` nothing is announced: the announcer says and hears heartbeats alone, without raw sockets, and
the watcher is another one (``liveness``). With ``--observe`` there is one process, which announces nothing
(``observer``).

The exit code is 0 after SIGTERM or SIGINT, and 2 where the arguments cannot be worked with or the kernel refuses raw
sockets for good.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from cluster.daemon.starting import begin

if TYPE_CHECKING:
    from speaker.child import Child


def main() -> int:
    begin()

    import logging  # noqa: PLC0415  # all of these after ``begin``

    from cluster.daemon import logs  # noqa: PLC0415
    from cluster.daemon.build import this_build  # noqa: PLC0415
    from cluster.daemon.command_line import EXIT_USAGE, complain  # noqa: PLC0415
    from speaker import child  # noqa: PLC0415
    from speaker.options import parse  # noqa: PLC0415
    from speaker.wire.process import why_no_raw_sockets  # noqa: PLC0415

    options = parse(sys.argv[1:])
    logs.set_up()
    if options.observe:
        from speaker.api.observer import main as observe  # noqa: PLC0415  # which imports nothing that sends

        return observe(options)
    if not options.liveness_only and (refused := why_no_raw_sockets()):
        complain("speaker", refused)
        return EXIT_USAGE

    def watch(channel: socket.socket, begun: Callable[[], object] = lambda: None) -> int:
        from speaker.api.watcher import main as watcher_main  # noqa: PLC0415  # only the child pays for the API client

        logs.set_up()  # a later one has the announcer's log, which waits for nobody
        return watcher_main(channel, options, begun)

    heard, said = os.pipe()

    def say_begun() -> None:
        logging.getLogger("speaker").info("starting", extra=this_build()._asdict())
        os.write(said, b".")

    first = child.spawn(partial(watch, begun=say_begun), keep=(said,))
    os.close(said)

    from speaker.protocol.settings import Settings  # noqa: PLC0415
    from speaker.wire.announcer import run  # noqa: PLC0415  # after the fork: the watcher needs none of it

    begins = os.read(heard, 1)
    os.close(heard)
    if not begins and _exit_code(first) == EXIT_USAGE:
        return EXIT_USAGE  # it has said why; nothing else has been said or sent yet
    settings = Settings(
        detection_floor_s=options.detection_floor_s,
        gratuitous_limit=options.gratuitous_limit,
        probes=options.probes,
        restart_mode=options.restart_mode,
        reception=options.reception,
        rebalance=options.rebalance,
    )
    return run(options.node, settings, first, partial(child.spawn, watch), liveness_only=options.liveness_only)


def _exit_code(ending: Child) -> int:
    """Of a watcher that is about to end. It is left for the announcer to reap, which starts another."""
    ended = os.waitid(os.P_PID, ending.pid, os.WEXITED | os.WNOWAIT)
    return -1 if ended is None or ended.si_code != os.CLD_EXITED else ended.si_status


if __name__ == "__main__":
    sys.exit(main())
