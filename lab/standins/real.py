"""The kubelets beside a real control plane, which has EndpointSlices, the life of nodes and kube-proxies itself.

At first they wait for the API server and give it what every lab begins with. Then they do, beyond what they do beside
the embedded one:

- They renew the Lease of their Node, by whose silence kube-controller-manager notices that a node is dead.
- They give our daemons the tokens of their ServiceAccounts, which have the permissions of ``deploy/`` and no others.
- They say again what kube-controller-manager has said otherwise meanwhile.
- They confirm that a deleted pod has ended, after the sleep of its ``preStop`` hook if it has one.
- They say which node a pod goes to that names none, in the scheduler's place (``placing``). The daemons' own pods are
  placed by nobody: the lab runs daemons, ours and MetalLB's, by itself.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import yaml

from cluster.api.client import LEASES, AlreadyExists, ApiClient, ApiError, NotFound
from cluster.api.reflector import Change, Reflector
from cluster.objects import Node
from cluster.resources import NAMESPACES, NODES, Resource
from lab.control.messages import ApiReady, Spec
from lab.controlplane.commands import RENEWALS_PER_GRACE
from lab.controlplane.credentials import DAEMONS, credentials_directory, token_file_of
from lab.controlplane.tokens import LIFETIME_S, sign_token, write_token
from lab.shipped.installed import installed
from lab.shipped.kinds import BUILT_IN, CRDS, Whole, all_kinds, by_word
from lab.standins.kubelets import Kubelets
from lab.standins.nodes import NodeState
from lab.standins.placing import place
from lab.standins.views import PODS, Pod

LOOK_S = 0.1  # between looks at an API server that does not answer yet
LEASE_NAMESPACE = "kube-node-lease"
OUR_NAMESPACE = "metallb-system"
PERMISSIONS = ("ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding")
SERVICE_ACCOUNTS = by_word("serviceaccount")
BINDINGS = Resource("", "v1", "bindings", "Binding", True, Whole)
DEFINITIONS = Resource(
    "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", False, Whole
)

logger = logging.getLogger(__name__)


class RealKubelets(Kubelets):
    """All nodes' kubelets."""

    def __init__(self, client: ApiClient, keeper: socket.socket, spec: Spec) -> None:
        super().__init__(client, keeper, spec.layout, float("inf"))  # that a node is lost, another says
        self.spec = spec
        self.node_objects = Reflector(client, NODES, on_change=self.node_changed)
        self.bound: dict[str, str] = {}
        """The nodes of pods, by uid, that do not show it yet."""
        self.end_at: dict[str, float] = {}
        """When the servers of pods end that are deleted, by uid."""
        self.contradicted: set[str] = set()
        """Nodes, by name, and pods, by uid, of which the API says that they are not ready."""
        self.renewal_s = spec.node_grace / RENEWALS_PER_GRACE
        self.lease_s = max(1, round(spec.node_grace))

    def run(self) -> None:
        prepare(self.client)
        if self.spec.daemons:
            for body in permissions():
                _until_it_works(partial(_create, self.client, _resource_of(body), body))
            self._give_tokens()
            threading.Thread(target=self._renew_tokens, name="renew-tokens", daemon=True).start()
        self.tell_keeper(ApiReady())
        threading.Thread(target=self._renew_leases, name="renew-leases", daemon=True).start()
        super().run()

    # -------------------------------------------------------------------- what others say of us

    def reflectors(self) -> Sequence[Reflector[Any]]:
        return (self.node_objects, self.pods)

    def node_changed(self, change: Change[Node]) -> None:
        """kube-controller-manager says Unknown of a node that it did not hear, be it the API server's fault."""
        conditions = change.new.status.conditions if change.new is not None else ()
        if change.new is not None and any(each.type == "Ready" and each.status != "True" for each in conditions):
            self.contradicted.add(change.new.metadata.name)
            self.wake()
        if _cordoned(change.old) != _cordoned(change.new):
            self.wake()

    def pod_changed(self, change: Change[Pod]) -> None:
        if change.new is not None and not change.new.status.ready:
            self.contradicted.add(change.new.metadata.uid)
        super().pod_changed(change)

    def write(self) -> None:
        while self.contradicted:
            name_or_uid = self.contradicted.pop()
            self.said_of_nodes.pop(name_or_uid, None)
            self.said_of_pods.pop(name_or_uid, None)
        super().write()

    def run_pods(self, pods: Mapping[str, Pod]) -> None:
        super().run_pods(pods)
        uids = {pod.metadata.uid for pod in pods.values()}
        self.bound = {uid: node for uid, node in self.bound.items() if uid in uids}
        self.end_at = {uid: at for uid, at in self.end_at.items() if uid in uids}
        for key, pod in pods.items():
            node = self.nodes.get(pod.spec.node_name)
            if pod.metadata.deletion_timestamp is None:
                placed = pod.spec.node_name or pod.metadata.uid in self.bound
                if not placed and pod.metadata.namespace != OUR_NAMESPACE:
                    self.attempt(self.bind, pod, pods)
            elif node is not None and node.connected:
                left = self.end_at.setdefault(pod.metadata.uid, time.monotonic() + pod.serves_on_s) - time.monotonic()
                if key in node.running and left > 0:
                    self.look_again(left)
                    continue
                if key in node.addresses:
                    self.stop_pod(node, key)
                self.attempt(self.confirm_end, pod)

    def bind(self, pod: Pod, pods: Mapping[str, Pod]) -> None:
        objects = self.node_objects.items()
        nodes = [
            name
            for name, node in self.nodes.items()
            if node.connected and name in objects and not objects[name].spec.unschedulable
        ]
        chosen = place(pod, pods.values(), nodes, self.bound)
        if chosen is None:
            return
        meta = pod.metadata
        body = {"metadata": {"name": meta.name}, "target": {"apiVersion": "v1", "kind": "Node", "name": chosen}}
        self.client.create(BINDINGS, meta.namespace, body)
        self.bound[meta.uid] = chosen

    def confirm_end(self, pod: Pod) -> None:
        meta = pod.metadata
        try:
            self.client.delete(PODS, meta.namespace, meta.name, uid=meta.uid, grace_period_s=0)
        except NotFound:
            return

    # -------------------------------------------------------------------- leases

    def _renew_leases(self) -> None:
        while True:
            began = time.monotonic()
            for node in self.nodes.values():
                if node.connected:
                    try:
                        self._renew_lease(node)
                    except ApiError as error:
                        logger.warning("lease not renewed", extra={"node": node.host.name, "error": str(error)})
            time.sleep(max(0.0, began + self.renewal_s - time.monotonic()))

    def _renew_lease(self, node: NodeState) -> None:
        name = node.host.name
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        spec = {"holderIdentity": name, "leaseDurationSeconds": self.lease_s, "renewTime": now}
        try:
            self.client.patch(LEASES, LEASE_NAMESPACE, name, {"spec": spec})
        except NotFound:
            self.client.create(LEASES, LEASE_NAMESPACE, {"metadata": {"name": name}, "spec": spec})

    # -------------------------------------------------------------------- our daemons' tokens

    def _give_tokens(self) -> None:
        """Give each daemon a new token of its ServiceAccount."""
        directory = credentials_directory(self.spec)
        for account in DAEMONS:
            metadata = self.client.get(SERVICE_ACCOUNTS, OUR_NAMESPACE, account).metadata
            write_token(token_file_of(self.spec, account), sign_token(directory, metadata, time.time()))

    def _renew_tokens(self) -> None:
        """At four fifths of their life, as kubelets do."""
        while True:
            time.sleep(0.8 * LIFETIME_S)
            _until_it_works(self._give_tokens)


