"""Copies of what only node-IP mode reads, kept while a leader has pools of nodes: Pods, EndpointSlices, speakers'
Leases, and the ConfigMap of kube-proxy.

There may be many Pods and slices, so of each only what is read is kept, and of a Pod that says nothing of its node only
its name. No Pod is told of that says nothing, neither before nor now. (Kubernetes selects Pods by ``spec.hostNetwork``,
but not by ``hostPort``; so all have to be watched.)

Each time that it begins to follow has a number, and what is told bears it: what is still under way from an earlier time
is known by that. When all kinds have been listed once, that is told behind everything that they have.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from cluster.api.client import ApiClient
from cluster.api.listwatch import Change as Seen
from cluster.api.reflector import Reflector
from cluster.components import COMPONENT_LABEL
from cluster.objects import Object
from cluster.pods import HostPod
from cluster.resources import CONFIG_MAPS, ENDPOINT_SLICES, LEASES, PODS
from cluster.slices import SLICES_OF_SERVICES
from controller.nodeip.endpoints import kept_slice
from controller.nodeip.pods import PROXY_NAMESPACE, kept_pod, read_pod
from controller.nodeip.proxies import CONFIG_MAP

LOOK_S = 1.0
"""Between two looks whether the kinds are listed that could not be so far, or nobody wants them any more."""


@dataclass(frozen=True, slots=True)
class NodeNews:
    """What was seen, while following for the ``turn``-th time. None: everything was told of that there is."""

    turn: int
    seen: Seen[Any] | None = None


class NodeCopies:
    """See the module's docstring. ``note`` is called from other threads."""

    def __init__(self, client: ApiClient, namespace: str, note: Callable[[NodeNews], object]) -> None:
        self._client = client
        self._namespace = namespace
        self._note = note
        self._turns = 0
        self._following: _Following | None = None

    def follow(self, *, wanted: bool) -> bool:
        """Follow these kinds from now on, or do so no longer. Returns at once; says whether it did otherwise before."""
        if wanted == (self._following is not None):
            return False
        if self._following is not None:
            self._following.end()
            self._following = None
        else:
            self._turns += 1
            self._following = _Following(self._client, self._namespace, self._turns, self._note)
        return True

    @property
    def turn(self) -> int | None:
        """What news bears that counts; None: none does."""
        return None if self._following is None else self._turns

    @property
    def read(self) -> bool:
        """Whether all kinds are followed and have been listed once."""
        return self._following is not None and self._following.synced

    def everything(self) -> Iterator[Object]:
        """What is held now."""
        if self._following is not None:
            yield from self._following.everything()


class _Following:
    """From one beginning to the end after it."""

    def __init__(self, client: ApiClient, namespace: str, turn: int, note: Callable[[NodeNews], object]) -> None:
        self._turn = turn
        self._note = note
        self._ended = threading.Event()
        self._reflectors: Final[tuple[Reflector[Any], ...]] = (
            Reflector(client, PODS, keep=kept_pod, on_change=self._tell_of_pod),
            Reflector(
                client, ENDPOINT_SLICES, label_selector=SLICES_OF_SERVICES, keep=kept_slice, on_change=self._tell
            ),
            Reflector(
                client,
                LEASES,
                namespace=namespace,
                label_selector=f"{COMPONENT_LABEL}=speaker",
                on_change=self._tell,
            ),
            Reflector(
                client,
                CONFIG_MAPS,
                namespace=PROXY_NAMESPACE,
                field_selector=f"metadata.name={CONFIG_MAP}",
                on_change=self._tell,
            ),
        )
        for reflector in self._reflectors:
            reflector.start()
        threading.Thread(target=self._await_lists, name="node-copies", daemon=True).start()

    def end(self) -> None:
        self._ended.set()
        for reflector in self._reflectors:  # each may wait for an answer of the API
            threading.Thread(target=reflector.stop, name="end-node-copies", daemon=True).start()

    @property
    def synced(self) -> bool:
        return all(each.synced for each in self._reflectors)

    def everything(self) -> Iterator[Object]:
        for reflector in self._reflectors:
            yield from reflector.items().values()

    def _tell(self, change: Seen[Any]) -> None:
        self._note(NodeNews(self._turn, change))

    def _tell_of_pod(self, change: Seen[HostPod]) -> None:
        if any(pod is not None and read_pod(pod) is not None for pod in (change.old, change.new)):
            self._tell(change)

    def _await_lists(self) -> None:
        for reflector in self._reflectors:
            while not reflector.wait_synced(LOOK_S):
                if self._ended.is_set():
                    return
        self._note(NodeNews(self._turn))
