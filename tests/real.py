"""The programs of a real control plane, Helm and Prometheus, for the tests that are marked ``real``."""

from __future__ import annotations

import os
import subprocess
from functools import cache

from lab.assets.gather import Assets, find
from lab.assets.metallb_release import is_built
from lab.assets.pinned import ALL, Program
from lab.client import Lab


@cache
def _found() -> Assets | None:
    return find(wanted=ALL)


def why_not() -> str | None:
    """Why no real control plane can be run here; None: it can."""
    if os.geteuid() != 0:
        return "root is needed for the network namespaces of these tests"
    return "its programs are not there; `make assets` finds or builds them" if _found() is None else None


def why_no_metallb() -> str | None:
    """Why the real MetalLB cannot be run here; None: it can."""
    return why_not() or (None if is_built() else "MetalLB is not built; `make assets` does that")


def real_assets() -> Assets:
    """All of them. Only where ``why_not`` has no reason."""
    found = _found()
    assert found is not None, why_not()
    return found


def kubectl(lab: Lab, *arguments: str, given: str = "") -> str:
    """What kubectl prints, as the lab's administrator; it must succeed."""
    argv = [program("kubectl"), f"--kubeconfig={lab.kubeconfig}", *arguments]
    done = subprocess.run(argv, input=given, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def program(name: Program) -> str:
    """The path of one."""
    return str(real_assets().path(name))
