"""What a Service asks for: each of MetalLB's ways, and each mistake with its own reason."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from cluster.annotations import annotation
from cluster.objects import Service, decode
from cluster.sharing import Sharer, read_sharer
from controller.allocation.outcomes import Reason
from controller.services.reading import read_request

NEW, OLD = "metallb.io/", "metallb.universe.tf/"


def service(annotations: dict[str, str] | None = None, **spec: Any) -> Service:
    body = {
        "metadata": {"name": "web", "namespace": "default", "annotations": annotations or {}},
        "spec": {"type": "LoadBalancer", "clusterIPs": ["10.96.0.1"], "ports": [{"port": 80}], **spec},
    }
    return decode(msgspec.json.encode(body), Service)


@pytest.mark.parametrize(
    ("annotations", "value"),
    [
        ({}, ""),
        ({NEW + "address-pool": "new"}, "new"),
        ({OLD + "address-pool": "old"}, "old"),
        ({NEW + "address-pool": "new", OLD + "address-pool": "old"}, "new"),
        ({NEW + "address-pool": "", OLD + "address-pool": "old"}, ""),
    ],
)
def test_the_new_annotation_hides_the_old_one_even_where_it_is_empty(annotations: dict[str, str], value: str) -> None:
    assert annotation(service(annotations), "address-pool") == value


@pytest.mark.parametrize(
    ("annotations", "single", "complaint"),
    [
        ({NEW + "loadBalancerIPs": "10.0.0.1"}, "10.0.0.1", "use one of them"),  # though they are the same
        ({OLD + "loadBalancerIPs": "10.0.0.1"}, "10.0.0.2", "use one of them"),
        ({NEW + "loadBalancerIPs": "10.0.0.1,"}, "", 'annotation metallb.io/loadBalancerIPs: "" is not an IP address'),
        ({NEW + "loadBalancerIPs": "10.0.0.1 10.0.0.2"}, "", '"10.0.0.1 10.0.0.2" is not an IP address'),
        ({NEW + "loadBalancerIPs": "10.0.0.1,::ffff:10.0.0.1"}, "", '"::ffff:10.0.0.1" is there twice'),
        ({NEW + "loadBalancerIPs": "10.0.0.0/24"}, "", '"10.0.0.0/24" is not an IP address'),
        ({NEW + "loadBalancerIPs": "fe80::1%eth0"}, "", '"fe80::1%eth0" has a zone'),
        ({NEW + "loadBalancerIPs": "web.example.com"}, "", '"web.example.com" is not an IP address'),
        ({}, "010.0.0.1", 'spec.loadBalancerIP: "010.0.0.1" is not an IP address'),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_by_name(
    annotations: dict[str, str], single: str, complaint: str
) -> None:
    reading = read_request(service(annotations, loadBalancerIP=single), {})
    assert reading.refusal is not None
    assert reading.refusal.reason is Reason.INVALID_REQUEST
    assert complaint in reading.refusal.message
    assert reading.request.addresses == ()


@pytest.mark.parametrize(
    ("policy", "selector", "backends"),
    [
        ("Cluster", {"app": "web"}, ""),
        ("", {"app": "web"}, ""),
        ("Local", {"b": "2", "a": "1"}, "a=1,b=2"),
        ("Local", {}, ""),
        ("Local", None, ""),
    ],
)
def test_who_shares_must_have_the_same_backends_where_the_traffic_stays_local(
    policy: str, selector: dict[str, str] | None, backends: str
) -> None:
    ports = [{"port": 443}, {"port": 53, "protocol": "UDP"}]
    view = service({NEW + "allow-shared-ip": "key"}, externalTrafficPolicy=policy, selector=selector, ports=ports)
    assert read_sharer(view) == Sharer("default/web", "key", backends, (("TCP", 443), ("UDP", 53)))


@pytest.mark.parametrize("annotations", [{}, {NEW + "allow-shared-ip": ""}])
def test_without_a_key_nothing_is_shared(annotations: dict[str, str]) -> None:
    assert read_sharer(service(annotations)) == Sharer("default/web")
