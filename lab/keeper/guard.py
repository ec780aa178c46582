"""The guard starts a lab's keeper, waits for its end, and then removes the lab's files.

``lab.launch`` runs it as ``python -m lab.keeper.guard DIRECTORY LOCK CONTROL API LAUNCHER``: the directory has the
``Spec`` in it, and the other words are four descriptors.

1. The guard forks a process that goes into namespaces of its own and forks the keeper there. Only a child enters a new
   PID namespace.
2. The guard itself stays outside, where it sees the files, and waits for the keeper.
3. When the keeper has ended, the guard removes the files and releases the lock.

It imports next to nothing, for it lives as long as the lab. If the guard is killed, the keeper notices, ends the lab
and removes the files.
"""

from __future__ import annotations

import gc
import os
import socket
import sys
from pathlib import Path
from typing import NamedTuple, NoReturn

import msgspec

from lab.control import channel, directory
from lab.control.messages import SPEC, Declined, Done, Spec
from lab.machines import namespaces

NAMESPACES_REFUSED = (
    "this machine does not let you make namespaces ({error}): run it as root, or allow user namespaces"
    " (sysctl user.max_user_namespaces=10000; kernel.unprivileged_userns_clone=1 on Debian before 11;"
    " kernel.apparmor_restrict_unprivileged_userns=0 on Ubuntu)"
)


def main() -> None:
    if os.fork():
        os._exit(0)  # whoever started us waits for this one only, and never for the lab
    spec = msgspec.json.decode(Path(sys.argv[1], SPEC).read_bytes(), type=Spec)
    lock, control, api, launcher = (int(word) for word in sys.argv[2:6])
    alive_reading, alive_writing = os.pipe2(os.O_CLOEXEC)  # never written to: it closes when the guard ends
    for fd in (lock, control, api, launcher):
        os.set_inheritable(fd, False)
    namespaces.adopt_orphans()
    middle = os.fork()
    if middle == 0:
        os.close(alive_writing)
        _enter_namespaces(spec, _Descriptors(control, api, launcher, alive_reading))
    for fd in (alive_reading, control, api, launcher):
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
    launcher: int
    guard: int


def _enter_namespaces(spec: Spec, fds: _Descriptors) -> NoReturn:
    """Isolate this process and fork the keeper: only a child gets into the new PID namespace."""
    launcher = socket.socket(fileno=fds.launcher)
    try:
        namespaces.isolate()
        reading, writing = os.pipe2(os.O_CLOEXEC)
        keeper = os.fork()
    except OSError as error:
        channel.send(launcher, Declined(NAMESPACES_REFUSED.format(error=error.strerror)))
        os._exit(1)
    if keeper:
        os.write(writing, str(keeper).encode())  # its process id as seen from outside, which it cannot know itself
        os._exit(0)
    os.close(writing)
    pid_outside = int(os.read(reading, 32))
    os.close(reading)
    try:
        _keep(spec, fds, launcher, pid_outside)
    finally:
        os._exit(1)


def _keep(spec: Spec, fds: _Descriptors, launcher: socket.socket, pid_outside: int) -> None:
    from lab.keeper.keeper import Inherited, Keeper  # noqa: PLC0415 (none of this in the guard)
    from lab.machines.hosts import Hosts  # noqa: PLC0415

    try:
        namespaces.mount("proc", "/proc", namespaces.MS_NOSUID | namespaces.MS_NODEV | namespaces.MS_NOEXEC)
        hosts = Hosts(spec.layout)
    except OSError as error:
        reason = f"{error.filename or error}: {error.strerror}"
        channel.send(launcher, Declined(NAMESPACES_REFUSED.format(error=reason)))
        os._exit(1)
    control, api = socket.socket(fileno=fds.control), socket.socket(fileno=fds.api)
    keeper = Keeper(spec, Inherited(control, api, launcher, fds.guard, pid_outside), hosts)
    try:
        keeper.start_control_plane()
        keeper.start_rest()
        channel.send(launcher, Done())
    except Exception as error:
        channel.send(launcher, Declined(f"the lab could not be built: {error}"))
        raise
    gc.freeze()  # what workloads inherit stays shared with them: no collection touches it there
    keeper.loop.run()
    if keeper.guard_is_gone:
        directory.clear(Path(spec.directory))
    os._exit(0)


if __name__ == "__main__":
    main()
