"""What keeps the announcer on time, as far as its container's rights go."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab.machines.container import confined
from lab.shipped.rights import Rights

ROOT = Path(__file__).parents[3]


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
    program = "import json; from speaker.wire.process import be_punctual; print(json.dumps(be_punctual()))"
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


def test_without_net_raw_it_says_what_to_do_and_ends() -> None:
    """A process gets no capability that it was not started with."""
    if os.geteuid() != 0:
        pytest.skip("only root can take a capability away")
    for user, capabilities in ((0, ()), (65532, ("NET_RAW",))):
        speaker = [*confined(Rights(user, user, capabilities)), sys.executable, "-m", "speaker", "--node-name=node-1"]
        done = subprocess.run(speaker, cwd=ROOT, capture_output=True, text=True, check=False, timeout=30)
        assert done.returncode == 2, done.stderr
        (line,) = done.stderr.splitlines()
        assert "runAsUser: 0, capabilities: {add: [NET_RAW]}" in line


def test_whoever_only_observes_needs_no_net_raw() -> None:
    """It gets as far as the question which cluster to observe."""
    if os.geteuid() != 0:
        pytest.skip("only root can take a capability away")
    rights = confined(Rights(65532, 65532, ()))
    speaker = [*rights, sys.executable, "-m", "speaker", "--node-name=node-1", "--observe"]
    done = subprocess.run(speaker, cwd=ROOT, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 2, done.stderr
    assert "--kubeconfig" in done.stderr.splitlines()[-1]


def test_garbage_of_a_loop_that_runs_for_ever_is_collected_a_little_at_a_time() -> None:
    program = """
import gc
from speaker.wire.process import YOUNG_OBJECTS, collect_garbage, freeze_garbage

class Ring:
    alive = 0
    def __init__(self):
        self.ring = self
        Ring.alive += 1
    def __del__(self):
        Ring.alive -= 1

freeze_garbage()
looked_at = []
gc.callbacks.append(lambda phase, info: looked_at.append(info["generation"]) if phase == "start" else None)
most = 0
kept = []
for _ in range(5 * YOUNG_OBJECTS):
    Ring()
    kept.append([])
    collect_garbage()
    most = max(most, Ring.alive)
assert most <= YOUNG_OBJECTS + 1, most
assert looked_at, "it was never looked for"
assert set(looked_at) == {1}, "only among what is new"
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
