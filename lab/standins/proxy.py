"""kube-proxy's stand-in: for each node a thread in the node's network namespace, which keeps the node's rules right.

A change is one ``nft`` transaction, of the difference only. If the kernel refuses one, everything is replaced, in one
transaction as well, so that no packet ever meets half of the rules.
"""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cluster.objects import Service
from cluster.slices import EndpointSlice
from lab.layout import Host
from lab.machines import namespaces
from lab.standins import rules
from lab.standins.proxy_status import ProxyStatus
from lab.standins.rules import Rules

SETTLE_S = 0.005  # changes that come together are carried out together
RETRY_S = 1.0
NFT_S = 30.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ProxiedObjects:
    """What the rules are made from."""

    services: Mapping[str, Service]
    slices: Mapping[str, EndpointSlice]

    def slices_by_service(self) -> dict[str, tuple[EndpointSlice, ...]]:
        found: dict[str, list[EndpointSlice]] = {}
        for each in self.slices.values():
            if each.service_key is not None:
                found.setdefault(each.service_key, []).append(each)
        return {key: tuple(slices) for key, slices in found.items()}


class Proxy:
    """The proxy of one node. ``start`` it once; ``stop`` ends it. ``namespace`` becomes its own."""

    def __init__(
        self, node: Host, namespace: int, look: Callable[[], ProxiedObjects | None], on_installed: Callable[[], None]
    ) -> None:
        self._on_installed = on_installed
        self._node = node
        self._namespace = namespace
        self._look = look
        self._changed = threading.Event()
        self._changed.set()
        self._stopping = False
        self._connected = True
        self._installed: Rules | None = None
        self._known: dict[str, tuple[Service, tuple[EndpointSlice, ...], Rules]] = {}
        """Each Service's rules, and what they were made from: what is the same object need not be looked at again."""
        self.installed = threading.Event()
        """Set when there are rules for the first time."""
        self._thread = threading.Thread(target=self._run, name=f"proxy-{node.name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping = True
        self._changed.set()

    def notice(self) -> None:
        """Something may have changed."""
        self._changed.set()

    def connect(self, connected: bool) -> None:
        """A node whose cable is pulled hears of no change."""
        self._connected = connected
        self._changed.set()

    def _run(self) -> None:
        try:
            namespaces.enter_network(self._namespace)
        finally:
            os.close(self._namespace)
        with contextlib.closing(ProxyStatus(self.installed)):
            self._keep_right()

    def _keep_right(self) -> None:
        while True:
            self._changed.wait()
            time.sleep(SETTLE_S)
            self._changed.clear()
            if self._stopping:
                return
            traffic = self._look() if self._connected else None
            if traffic is None:
                continue
            if not self._install(traffic):
                self._installed = None
                threading.Timer(RETRY_S, self._changed.set).start()
            elif not self.installed.is_set():
                self.installed.set()
                self._on_installed()

    def _install(self, traffic: ProxiedObjects) -> bool:
        wanted = self._wanted(traffic)
        if self._installed is not None:
            text = rules.script(self._installed, wanted, self._node)
            if not text or self._tell_nft(text):
                self._installed = wanted
                return True
        if not self._tell_nft(rules.script(None, wanted, self._node)):
            return False
        self._installed = wanted
        return True

    def _wanted(self, traffic: ProxiedObjects) -> Rules:
        slices = traffic.slices_by_service()
        known: dict[str, tuple[Service, tuple[EndpointSlice, ...], Rules]] = {}
        for key in sorted(traffic.services):
            service, own = traffic.services[key], slices.get(key, ())
            before = self._known.get(key)
            if before is not None and before[0] is service and _same(before[1], own):
                known[key] = before
            else:
                known[key] = (service, own, rules.rules_of(service, own, self._node))
        self._known = known
        return rules.join(part for _, _, part in known.values())

    def _tell_nft(self, text: str) -> bool:
        try:
            done = subprocess.run(
                ["nft", "-f", "-"], input=text, capture_output=True, text=True, timeout=NFT_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            logger.warning("nft failed", extra={"node": self._node.name, "error": str(error)})
            return False
        if done.returncode == 0:
            return True
        if not self._stopping:  # a node whose power is cut takes its nft with it
            said = done.stderr.strip()[:500]
            logger.warning("nft refused", extra={"node": self._node.name, "code": done.returncode, "said": said})
        return False


def _same(some: tuple[EndpointSlice, ...], others: tuple[EndpointSlice, ...]) -> bool:
    """Whether these are the same objects: they are immutable, so the same objects say the same."""
    return len(some) == len(others) and all(a is b for a, b in zip(some, others, strict=True))
