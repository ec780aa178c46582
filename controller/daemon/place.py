"""A place that one process can have at a time: a process that gets it knows that the one before has ended.

A controller that crashed is started anew where it was: the kubelet restarts the container in the same pod, systemd the
process on the same machine. Nothing in the API proves to the new one that the old one is dead, so it would have to wait
for the old one's Lease to expire. The kernel can prove it.

1. A socket that is bound to a name in the *abstract* namespace is bound once in a network namespace (unix(7)). It is
   free again when the process that bound it has ended, however it ended. The network namespace is the pod's, which
   outlives its containers.
2. Each controller binds such a name when it starts.
3. The Lease says in which network namespace, of which boot of which machine, its holder did so.

Not promised: a place. A process has none if another one has bound the name (a second controller on the same machine),
or where the kernel does not tell what is needed. It proves nothing then, and nothing is proved of it.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from controller.leadership import Place

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_NETWORK = Path("/proc/self/ns/net")


@dataclass(frozen=True, slots=True)
class Taken:
    """A place that this process has, as long as this exists."""

    place: Place
    held_by: socket.socket


def take(purpose: str, clock: Callable[[], float]) -> Taken | None:
    """The place for this purpose here, where it can be had and described. Processes with another purpose do not meet:
    it has to name everything in which two of them could differ."""
    key = blake2b(purpose.encode(), digest_size=8).hexdigest()
    try:
        name = f"{_BOOT.read_text(encoding='ascii').strip()}/{_NETWORK.stat().st_ino}/{key}"
        bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    except OSError:
        return None
    try:
        bound.bind(f"\0berthlb-controller/{key}")
    except OSError:
        bound.close()
        return None
    return Taken(Place(name, clock()), bound)
