"""What keeps the announcer on time, as far as its container's rights go."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab.container import confined
from lab.rights import Rights

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("capabilities", "scheduling", "memory"),
    [
        (("NET_RAW",), {"ordinary"}, "pageable"),
        (("NET_RAW", "IPC_LOCK"), {"ordinary"}, "locked"),
        (("NET_RAW", "SYS_NICE"), {"real-time", "raised"}, "pageable"),  # some kernels leave a cgroup no real time
    ],
)
def test_what_is_granted_is_said_and_what_is_refused_does_no_harm(
    capabilities: tuple[str, ...], scheduling: set[str], memory: str
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a capability")
    program = "import json; from speaker.process import be_punctual; print(json.dumps(be_punctual()))"
    done = subprocess.run(
        [*confined(Rights(0, 0, capabilities)), sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    granted = json.loads(done.stdout)
    assert granted["scheduling"] in scheduling
    assert granted["memory"] == memory
