"""A little CPU for what a test starts, by a quota of the kernel's: as in a cluster where a container has a limit."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.waiting import wait_until

CGROUPS = Path("/sys/fs/cgroup")
PERIOD_US = 100_000


@contextmanager
def share_of_a_core(name: str, share: float) -> Iterator[tuple[str, ...]]:
    """The beginning of a command line: what it starts, and all that this starts, has ``share`` of a core together.

    At the end all of it must have ended.
    """
    quota = int(PERIOD_US * share)
    if (CGROUPS / "cgroup.controllers").exists():
        (CGROUPS / "cgroup.subtree_control").write_text("+cpu")
        group = CGROUPS / name
        group.mkdir()
        (group / "cpu.max").write_text(f"{quota} {PERIOD_US}")
    else:
        group = CGROUPS / "cpu" / name
        group.mkdir()
        (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
        (group / "cpu.cfs_quota_us").write_text(str(quota))
    processes = group / "cgroup.procs"
    try:
        yield ("sh", "-c", f'echo $$ > {processes} && exec "$@"', "sh")
    finally:
        wait_until(lambda: not processes.read_text())
        group.rmdir()


def group_name(of: str) -> str:
    """A name that no other run of the tests gives."""
    return f"berthlb-test-{os.getpid()}-{of}"
