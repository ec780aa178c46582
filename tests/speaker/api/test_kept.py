"""What is kept of an object is all that is read of it, and little. All tests of Plans assert that they are the same."""

from __future__ import annotations

import sys

import msgspec
from msgspec.structs import replace

from cluster.objects import (
    NodeName,
    ObjectMeta,
    Service,
    ServiceL2Interface,
    ServiceL2Status,
    ServiceL2StatusStatus,
    ServicePort,
    ServiceSpec,
    decode,
)
from cluster.slices import Endpoint, EndpointConditions, EndpointSlice
from speaker.api import kept
from speaker.api.kept import kept_record, kept_service, kept_slice, one
from speaker.api.records import names

APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def a_service(name: str, **annotations: str) -> Service:
    meta = ObjectMeta(name=name, namespace="dev", uid=f"u-{name}", resource_version="7", annotations=annotations)
    ports = (ServicePort(port=80, name="http", node_port=30_000 + len(name), target_port="web"),)
    return Service(meta, ServiceSpec(type="LoadBalancer", ports=ports, selector={"app": name}, cluster_ip="10.96.0.9"))


def test_what_nobody_reads_is_not_kept() -> None:
    service = kept_service(a_service("web", **{APPLIED: "x" * 1000}))
    assert service.metadata.annotations == {}
    assert service.spec.selector is None
    assert service.spec.cluster_ip == ""
    assert service.spec.ports == (ServicePort(port=80),)


def test_a_cache_can_still_tell_versions_apart() -> None:
    for found in (kept_service(a_service("web")), kept_slice(EndpointSlice(a_service("web").metadata))):
        assert (found.key, found.metadata.uid, found.metadata.resource_version) == ("dev/web", "u-web", "7")


def test_of_what_many_have_in_common_there_is_one_copy() -> None:
    first, second = (kept_service(a_service(name)) for name in ("web", "db"))
    assert first.spec is second.spec
    read = [msgspec.json.encode({"metadata": {"name": "s", "namespace": "a-name-space"}}) for _ in range(2)]
    one_, other = (kept_slice(decode(each, EndpointSlice)) for each in read)
    assert one_.metadata.namespace is other.metadata.namespace


def test_copies_are_bounded() -> None:
    for number in range(3 * kept.MAX_COPIES):
        one((number, "some value"))
    assert len(kept._copies) <= kept.MAX_COPIES


def test_a_slice_of_a_thousand_endpoints_is_as_many_nodes() -> None:
    ready, ending = EndpointConditions(ready=True), EndpointConditions(ready=False, serving=False, terminating=True)
    endpoints = tuple(
        Endpoint((f"10.244.0.{number}",), ending if number % 10 == 3 else ready, NodeName(f"node-{number % 10}"))
        for number in range(1000)
    )
    found = kept_slice(EndpointSlice(ObjectMeta(name="s"), endpoints=endpoints)).endpoints or ()
    assert [each.node_name for each in found] == [f"node-{number}" for number in range(10) if number != 3]
    assert sys.getsizeof(found) < 200


def test_a_record_still_says_what_we_write_into_one() -> None:
    labels = {"metallb.io/node": "node-1", "metallb.io/service-name": "web"}
    status = ServiceL2StatusStatus("node-1", "web", "dev", (ServiceL2Interface("eth0"),))
    meta = ObjectMeta(name="l2-1", uid="u", resource_version="7", labels=labels)
    with_epoch = ServiceL2Status(replace(meta, annotations={"berthlb.io/epoch": "6"}), status)
    assert kept_record(with_epoch) == with_epoch
    record = ServiceL2Status(meta, status)
    assert kept_record(record) == record
    assert names(kept_record(record), NodeName("node-1"))
