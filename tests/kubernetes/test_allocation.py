"""What only a real API server shows of the controller: whose writes they are, and how a refusal looks to kubectl."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry

from cluster.api.client import connect
from controller.daemon.loop import Daemon
from controller.services import reminders
from tests.kubernetes.control_plane import ControlPlane
from tests.kubernetes.installation import Installation
from tests.waiting import wait_until

pytestmark = [pytest.mark.xdist_group("kubernetes"), pytest.mark.slow]


@pytest.fixture
def cluster(control_plane: ControlPlane) -> Iterator[Installation]:
    with Installation(control_plane, "allocation") as cluster:
        yield cluster


def test_a_rival_is_named_by_the_name_under_which_the_api_knows_it(cluster: Installation) -> None:
    cluster.pool("pool", "172.18.255.200-172.18.255.250")
    cluster.service("web")
    for _ in range(2):
        wait_until(lambda: cluster.address("web") == "172.18.255.200")
        cluster.rewrite("web", "192.168.1.7", "svclb-controller")
    wait_until(lambda: cluster.address("web") == "172.18.255.200", message="a slip of the hand is corrected")
    managers = json.loads(cluster.kubectl("get", "service", "web", "-o", "json", "--show-managed-fields"))
    ours = [each for each in managers["metadata"]["managedFields"] if each["manager"] == "berthlb-controller"]
    assert [each["subresource"] for each in ours] == ["status"], "what we write is known as ours"
    cluster.rewrite("web", "192.168.1.7", "svclb-controller")
    wait_until(lambda: cluster.condition("web")["reason"] == "Contested")
    assert cluster.condition("web")["message"].startswith('"svclb-controller" keeps replacing')
    assert cluster.address("web") == "192.168.1.7"
    wait_until(lambda: "Contested" in cluster.kubectl("get", "events", "-o", "jsonpath={.items[*].reason}"))


def test_kubectl_shows_why_every_pool_refuses(cluster: Installation) -> None:
    cluster.pool("full", "172.18.255.1/32")
    cluster.service("holder")
    wait_until(lambda: cluster.address("holder") == "172.18.255.1")
    cluster.pool("manual", "172.18.254.0/24", autoAssign=False)
    cluster.pool("overlap", "172.18.255.0/24")
    cluster.pool("six", "2001:db8::/64")
    cluster.pool("staging", "172.18.253.0/24", serviceAllocation={"namespaces": ["staging"]})
    tier = {"serviceSelectors": [{"matchLabels": {"tier": "front"}}]}
    cluster.pool("tier", "172.18.252.0/24", serviceAllocation=tier)
    wait_until(lambda: "overlaps" in cluster.kubectl("get", "ipaddresspool", "overlap", "-o", "jsonpath={.status}"))
    cluster.service("web")
    wait_until(lambda: cluster.condition("web"))
    reasons = [
        f'pool "staging" is not for namespace "{cluster.name}" (serviceAllocation)',
        'pool "tier" is not for Services with these labels (serviceAllocation.serviceSelectors)',
        'pool "full" has no free IPv4 address (1 of 1 in use)',
        'pool "six" has no IPv4 addresses',
        'pool "manual" gives addresses only to Services that ask for it (autoAssign is false)',
        'pool "overlap" cannot be honoured as it is written; see its status',
    ]
    assert cluster.condition("web")["reason"] == "PoolExhausted"
    said = cluster.condition("web")["message"].split("; pool ")
    assert sorted(each if each.startswith("pool") else f"pool {each}" for each in said) == sorted(reasons)
    wait_until(lambda: "AllocationFailed" in cluster.kubectl("describe", "service", "web"))
    described = cluster.kubectl("describe", "service", "web")
    assert all(reason in described for reason in reasons), described


def test_why_a_service_waits_is_told_again_when_its_event_is_forgotten(
    control_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The API server forgets Events after an hour, and kubectl shows no conditions of a Service. Here an hour is a
    moment, and the Event is deleted."""
    monkeypatch.setattr(reminders, "AGAIN_S", 1.0)
    with Installation(control_plane, "reminders", start=False) as cluster:
        client = connect(control_plane.kubeconfig(), user_agent="berthlb-controller")
        daemon = Daemon(
            client,
            cluster.name,
            cluster.load_balancer_class,
            CollectorRegistry(),
            name="test",
            lease_s=15,
            remember_releases=0,
        )
        thread = threading.Thread(target=daemon.run)
        thread.start()
        try:
            cluster.service("web")
            described = ("describe", "service", "web")
            for _ in range(2):
                wait_until(lambda: "there is no IPAddressPool to take" in cluster.kubectl(*described), 20)
                cluster.kubectl("delete", "events", "--all")
        finally:
            daemon.stop()
            thread.join(10)
            daemon.close()
