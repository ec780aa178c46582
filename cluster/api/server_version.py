"""Whether the API server is new enough.

The definitions of our custom resources need Kubernetes 1.30 (``ip()`` and ``cidr()`` in their rules), and an older
server refuses them. A daemon that finds an older server says so and is not ready. Otherwise it does what it can: an
older server serves with definitions that are there already (MetalLB's), and no address is to go because of a number. An
upgrade of the cluster mends it: the server is asked until it is new enough.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable

from cluster.api.client import ApiClient
from cluster.api.errors import ApiError, Forbidden, NotFound, Undecodable

OLDEST = (1, 30)
ASK_AGAIN_S = 10.0


def why_too_old(version: str) -> str:
    """What is to be done about a server of this version (``gitVersion``); empty: nothing, or it cannot be told."""
    read = re.match(r"v?(\d+)\.(\d+)", version)
    if not read or (int(read[1]), int(read[2])) >= OLDEST:
        return ""
    needed = ".".join(map(str, OLDEST))
    return f"the API server is Kubernetes {version}, and {needed} or newer is needed: upgrade the cluster"


class VersionCheck:
    """``tell`` is called with what ``why_too_old`` says, from a thread of its own, whenever that is another text; at
    first it is taken to be empty."""

    def __init__(self, client: ApiClient, tell: Callable[[str], object]) -> None:
        self._client = client
        self._tell = tell
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="version", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()

    def _run(self) -> None:
        told = ""
        while not self._stopping.is_set():
            try:
                why = why_too_old(self._client.server_version())
            except (Forbidden, NotFound, Undecodable):
                return  # it keeps that to itself
            except ApiError:
                pass  # the reflectors say why it cannot be asked
            else:
                if why != told:
                    self._tell(why)
                told = why
                if not why:
                    return
            self._stopping.wait(ASK_AGAIN_S)
