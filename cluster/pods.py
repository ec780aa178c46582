"""Slim views of Pods: which ports of its node a Pod takes, and how kube-proxy was started."""

from __future__ import annotations

from msgspec import field

from cluster.objects import NodeCondition, NodeName, Object, View


class ContainerPort(View, frozen=True):
    """``core/v1 ContainerPort``. On the host's network the API server fills in ``hostPort``."""

    host_port: int = 0
    host_ip: str = field(name="hostIP", default="")
    protocol: str = "TCP"


class Container(View, frozen=True):
    ports: tuple[ContainerPort, ...] = ()
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()


class PodSpec(View, frozen=True):
    node_name: NodeName = NodeName("")
    """Empty: it has no node yet."""
    containers: tuple[Container, ...] = ()
    init_containers: tuple[Container, ...] = ()


class PodStatus(View, frozen=True):
    phase: str = ""
    conditions: tuple[NodeCondition, ...] = ()


class Pod(Object, frozen=True):
    """``core/v1 Pod``."""

    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()
