"""A process of ours gets the rights that a container of a cluster would have, and no others.

A container runtime gives a process the capabilities, the user and the file systems that its manifest asks for, no new
privileges, ordinary scheduling and little locked memory. ``confine`` does the same, by the same means of the kernel, to
the calling process, which must have one thread:

- *Capabilities*: all but those of the ``Rights`` leave every set, the bounding set included.
- *User*: the process gets the container's ids in a user namespace of its own. Outside that namespace its user stays the
  same, since only the owner may read the kubeconfigs and the checkout. It has no capabilities over the network.
- *Files*: all are read-only, by mounts that only this process sees (from Linux 5.12 on; before, they stay writable). In
  an image everybody may read the programs. Here a directory above them may be closed to a process without capabilities,
  such as root's home. A file system that shows the programs alone then covers that directory.
- *Scheduling and memory*: ordinary, priority 0, no way up; at most 8 MiB of locked memory, as systemd gives a container
  runtime.

Not imitated are seccomp's default profile, whose system calls our daemons do not use, and requests of CPU and memory.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import resource
import sys
from collections.abc import Iterable
from pathlib import Path

import msgspec

from lab.machines import namespaces
from lab.shipped.rights import Rights

LOCKED_MEMORY_OCTETS = 8 << 20

_CAPABILITIES = {"NET_RAW": 13, "IPC_LOCK": 14, "SYS_NICE": 23}  # linux/capability.h; those that could be of use to us
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 24, 38  # linux/prctl.h
_CAPABILITY_VERSION_3 = 0x20080522
_SYS_MOUNT_SETATTR = 442
_AT_FDCWD, _AT_RECURSIVE, _MOUNT_ATTR_RDONLY = -100, 0x8000, 1

_libc = ctypes.CDLL(None, use_errno=True)


def confine(rights: Rights) -> None:
    """Give the calling process these rights for good, and all that it starts. Raises ``OSError``."""
    if os.geteuid() == 0:  # another user sees the programs without any capability
        _own_mounts()
        _uncover(program_directories())
    if rights.user != os.getuid():
        namespaces.unshare_user(rights.user, rights.group)
    _own_mounts()
    _make_files_read_only()
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    if os.getpriority(os.PRIO_PROCESS, 0) < 0:
        os.setpriority(os.PRIO_PROCESS, 0, 0)
    _limit(resource.RLIMIT_MEMLOCK, LOCKED_MEMORY_OCTETS)
    _limit(resource.RLIMIT_NICE, 0)
    _limit(resource.RLIMIT_RTPRIO, 0)
    limit_capabilities(rights.capabilities)


def _limit(what: int, most: int) -> None:
    now = resource.getrlimit(what)[1]
    limit = most if now == resource.RLIM_INFINITY else min(most, now)
    resource.setrlimit(what, (limit, limit))


def confined(rights: Rights) -> tuple[str, ...]:
    """The beginning of a command line: what follows it is run with these rights, and in a session of its own: where the
    kernel shares the CPU out among sessions (autogroups, sched(7)), it has a share of its own, as a container has."""
    return (sys.executable, "-m", __spec__.name, msgspec.json.encode(rights).decode())


# ------------------------------------------------------------------------ capabilities


def limit_capabilities(names: Iterable[str]) -> None:
    """Leave the calling thread these capabilities alone, and all that it starts. Raises ``OSError``."""
    kept = {_CAPABILITIES[name] for name in names}
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    for number in range(last + 1):
        if number not in kept:
            _check(_libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0), "prctl(PR_CAPBSET_DROP)")
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl(PR_SET_NO_NEW_PRIVS)")
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    low, high = (sum(1 << number % 32 for number in kept if number // 32 == word) for word in (0, 1))
    data = (ctypes.c_uint32 * 6)(low, low, 0, high, high, 0)  # effective, permitted, inheritable; 32 at a time
    _check(_libc.capset(header, data), "capset")


# ------------------------------------------------------------------------ files


def _own_mounts() -> None:
    namespaces.unshare(namespaces.CLONE_NEWNS)
    namespaces.make_mounts_private()


def _make_files_read_only() -> None:
    attributes = (ctypes.c_uint64 * 4)(_MOUNT_ATTR_RDONLY, 0, 0, 0)  # struct mount_attr
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    result = _libc.syscall(_SYS_MOUNT_SETATTR, _AT_FDCWD, b"/", _AT_RECURSIVE, attributes, size)
    if result != 0 and ctypes.get_errno() != errno.ENOSYS:
        _check(result, "mount_setattr /")


def program_directories() -> set[Path]:
    """Where our programs, their libraries and the interpreter are."""
    named = (sys.prefix, sys.base_prefix, *sys.path)
    return {Path(os.path.realpath(each)) for each in named if each and Path(each).is_dir()}


def _uncover(wanted: Iterable[Path]) -> None:
    """Make directories reachable for a process without capabilities. Above each, the first directory that is closed is
    covered by one that shows the wanted directories alone."""
    covered: dict[Path, list[tuple[Path, int]]] = {}
    for path in sorted(wanted):
        closed = next((each for each in reversed(path.parents) if _is_closed(each)), None)
        if closed is not None:
            covered.setdefault(closed, []).append((path, os.open(path, os.O_PATH | os.O_CLOEXEC)))
    for closed, shown in covered.items():
        namespaces.mount("tmpfs", str(closed), namespaces.MS_NOSUID | namespaces.MS_NODEV)
        closed.chmod(0o755)
        for path, descriptor in shown:
            with contextlib.suppress(FileExistsError):  # it is shown with a directory above it
                path.mkdir(mode=0o755, parents=True)
                namespaces.bind(f"/proc/self/fd/{descriptor}", str(path))
            os.close(descriptor)


def _is_closed(directory: Path) -> bool:
    """Whether a process with our ids and no capabilities may not enter it."""
    found = directory.stat()
    if found.st_uid == os.getuid():
        return not found.st_mode & 0o100
    groups = {os.getgid(), *os.getgroups()}
    return not found.st_mode & (0o010 if found.st_gid in groups else 0o001)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


if __name__ == "__main__":
    with contextlib.suppress(PermissionError):  # it leads one already
        os.setsid()
    confine(msgspec.json.decode(sys.argv[1], type=Rights))
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606 (no shell is wanted)
