"""What a lab takes up on a machine, and what of it is left: asked of /proc, not of the lab."""

from __future__ import annotations

import time
from pathlib import Path

from lab.client import Lab
from lab.control.directory import lock_path
from tests.waiting import POLL_S, Stopwatch


def _identity(process: Path) -> str:
    """A process, as long as it lives: its id and when it started (ids are used again). Empty when it has ended.

    A zombie has ended: whose child it was has only not asked yet.
    """
    try:
        fields = (process / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else f"{process.name} since {fields[19]}"


def _members(namespace: Path) -> set[str]:
    """The processes of a PID namespace."""
    found = set()
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and (process / "ns" / "pid").readlink() == namespace:
                found.add(_identity(process))
        except OSError:  # it has ended meanwhile
            continue
    return found - {""}


def _interfaces() -> set[str]:
    return {path.name for path in Path("/sys/class/net").iterdir()}


def is_guarded(directory: Path) -> bool:
    """Whether a lab that is being made has its guard: from then on nothing is left of it, whatever ends."""
    for process in Path("/proc").iterdir():
        try:
            words = (process / "cmdline").read_bytes().split(b"\0") if process.name.isdigit() else []
        except OSError:  # it has ended meanwhile
            continue
        if b"lab.keeper.guard" in words and bytes(directory) in words:
            return True
    return False


class Footprint:
    """A lab's processes and files, taken while it is up; ``left`` says what there still is of them.

    Its namespaces are held by its processes alone: by nobody else's descriptors, and by no mount that the machine sees.
    """

    def __init__(self, lab: Lab) -> None:
        keeper = Path("/proc", str(lab.status().keeper_pid))
        self.directory = lab.directory
        self.guard = int((keeper / "stat").read_text().rpartition(")")[2].split()[1])
        self.processes = _members((keeper / "ns" / "pid").readlink()) | {_identity(Path("/proc", str(self.guard)))}
        self.interfaces = _interfaces()
        self.mounts = Path("/proc/self/mountinfo").read_text()
        assert len(self.processes) >= 4  # guard, keeper, API server, stand-ins

    def assert_nothing_is_left(self) -> None:
        """The kernel takes some milliseconds to end a lab, and its guard some more to end."""
        watch = Stopwatch()
        while left := self.left():
            assert watch.look() < 10.0, left
            time.sleep(POLL_S)

    def left(self) -> list[str]:
        found = [str(path) for path in (self.directory, lock_path(self.directory)) if path.exists()]
        alive = {_identity(process) for process in Path("/proc").iterdir() if process.name.isdigit()}
        found += sorted(self.processes & alive)
        found += [f"interface {name}" for name in _interfaces() - self.interfaces]
        if Path("/proc/self/mountinfo").read_text() != self.mounts:
            found.append("mounts changed")
        return found
