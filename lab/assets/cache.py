"""The user's cache: directories that are whole or not there."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from lab.errors import UnusableError

LOOK_S = 0.2  # between looks at a lock that another holds


def cache_directory(environment: Mapping[str, str]) -> Path:
    """``berthlb`` in the user's cache directory. A relative ``$XDG_CACHE_HOME`` is ignored, as its standard says."""
    given = environment.get("XDG_CACHE_HOME", "")
    base = Path(given) if given.startswith("/") else Path.home() / ".cache"
    return base / "berthlb"


def make_once(
    cache: Path, name: str, make: Callable[[Path, int], None], progress: Callable[[str], None]
) -> tuple[Path, bool]:
    """The directory of that name, and whether it had to be made: ``make(directory, lock)`` fills an empty one.

    ``make`` may hand ``lock`` down to the processes that write for it: should we be killed, the next process waits
    for their end as well. Raises what ``make`` raises, and ``UnusableError`` where the cache cannot be written.
    """
    whole = cache / name
    if whole.is_dir():
        return whole, False
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with _lock(cache / f"{name}.lock", lambda: progress(f"waiting for another command to make {name}")) as lock:
            if whole.is_dir():
                return whole, False
            for remains in cache.glob(f"{name}.part-*"):  # of a process that was killed: the lock is ours
                shutil.rmtree(remains, ignore_errors=True)
            part = Path(tempfile.mkdtemp(prefix=f"{name}.part-", dir=cache))
            try:
                make(part, lock)
                part.chmod(0o755)
                part.rename(whole)
            except BaseException:
                shutil.rmtree(part, ignore_errors=True)
                raise
    except OSError as error:
        raise UnusableError(f"the cache {cache} is of no use: {error.strerror}; set XDG_CACHE_HOME") from error
    return whole, True


@contextlib.contextmanager
def _lock(path: Path, on_wait: Callable[[], None]) -> Iterator[int]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                on_wait()
                time.sleep(LOOK_S)
        yield fd
    finally:
        os.close(fd)
