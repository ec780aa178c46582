"""What a Node offers, and why it may not be shown."""

from __future__ import annotations

from typing import Any

import pytest

from controller.nodeip.nodes import read_node
from controller.nodeip.reasons import LeftOut
from tests.controller.nodeip.bodies import ANNOTATION, EXTERNAL, INTERNAL, LABEL, node

EXCLUDE = "node.kubernetes.io/exclude-from-external-load-balancers"


@pytest.mark.parametrize(
    ("fields", "absence"),
    [
        ({}, None),
        ({"ready": "False"}, LeftOut.NOT_READY),
        ({"ready": "Unknown"}, LeftOut.NOT_READY),
        ({"labels": {EXCLUDE: ""}}, LeftOut.EXCLUDED),
        ({"labels": {EXCLUDE: "false"}}, LeftOut.EXCLUDED),
        ({"taints": ("node.kubernetes.io/out-of-service",)}, LeftOut.OUT_OF_SERVICE),
        ({"taints": ("ToBeDeletedByClusterAutoscaler",)}, LeftOut.TO_BE_DELETED),
        ({"taints": ("node.kubernetes.io/unschedulable",)}, None),
        ({"deleted": True}, LeftOut.BEING_DELETED),
        ({"deleted": True, "ready": "False", "labels": {EXCLUDE: ""}}, LeftOut.BEING_DELETED),
    ],
)
def test_a_node_says_itself_why_it_may_not_be_shown(fields: dict[str, Any], absence: LeftOut | None) -> None:
    assert read_node(node("a", **fields), ()).absence is absence


def test_addresses_are_read_by_source_in_their_order() -> None:
    offer = read_node(
        node("a", external="203.0.113.9 203.0.113.1 2001:db8::9", internal="10.0.0.1", label="198.51.100.1",
             annotation="2001:DB8:0::1, 198.51.100.2"),
        (EXTERNAL, INTERNAL, LABEL, ANNOTATION),
    )  # fmt: skip
    assert {source: [each.text for each in found] for source, found in offer.found.items()} == {
        EXTERNAL: ["203.0.113.9", "203.0.113.1", "2001:db8::9"],
        INTERNAL: ["10.0.0.1"],
        LABEL: ["198.51.100.1"],
        ANNOTATION: ["2001:db8::1", "198.51.100.2"],
    }
    assert {each.text for each in offer.own} == {"203.0.113.9", "203.0.113.1", "2001:db8::9", "10.0.0.1"}


def test_a_text_that_is_no_address_is_unreadable_and_an_empty_one_is_nothing() -> None:
    offer = read_node(node("a", label="tomorrow", annotation=" , "), (LABEL, ANNOTATION, EXTERNAL))
    assert offer.unreadable == (LABEL,)
    assert offer.found == {}


@pytest.mark.parametrize(
    ("since", "seconds"),
    [("1970-01-01T00:01:40Z", 100.0), ("1970-01-01T01:01:40+01:00", 100.0), (None, None), ("soon", None)],
)
def test_ready_since(since: str | None, seconds: float | None) -> None:
    assert read_node(node("a", since=since), ()).ready_since == seconds
    assert read_node(node("a", since=since, ready="False"), ()).ready_since is None
