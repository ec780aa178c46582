"""The configuration in force; and what was deleted a moment ago counts as if it were there, until it is made again or
its time is over."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from cluster.addresses import parse_address
from cluster.api.listwatch import Change
from cluster.config import FAILBACK_ANNOTATION, GRACE_S, Config, load
from cluster.objects import IPAddressPool, IPAddressPoolStatus, L2Advertisement, decode
from speaker.api.configuration import ConfigReader, Departures, says_otherwise


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


# ------------------------------------------------------------------------ read when it is needed


def a_pool(name: str = "lan", block: str = "10.0.0.0/24", **metadata: Any) -> IPAddressPool:
    body = {"metadata": {"name": name, **metadata}, "spec": {"addresses": [block]}}
    return decode(msgspec.json.encode(body), IPAddressPool)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (None, a_pool(), True),
        (a_pool(), None, True),
        (a_pool(), a_pool(block="10.0.1.0/24"), True),
        (a_pool(), a_pool(labels={"tier": "gold"}), True),
        (a_pool(), a_pool(annotations={"a": "b"}, resourceVersion="7"), False),
        (a_pool(), msgspec.structs.replace(a_pool(), status=IPAddressPoolStatus(assigned_ipv4=3)), False),
    ],
    ids=["made", "deleted", "other addresses", "other labels", "other annotations", "what the controller writes"],
)
def test_which_changes_say_something_else(old: IPAddressPool | None, new: IPAddressPool | None, says: bool) -> None:
    assert says_otherwise(Change("modified", old, new)) is says


def test_whether_addresses_go_back_is_something_else() -> None:
    plain, going_back = (
        decode(msgspec.json.encode({"metadata": {"name": "l2", "annotations": said}, "spec": {}}), L2Advertisement)
        for said in ({}, {FAILBACK_ANNOTATION: "true"})
    )
    assert says_otherwise(Change("modified", plain, going_back))
    reader = ConfigReader()
    reader.set_advertisement("ns/l2", going_back)
    assert reader.read(100.0).advertisements["l2"].failback is True
    reader.set_advertisement("ns/l2", plain)
    assert reader.read(101.0).advertisements["l2"].failback is None


def test_nothing_is_read_anew_while_nothing_has_changed() -> None:
    reader = ConfigReader()
    touched = [reader.touched]
    reader.set_pool("ns/lan", a_pool())
    config = reader.read(100.0)
    assert list(config.pools) == ["lan"]
    touched.append(reader.touched)
    assert reader.read(200.0) is config
    reader.set_pool("ns/lan", a_pool(block="nonsense"))
    touched.append(reader.touched)
    assert touched == [True, False, True]
    config = reader.read(201.0)
    assert [problem.name for problem in reader.problems] == ["lan"]
    assert config.pool_of(parse_address("10.0.0.1")) is not None, "its last good version"


def test_what_departed_is_read_out_when_its_time_is_over_though_nothing_changes() -> None:
    reader = ConfigReader()
    reader.set_pool("ns/lan", a_pool())
    reader.set_advertisement("ns/l2", decode(b'{"metadata": {"name": "l2"}, "spec": {}}', L2Advertisement))
    reader.read(100.0)
    reader.set_pool("ns/lan", None)
    reader.set_advertisement("ns/l2", None)
    assert list(reader.read(101.0).pools) == ["lan"]
    assert reader.next_deadline() == 101.0 + GRACE_S
    assert list(reader.read(100.9 + GRACE_S).advertisements) == ["l2"]
    gone = reader.read(101.0 + GRACE_S)
    assert (list(gone.pools), list(gone.advertisements)) == ([], [])
    assert reader.next_deadline() is None
