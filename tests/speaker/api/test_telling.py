"""From when on people are told what the announcer holds, and of which changes."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from cluster.addresses import Family
from cluster.config import Config
from cluster.objects import AddressText, L2AdvertisementSpec
from speaker.api.planner import Planner
from speaker.api.publisher import Order, Publisher, WriteConfigurationState, WriteEvent, WriteStatus
from speaker.api.reporter import Reporter
from speaker.api.telling import KEPT_S, RECORDS_WAIT_S, Telling
from speaker.channel import Claims, ClaimsChange, Holding
from speaker.link import LinkName
from tests.speaker.api.objects import OWN, THREE, a_config, a_service, a_slice, an_advertisement
from tests.speaker.api.test_publisher import RecordingWriter

WEB, DB = AddressText("192.0.2.1"), AddressText("192.0.2.2")
ETH0 = {LinkName("eth0"): frozenset(Family)}
CONFIG = a_config()
ON_ETH1 = a_config(an_advertisement(spec=L2AdvertisementSpec(interfaces=("eth1",))))


class Side:
    """A node that is the only one, with the Services ``web`` and ``db``."""

    def __init__(self, config: Config = CONFIG) -> None:
        self.planner = Planner(OWN)
        self.config = config
        self.planner.set_config(config)
        self.planner.set_node(OWN, THREE[0])
        for name, address in (("web", WEB), ("db", DB)):
            self.planner.set_service(f"default/{name}", a_service(name, address))
            self.planner.set_slice(f"default/{name}-abc", a_slice(name))
        self.planner.take_change()
        self.writer = RecordingWriter()
        self.publisher = publisher = Publisher(self.writer, OWN)
        self.reporter = Reporter(publisher, self.planner, OWN, "metallb-system", lambda: frozenset(ETH0))
        self.telling = Telling(self.planner, publisher, self.reporter, OWN)
        self.now = 1000.0

    def claims(self, **held: bool) -> None:
        """A change of the announcer's claims to ``web`` and ``db``."""
        told: Mapping[AddressText, Holding | None] = {
            {"web": WEB, "db": DB}[name]: Holding(1) if holds else None for name, holds in held.items()
        }
        self.telling.take_claims(ClaimsChange(1, dict(told)))

    def advance(self, *, recorded: bool = True) -> None:
        self.telling.advance(self.config, self.now, recorded=recorded)

    def recorded(self) -> list[str]:
        """The kinds of orders placed since the last look, status objects by the Service's."""
        told = []
        for order in self.writer.take():
            if isinstance(order, Order) and isinstance(order.work, WriteStatus):
                told.append(order.work.name)
            elif isinstance(order, Order) and isinstance(order.work, WriteEvent):
                told.append(order.work.reason)
            elif isinstance(order, Order) and isinstance(order.work, WriteConfigurationState):
                told.append("state")
        return told


def begun(config: Config = CONFIG) -> Side:
    side = Side(config)
    side.telling.plan_sent(side.now)
    side.advance()
    side.writer.take()
    return side


TOLD = ["l2-uid-web", "nodeAssigned"]


def test_claims_gather_until_the_plan_is_out_and_the_record_is_known() -> None:
    side = Side()
    side.claims(web=True)
    side.advance()
    assert side.recorded() == [], "no Plan is out"
    assert side.telling.next_deadline() is None
    side.telling.plan_sent(side.now)
    assert side.telling.next_deadline() == side.now + RECORDS_WAIT_S
    side.advance(recorded=False)
    assert side.recorded() == [], "it is not known what is on record"
    side.advance(recorded=True)
    assert len(side.recorded()) == 2
    assert side.telling.next_deadline() is None


def test_the_record_is_waited_for_no_longer_than_it_is_worth() -> None:
    side = Side()
    side.telling.plan_sent(side.now)
    side.claims(web=True)
    side.now += 1.0
    side.telling.plan_sent(side.now)  # a change of the Plan begins no new wait
    side.now += RECORDS_WAIT_S - 1.1
    side.advance(recorded=False)
    assert side.recorded() == []
    side.now += 0.2
    side.advance(recorded=False)
    assert len(side.recorded()) == 2


@pytest.mark.parametrize(
    ("steps", "held"),
    [
        ([{"web": True}, {"db": True}], {"default/web", "default/db"}),
        ([{"web": True}, {"web": False}], set()),
        ([{"web": True, "db": True}, {"web": False}, {"web": True}], {"default/web", "default/db"}),
    ],
)
def test_what_gathered_is_told_as_it_is_in_the_end(steps: list[dict[str, bool]], held: set[str]) -> None:
    early, late = Side(), begun()
    for step in steps:
        early.claims(**step)
        late.claims(**step)
    early.telling.plan_sent(early.now)
    early.advance()
    for side in (early, late):
        assert side.telling.announcements.announced.keys() == held
    assert early.recorded().count("nodeAssigned") == len(held)


