"""The stand-ins' shell: watches the API, hears the keeper, and makes both agree with the decisions.

One loop: what comes (a change of an object, a message of the keeper, a deadline) marks something to look at; when
nothing more comes for a moment, it is looked at, and what differs is written. What the API refuses is tried again after
a while. The proxies look for themselves.
"""

from __future__ import annotations

import logging
import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from cluster.client import ENDPOINT_SLICES, AlreadyExists, ApiClient, ApiError, NotFound
from cluster.objects import SERVICE_NAME_LABEL, EndpointSlice
from cluster.reflector import Change, Reflector
from cluster.resources import NODES
from lab import wire
from lab.layout import Layout
from lab.messages import (
    TO_STAND_INS,
    FromStandIns,
    NodeDown,
    NodeUp,
    PodEnded,
    PodStarted,
    StartPod,
    StopPod,
    ToStandIns,
)
from lab.standins.nodes import Node, node_object, node_status, node_taints, pod_status
from lab.standins.proxy import Proxy, Traffic
from lab.standins.slices import MANAGED_BY, MANAGER, wanted_slices
from lab.standins.views import PODS, PROXIED_SERVICES, Pod, ProxiedService

RETRY_S = 0.5
RESTART_S = 1.0  # a workload that ended starts again, like a container

logger = logging.getLogger(__name__)
Heard = tuple[ToStandIns, list[int]]


