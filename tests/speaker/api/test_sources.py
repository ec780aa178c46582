"""What of the API a speaker follows, on a real API server in process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.api.client import connect
from cluster.api.listwatch import Change
from cluster.objects import NodeName
from lab.apiserver.embedded import EmbeddedApi
from speaker.api.sources import Sources
from speaker.options import Options
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

OWN = "/apis/metallb.io/v1beta1/namespaces/metallb-system"
FOR_PLAN = {"services", "endpointslices", "nodes", "ipaddresspools", "l2advertisements"}
ALL = FOR_PLAN | {"servicel2statuses", "configurationstates", "leases", "nodeippools", "configmaps", "secrets"}


class World:
    def __init__(self, api: EmbeddedApi, kubeconfig: Path, **options: Any) -> None:
        self.api = api
        self.taken: list[tuple[str, Change[Any]]] = []
        """By plural."""
        self._client = connect(api.kubeconfig(kubeconfig), user_agent="berthlb-speaker")
        self._options = Options(node=NodeName("node-1"), **options)
        self.sources = self.another()

    def another(self) -> Sources:
        return Sources(self._client, self._options, {plural: self._taking(plural) for plural in ALL})

    def _taking(self, plural: str) -> Any:
        return lambda change: self.taken.append((plural, change))

    def make(self, path: str, name: str, **body: Any) -> None:
        kinds = {"ipaddresspools": "IPAddressPool", "servicel2statuses": "ServiceL2Status"}
        if kind := kinds.get(path.rpartition("/")[2]):
            body = {"apiVersion": "metallb.io/v1beta1", "kind": kind, **body}
        body["metadata"] = {"name": name, **body.get("metadata", {})}
        status, answer = self.api.request("POST", path, body)
        assert status < 300, answer

    def patch(self, path: str, body: Any) -> None:
        status, answer = self.api.request("PATCH", path, body, {"Content-Type": "application/merge-patch+json"})
        assert status < 300, answer

    def names(self, plural: str) -> list[str]:
        """Of what was taken of a kind, in order, but for what there is from the beginning."""
        names = [change.key.rpartition("/")[2] for kind, change in self.taken if kind == plural]
        return [name for name in names if name != "kubernetes"]


@pytest.fixture
def started(embedded_api: EmbeddedApi, tmp_path: Path) -> Iterator[World]:
    world = World(embedded_api, tmp_path / "kubeconfig", key=bytes(32))
    world.sources.start()
    yield world
    world.sources.stop()


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        ({}, ALL),
        ({"key": bytes(32)}, ALL - {"secrets"}),
        ({"observe": True}, FOR_PLAN | {"servicel2statuses"}),
    ],
    ids=["all", "no Secret where a key was given", "only what is compared where it observes"],
)
def test_which_kinds_are_followed(
    embedded_api: EmbeddedApi, tmp_path: Path, options: dict[str, Any], kinds: set[str]
) -> None:
    world = World(embedded_api, tmp_path / "kubeconfig", **options)
    assert world.sources.failures().keys() == kinds
    assert len(world.sources.missing()) == len(FOR_PLAN)
    assert not world.sources.synced


def test_a_node_pool_arrives_when_it_comes_and_when_it_goes(started: World) -> None:
    """What it says is nothing to a speaker, and its status changes with each Service."""
    pools = "/apis/berthlb.io/v1alpha1/namespaces/metallb-system/nodeippools"
    wait_until(lambda: started.sources.node_pools_known)
    for name in ("nodes", "more"):
        body = {"apiVersion": "berthlb.io/v1alpha1", "kind": "NodeIPPool", "spec": {}}
        started.make(pools, name, **body)
    started.patch(f"{pools}/nodes", {"spec": {"autoAssign": False}})
    status, _ = started.api.request("DELETE", f"{pools}/more")
    assert status < 300
    wait_until(lambda: started.names("nodeippools") == ["nodes", "more", "more"])


def test_what_is_not_a_speakers_does_not_arrive(started: World) -> None:
    services = "/api/v1/namespaces/default/services"
    slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
    for name, kind in (("inside", "ClusterIP"), ("web", "LoadBalancer")):
        started.make(services, name, spec={"type": kind, "ports": [{"port": 80}]})
    for name, labels in (
        ("loose", {}),
        ("headless", {"kubernetes.io/service-name": "db", "service.kubernetes.io/headless": ""}),
        ("web-x", {"kubernetes.io/service-name": "web"}),
    ):
        started.make(slices, name, metadata={"labels": labels}, addressType="IPv4", endpoints=[], ports=[])
    for name in ("node-2", "node-1"):
        started.make(f"{OWN}/servicel2statuses", f"l2-{name}", metadata={"labels": {"metallb.io/node": name}})
    wait_until(lambda: started.names("services") == ["web"])
    wait_until(lambda: started.names("endpointslices") == ["web-x"])
    wait_until(lambda: started.names("servicel2statuses") == ["l2-node-1"])
    wait_until(lambda: started.sources.synced and started.sources.recorded)
    assert started.sources.missing() == []
    assert started.sources.errors() == 0


def test_what_the_controller_writes_into_a_pool_is_no_change(started: World) -> None:
    pools = f"{OWN}/ipaddresspools"
    started.make(pools, "lan", spec={"addresses": ["192.0.2.0/24"]})
    wait_until(lambda: started.names("ipaddresspools") == ["lan"])
    started.patch(f"{pools}/lan/status", {"status": {"assignedIPv4": 7}})
    started.patch(f"{pools}/lan", {"spec": {"addresses": ["192.0.2.0/25"]}})
    wait_until(lambda: len(started.names("ipaddresspools")) > 1)
    changes = [change for kind, change in started.taken if kind == "ipaddresspools"]
    assert [change.new and change.new.spec.addresses for change in changes] == [("192.0.2.0/24",), ("192.0.2.0/25",)]
    assert changes[-1].old
    assert changes[-1].old.status.assigned_ipv4 == 7, "the status was seen"


def test_a_plan_waits_for_the_excluded_interfaces_but_not_where_they_may_not_be_read(
    embedded_api: EmbeddedApi, started: World
) -> None:
    """As where the roles are those of an older release."""
    wait_until(lambda: started.sources.synced)
    assert started.sources.exclusion_known
    started.sources.stop()
    embedded_api.inject(path="/api/v1/namespaces/metallb-system/configmaps", status=403)
    other = started.another()
    other.start()
    try:
        wait_until(lambda: other.synced)
        assert not other.exclusion_known
    finally:
        other.stop()
