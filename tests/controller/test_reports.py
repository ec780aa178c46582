"""What the controller says on the configuration objects, driven through the core."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from cluster.addresses import parse_address
from cluster.objects import ConfigurationState, IPAddressPool, L2Advertisement, decode
from controller.changes import Moment, Read, Write
from controller.ledger import Holder, Ledger
from controller.reports import Reports
from tests.controller.world import merge

VIEWS: dict[str, Any] = {
    "IPAddressPool": IPAddressPool,
    "L2Advertisement": L2Advertisement,
    "ConfigurationState": ConfigurationState,
}


class Api:
    """The objects' table, and one Reports that watches it."""

    def __init__(self, *, prunes_conditions: bool = False) -> None:
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.writes: list[Write] = []
        self.time = 1000.0
        self._prunes = prunes_conditions
        self._version = 0
        self.start()

    def start(self) -> None:
        self.reports = Reports("metallb-system", random.Random(1))
        self.ledger = Ledger()
        for kind, name in self.objects:
            self._tell(kind, name)

    def pool(self, name: str, *addresses: str) -> None:
        self._spec("IPAddressPool", name, {"addresses": list(addresses)})

    def advertisement(self, name: str, **spec: Any) -> None:
        self._spec("L2Advertisement", name, spec)

    def _spec(self, kind: str, name: str, spec: dict[str, Any]) -> None:
        before = self.objects.get((kind, name), {"metadata": {"generation": 0, "uid": name}})
        generation = before["metadata"]["generation"] + 1
        self._store(kind, name, merge(before, {"metadata": {"generation": generation}}) | {"spec": spec})

    def _store(self, kind: str, name: str, body: dict[str, Any]) -> None:
        if body != self.objects.get((kind, name)):  # a write that changes nothing is none
            self._version += 1
            metadata = {"name": name, "namespace": "metallb-system", "resourceVersion": str(self._version)}
            self.objects[kind, name] = merge(body, {"metadata": metadata})
        self._tell(kind, name)

    def _tell(self, kind: str, name: str) -> None:
        if kind != "ConfigurationState":
            self.reports.observe(self.view(kind, name))

    def view(self, kind: str, name: str) -> Any:
        return decode(msgspec.json.encode(self.objects[kind, name]), VIEWS[kind])

    def status(self, kind: str, name: str) -> dict[str, Any]:
        return dict(self.objects[kind, name].get("status", {}))

    def verdict(self, kind: str, name: str) -> tuple[str, str, str]:
        (condition,) = self.status(kind, name)["conditions"]
        return condition["status"], condition["reason"], condition["message"]

    def turn(self) -> int:
        """One turn of the deciding thread, its changes carried out; how many there were."""
        if self.reports.reload():
            self.ledger.set_pools(self.reports.config.pools)
        changes = self.reports.settle(self.ledger, Moment(self.time, self.time))
        for change in changes:
            kind = change.resource.kind
            if isinstance(change, Write):
                self.writes.append(change)
                body = merge(self.objects.get((kind, change.name), {}), change.body)
                if self._prunes and "status" in body:
                    body["status"].pop("conditions", None)
                self._store(kind, change.name, body)
            there = (kind, change.name) in self.objects
            self.reports.answered(change, self.view(kind, change.name) if there else None)
        return len(changes)

    def settle(self) -> None:
        for _ in range(20):
            while self.turn():
                assert len(self.writes) < 100, "it never comes to rest"
            deadline = self.reports.next_deadline()
            if deadline is None:
                return
            self.time = max(self.time, deadline)


@pytest.fixture
def api() -> Api:
    return Api()


def test_a_pool_in_force_says_so_and_counts(api: Api) -> None:
    api.pool("p", "10.0.0.0/30", "2001:db8::/64")
    api.settle()
    assert api.verdict("IPAddressPool", "p") == ("True", "InForce", "")
    api.ledger.take(parse_address("10.0.0.1"), Holder("default/web"))
    api.ledger.take(parse_address("2001:db8::1"), Holder("default/web"))
    api.settle()
    counters = {key: value for key, value in api.status("IPAddressPool", "p").items() if key != "conditions"}
    assert counters == {"assignedIPv4": 1, "availableIPv4": 3, "assignedIPv6": 1, "availableIPv6": 2**63 - 1}


def test_a_thousand_allocations_are_not_a_thousand_writes(api: Api) -> None:
    api.pool("p", "10.0.0.0/16")
    api.settle()
    api.writes.clear()
    api.time += 10
    for number in range(1000):
        api.ledger.take(parse_address(f"10.0.{number // 250}.{number % 250}"), Holder(f"default/{number}"))
        api.turn()
    assert len(api.writes) == 1
    api.settle()
    assert len(api.writes) == 2
    assert api.status("IPAddressPool", "p")["assignedIPv4"] == 1000


