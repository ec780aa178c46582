"""The directory of a lab: where its files are, and how one knows that the lab is alive.

Each user has one base directory, of mode 0700: in ``$XDG_RUNTIME_DIR`` where that is the user's own, otherwise in the
temporary directory. In it, each lab has a directory (control socket, kubeconfigs, logs) and a lock file beside that.
The lab holds the lock (flock) until its directory is gone. So *locked* means *alive*, whatever was killed. A directory
whose lock is free is the remains of a lab, and the next process that takes the lock may clear them.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import socket
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

from lab.errors import LabError

CONTROL_SOCKET = "control"
NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?")


def check_name(name: str) -> str:
    """The name itself. Raises ``LabError`` where it would be no good file and host name."""
    if not NAME.fullmatch(name):
        raise LabError(f"--name: {name!r} is not a name (lower case letters, digits and '-', at most 40)")
    return name


def base_directory() -> Path:
    """The user's directory of labs, made if missing.

    Raises ``LabError`` where somebody else owns it, for its owner could take the lab over.
    """
    uid = os.getuid()
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and _is_private(Path(runtime)):
        base = Path(runtime) / "berthlb-lab"
    else:
        base = Path(tempfile.gettempdir()) / f"berthlb-lab-{uid}"
    try:
        base.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise LabError(f"cannot make {base}: {error.strerror}; set TMPDIR to a directory of yours") from error
    if not _is_private(base):
        raise LabError(f"{base} is not a directory of yours alone (mode 0700); remove it or set TMPDIR elsewhere")
    return base


def _is_private(path: Path) -> bool:
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077


def lab_directory(name: str) -> Path:
    return base_directory() / check_name(name)


def lock_path(directory: Path) -> Path:
    return directory.with_name(directory.name + ".lock")


def take_lock(directory: Path) -> int | None:
    """The lock of a lab, as an open descriptor that holds it; None while another holds it."""
    path = lock_path(directory)
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        try:  # its last holder may have removed it between our open and our lock
            if os.path.samestat(os.fstat(fd), path.stat()):
                return fd
        except FileNotFoundError:
            pass
        os.close(fd)


def is_alive(directory: Path) -> bool:
    """Whether a lab's lock is held. Leaves nothing behind."""
    try:
        fd = os.open(lock_path(directory), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(fd)


def clear(directory: Path) -> None:
    """Remove a lab's files. The lock must be held; its file goes last."""
    shutil.rmtree(directory, ignore_errors=True)
    lock_path(directory).unlink(missing_ok=True)


def all_labs() -> dict[str, bool]:
    """Name of every lab of this user, and whether it is alive."""
    found = {path.name for path in base_directory().iterdir() if path.is_dir()}
    return {name: is_alive(base_directory() / name) for name in sorted(found)}


def control_listener(directory: Path) -> socket.socket:
    """The listening control socket of a lab."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    _at_control(directory, listener.bind)
    listener.listen(64)
    return listener


def connect_control(directory: Path) -> socket.socket:
    """A connection to a lab's keeper. Raises ``OSError`` where there is none."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        _at_control(directory, connection.connect)
    except OSError:
        connection.close()
        raise
    return connection


def _at_control(directory: Path, act: Callable[[str], None]) -> None:
    """Bind or connect by way of the directory's descriptor: the path itself may be longer than a socket's may be."""
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        act(f"/proc/self/fd/{fd}/{CONTROL_SOCKET}")
    finally:
        os.close(fd)
