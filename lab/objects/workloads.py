"""Workloads: pods that the lab's kubelets run as small HTTP servers (``lab.standins.workload``)."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from cluster.api.client import AlreadyExists, ApiClient, ApiError, Forbidden, NotFound
from lab.client import Lab
from lab.errors import FailedError, LabError
from lab.objects.manifests import DEFAULT_NAMESPACE, api_of, ensure_namespace
from lab.standins.views import PODS, Pod

READY_S = 30.0
WORKLOAD_LABEL = "lab.berthlb.io/workload"


def start_workload(
    lab: Lab,
    name: str,
    *,
    replicas: int,
    namespace: str = DEFAULT_NAMESPACE,
    port: int = 80,
    labels: Mapping[str, str] | None = None,
    nodes: Sequence[str] = (),
    wait: bool = True,
) -> list[Pod]:
    """Run so many replicas, ``name-1`` and so on, spread over the nodes in turn (or over those given).

    Labels are ``app=name`` unless given. A workload that exists is brought to the new number. With ``wait`` returns
    when every replica on a node that has power is Ready. Raises ``LabError``.
    """
    status = lab.status()
    known = [host.host.name for host in status.hosts if host.host.role == "node"]
    unknown = [node for node in nodes if node not in known]
    if unknown:
        raise LabError(f"no node {unknown[0]!r}; there are {', '.join(known)}")
    places = list(nodes) or known
    api = api_of(lab)
    try:
        ensure_namespace(api, namespace)
        wanted = {f"{name}-{i + 1}": places[i % len(places)] for i in range(replicas)}
        for pod in _pods(api, namespace, name):
            if pod.metadata.name not in wanted:
                _delete(api, namespace, pod.metadata.name)
        for pod_name, node in wanted.items():
            body = _pod(pod_name, name, dict(labels or {"app": name}), node, port)
            _create(api, namespace, body)
        alive = {host.host.name for host in status.hosts if host.power and host.link}
        return _await_ready(api, namespace, name, alive) if wait else _pods(api, namespace, name)
    except ApiError as error:
        raise LabError(f"{error.reason}: {error.message}") from error


def _pods(api: ApiClient, namespace: str, name: str) -> list[Pod]:
    pages = api.list_pages(PODS, namespace, label_selector=f"{WORKLOAD_LABEL}={name}")
    return [pod for page in pages for pod in page.items]


def _create(api: ApiClient, namespace: str, body: dict[str, object]) -> None:
    """Kubernetes takes no pods into a namespace before that has its first ServiceAccount, a moment after it is new."""
    deadline = time.monotonic() + READY_S
    while True:
        try:
            api.create(PODS, namespace, body)
        except AlreadyExists:
            return
        except Forbidden as error:
            if "service account" not in error.message or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


def _delete(api: ApiClient, namespace: str, name: str) -> None:
    try:
        api.delete(PODS, namespace, name)
    except NotFound:
        return


def _pod(name: str, workload: str, labels: dict[str, str], node: str, port: int) -> dict[str, object]:
    container = {"name": "server", "image": "lab", "ports": [{"name": "http", "containerPort": port}]}
    return {
        "metadata": {"name": name, "labels": {**labels, WORKLOAD_LABEL: workload}},
        "spec": {"nodeName": node, "containers": [container]},
    }


def _await_ready(api: ApiClient, namespace: str, name: str, alive: set[str]) -> list[Pod]:
    deadline = time.monotonic() + READY_S
    while True:
        pods = _pods(api, namespace, name)
        waiting = [pod.metadata.name for pod in pods if pod.spec.node_name in alive and not pod.status.ready]
        if not waiting:
            return pods
        if time.monotonic() > deadline:
            raise FailedError(f"not ready after {READY_S:.0f} s: {', '.join(waiting)}; `lab logs NODE` says more")
        time.sleep(0.02)
