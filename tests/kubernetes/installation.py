"""A namespace of a test's own on the real API server, with a controller that serves it under a class of its own.

Nothing collects garbage on that server: what a test leaves behind stays, so each has addresses of its own.
"""

from __future__ import annotations

import json
import signal
import uuid
from types import TracebackType
from typing import Any

from tests.controller.daemon.test_loop import ControllerProcess
from tests.kubernetes.control_plane import ControlPlane


class Installation:
    """Ends with its ``with`` block."""

    def __init__(self, control_plane: ControlPlane, name: str, *, start: bool = True) -> None:
        self.control_plane = control_plane
        self.name = f"{name}-{uuid.uuid4().hex[:8]}"
        self.load_balancer_class = f"{self.name}.example/a"
        control_plane.kubectl("create", "namespace", self.name)
        self._running: list[ControllerProcess] = []
        if start:
            self.start()

    def __enter__(self) -> Installation:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for each in self._running:
            if each.process.poll() is None:
                each.end(signal.SIGKILL)
        self.control_plane.kubectl("delete", "namespace", self.name, "--wait=false")

    def start(self, *flags: str) -> None:
        arguments = ("--namespace", self.name, "--lb-class", self.load_balancer_class, *flags)
        self._running.append(ControllerProcess(self.control_plane.kubeconfig(), *arguments))

    @property
    def controller(self) -> ControllerProcess:
        """The one that was started last."""
        return self._running[-1]

    def pool(self, name: str, *addresses: str, **spec: Any) -> None:
        body = {"apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool", "metadata": {"name": name}}
        self.apply({**body, "spec": {"addresses": list(addresses), **spec}})

    def service(self, name: str, **annotations: str) -> None:
        self.apply(self.manifest(name, **annotations))

    def manifest(self, name: str, **annotations: str) -> dict[str, Any]:
        spec = {"type": "LoadBalancer", "loadBalancerClass": self.load_balancer_class, "ports": [{"port": 80}]}
        metadata = {"name": name, "annotations": annotations}
        return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}

    def apply(self, body: dict[str, Any], *flags: str) -> None:
        self.kubectl("apply", "-f", "-", *flags, stdin=json.dumps(body))

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return self.control_plane.kubectl("-n", self.name, *arguments, stdin=stdin)

    def get(self, name: str) -> dict[str, Any]:
        """A Service."""
        found: dict[str, Any] = json.loads(self.kubectl("get", "service", name, "-o", "json"))
        return found

    def address(self, name: str) -> str:
        return ",".join(each["ip"] for each in self.get(name)["status"]["loadBalancer"].get("ingress", ()))

    def condition(self, name: str) -> dict[str, str]:
        conditions = self.get(name)["status"].get("conditions", [])
        return next((each for each in conditions if each["type"] == "berthlb.io/AddressAssigned"), {})

    def events(self) -> list[str]:
        """The reasons of our own. The control plane writes some, too: the API server looks after ClusterIPs every few
        minutes, and says so of a Service that was written while it looked."""
        items = json.loads(self.kubectl("get", "events", "-o", "json"))["items"]
        return [each["reason"] for each in items if each.get("source", {}).get("component", "").startswith("berthlb-")]

    def metric(self, line: str) -> float:
        """The value of one of the controller's metrics, which is exactly so called; 0 where it is not there."""
        lines = [each.rpartition(" ") for each in self.controller.ask("/metrics")[1].splitlines()]
        return next((float(value) for name, _, value in lines if name == line), 0.0)

    def rewrite(self, name: str, address: str, manager: str, **status: Any) -> None:
        """Write the status as another controller would."""
        patch = json.dumps({"status": {"loadBalancer": {"ingress": [{"ip": address}]}, **status}})
        arguments = ("--subresource=status", "--type=merge", f"--field-manager={manager}")
        self.kubectl("patch", "service", name, *arguments, "-p", patch)
