"""Which Services may have an address together: the words for each reason, and the rule against the oracle."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.sharing import Sharers, read_sharer
from tests.cluster.test_rightful import FORMER, NAME, SERVICES, a_service, view_of
from tests.oracle.services import key_of, may_share

KEY = {NAME: "x"}
LOCAL: dict[str, Any] = {"annotations": KEY, "policy": "Local", "selector": {"app": "one"}}


@pytest.mark.parametrize(
    ("holds", "asks", "reason"),
    [
        ({}, {}, "default/holds holds it and shares it with nobody"),
        ({}, {"annotations": KEY}, "default/holds holds it and shares it with nobody"),
        (
            {"annotations": KEY},
            {},
            "default/holds holds it, and sharing needs the annotation metallb.io/allow-shared-ip",
        ),
        ({"annotations": {NAME: "y"}}, {"annotations": KEY}, 'default/holds holds it with the sharing key "y"'),
        ({"annotations": KEY}, {"annotations": KEY}, "default/holds holds it and uses port 80/TCP too"),
        (
            LOCAL,
            {**LOCAL, "selector": {"app": "two"}},
            "default/holds holds it with another externalTrafficPolicy or, being Local, another selector",
        ),
        (
            LOCAL,
            {"annotations": KEY},
            "default/holds holds it with another externalTrafficPolicy or, being Local, another selector",
        ),
        ({"annotations": KEY}, {"annotations": KEY, "ports": ({"port": 81},)}, None),
        ({"annotations": KEY}, {"annotations": KEY, "ports": ({"port": 80, "protocol": "UDP"},)}, None),
        ({"annotations": KEY}, {"annotations": {FORMER: "x"}, "ports": ({"port": 81},)}, None),
        (LOCAL, {**LOCAL, "ports": ({"port": 81},)}, None),
        ({"annotations": KEY}, {"annotations": KEY, "policy": "Local", "ports": ({"port": 81},)}, None),
    ],
)
def test_the_reason_names_the_condition_that_is_not_met(
    holds: dict[str, Any], asks: dict[str, Any], reason: str | None
) -> None:
    holder, asking = (
        read_sharer(view_of(a_service(name, **facts))) for name, facts in (("holds", holds), ("asks", asks))
    )
    assert asking.why_not_with(holder) == reason


@settings(max_examples=500)
@given(SERVICES)
def test_two_services_may_share_an_address_when_the_documents_say_so(listed: list[dict[str, Any]]) -> None:
    services = [a_service(f"s{number}", **facts) for number, facts in enumerate(listed)]
    for one, other in combinations(services, 2):
        for asking, holding in ((one, other), (other, one)):
            reason = read_sharer(view_of(asking)).why_not_with(read_sharer(view_of(holding)))
            assert (reason is None) is may_share(asking, holding), reason


@settings(max_examples=500)
@given(SERVICES, st.lists(st.tuples(st.booleans(), st.integers(0, 3)), max_size=8))
def test_who_joins_several_must_suit_each_of_them(listed: list[dict[str, Any]], steps: list[tuple[bool, int]]) -> None:
    """It does not matter which came and left before, nor whether those that are there suit each other."""
    services = [a_service(f"s{number}", **facts) for number, facts in enumerate(listed)]
    sharers, present = Sharers(()), dict[str, dict[str, Any]]()
    for comes, number in steps:
        service = services[number % len(services)]
        if comes:
            sharers.put(read_sharer(view_of(service)))
            present[key_of(service)] = service
        else:
            assert sharers.drop(key_of(service)) is (present.pop(key_of(service), None) is not None)
        for asking in services:
            others = [each for each in present.values() if key_of(each) != key_of(asking)]
            conflict = sharers.conflict(read_sharer(view_of(asking)))
            in_the_way = {key_of(each) for each in others if not may_share(asking, each)}
            assert (conflict.service in in_the_way) if conflict is not None else not in_the_way
    assert {each.service for each in sharers.all} == present.keys()