class StandIns:
    """All nodes' kubelets and proxies, and the controllers of EndpointSlices and nodes."""

    def __init__(self, client: ApiClient, keeper: socket.socket, layout: Layout, grace: float) -> None:
        self.client = client
        self.keeper = keeper
        self.nodes = {host.name: Node(host, grace) for host in layout.nodes}
        self.proxies: dict[str, Proxy] = {}
        self.events: queue.SimpleQueue[Heard | None] = queue.SimpleQueue()
        self.services = Reflector(client, PROXIED_SERVICES, on_change=self.service_changed)
        self.slices = Reflector(client, ENDPOINT_SLICES, on_change=self.slice_changed)
        self.pods = Reflector(client, PODS, on_change=self.pod_changed)
        self.all_known = False
        self.lock = threading.Lock()
        self.stale: set[str] = set()
        """Services, by key, whose slices must be looked at."""
        self.vanished: set[str] = set()
        """Slices that somebody deleted: we, or another."""
        self.look_again_at = float("inf")
        self.starting: set[str] = set()
        self.said_of_nodes: dict[str, bool] = {}
        """Whether the API says of a node that it is Ready."""
        self.said_of_pods: dict[str, tuple[str, bool]] = {}
        """What the API says of a pod, by uid: its address and whether it is ready."""
        self.said_of_slices: dict[str, dict[str, Any]] = {}

    # -------------------------------------------------------------------- what comes

    def run(self) -> None:
        """Until the keeper is gone."""
        threading.Thread(target=self._hear_keeper, name="hear-keeper", daemon=True).start()
        for reflector in (self.services, self.slices, self.pods):
            reflector.start()
        while True:
            now = time.monotonic()
            deadlines = [node.deadline(now) for node in self.nodes.values()]
            due = min([self.look_again_at, *(d for d in deadlines if d is not None)])
            try:
                heard = self.events.get(timeout=None if due == float("inf") else max(0.0, due - now))
                while True:
                    if heard is not None:
                        self.take(*heard)
                    heard = self.events.get_nowait()
            except queue.Empty:
                pass
            self.look_again_at = float("inf")
            self.write()

    def _hear_keeper(self) -> None:
        while True:
            received = wire.receive(self.keeper, TO_STAND_INS)
            if received is None:
                os._exit(0)  # the lab is over
            self.events.put(received)

    def service_changed(self, change: Change[ProxiedService]) -> None:
        self.mark(change.new or change.old)
        self.notice_traffic()

    def slice_changed(self, change: Change[EndpointSlice]) -> None:
        gone = change.old if change.new is None else None
        if gone is not None and gone.service_key is not None:
            with self.lock:
                self.vanished.add(gone.key)
                self.stale.add(gone.service_key)
            self.events.put(None)
        self.notice_traffic()

    def pod_changed(self, change: Change[Pod]) -> None:
        changed = change.new or change.old
        if changed is not None:
            namespace = changed.metadata.namespace + "/"
            with self.lock:
                self.stale |= {key for key in self.services.items() if key.startswith(namespace)}
        self.events.put(None)

    def mark(self, service: ProxiedService | None) -> None:
        if service is not None:
            with self.lock:
                self.stale.add(service.key)
            self.events.put(None)

    def notice_traffic(self) -> None:
        for proxy in list(self.proxies.values()):
            proxy.notice()

    def look(self) -> Traffic | None:
        """What the proxies see; None until everything is known."""
        if not (self.services.synced and self.slices.synced):
            return None
        return Traffic(self.services.items(), self.slices.items())

    def take(self, message: ToStandIns, descriptors: list[int]) -> None:
        """One message of the keeper."""
        match message:
            case NodeUp(node=name):
                node = self.nodes[name]
                if name in self.proxies:
                    self.proxies[name].connect(True)
                    for fd in descriptors:
                        os.close(fd)
                else:
                    self.proxies[name] = Proxy(node.host, descriptors[0], self.look, self.wake)
                    self.proxies[name].start()
                node.connect()
            case NodeDown(node=name, power=power):
                self.nodes[name].disconnect(time.monotonic(), power=power)
                if power:
                    self.proxies[name].connect(False)
                else:
                    self.proxies.pop(name).stop()
            case PodStarted(pod=pod, error=error):
                self.starting.discard(pod)
                if error is not None:
                    logger.warning("pod did not start", extra={"pod": pod, "error": error})
                    self.look_again(RESTART_S)
                    return
                for node in self.nodes.values():
                    if pod in node.addresses and node.powered:
                        node.running.add(pod)
            case PodEnded(pod=pod):
                for node in self.nodes.values():
                    node.running.discard(pod)
                self.look_again(RESTART_S)

    def wake(self) -> None:
        self.events.put(None)

    def look_again(self, seconds: float) -> None:
        self.look_again_at = min(self.look_again_at, time.monotonic() + seconds)

    def tell_keeper(self, message: FromStandIns) -> None:
        wire.send(self.keeper, message)

    # -------------------------------------------------------------------- what is written

    def write(self) -> None:
        """Make the API say what should be said, and the keeper run what should run."""
        for node in self.nodes.values():
            self.attempt(self.write_node, node)
        if not (self.pods.synced and self.services.synced and self.slices.synced):
            self.look_again(0.05)
            return
        if not self.all_known:
            self.all_known = True
            self.notice_traffic()
        with self.lock:  # before looking: what changes from here on is marked again
            stale, self.stale = self.stale, set()
            vanished, self.vanished = self.vanished, set()
        pods = self.pods.items()
        self.run_pods(pods)
        for pod in pods.values():
            self.attempt(self.write_pod, pod)
        for key in vanished:
            self.said_of_slices.pop(key, None)
        by_namespace: dict[str, list[Pod]] = {}
        for pod in pods.values():
            by_namespace.setdefault(pod.metadata.namespace, []).append(pod)
        for key in sorted(stale):
            if not self.attempt(self.write_slices, key, by_namespace.get(key.partition("/")[0], [])):
                with self.lock:
                    self.stale.add(key)

    def attempt(self, act: Callable[..., None], *arguments: Any) -> bool:
        try:
            act(*arguments)
        except ApiError as error:
            logger.warning("the API refused", extra={"act": act.__name__, "error": str(error)})
            self.look_again(RETRY_S)
            return False
        return True

    def write_node(self, node: Node) -> None:
        name = node.host.name
        heard = node.heard(time.monotonic())
        said = self.said_of_nodes.get(name)
        ready = heard == "connected"
        if heard == "silent" or said == ready or (said is None and not ready):
            return
        if ready and not self.proxies[name].installed.is_set():
            return  # a node that is Ready carries traffic
        if said is None:
            try:
                self.client.create(NODES, None, node_object(node.host))
            except AlreadyExists:
                logger.info("node exists already", extra={"node": name})
        self.client.patch(NODES, None, name, node_taints(ready=ready))
        self.client.patch(NODES, None, name, node_status(node.host, _now(), ready=ready), subresource="status")
        self.said_of_nodes[name] = ready

    def run_pods(self, pods: Mapping[str, Pod]) -> None:
        """Start the workloads that should run, and end those that should not."""
        for node in self.nodes.values():
            for key in [key for key, uid in node.uids.items() if key not in pods or pods[key].metadata.uid != uid]:
                self.tell_keeper(StopPod(node.host.name, key, node.addresses[key]))
                node.forget(key)
                self.starting.discard(key)
        for key, pod in pods.items():
            kubelet = self.nodes.get(pod.spec.node_name)
            if kubelet is None or not kubelet.connected or pod.metadata.deletion_timestamp is not None:
                continue
            if key not in kubelet.running and key not in self.starting:
                self.starting.add(key)
                ports = tuple(port.container_port for port in pod.ports)
                self.tell_keeper(StartPod(kubelet.host.name, key, kubelet.address_for(pod), ports))

    def write_pod(self, pod: Pod) -> None:
        node = self.nodes.get(pod.spec.node_name)
        if node is None or pod.key not in node.addresses:
            return
        heard = node.heard(time.monotonic())
        if heard == "silent":
            return
        ready = heard == "connected" and pod.key in node.running
        address = node.addresses[pod.key]
        said = self.said_of_pods.get(pod.metadata.uid)
        if said == (address, ready) or (said is None and not ready):
            return
        body = pod_status(node.host, address, _now(), ready=ready)
        try:
            self.client.patch(PODS, pod.metadata.namespace, pod.metadata.name, body, subresource="status")
        except NotFound:
            return
        self.said_of_pods[pod.metadata.uid] = (address, ready)

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


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
