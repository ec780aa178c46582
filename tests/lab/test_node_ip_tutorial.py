"""The tutorial of node-IP mode behind 1:1 NAT runs as written, and each command shows what the page says."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from tests.pages import ROOT, commands
from tests.waiting import wait_until

PAGE = ROOT / "docs/tutorials/node-ip-behind-nat.md"
PUBLIC = "203.0.113.1,203.0.113.2,203.0.113.3"

pytestmark = [pytest.mark.lab]


def test_the_tutorial_runs_as_written() -> None:
    """The lab has another name than a lab of the person who tests; no command says which. What takes a moment is asked
    again, as a reader would."""
    environment = {**os.environ, "BERTHLB_LAB": f"tutorial-{os.getpid()}"}
    rest = iter(commands(PAGE))

    def run(command: str) -> str:
        argv = ["bash", "-c", command]
        done = subprocess.run(argv, cwd=ROOT, env=environment, check=False, timeout=120, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def shows(words: str, *wanted: str, unwanted: str = "nothing of the kind") -> None:
        """The next command has these words, and comes to print what is wanted and not what is unwanted."""
        command = next(rest)
        assert words in command
        wait_until(
            lambda: all(each in (said := run(command)) for each in wanted) and unwanted not in said,
            60,
            f"{command} does not come to show {wanted} without {unwanted}",
            every=0.2,
        )

    def answers() -> None:
        command = next(rest)
        assert "exec outside -- curl" in command
        assert json.loads(run(command))["pod"] in {"ingress-1", "ingress-2"}

    try:
        assert "outside" in run(next(rest))
        shows("get nodes", "node-3")
        assert "service default/ingress created" in run(next(rest))
        run(next(rest))
        shows("get services", PUBLIC, "ingress-berthlb-delivered", "10.0.0.11,10.0.0.12,10.0.0.13")
        answers()
        answers()
        run(next(rest))
        shows("get services", "203.0.113.1,203.0.113.2", "10.0.0.11,10.0.0.12", unwanted="203.0.113.3")
        shows("get nodes", "node-3", unwanted="NotReady")
        run(next(rest))
        shows("get services", "203.0.113.1,203.0.113.2")  # test_node_ip waits for the return
        run(next(rest))
        shows("get events", "22/TCP: it is for SSH on every node")
        run(next(rest))
        assert next(rest, None) is None
    finally:
        subprocess.run([".venv/bin/python", "-m", "lab", "down"], cwd=ROOT, env=environment, check=False, timeout=30)
