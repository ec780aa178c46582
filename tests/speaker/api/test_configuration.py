"""What was deleted a moment ago counts as if it were there, until it is made again or its time is over."""

from __future__ import annotations

from typing import Any

import msgspec

from cluster.addresses import parse_address
from cluster.config import GRACE_S, Config, load
from cluster.objects import IPAddressPool, L2Advertisement, decode
from speaker.api.configuration import Departures


class Present:
    """What the API has, and what counts of it."""

    def __init__(self) -> None:
        self.departed = Departures()
        self.config = Config()
        self.now = 100.0

    def read(self, pools: dict[str, str], advertisements: dict[str, Any]) -> None:
        given = [
            decode(msgspec.json.encode({"metadata": {"name": name}, "spec": {"addresses": [block]}}), IPAddressPool)
            for name, block in pools.items()
        ]
        announced = [
            decode(msgspec.json.encode({"metadata": {"name": name}, "spec": spec}), L2Advertisement)
            for name, spec in advertisements.items()
        ]
        self.config = self.departed.kept(self.config, load(given, announced, self.config).config, self.now)

    def announced(self, address: str) -> list[str]:
        """The advertisements that announce it."""
        pool = self.config.pool_of(parse_address(address))
        if pool is None:
            return []
        return [name for name, each in self.config.advertisements.items() if each.announces(pool.name)]


NAMED = {"ipAddressPools": ["lan"]}


def test_what_departs_counts_for_a_while_and_then_no_more() -> None:
    every: list[tuple[dict[str, str], dict[str, Any]]] = [({"lan": "10.0.0.0/24"}, {}), ({}, {"l2": NAMED}), ({}, {})]
    for left in every:
        present = Present()
        present.read({"lan": "10.0.0.0/24"}, {"l2": NAMED})
        assert present.announced("10.0.0.1") == ["l2"]
        assert present.departed.next_deadline() is None
        present.read(*left)
        assert present.announced("10.0.0.1") == ["l2"]
        assert present.departed.next_deadline() == 100.0 + GRACE_S
        present.now += GRACE_S - 1
        present.read(*left)
        assert present.announced("10.0.0.1") == ["l2"], "its time does not begin anew"
        present.now += 1
        present.read(*left)
        assert present.announced("10.0.0.1") == []
        assert present.departed.next_deadline() is None


def test_what_is_made_again_counts_as_it_is_now() -> None:
    present = Present()
    present.read({"lan": "10.0.0.0/24", "other": "10.0.1.0/24"}, {"l2": NAMED})
    present.read({"other": "10.0.1.0/24"}, {})
    present.read({"lan": "10.0.2.0/24", "other": "10.0.1.0/24"}, {"l2": {"ipAddressPools": ["lan", "other"]}})
    assert present.departed.next_deadline() is None
    assert [present.announced(f"10.0.{net}.1") for net in range(3)] == [[], ["l2"], ["l2"]]


def test_what_another_pool_has_come_to_contain_is_that_ones() -> None:
    """A pool that is made under another name, here of half the size."""
    present = Present()
    present.read({"lan": "10.0.0.0/24"}, {"l2": NAMED})
    present.read({"new": "10.0.0.0/25"}, {"l2": NAMED, "l3": {"ipAddressPools": ["new"]}})
    assert present.announced("10.0.0.1") == ["l3"]
    assert present.announced("10.0.0.200") == ["l2"]
    present.now += GRACE_S
    present.read({"new": "10.0.0.0/25"}, {"l2": NAMED, "l3": {"ipAddressPools": ["new"]}})
    assert present.announced("10.0.0.200") == []


def test_departing_again_and_again_is_a_departure_each_time() -> None:
    present = Present()
    for _ in range(3):
        present.read({"lan": "10.0.0.0/24"}, {"l2": NAMED})
        present.now += GRACE_S / 2
        present.read({}, {})
        present.now += GRACE_S - 1
        present.read({}, {})
        assert present.announced("10.0.0.1") == ["l2"]
