"""MetalLB's annotations under both prefixes: the present one hides the old one, even where it is empty."""

from __future__ import annotations

import pytest

from cluster.annotations import ALLOW_SHARED_IP, KNOWN, annotation
from tests.cluster.test_rightful import FORMER, NAME, a_service, view_of
from tests.oracle import services as oracle


@pytest.mark.parametrize(
    ("annotations", "value"),
    [
        ({}, ""),
        ({NAME: "x"}, "x"),
        ({FORMER: "y"}, "y"),
        ({NAME: "x", FORMER: "y"}, "x"),
        ({NAME: "", FORMER: "y"}, ""),
        ({"example.com/allow-shared-ip": "z"}, ""),
    ],
)
def test_the_present_prefix_hides_the_old_one(annotations: dict[str, str], value: str) -> None:
    service = a_service("web", annotations=annotations)
    assert annotation(view_of(service), ALLOW_SHARED_IP) == value
    assert oracle.annotation(service, "allow-shared-ip") == value


def test_there_are_four() -> None:
    assert set(KNOWN) == {"address-pool", "loadBalancerIPs", "allow-shared-ip", "ip-allocated-from-pool"}