@pytest.mark.parametrize("side", [Side(), begun()], ids=["before it begins", "after"])
def test_what_a_whole_set_of_claims_does_not_name_is_held_no_more(side: Side) -> None:
    side.claims(web=True)
    assert side.telling.take_claims(Claims(1, {DB: Holding(1)})) == {WEB: None, DB: Holding(1)}
    side.telling.plan_sent(side.now)
    side.advance()
    assert side.telling.announcements.announced.keys() == {"default/db"}


def test_a_change_of_the_plan_is_told_once_it_has_begun() -> None:
    side = begun()
    side.claims(web=True)
    side.writer.take()
    side.planner.set_service("default/web", None)
    side.planner.take_change()
    side.telling.plan_sent(side.now)
    assert side.telling.announcements.announced == {}
    assert len(side.recorded()) == 1


@pytest.mark.parametrize("early", [True, False], ids=["links first", "Plan first"])
def test_a_service_whose_interface_is_missing_is_told_of_once(early: bool) -> None:
    side = Side(ON_ETH1)
    if early:
        side.telling.set_links(ETH0, side.now)
        side.advance()
        assert side.recorded() == []
    side.telling.plan_sent(side.now)
    side.advance()
    side.telling.set_links(ETH0, side.now)
    side.advance()
    assert side.recorded().count("announceFailed") == 2
    side.telling.set_links(ETH0, side.now)
    side.advance()
    assert side.recorded() == []


def test_what_advertisements_demand_is_told_when_node_links_or_configuration_change() -> None:
    side = begun(ON_ETH1)
    side.telling.set_links(ETH0, side.now)
    side.advance()
    assert "state" not in side.recorded(), "the node's labels are not known"
    side.telling.set_labels({})
    side.advance()
    assert "state" in side.recorded()
    side.advance()
    assert side.recorded() == []
    side.config = CONFIG
    side.advance()
    assert "state" in side.recorded()
    side.config = ON_ETH1
    side.advance()
    side.writer.take()
    side.telling.set_links({LinkName("eth1"): frozenset(Family)}, side.now)
    side.advance()
    assert "state" in side.recorded()


# ------------------------------------------------------------------------ drains

WHY = "annotation berthlb.io/drain: new disk"


def test_what_a_drained_node_still_announces_after_a_while_is_told_with_the_reasons() -> None:
    side = begun()
    side.planner.set_node("node-2", THREE[1])
    side.planner.set_slice("default/db-abc", a_slice("db", "node-2"))
    side.planner.set_service("default/web", a_service("web", WEB, policy="Local"))
    side.planner.take_change()
    side.telling.plan_sent(side.now)
    side.claims(web=True, db=True)
    side.writer.take()
    side.telling.set_drain(WHY, side.now)
    assert side.telling.next_deadline() == side.now + KEPT_S
    side.advance()
    assert side.recorded() == [], "it has time to hand over"
    side.now += KEPT_S
    side.advance()
    assert {key: each.kept for key, each in side.telling.announcements.announced.items()} == {
        "default/web": f"{WHY}; no other node may announce it",
        "default/db": f"{WHY}; none of the others that may announce it takes it: node-2",
    }
    assert side.recorded().count("KeptByDrainedNode") == 2
    assert side.telling.next_deadline() is None
    side.claims(db=False)
    side.telling.set_drain("", side.now)
    side.advance()
    assert {each.kept for each in side.telling.announcements.announced.values()} == {""}
    assert "KeptByDrainedNode" not in side.recorded()


@pytest.mark.parametrize(("kept", "reason"), [((), "Drained"), (("web",), "DrainIncomplete")])
def test_the_node_says_when_its_drain_is_done(kept: tuple[str, ...], reason: str) -> None:
    side = begun()
    side.publisher.set_own_node("uid-node")
    side.claims(web=True, db=True)
    side.writer.take()
    side.telling.set_drain(WHY, side.now)
    side.claims(**dict.fromkeys({"web", "db"} - {*kept}, False))
    side.writer.take()
    side.now += KEPT_S
    side.advance()
    assert [each for each in side.recorded() if each.startswith("Drain")] == [reason]


def test_a_drained_node_that_takes_over_for_want_of_others_says_so_at_once() -> None:
    side = begun()
    side.telling.set_drain(WHY, side.now)
    side.now += KEPT_S
    side.advance()
    side.writer.take()
    side.claims(web=True)
    assert {"KeptByDrainedNode", "nodeAssigned"} < set(side.recorded())


def test_a_drain_is_told_of_only_once_it_has_begun() -> None:
    side = Side()
    side.telling.set_drain(WHY, side.now)
    side.claims(web=True)
    side.now += 2 * KEPT_S
    side.advance()
    assert side.telling.next_deadline() is None, "nothing is waited for, so that nothing spins"
    side.telling.plan_sent(side.now)
    side.advance()
    assert "KeptByDrainedNode" in side.recorded()
