"""What keeps the announcer on time."""

from __future__ import annotations

import subprocess
import sys


def test_refused_priority_and_memory_are_said_and_do_no_harm() -> None:
    program = "from speaker.process import be_punctual; print(be_punctual())"
    done = subprocess.run(
        ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "prlimit", "--memlock=8388608",
         sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "{'scheduling': 'ordinary', 'memory': 'pageable'}"
