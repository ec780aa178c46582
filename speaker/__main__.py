"""``python -m speaker``: reads the arguments, forks the watcher, becomes the announcer.

This process is the announcer, the one to signal and to wait for; the watcher is its child and dies with it. Nothing
heavy is imported before the fork, and the announcer's side never imports what talks to the API.
"""

from __future__ import annotations

import socket
import sys

from cluster import logs
from speaker import child
from speaker.options import parse


def main() -> int:
    options = parse(sys.argv[1:])
    logs.set_up()

    def watch(channel: socket.socket) -> int:
        from speaker.watcher import main as watcher_main  # noqa: PLC0415  # only the child pays for the API client

        return watcher_main(channel, options)

    def spawn() -> child.Child:
        return child.spawn(watch)

    first = spawn()

    from speaker.announcer import run  # noqa: PLC0415  # after the fork: the watcher needs none of it
    from speaker.settings import Settings  # noqa: PLC0415

    settings = Settings(detection_floor_s=options.detection_floor_s)
    return run(options.node, settings, first, spawn)


if __name__ == "__main__":
    sys.exit(main())
