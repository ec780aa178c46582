"""The stand-ins beside the embedded API server: kubelets, kube-proxies, controllers of EndpointSlices and nodes.

One loop decides for kubelets and controllers. Each proxy is a thread, which looks at the same objects by itself.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence
from typing import Any

from cluster.api.client import ENDPOINT_SLICES, AlreadyExists, ApiClient, NotFound
from cluster.api.reflector import Change, Reflector
from cluster.objects import Service
from cluster.resources import NODES, SERVICES
from cluster.slices import SERVICE_NAME_LABEL, EndpointSlice
from lab.control.messages import NodeDown, NodeUp, ToStandIns
from lab.layout import Layout
from lab.standins.kubelets import Kubelets
from lab.standins.nodes import NodeState, node_taints
from lab.standins.proxy import ProxiedObjects, Proxy
from lab.standins.slices import MANAGED_BY, MANAGER, wanted_slices
from lab.standins.views import Pod


class StandInDaemon(Kubelets):
    """All nodes' kubelets and proxies, and the controllers of EndpointSlices and nodes."""

    def __init__(self, client: ApiClient, keeper: socket.socket, layout: Layout, grace: float) -> None:
        super().__init__(client, keeper, layout, grace)
        self.proxies: dict[str, Proxy] = {}
        self.services = Reflector(client, SERVICES, on_change=self.service_changed)
        self.slices = Reflector(client, ENDPOINT_SLICES, on_change=self.slice_changed)
        self.all_known = False
        self.lock = threading.Lock()
        self.stale: set[str] = set()
        """Services, by key, whose slices must be looked at."""
        self.vanished: set[str] = set()
        """Slices that somebody deleted: we, or another."""
        self.said_of_slices: dict[str, dict[str, Any]] = {}

    # -------------------------------------------------------------------- what comes

    def reflectors(self) -> Sequence[Reflector[Any]]:
        return (self.services, self.slices, self.pods)

    def service_changed(self, change: Change[Service]) -> None:
        self.mark(change.new or change.old)
        self.notice_traffic()

    def slice_changed(self, change: Change[EndpointSlice]) -> None:
        gone = change.old if change.new is None else None
        if gone is not None and gone.service_key is not None:
            with self.lock:
                self.vanished.add(gone.key)
                self.stale.add(gone.service_key)
            self.wake()
        self.notice_traffic()

    def pod_changed(self, change: Change[Pod]) -> None:
        changed = change.new or change.old
        if changed is not None:
            namespace = changed.metadata.namespace + "/"
            with self.lock:
                self.stale |= {key for key in self.services.items() if key.startswith(namespace)}
        self.wake()

    def mark(self, service: Service | None) -> None:
        if service is not None:
            with self.lock:
                self.stale.add(service.key)
            self.wake()

    def notice_traffic(self) -> None:
        for proxy in list(self.proxies.values()):
            proxy.notice()

    def look(self) -> ProxiedObjects | None:
        """What the proxies see; None until everything is known."""
        if not (self.services.synced and self.slices.synced):
            return None
        return ProxiedObjects(self.services.items(), self.slices.items())

    def take(self, message: ToStandIns, descriptors: list[int]) -> None:
        match message:
            case NodeUp(node=name) if name in self.proxies:
                self.proxies[name].connect(True)
            case NodeUp(node=name):
                self.proxies[name] = Proxy(self.nodes[name].host, descriptors[0], self.look, self.wake)
                self.proxies[name].start()
                descriptors = []
            case NodeDown(node=name, power=True):
                self.proxies[name].connect(False)
            case NodeDown(node=name):
                self.proxies.pop(name).stop()
            case _:
                pass
        super().take(message, descriptors)

    # -------------------------------------------------------------------- what is written

    def write(self) -> None:
        super().write()
        if not all(reflector.synced for reflector in self.reflectors()):
            return
        if not self.all_known:
            self.all_known = True
            self.notice_traffic()
        with self.lock:  # before looking: what changes from here on is marked again
            stale, self.stale = self.stale, set()
            vanished, self.vanished = self.vanished, set()
        pods = self.pods.items()
        for key in vanished:
            self.said_of_slices.pop(key, None)
        by_namespace: dict[str, list[Pod]] = {}
        for pod in pods.values():
            by_namespace.setdefault(pod.metadata.namespace, []).append(pod)
        for key in sorted(stale):
            if not self.attempt(self.write_slices, key, by_namespace.get(key.partition("/")[0], [])):
                with self.lock:
                    self.stale.add(key)

    def carries_traffic(self, node: NodeState) -> bool:
        return self.proxies[node.host.name].installed.is_set()

    def write_taints(self, node: NodeState, *, ready: bool) -> None:
        self.client.patch(NODES, None, node.host.name, node_taints(ready=ready))

    def write_slices(self, key: str, pods: list[Pod]) -> None:
        service = self.services.items().get(key)
        namespace = key.partition("/")[0]
        wanted = {f"{namespace}/{s['metadata']['name']}": s for s in wanted_slices(service, pods)} if service else {}
        ours = {
            slice_key
            for slice_key, found in self.slices.items().items()
            if found.service_key == key and found.metadata.labels.get(MANAGED_BY) == MANAGER
        } | {k for k, s in self.said_of_slices.items() if _service_of(s) == key}
        for slice_key in ours - wanted.keys():
            self.said_of_slices.pop(slice_key, None)
            try:
                self.client.delete(ENDPOINT_SLICES, namespace, slice_key.partition("/")[2])
            except NotFound:
                continue
        for slice_key, body in wanted.items():
            if self.said_of_slices.get(slice_key) == body:
                continue
            try:
                self.client.create(ENDPOINT_SLICES, namespace, body)
            except AlreadyExists:
                self.client.replace(ENDPOINT_SLICES, namespace, body["metadata"]["name"], body)
            self.said_of_slices[slice_key] = body


def _service_of(body: dict[str, Any]) -> str:
    meta = body["metadata"]
    return f"{meta['namespace']}/{meta['labels'][SERVICE_NAME_LABEL]}"
