"""The cluster that a watcher reads, as its users change it, and what the watcher takes for its announcer."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from typing import Any, TypeVar

from cluster.objects import AddressText, NodeName
from lab.apiserver.embedded import EmbeddedApi
from speaker.api.watcher import Watcher
from speaker.channel import AnnouncerEnd, Claims, Holding, Stats, ToAnnouncer, WholePlan
from speaker.link import LinkName
from speaker.plan import Plan, PlanChange
from speaker.protocol.effects import PeerView
from tests.speaker.plans import after

M = TypeVar("M")

NODE = NodeName("node-1")
WEB = AddressText("192.0.2.1")
KEY = bytes(range(32))
OWN = "/apis/metallb.io/v1beta1/namespaces/metallb-system"
SERVICES = "/api/v1/namespaces/default/services"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
STATUSES = f"{OWN}/servicel2statuses"
STATES = f"{OWN}/configurationstates"
SPEAKERS_LABEL = {"metallb.io/component-type": "speaker"}
KINDS = {
    "configurationstates": "ConfigurationState",
    "ipaddresspools": "IPAddressPool",
    "l2advertisements": "L2Advertisement",
    "servicel2statuses": "ServiceL2Status",
}


class Cluster:
    """The API as its users change it."""

    def __init__(self, api: EmbeddedApi) -> None:
        self.api = api

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        if method == "POST" and path.startswith(OWN):
            body = {"apiVersion": "metallb.io/v1beta1", "kind": KINDS[path.rpartition("/")[2]], **body}
        content = {"Content-Type": "application/merge-patch+json"} if method == "PATCH" else None
        status, answer = self.api.request(method, path, body, content)
        assert status < 300, answer
        return answer

    def items(self, path: str) -> list[Any]:
        items: list[Any] = self.ask("GET", path)["items"]
        return items

    def add_key(self, current: bytes = KEY) -> None:
        body = {"metadata": {"name": "berthlb-heartbeat"}, "data": {"current": base64.b64encode(current).decode()}}
        self.ask("POST", "/api/v1/namespaces/metallb-system/secrets", body)

    def add_node(self, name: str) -> None:
        self.ask("POST", "/api/v1/nodes", {"metadata": {"name": name}})
        ready = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
        self.ask("PATCH", f"/api/v1/nodes/{name}/status", ready)

    def add_pool(self, name: str = "lan", *addresses: str) -> None:
        spec = {"addresses": list(addresses) or ["192.0.2.0/24"]}
        self.ask("POST", f"{OWN}/ipaddresspools", {"metadata": {"name": name}, "spec": spec})

    def add_advertisement(self, name: str = "all", **spec: Any) -> None:
        self.ask("POST", f"{OWN}/l2advertisements", {"metadata": {"name": name}, "spec": spec})

    def add_service(self, name: str = "web", address: str = WEB, *, endpoints: bool = True) -> None:
        spec = {"type": "LoadBalancer", "ports": [{"port": 80}], "selector": {"app": name}}
        self.ask("POST", SERVICES, {"metadata": {"name": name}, "spec": spec})
        if endpoints:
            self.add_slice(name)
        status = {"status": {"loadBalancer": {"ingress": [{"ip": address}]}}}
        self.ask("PATCH", f"{SERVICES}/{name}/status", status)

    def add_slice(self, service: str) -> None:
        body = {
            "metadata": {"name": f"{service}-x", "labels": {"kubernetes.io/service-name": service}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.244.1.5"], "conditions": {"ready": True}, "nodeName": "node-1"}],
            "ports": [],
        }
        self.ask("POST", SLICES, body)

    def delete_service(self, name: str) -> None:
        self.ask("DELETE", f"{SERVICES}/{name}")

    def state(self, node: str = "node-1") -> dict[str, Any]:
        """The status of a speaker's ConfigurationState; empty where there is none."""
        found = [each for each in self.items(STATES) if each["metadata"]["name"] == f"speaker-{node}"]
        return dict(found[0].get("status", {})) if found else {}

    def health(self) -> dict[str, Any]:
        """The condition in which the speaker on node-1 says what keeps it from doing its part."""
        conditions = [each for each in self.state().get("conditions", ()) if each["type"] == "announcerHealthy"]
        return dict(conditions[0]) if conditions else {}

    def events(self, reason: str) -> list[Any]:
        return [each for each in self.items("/api/v1/namespaces/default/events") if each["reason"] == reason]

    def statuses(self) -> dict[str, str]:
        """The node that announces each Service, on record."""
        return {
            each["metadata"]["labels"]["metallb.io/service-name"]: each["status"]["node"]
            for each in self.items(STATUSES)
            if "status" in each
        }


class ListeningAnnouncer:
    """What the watcher takes for the announcer, and what it has been told."""

    def __init__(self, channel: AnnouncerEnd) -> None:
        self.channel = channel
        self.received: list[ToAnnouncer] = []
        self.plan: Plan | None = None

    def look(self) -> None:
        for message in self.channel.receive():
            self.received.append(message)
            if isinstance(message, WholePlan):
                self.plan = message.plan
            elif isinstance(message, PlanChange):
                assert self.plan is not None, "a change before the Plan that it changes"
                self.plan = after(self.plan, message)

    def announced(self) -> set[AddressText]:
        """The addresses in the Plan, as of now."""
        self.look()
        serving = [bundle for bundle in self.plan.bundles if bundle.serving] if self.plan else []
        return {address for bundle in serving for address in bundle.addresses}

    def of(self, kind: type[M]) -> list[M]:
        self.look()
        return [message for message in self.received if isinstance(message, kind)]

    def hold(self, *addresses: AddressText, answered: bool = True) -> None:
        where: tuple[LinkName, ...] = (LinkName("eth0"),) if answered else ()
        self.channel.send(Claims(1, dict.fromkeys(addresses, Holding(1, where))))

    def tell_links(self, *names: str | None) -> None:
        """The links that there are; None: they are not known yet."""
        links = None if names == (None,) else tuple(LinkName(str(name)) for name in names)
        self.report(links=links)

    def report(self, *, ready: bool = True, links: tuple[LinkName, ...] | None = None, hears: str = "") -> None:
        """Statistics, as each second."""
        peers = (PeerView(NodeName(hears), True, 0.4, 0.01, 0),) if hears else ()
        self.channel.send(Stats(time.clock_gettime(time.CLOCK_BOOTTIME), ready, {}, peers=peers, links=links))


Start = Callable[..., tuple[Watcher, ListeningAnnouncer]]
