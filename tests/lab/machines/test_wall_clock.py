"""A program's wall clock, stepped while it runs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from lab.machines.wall_clock import clock_file, step
from tests.pages import ROOT

PROGRAM = """
import sys, time
for line in sys.stdin:
    print(time.time(), time.time_ns() / 1e9, time.monotonic(), *sys.argv[1:], flush=True)
"""


def test_a_clock_is_stepped_in_both_directions_and_time_itself_goes_on(tmp_path: Path) -> None:
    (tmp_path / "told.py").write_text(PROGRAM)
    argv = [sys.executable, "-m", "lab.machines.wall_clock", str(clock_file(tmp_path, "node-1")), "told", "--word"]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}"}
    with subprocess.Popen(argv, stdin=-1, stdout=-1, text=True, env=environment) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        before = time.monotonic()
        for ahead in (0.0, 3600.0, -3600.0, 0.0):
            step(tmp_path, "node-1", ahead)
            began = time.time()
            program.stdin.write("\n")
            program.stdin.flush()
            seconds, by_ns, monotonic, word = program.stdout.readline().split()
            ended = time.time()
            assert word == "--word"
            assert began + ahead - 0.001 <= float(seconds) <= float(by_ns) + 0.001 <= ended + ahead + 0.002
            assert before <= float(monotonic) <= time.monotonic()
        program.stdin.close()
        assert program.wait(30) == 0
