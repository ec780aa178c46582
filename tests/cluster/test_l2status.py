"""ServiceL2Status objects: whose they are, also before their first status, and how a node finds its own."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from cluster.l2status import announced_service, announcing_node, status_name
from cluster.objects import ServiceL2Status, decode

LABELS = {"metallb.io/node": "n1", "metallb.io/service-name": "web", "metallb.io/service-namespace": "dev"}
STATUS = {"node": "n2", "serviceName": "db", "serviceNamespace": "prod"}


@pytest.mark.parametrize(
    ("labels", "status", "node", "service"),
    [
        (LABELS, STATUS, "n2", "prod/db"),
        (LABELS, {}, "n1", "dev/web"),
        ({}, STATUS, "n2", "prod/db"),
        (LABELS, {"node": "n2"}, "n2", "dev/web"),
        ({}, {}, "", "/"),
    ],
)
def test_the_status_says_whose_it_is_and_before_that_its_labels_do(
    labels: dict[str, str], status: dict[str, Any], node: str, service: str
) -> None:
    body = {"metadata": {"name": "l2-x", "labels": labels}, "status": status}
    read = decode(msgspec.json.encode(body), ServiceL2Status)
    assert (announcing_node(read), announced_service(read)) == (node, service)


def test_the_name_depends_on_the_service_alone_and_is_one_that_the_api_takes() -> None:
    one, other = status_name("c1b9a2f0-0000"), status_name("c1b9a2f0-0001")
    assert one == status_name("c1b9a2f0-0000") != other
    assert one.startswith("l2-")
    assert len(one) <= 63
    assert one.replace("-", "").isalnum()
    assert one == one.lower()
