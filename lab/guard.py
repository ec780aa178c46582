"""The guard: starts a lab's keeper in its namespaces, waits for its end, and removes the lab's files then.

``python -m lab.guard DIRECTORY LOCK CONTROL API HOLDER``, by ``lab.launch`` only: where the ``Spec`` is, and four
descriptors. The guard itself stays in the namespaces that it was started in, where it can wait for the keeper and see
the files. It imports next to nothing. Should the guard be killed, the keeper ends the lab and removes the files.
"""

from __future__ import annotations

import gc
import os
import socket
import sys
from pathlib import Path
from typing import NamedTuple, NoReturn

import msgspec

from lab import directory, namespaces, wire
from lab.messages import SPEC, Done, Refused, Spec

NAMESPACES_REFUSED = (
    "this machine does not let you make namespaces ({error}): run it as root, or allow user namespaces"
    " (sysctl user.max_user_namespaces=10000; kernel.unprivileged_userns_clone=1 on Debian before 11;"
    " kernel.apparmor_restrict_unprivileged_userns=0 on Ubuntu)"
)


def main() -> None:
    if os.fork():
        os._exit(0)  # whoever started us waits for this one only, and never for the lab
    spec = msgspec.json.decode(Path(sys.argv[1], SPEC).read_bytes(), type=Spec)
    lock, control, api, holder = (int(word) for word in sys.argv[2:6])
    alive_reading, alive_writing = os.pipe2(os.O_CLOEXEC)  # never written to: it closes when the guard ends
    for fd in (lock, control, api, holder):
        os.set_inheritable(fd, False)
    namespaces.adopt_orphans()
    middle = os.fork()
    if middle == 0:
        os.close(alive_writing)
        _enter_namespaces(spec, _Descriptors(control, api, holder, alive_reading))
    for fd in (alive_reading, control, api, holder):
        os.close(fd)
    while True:  # first the process in the middle, then the keeper, which is ours from then on
        try:
            os.wait()
        except ChildProcessError:
            break
    directory.clear(Path(spec.directory))


class _Descriptors(NamedTuple):
    """What ``Inherited`` is made of."""

    control: int
    api: int
    holder: int
    guard: int


def _enter_namespaces(spec: Spec, fds: _Descriptors) -> NoReturn:
    """Isolate this process and fork the keeper: only a child gets into the new PID namespace."""
    holder = socket.socket(fileno=fds.holder)
    try:
        namespaces.isolate()
        reading, writing = os.pipe2(os.O_CLOEXEC)
        keeper = os.fork()
    except OSError as error:
        wire.send(holder, Refused(NAMESPACES_REFUSED.format(error=error.strerror)))
        os._exit(1)
    if keeper:
        os.write(writing, str(keeper).encode())  # its process id as seen from outside, which it cannot know itself
        os._exit(0)
    os.close(writing)
    pid_outside = int(os.read(reading, 32))
    os.close(reading)
    try:
        _keep(spec, fds, holder, pid_outside)
    finally:
        os._exit(1)


def _keep(spec: Spec, fds: _Descriptors, holder: socket.socket, pid_outside: int) -> None:
    from lab.hosts import Hosts  # noqa: PLC0415 (none of this in the guard)
    from lab.keeper import Inherited, Keeper  # noqa: PLC0415

    try:
        namespaces.mount("proc", "/proc", namespaces.MS_NOSUID | namespaces.MS_NODEV | namespaces.MS_NOEXEC)
        hosts = Hosts(spec.layout)
    except OSError as error:
        wire.send(holder, Refused(NAMESPACES_REFUSED.format(error=f"{error.filename or error}: {error.strerror}")))
        os._exit(1)
    control, api = socket.socket(fileno=fds.control), socket.socket(fileno=fds.api)
    keeper = Keeper(spec, Inherited(control, api, holder, fds.guard, pid_outside), hosts)
    try:
        keeper.start_control_plane()
        keeper.start_rest()
        wire.send(holder, Done())
    except Exception as error:
        wire.send(holder, Refused(f"the lab could not be built: {error}"))
        raise
    gc.freeze()  # what workloads inherit stays shared with them: no collection touches it there
    keeper.run()
    if keeper.guard_is_gone:
        directory.clear(Path(spec.directory))
    os._exit(0)


if __name__ == "__main__":
    main()
