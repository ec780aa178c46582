"""Linux namespaces: the few system calls that Python 3.11 does not have.

Everything here acts on the calling thread (``setns`` into a network namespace) or the calling process, and raises
``OSError`` as the kernel gave it.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Iterator

CLONE_NEWNS = 0x00020000  # sched.h
CLONE_NEWUTS = 0x04000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 8, 0x1000, 0x4000, 1 << 18  # sys/mount.h
SIOCSIFFLAGS, IFF_UP = 0x8914, 1  # linux/sockios.h, net/if.h
PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


def unshare(flags: int) -> None:
    _check(_libc.unshare(flags), "unshare")


def enter_network(fd: int) -> None:
    """Move the calling thread into a network namespace."""
    _check(_libc.setns(fd, CLONE_NEWNET), "setns")


def mount(kind: str, at: str, flags: int) -> None:
    """Mount a new file system of a kind that needs no source."""
    _check(_libc.mount(kind.encode(), at.encode(), kind.encode(), ctypes.c_ulong(flags), None), f"mount {at}")


def bind(source: str, at: str) -> None:
    """Show a directory, and what is mounted below it, at another one."""
    _check(_libc.mount(source.encode(), at.encode(), b"none", ctypes.c_ulong(MS_BIND | MS_REC), None), f"mount {at}")


def make_mounts_private() -> None:
    """What this process mounts from now on is seen by itself and its children only."""
    _check(_libc.mount(b"none", b"/", None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None), "mount /")


def set_host_name(name: str) -> None:
    _check(_libc.sethostname(name.encode(), len(name.encode())), "sethostname")


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ends (prctl(2), PR_SET_CHILD_SUBREAPER)."""
    _check(_libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl")


def own_network() -> int:
    """The calling thread's network namespace, as an open descriptor."""
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


@contextlib.contextmanager
def inside(fd: int) -> Iterator[None]:
    """Be in a network namespace for a while, with the calling thread."""
    before = own_network()
    try:
        enter_network(fd)
        try:
            yield
        finally:
            enter_network(before)
    finally:
        os.close(before)


def new_network() -> int:
    """A new network namespace, with its loopback interface alone, which is up: a program that starts before anything
    else is there finds 127.0.0.1 and ::1, from whose lack some conclude that the machine does not speak that family.
    The namespace lives as long as the descriptor, or a process or an interface in it."""
    before = own_network()
    try:
        unshare(CLONE_NEWNET)
        made = own_network()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", IFF_UP))
        enter_network(before)
    finally:
        os.close(before)
    return made


def isolate() -> None:
    """Put the calling process into namespaces of its own: mounts, network, and the process ids of its next child.

    A user who is not root becomes root of a user namespace in which only that user id exists.
    """
    if os.geteuid() != 0:
        unshare_user(0, 0)
    unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWPID)
    make_mounts_private()


def unshare_user(uid: int, gid: int) -> None:
    """Put the calling process into a user namespace of its own, in which its user and group have these ids and no
    others exist."""
    own_uid, own_gid = os.geteuid(), os.getegid()
    unshare(CLONE_NEWUSER)
    for name, line in (("setgroups", "deny"), ("uid_map", f"{uid} {own_uid} 1"), ("gid_map", f"{gid} {own_gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:  # noqa: PTH123 (not a file of ours: no path arithmetic here)
            file.write(line)
