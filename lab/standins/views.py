"""Views of what only the stand-ins read: pods."""

from __future__ import annotations

from msgspec import field

from cluster.objects import Condition, Object, View
from cluster.resources import Resource


class ContainerPort(View, frozen=True):
    container_port: int
    name: str = ""
    protocol: str = "TCP"


class Sleep(View, frozen=True):
    seconds: int = 0


class LifecycleHandler(View, frozen=True):
    sleep: Sleep = Sleep()


class Lifecycle(View, frozen=True):
    pre_stop: LifecycleHandler = LifecycleHandler()


class PodContainer(View, frozen=True):
    name: str = ""
    image: str = ""
    ports: tuple[ContainerPort, ...] = ()
    lifecycle: Lifecycle = Lifecycle()


class PodSpec(View, frozen=True):
    node_name: str = ""
    containers: tuple[PodContainer, ...] = ()


class PodIP(View, frozen=True):
    ip: str = ""


class PodStatus(View, frozen=True):
    phase: str = "Pending"
    pod_ip: str = field(name="podIP", default="")
    pod_ips: tuple[PodIP, ...] = field(name="podIPs", default=())
    conditions: tuple[Condition, ...] = ()

    @property
    def addresses(self) -> tuple[str, ...]:
        """One for each family of the cluster."""
        return tuple(each.ip for each in self.pod_ips)

    @property
    def ready(self) -> bool:
        return any(condition.type == "Ready" and condition.status == "True" for condition in self.conditions)


class Pod(Object, frozen=True):
    """``core/v1 Pod``."""

    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    @property
    def ports(self) -> tuple[ContainerPort, ...]:
        return tuple(port for container in self.spec.containers for port in container.ports)

    @property
    def serves_on_s(self) -> float:
        """For how long its server goes on once the pod is deleted (KEP-3960)."""
        return float(max((each.lifecycle.pre_stop.sleep.seconds for each in self.spec.containers), default=0))


PODS = Resource("", "v1", "pods", "Pod", True, Pod)
