"""Views decode what the API sends, from as many threads as there are."""

from __future__ import annotations

import subprocess
import sys

FIRST_USE = """
import sys, threading
from cluster import objects, resources
from cluster.api import errors

sys.setswitchinterval(1e-6)  # threads change places in the middle of everything
views = [r.view for r in vars(resources).values() if isinstance(r, resources.Resource)]
views = 2 * [*views, objects.RawList, objects.RawWatchEvent, errors.Status]
body = b'{"metadata": {"labels": {}}, "type": "ADDED", "object": {}}'
together = threading.Barrier(len(views))

def decode(view):
    together.wait()
    try:
        objects.decode(body, view)
    except ValueError:
        pass

threads = [threading.Thread(target=decode, args=(view,)) for view in views]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def test_many_threads_may_be_the_first_to_decode_a_kind() -> None:
    """msgspec works a type out at its first use; a second thread in the middle of that ended the process (SIGSEGV)."""
    done = subprocess.run([sys.executable, "-c", FIRST_USE], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
