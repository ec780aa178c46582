"""How long Services wait for their first address."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from cluster.objects import Service, decode
from controller.changes import Moment
from controller.services.latency import BOUNDS_S, Distribution, FirstAddresses, Histogram

CREATED = 1_767_225_600  # 2026-01-01T00:00:00Z


def service(uid: str = "u", ip: str = "", created: str | None = "2026-01-01T00:00:00Z", **spec: Any) -> Service:
    body = {
        "metadata": {"name": uid, "namespace": "default", "uid": uid, "creationTimestamp": created},
        "spec": {"type": "LoadBalancer", **spec},
        "status": {"loadBalancer": {"ingress": [{"ip": ip}] if ip else []}},
    }
    return decode(msgspec.json.encode(body), Service)


def at(seconds: float) -> Moment:
    return Moment(1000.0 + seconds, CREATED + seconds)


def count(distribution: Distribution) -> int:
    return distribution.buckets[-1][1]


@pytest.fixture
def first() -> FirstAddresses:
    return FirstAddresses(None)


def test_a_service_is_timed_from_when_it_is_seen_and_from_its_creation(first: FirstAddresses) -> None:
    first.appeared(service(), at(1.5))
    first.changed(service(), at(1.6))
    first.changed(service(ip="10.0.0.1"), at(1.75))
    seen, created = first.since_seen.distribution(), first.since_creation.distribution()
    assert (count(seen), seen.sum) == (1, 0.25)
    assert dict(seen.buckets)["0.25"] == 1
    assert dict(seen.buckets)["0.1"] == 0
    assert (count(created), created.sum) == (1, 1.75)


@pytest.mark.parametrize(
    "view", [service(ip="10.0.0.1"), service(loadBalancerClass="other"), service(type="ClusterIP")], ids=str
)
def test_what_has_an_address_already_or_is_not_ours_is_not_timed(first: FirstAddresses, view: Service) -> None:
    first.appeared(view, at(0))
    first.changed(service(ip="10.0.0.1"), at(1))
    assert count(first.since_seen.distribution()) == 0


def test_only_the_first_address_counts(first: FirstAddresses) -> None:
    first.appeared(service(), at(0))
    for second, ip in ((1, "10.0.0.1"), (2, ""), (3, "10.0.0.2")):
        first.changed(service(ip=ip), at(second))
    assert count(first.since_seen.distribution()) == 1


def test_one_that_vanishes_without_an_address_is_forgotten(first: FirstAddresses) -> None:
    first.appeared(service(), at(0))
    first.vanished(service())
    first.changed(service(ip="10.0.0.1"), at(1))
    assert count(first.since_seen.distribution()) == 0


def test_who_stands_by_meanwhile_does_not_count_what_another_did(first: FirstAddresses) -> None:
    first.appeared(service(), at(0))
    first.begin_anew()
    first.appeared(service(ip="10.0.0.1"), at(100))
    first.changed(service(ip="10.0.0.1"), at(100))
    assert count(first.since_seen.distribution()) == 0


@pytest.mark.parametrize(("created", "total"), [(None, 0), ("soon", 0), ("2026-01-01T00:01:00Z", 1)])
def test_a_strange_creation_time_spoils_nothing(first: FirstAddresses, created: str | None, total: int) -> None:
    first.appeared(service(created=created), at(0))
    first.changed(service(ip="10.0.0.1", created=created), at(1))
    assert count(first.since_seen.distribution()) == 1
    shown = first.since_creation.distribution()
    assert (count(shown), shown.sum) == (total, 0.0)


def test_the_longest_wait_is_in_the_last_bucket() -> None:
    histogram = Histogram(BOUNDS_S)
    histogram.observe(1e6)
    assert histogram.distribution().buckets[-2:] == ((str(BOUNDS_S[-1]), 0), ("+Inf", 1))