def test_a_broken_pool_says_what_is_wrong_and_what_stays(api: Api) -> None:
    api.pool("p", "10.0.0.0/30")
    api.settle()
    api.pool("p", "10.0.0.1")
    api.settle()
    reason = 'spec.addresses[0]: "10.0.0.1" is a single address; write "10.0.0.1/32"'
    assert api.verdict("IPAddressPool", "p") == ("False", "Invalid", f"{reason}; the last good version stays in force")
    assert [problem.text for problem in api.reports.take_new_problems()] == [f"IPAddressPool p: {reason}"]
    state = api.status("ConfigurationState", "controller")
    assert (state["result"], state["errorSummary"]) == ("Invalid", f"IPAddressPool p: {reason}")
    assert {each["type"]: (each["status"], each["reason"]) for each in state["conditions"]} == {
        "configReconcilerValid": ("False", "ConfigurationError"),
        "poolReconcilerValid": ("False", "ConfigurationError"),
    }
    api.pool("p", "10.0.0.1/32")
    api.settle()
    assert api.verdict("IPAddressPool", "p")[0] == "True"
    assert api.status("ConfigurationState", "controller")["result"] == "Valid"
    assert api.reports.take_new_problems() == []


def test_overlap_and_a_bad_advertisement_are_told_apart(api: Api) -> None:
    api.pool("a", "10.0.0.0/24")
    api.pool("b", "10.0.0.128/25")
    api.advertisement("l2", interfaces=["eth0", "eth0"])
    api.settle()
    assert api.verdict("IPAddressPool", "b")[:2] == ("False", "Overlap")
    assert api.verdict("L2Advertisement", "l2") == ("False", "Invalid", 'spec.interfaces[1]: repeats "eth0"')


def test_a_restart_says_nothing_anew(api: Api) -> None:
    api.pool("a", "10.0.0.0/24")
    api.pool("b", "bad")
    api.advertisement("l2")
    api.settle()
    before = len(api.writes)
    api.start()
    api.settle()
    assert len(api.writes) == before


def test_a_server_whose_crds_know_no_conditions_is_not_told_for_ever() -> None:
    api = Api(prunes_conditions=True)
    api.pool("p", "10.0.0.0/24")
    api.advertisement("l2")
    api.settle()
    assert api.status("IPAddressPool", "p")["availableIPv4"] == 256


def test_a_state_that_somebody_deleted_is_made_again_with_the_next_news(api: Api) -> None:
    api.pool("p", "10.0.0.0/24")
    api.settle()
    state = api.objects.pop(("ConfigurationState", "controller"))
    assert state["metadata"]["labels"] == {"metallb.io/component-type": "controller"}
    api.pool("p", "bad")
    if api.reports.reload():
        raise AssertionError("a bad edit must not change what is in force")
    (patch, *_) = [
        change
        for change in api.reports.settle(api.ledger, Moment(api.time, api.time))
        if change.resource.kind == "ConfigurationState"
    ]
    assert not isinstance(patch, Read)
    api.reports.answered(patch, None)
    api.settle()
    assert api.status("ConfigurationState", "controller")["result"] == "Invalid"


def test_a_failed_report_is_repeated_after_a_pause(api: Api) -> None:
    api.pool("p", "10.0.0.0/24")
    api.reports.reload()
    api.ledger.set_pools(api.reports.config.pools)
    for change in api.reports.settle(api.ledger, Moment(api.time, api.time)):
        api.reports.failed(change, 0.0, Moment(api.time, api.time))
    assert api.turn() == 0
    deadline = api.reports.next_deadline()
    assert deadline is not None
    assert deadline >= api.time + 0.25
    api.settle()
    assert api.verdict("IPAddressPool", "p")[0] == "True"


def test_a_report_that_somebody_forestalled_is_made_on_the_newer_object(api: Api) -> None:
    api.pool("p", "10.0.0.0/24")
    api.reports.reload()
    api.ledger.set_pools(api.reports.config.pools)
    now = Moment(api.time, api.time)
    changes = api.reports.settle(api.ledger, now)
    api.pool("p", "10.0.0.0/25")
    for change in changes:
        there = (change.resource.kind, change.name) in api.objects
        api.reports.superseded(change, api.view(change.resource.kind, change.name) if there else None, now)
    api.settle()
    assert api.verdict("IPAddressPool", "p")[0] == "True"
    assert api.status("IPAddressPool", "p")["availableIPv4"] == 128
