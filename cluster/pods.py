"""Slim views of Pods, for what they have of their host: which ports of it they take, and how kube-proxy was started."""

from __future__ import annotations

from msgspec import field

from cluster.objects import NodeCondition, NodeName, Object, View


class HostPort(View, frozen=True):
    """``core/v1 ContainerPort``. On the host's network the API server fills in ``hostPort``."""

    host_port: int = 0
    host_ip: str = field(name="hostIP", default="")
    protocol: str = "TCP"


class HostContainer(View, frozen=True):
    ports: tuple[HostPort, ...] = ()
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()


class HostPodSpec(View, frozen=True):
    node_name: NodeName = NodeName("")
    """Empty: it has no node yet."""
    containers: tuple[HostContainer, ...] = ()
    init_containers: tuple[HostContainer, ...] = ()


class HostPodStatus(View, frozen=True):
    phase: str = ""
    conditions: tuple[NodeCondition, ...] = ()


class HostPod(Object, frozen=True):
    """``core/v1 Pod``."""

    spec: HostPodSpec = HostPodSpec()
    status: HostPodStatus = HostPodStatus()
