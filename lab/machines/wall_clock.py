"""A wall clock that a lab can step: ``python -m lab.machines.wall_clock FILE speaker --node-name=node-1``.

A machine has one wall clock, which is not the lab's to set. So a daemon of ours is run with a ``time.time`` and a
``time.time_ns`` of its own: the machine's, and as much more as FILE says, at each call. Our code asks no other wall
clock. What the kernel and OpenSSL read remains the machine's.
"""

from __future__ import annotations

import mmap
import runpy
import struct
import sys
import time
from pathlib import Path

_SECONDS = struct.Struct("d")
_OCTETS = _SECONDS.size


def clock_file(directory: Path, host: str) -> Path:
    """Where the clock of a host's daemons is set, in the lab's directory; made where it is missing."""
    file = directory / "clocks" / host
    if not file.exists():
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(_SECONDS.pack(0.0))
    return file


def step(directory: Path, host: str, seconds: float) -> None:
    """From now on the clock of a host's daemons is so much ahead of the machine's; negative: behind."""
    with clock_file(directory, host).open("r+b") as file:
        file.write(_SECONDS.pack(seconds))


def _replace_clock(file: Path) -> None:
    with file.open("rb") as opened:
        ahead = mmap.mmap(opened.fileno(), _OCTETS, prot=mmap.PROT_READ)
    machine_s, machine_ns = time.time, time.time_ns

    def seconds() -> float:
        return float(_SECONDS.unpack_from(ahead)[0])

    def now() -> float:
        return machine_s() + seconds()

    def now_ns() -> int:
        return machine_ns() + round(seconds() * 1e9)

    time.time, time.time_ns = now, now_ns


if __name__ == "__main__":
    _replace_clock(Path(sys.argv[1]))
    program = sys.argv[2]
    sys.argv[1:] = sys.argv[3:]
    runpy.run_module(program, run_name="__main__", alter_sys=True)
