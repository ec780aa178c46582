"""The observing speaker on a real API server in process: it compares, and writes nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from cluster.api.client import connect
from cluster.objects import NodeName
from lab.apiserver.embedded import EmbeddedApi
from speaker.api import observer
from speaker.api.comparison import ANNOUNCED_BY_NOBODY
from speaker.api.observer import SilentSpeaker
from speaker.options import Options
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

OWN = "/apis/metallb.io/v1beta1/namespaces/metallb-system"
SERVICES = "/api/v1/namespaces/default/services"


class World:
    def __init__(self, api: EmbeddedApi, kubeconfig: Path) -> None:
        self.api = api
        self.registry = CollectorRegistry()
        client = connect(api.kubeconfig(kubeconfig), user_agent="berthlb-speaker", read_only=True)
        options = Options(node=NodeName("node-1"), observe=True)
        self.speaker = SilentSpeaker(client, options, self.registry)
        self.thread = threading.Thread(target=self.speaker.run, daemon=True)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        content = {"Content-Type": "application/merge-patch+json"} if method == "PATCH" else None
        status, answer = self.api.request(method, path, body, content)
        assert status < 300, answer
        return answer

    def make(self, path: str, kind: str, name: str, **body: Any) -> None:
        version = "metallb.io/v1beta1" if path == OWN else "v1"
        plural = f"{kind.lower()}s"
        self.ask("POST", f"{path}/{plural}", {"apiVersion": version, "kind": kind, "metadata": {"name": name}, **body})

    def differences(self, kind: str) -> float:
        found = self.registry.get_sample_value("berthlb_observe_differences", {"difference": kind})
        return -1.0 if found is None else found


@pytest.fixture
def world(embedded_api: EmbeddedApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A cluster whose Service ``web`` has an address and an endpoint, and that nobody announces."""
    monkeypatch.setattr(observer, "PATIENCE_S", 0.0)
    world = World(embedded_api, tmp_path / "kubeconfig")
    world.make("/api/v1", "Node", "node-1")
    world.ask("PATCH", "/api/v1/nodes/node-1/status", {"status": {"conditions": [{"type": "Ready", "status": "True"}]}})
    world.make(OWN, "IPAddressPool", "lan", spec={"addresses": ["192.0.2.0/24"]})
    world.make(OWN, "L2Advertisement", "all", spec={})
    world.ask(
        "POST", SERVICES, {"metadata": {"name": "web"}, "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]}}
    )
    world.ask("PATCH", f"{SERVICES}/web/status", {"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}})
    body = {
        "metadata": {"name": "web-x", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.244.1.5"], "conditions": {"ready": True}, "nodeName": "node-1"}],
        "ports": [],
    }
    world.ask("POST", "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", body)
    world.thread.start()
    yield world
    world.speaker.stop()
    world.thread.join(10)
    assert not world.thread.is_alive()


def test_it_counts_what_differs_and_what_differs_no_more(world: World) -> None:
    wait_until(lambda: world.speaker.not_ready() is None)
    wait_until(lambda: world.differences(ANNOUNCED_BY_NOBODY) == 1)
    assert world.speaker.trouble() is None
    labels = {"metallb.io/node": "node-1", "metallb.io/service-name": "web", "metallb.io/service-namespace": "default"}
    kind = {"apiVersion": "metallb.io/v1beta1", "kind": "ServiceL2Status"}
    world.ask("POST", f"{OWN}/servicel2statuses", {**kind, "metadata": {"name": "l2-x", "labels": labels}})
    status = {"status": {"node": "node-1", "serviceName": "web", "serviceNamespace": "default"}}
    world.ask("PATCH", f"{OWN}/servicel2statuses/l2-x/status", status)
    wait_until(lambda: world.differences(ANNOUNCED_BY_NOBODY) == 0)


def test_what_is_wrong_with_the_configuration_is_remarked_and_nothing_is_written(world: World) -> None:
    wait_until(lambda: world.speaker.not_ready() is None)
    assert world.speaker.remarks() is None
    world.ask("PATCH", f"{OWN}/ipaddresspools/lan", {"spec": {"addresses": ["192.0.2.9-192.0.2.1"]}})
    wait_until(lambda: "IPAddressPool lan" in (world.speaker.remarks() or ""))
    assert world.ask("GET", f"{OWN}/configurationstates")["items"] == []
    assert world.ask("GET", f"{OWN}/servicel2statuses")["items"] == []
    assert world.ask("GET", "/api/v1/events")["items"] == []
