"""``lab logs``: what the processes of a host have written."""

from __future__ import annotations

import time
from pathlib import Path

from lab.client import Lab
from lab.control.directory import is_alive
from lab.errors import LabError

POLL_S = 0.2


def print_logs(lab: Lab, host: str, process: str | None, *, follow: bool) -> None:
    """Print the logs of a host, each line after its process' name; with ``follow`` until the lab ends.

    Raises ``LabError`` where that process never ran there.
    """
    if process is not None and not follow and not lab.log(host, process).exists():
        known = ", ".join(path.stem for path in _files(lab, host, None)) or "none"
        raise LabError(f"{host} has no log of {process!r}; there are {known}")
    read: dict[Path, int] = {}
    while True:
        for path in _files(lab, host, process):
            _print_new(path, read)
        if not follow or not is_alive(lab.directory):
            return
        time.sleep(POLL_S)


def _files(lab: Lab, host: str, process: str | None) -> list[Path]:
    directory = lab.log(host, "any").parent
    return sorted(path for path in directory.glob("*.log") if process in {None, path.stem})


def _print_new(path: Path, read: dict[Path, int]) -> None:
    """Print the whole lines that were written since the last time."""
    try:
        with path.open("rb") as file:
            file.seek(read.get(path, 0))
            text = file.read()
    except FileNotFoundError:  # the lab has ended
        return
    whole = text[: text.rfind(b"\n") + 1]
    read[path] = read.get(path, 0) + len(whole)
    for line in whole.decode(errors="replace").splitlines():
        print(f"{path.stem} | {line}", flush=True)
