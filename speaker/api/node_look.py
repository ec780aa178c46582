"""The shell of ``looks``: looks at this node now and then, which sockets it has, and what kube-proxy says of itself.

It runs in a thread of its own, so that nothing waits for a program that does not answer, and only while it is wanted.

1. The sockets are read from ``/proc``, which shows those of the network namespace: in a speaker's, the node's own.
2. kube-proxy is asked at the loopback addresses, on the ports that it has by default, for its mode (``/proxyMode``) and
   whether its rules are up to date (``/healthz``). Where none answers, nothing is known.

A look takes some milliseconds, and at most eight seconds where connections to kube-proxy hang.
"""

from __future__ import annotations

import http.client
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from cluster.node_report import LONGEST_MODE
from speaker.api.listening import LOCAL_PORTS, BoundSocket, read_sockets
from speaker.api.looks import Looks, ProxyState

PROXY_TIMEOUT_S = 1.0
"""For kube-proxy to take a connection, and then to answer."""
LOOPBACK = ("127.0.0.1", "::1")
MODE_PORT, HEALTH_PORT = 10249, 10256
"""kube-proxy's defaults for ``metricsBindAddress`` and ``healthzBindAddress``."""
LISTS = (("tcp", "TCP"), ("tcp6", "TCP"), ("udp", "UDP"), ("udp6", "UDP"))
"""The kernel's lists of sockets (proc(5)), and of which protocol they are."""
SERVES, SERVES_NOT = 200, 503

logger = logging.getLogger(__name__)


class NodeLook(NamedTuple):
    """What was found."""

    sockets: tuple[BoundSocket, ...]
    local_ports: range
    proxy: ProxyState
    at: float
    """Monotonic seconds."""


class NodeWatch:
    """``tell`` is called with each look, on a thread of its own."""

    def __init__(
        self,
        tell: Callable[[NodeLook], object],
        *,
        proc: Path = Path("/proc"),
        mode_port: int = MODE_PORT,
        health_port: int = HEALTH_PORT,
    ) -> None:
        self._tell = tell
        self._proc = proc
        self._mode_port, self._health_port = mode_port, health_port
        self._changed = threading.Condition()
        self._wanted = self._stopping = False
        self._thread: threading.Thread | None = None

    def want(self, *, wanted: bool) -> None:
        """Whether to look from now on."""
        with self._changed:
            self._wanted = wanted
            self._changed.notify()
        if wanted and self._thread is None:
            self._thread = threading.Thread(target=self._run, name="node", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify()

    def _run(self) -> None:
        looks = Looks()
        while self._wait_until_wanted():
            proxy = looks.found(self._ask_proxy())
            try:
                self._tell(NodeLook(tuple(self._sockets()), self._local_ports(), proxy, time.monotonic()))
            except OSError as error:
                logger.warning("sockets of this node not read", extra={"reason": str(error)})
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or not self._wanted, looks.pause_s)

    def _wait_until_wanted(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._wanted or self._stopping)
            return not self._stopping

    def _sockets(self) -> Iterator[BoundSocket]:
        for name, protocol in LISTS:
            with suppress(FileNotFoundError), (self._proc / "net" / name).open(encoding="ascii") as lines:
                yield from read_sockets(lines, protocol)  # a kernel without IPv6 has no such list

    def _local_ports(self) -> range:
        try:
            first, last = (self._proc / "sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()
            return range(int(first), int(last) + 1)
        except (OSError, ValueError):
            return LOCAL_PORTS

    def _ask_proxy(self) -> ProxyState:
        said, answer = _get(self._mode_port, "/proxyMode")
        mode = answer.strip() if said == SERVES else ""
        health, _ = _get(self._health_port, "/healthz")
        return ProxyState(
            mode if mode.isalnum() and len(mode) <= LONGEST_MODE else None,
            {SERVES: True, SERVES_NOT: False}.get(health),
        )


def _get(port: int, path: str) -> tuple[int, str]:
    """The status and the beginning of the answer of a server on this node; 0 where none answers."""
    for host in LOOPBACK:
        connection = http.client.HTTPConnection(host, port, timeout=PROXY_TIMEOUT_S)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read(LONGEST_MODE + 1).decode(errors="replace")
        except (OSError, http.client.HTTPException):
            continue
        finally:
            connection.close()
    return 0, ""
