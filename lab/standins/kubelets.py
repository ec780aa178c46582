"""Every node's kubelet: registers its Node, runs its pods, and says in the API what became of them.

There is one loop. A change of an object, a message of the keeper or a deadline marks something to look at. When nothing
more comes for a moment, the loop looks at it and writes what differs. What the API refuses is tried again later.
"""

from __future__ import annotations

import logging
import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from cluster.api.client import AlreadyExists, ApiClient, ApiError, NotFound
from cluster.api.reflector import Change, Reflector
from cluster.resources import NODES
from lab.control import channel
from lab.control.messages import (
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
from lab.layout import Layout
from lab.standins.nodes import NodeState, node_object, node_status, pod_status
from lab.standins.views import PODS, Pod

RETRY_S = 0.5
RESTART_S = 1.0  # a workload that ended starts again, like a container

logger = logging.getLogger(__name__)
Heard = tuple[ToStandIns, list[int]]


class Kubelets:
    """The kubelets of all nodes, and their loop. A subclass stands in for more of Kubernetes."""

    def __init__(self, client: ApiClient, keeper: socket.socket, layout: Layout, grace: float) -> None:
        self.client = client
        self.keeper = keeper
        self.nodes = {host.name: NodeState(host, grace) for host in layout.nodes}
        self.events: queue.SimpleQueue[Heard | None] = queue.SimpleQueue()
        self.pods = Reflector(client, PODS, on_change=self.pod_changed)
        self.look_again_at = float("inf")
        self.starting: set[str] = set()
        self.said_of_nodes: dict[str, bool] = {}
        """Whether the API says of a node that it is Ready."""
        self.said_of_pods: dict[str, tuple[tuple[str, ...], bool]] = {}
        """What the API says of a pod, by uid: its addresses and whether it is ready."""

    # -------------------------------------------------------------------- what comes

    def reflectors(self) -> Sequence[Reflector[Any]]:
        return (self.pods,)

    def run(self) -> None:
        """Work until the keeper is gone."""
        threading.Thread(target=self._hear_keeper, name="hear-keeper", daemon=True).start()
        for reflector in self.reflectors():
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
            received = channel.receive(self.keeper, TO_STAND_INS)
            if received is None:
                os._exit(0)  # the lab is over
            self.events.put(received)

    def pod_changed(self, _: Change[Pod]) -> None:
        self.wake()

    def take(self, message: ToStandIns, descriptors: list[int]) -> None:
        """One message of the keeper. The descriptors beside it are closed, or kept by a subclass."""
        match message:
            case NodeUp(node=name):
                self.nodes[name].connect()
            case NodeDown(node=name, power=power):
                self.nodes[name].disconnect(time.monotonic(), power=power)
            case PodStarted(pod=pod, error=error):
                self.starting.discard(pod)
                if error is not None:
                    logger.warning("pod did not start", extra={"pod": pod, "error": error})
                    self.look_again(RESTART_S)
                else:
                    for node in self.nodes.values():
                        if pod in node.addresses and node.powered:
                            node.running.add(pod)
            case PodEnded(pod=pod):
                for node in self.nodes.values():
                    node.running.discard(pod)
                self.look_again(RESTART_S)
        for fd in descriptors:
            os.close(fd)

    def wake(self) -> None:
        self.events.put(None)

    def look_again(self, seconds: float) -> None:
        self.look_again_at = min(self.look_again_at, time.monotonic() + seconds)

    def tell_keeper(self, message: FromStandIns) -> None:
        channel.send(self.keeper, message)

    # -------------------------------------------------------------------- what is written

    def write(self) -> None:
        """Make the API say what should be said, and the keeper run what should run."""
        for node in self.nodes.values():
            self.attempt(self.write_node, node)
        if not all(reflector.synced for reflector in self.reflectors()):
            self.look_again(0.05)
            return
        pods = self.pods.items()
        self.run_pods(pods)
        for pod in pods.values():
            self.attempt(self.write_pod, pod)

    def attempt(self, act: Callable[..., None], *arguments: Any) -> bool:
        try:
            act(*arguments)
        except ApiError as error:
            logger.warning("the API refused", extra={"act": act.__name__, "error": str(error)})
            self.look_again(RETRY_S)
            return False
        return True

    def write_node(self, node: NodeState) -> None:
        name = node.host.name
        heard = node.heard(time.monotonic())
        said = self.said_of_nodes.get(name)
        ready = heard == "connected"
        if heard == "silent" or said == ready or (said is None and not ready):
            return
        if ready and not self.carries_traffic(node):
            return
        if said is None:
            try:
                self.client.create(NODES, None, node_object(node.host))
            except AlreadyExists:
                logger.info("node exists already", extra={"node": name})
        self.write_taints(node, ready=ready)
        self.client.patch(NODES, None, name, node_status(node.host, timestamp(), ready=ready), subresource="status")
        self.said_of_nodes[name] = ready

    def carries_traffic(self, _: NodeState) -> bool:
        """Whether a connected node may be called Ready."""
        return True

    def write_taints(self, node: NodeState, *, ready: bool) -> None:
        """Say by taints what a node's condition means for its pods, where nobody else does."""

    def run_pods(self, pods: Mapping[str, Pod]) -> None:
        """Start the workloads that should run, and end those that should not."""
        for node in self.nodes.values():
            for key in [key for key, uid in node.uids.items() if key not in pods or pods[key].metadata.uid != uid]:
                self.stop_pod(node, key)
        for key, pod in pods.items():
            kubelet = self.nodes.get(pod.spec.node_name)
            if kubelet is None or not kubelet.connected or pod.metadata.deletion_timestamp is not None:
                continue
            if key not in kubelet.running and key not in self.starting:
                self.starting.add(key)
                ports = tuple(port.container_port for port in pod.ports)
                self.tell_keeper(StartPod(kubelet.host.name, key, kubelet.addresses_for(pod), ports))

    def stop_pod(self, node: NodeState, key: str) -> None:
        self.tell_keeper(StopPod(node.host.name, key, node.addresses[key]))
        node.forget(key)
        self.starting.discard(key)

    def write_pod(self, pod: Pod) -> None:
        node = self.nodes.get(pod.spec.node_name)
        if node is None or pod.key not in node.addresses:
            return
        heard = node.heard(time.monotonic())
        if heard == "silent":
            return
        ready = heard == "connected" and pod.key in node.running
        addresses = node.addresses[pod.key]
        said = self.said_of_pods.get(pod.metadata.uid)
        if said == (addresses, ready) or (said is None and not ready):
            return
        body = pod_status(pod, node.host, addresses, timestamp(), ready=ready)
        try:
            self.client.patch(PODS, pod.metadata.namespace, pod.metadata.name, body, subresource="status")
        except NotFound:
            return
        self.said_of_pods[pod.metadata.uid] = (addresses, ready)


def timestamp() -> str:
    """Now, as Kubernetes writes it in conditions."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