def _cordoned(node: Node | None) -> bool:
    return node is not None and node.spec.unschedulable


# ------------------------------------------------------------------------ what a lab begins with


def prepare(client: ApiClient) -> None:
    """Give a new API server our namespace and our kinds; returns when it serves them, and is ready in all else.

    kube-controller-manager, which is started then, ends where it meets one that is not for ten seconds.
    """
    _until_it_works(lambda: _create(client, NAMESPACES, {"metadata": {"name": OUR_NAMESPACE}}))
    for path in sorted(CRDS.glob("*.yaml")):
        for body in yaml.safe_load_all(path.read_text()):
            _until_it_works(partial(_create, client, DEFINITIONS, body))
    for kind in all_kinds():
        if kind not in BUILT_IN:
            _until_it_works(partial(_list, client, kind.resource))
    _until_it_works(lambda: client.get(NAMESPACES, None, LEASE_NAMESPACE))
    _until_it_works(client.check_ready)


def permissions() -> Iterator[dict[str, Any]]:
    """The objects of ``deploy/`` that say who our daemons are and what they may do."""
    return (body for body in installed() if body["kind"] in PERMISSIONS)


def _resource_of(body: dict[str, Any]) -> Resource[Any]:
    group, _, version = body["apiVersion"].rpartition("/")
    kind: str = body["kind"]
    return Resource(group, version, kind.lower() + "s", kind, "namespace" in body["metadata"], Whole)


def _create(client: ApiClient, resource: Resource[Any], body: dict[str, Any]) -> None:
    with contextlib.suppress(AlreadyExists):
        client.create(resource, body["metadata"].get("namespace"), body)


def _list(client: ApiClient, resource: Resource[Any]) -> None:
    for _ in client.list_pages(resource):
        pass


def _until_it_works(ask: Callable[[], object]) -> None:
    """An API server that starts refuses connections, then has no roles yet, then does not serve a new kind yet."""
    while True:
        try:
            ask()
            return
        except ApiError as error:
            logger.info("the API server is waited for", extra={"error": str(error)})
            time.sleep(LOOK_S)
