"""What is said of what is wrong, where, and how often: in Events, in the ConfigurationState and in the log."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from cluster.config import Config, Problem
from cluster.objects import AddressText, L2AdvertisementSpec, NodeName
from speaker.api.events import REPEAT_S, conflict_message
from speaker.api.planner import Planner
from speaker.api.publisher import Order, Publisher, WriteConfigurationState, WriteEvent
from speaker.api.records import Findings
from speaker.api.reporter import NAMESPACE_LOOK_S, Reporter
from speaker.api.stranded import Stranded
from speaker.api.troubles import REMEMBERED_S
from speaker.channel import Stats
from speaker.link import LinkName
from speaker.protocol.effects import ConflictView, Decision, PeerView
from tests.speaker.api.objects import OWN, THREE, WEB, a_config, a_service, a_slice, an_advertisement
from tests.speaker.api.test_publisher import RecordingWriter

ETH0 = LinkName("eth0")
CONFLICT = {"address": WEB, "mac": "02:00:00:00:00:99", "link": "eth0"}
CONFIG = a_config()


class World:
    """A reporter on a node that exists, with the Services ``web`` and ``secure`` on one address."""

    def __init__(self) -> None:
        self.planner = Planner(OWN)
        self.planner.set_config(CONFIG)
        self.planner.set_node(OWN, THREE[0])
        for name, port in (("web", 80), ("secure", 443)):
            self.planner.set_service(f"default/{name}", a_service(name, port=port, share="x"))
            self.planner.set_slice(f"default/{name}-abc", a_slice(name))
        self.planner.take_change()
        self.writer = RecordingWriter()
        self.publisher = Publisher(self.writer, OWN)
        self.publisher.set_own_node("uid-node")
        self.there = frozenset({ETH0})
        self.reporter = Reporter(self.publisher, self.planner, OWN, "metallb-system", lambda: self.there)
        self.reporter.troubles.set_links(frozenset({ETH0}), 0.0)

    def events(self) -> list[tuple[str, str]]:
        """Reasons of the Events ordered since the last look, each with the name of its object."""
        work = [order.work for order in self.writer.take() if isinstance(order, Order)]
        return [(each.reason, each.about.name) for each in work if isinstance(each, WriteEvent)]

    def findings(self) -> Findings | None:
        """The last that were ordered to be written, since the last look."""
        work = [order.work for order in self.writer.take() if isinstance(order, Order)]
        found = [each.findings for each in work if isinstance(each, WriteConfigurationState)]
        return found[-1] if found else None


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.parametrize(
    ("reason", "fields", "events", "trouble"),
    [
        ("AddressConflict", CONFLICT, [("AddressConflict", "web"), ("AddressConflict", "secure")], False),
        ("AddressConflict", {**CONFLICT, "address": "192.0.2.77"}, [], False),
        ("AddressConflict", {}, [], False),
        ("DuplicateNode", {"node": "node-1"}, [("DuplicateNode", "node-1")], True),
        ("CannotSend", {"link": "eth0", "error": "ENOBUFS"}, [("CannotSend", "node-1")], True),
        ("Claimed", {"address": WEB}, [], False),
        ("PeerDead", {"node": "node-2"}, [], False),
    ],
    ids=[
        "on each Service that has the address",
        "on none where none has it",
        "not where nobody is named",
        "on the Node",
        "on the Node, with what is wrong",
        "not of what is right",
        "not of others' troubles",
    ],
)
def test_which_decisions_are_told_and_where(
    world: World, reason: str, fields: dict[str, Any], events: list[tuple[str, str]], trouble: bool
) -> None:
    world.reporter.tell(Decision(reason, fields, 1_790_000_000.0), 10.0)
    assert sorted(world.events()) == sorted(events)
    world.reporter.judge(10.0)
    assert [each.reason for each in world.reporter.present] == ([reason] if trouble else [])


def test_an_event_has_the_time_of_the_decision_and_is_told_once_in_a_while(world: World) -> None:
    decision = Decision("AddressConflict", dict(CONFLICT), 1_790_000_000.0)
    world.reporter.tell(decision, 10.0)
    orders = [order for order in world.writer.take() if isinstance(order, Order)]
    assert {order.work.at for order in orders if isinstance(order.work, WriteEvent)} == {1_790_000_000.0}
    world.reporter.tell(decision, 11.0)
    assert world.events() == []
    world.reporter.tell(decision, 10.0 + REPEAT_S)
    assert len(world.events()) == 2


def test_a_trouble_is_on_record_as_long_as_it_lasts_and_logged_at_both_ends(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    world.reporter.tell(Decision("DuplicateNode", {"node": "node-1"}), 10.0)
    world.writer.take()
    world.reporter.judge(10.0)
    found = world.findings()
    assert found is not None
    assert [each.reason for each in found.troubles] == ["DuplicateNode"]
    world.reporter.judge(11.0)
    assert world.findings() is None, "nothing has changed"
    world.reporter.judge(10.0 + REMEMBERED_S)
    found = world.findings()
    assert found is not None
    assert found.troubles == ()
    said = [(each.message, vars(each)["reason"]) for each in caplog.records]
    assert said == [("trouble", "DuplicateNode"), ("trouble over", "DuplicateNode")]


def test_a_fact_is_an_event_once_there_is_a_node_that_it_can_be_on(world: World) -> None:
    publisher = Publisher(world.writer, OWN)
    reporter = Reporter(publisher, world.planner, OWN, "nowhere", lambda: world.there)
    reporter.troubles.set_namespace(exists=False)
    reporter.judge(1.0)
    assert world.events() == []
    assert [each.reason for each in reporter.present] == ["NoNamespace"]
    publisher.set_own_node("uid-node")
    for now in (2.0, 3.0):
        reporter.judge(now)
    assert world.events() == [("NoNamespace", "node-1")]


def test_problems_of_the_configuration_are_logged_and_on_record_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    problem = Problem("IPAddressPool", "lan", "spec.addresses[0]", "is no range")
    for problems in ((problem,), (problem,), ()):
        world.reporter.set_problems(problems)
    assert world.findings() == Findings(())
    assert world.reporter.problems == ()
    assert len([each for each in caplog.records if each.message == "configuration problem"]) == 1


def test_what_advertisements_demand_is_on_record_and_what_cannot_be_used_is_a_trouble(world: World) -> None:
    named = a_config(an_advertisement(spec=L2AdvertisementSpec(interfaces=("lo",))))
    world.there = frozenset({ETH0, LinkName("lo")})
    world.reporter.set_interfaces(named, {}, frozenset({ETH0}))
    found = world.findings()
    assert found is not None
    assert found.without_interface == ("all",)
    world.reporter.set_interfaces(named, {}, frozenset({ETH0}))
    assert world.findings() is None, "nothing has changed"
    world.reporter.judge(1.0)
    assert [each.reason for each in world.reporter.present] == ["UnusableInterface"]


def test_a_stranded_service_is_told_of_with_what_the_node_has_and_not_after_it_is_gone(world: World) -> None:
    stranded = [Stranded("default/web", (LinkName("eth1"),)), Stranded("default/gone", (LinkName("eth1"),))]
    world.reporter.tell_stranded(stranded, 1.0)
    world.reporter.tell_stranded(stranded, 2.0)
    assert world.events() == [("announceFailed", "web")]


@pytest.mark.parametrize(
    ("hears", "refused", "present"),
    [(True, {}, []), (False, {}, []), (True, {ETH0: "not permitted"}, ["InterfaceRefused"])],
)
def test_what_statistics_tell_is_judged_at_once(
    world: World, hears: bool, refused: dict[LinkName, str], present: list[str]
) -> None:
    peers = (PeerView(NodeName("node-2"), hears, 0.4, 0.01, 0),)
    world.reporter.take_statistics(Stats(1.0, True, {}, peers=peers, refused=refused), 1.0)
    assert [each.reason for each in world.reporter.present] == present


@pytest.mark.parametrize(
    ("config", "looks"),
    [(None, [True, False, True]), (Config(), [True, False, True]), (CONFIG, [False, False, False])],
    ids=["nothing is known", "nothing is found", "something is found"],
)
def test_the_namespace_is_looked_for_while_nothing_is_found_in_it(
    world: World, config: Config | None, looks: list[bool]
) -> None:
    moments = (100.0, 100.0 + NAMESPACE_LOOK_S - 1, 100.0 + NAMESPACE_LOOK_S)
    assert [world.reporter.looks_for_namespace(config, now) for now in moments] == looks


def test_an_address_that_somebody_else_has_is_on_record_as_long_as_that_lasts(world: World) -> None:
    conflict = ConflictView(AddressText(WEB), "02:00:00:00:00:99", ETH0, "stranger", "", "", True)
    peers = (PeerView(NodeName("b"), True, 0.35, 0.0, 0),)
    stats = Stats(loop_at=0.0, ready=True, counters={}, conflicts=(conflict,), peers=peers)
    for now in (0.0, 1.0):
        world.reporter.take_statistics(stats, now)
    found = world.findings()
    assert found is not None
    (said,) = found.conflicts
    assert (said.address, said.withheld) == (WEB, True)
    assert said.message == conflict_message(conflict, OWN)
    world.reporter.take_statistics(msgspec.structs.replace(stats, conflicts=()), 2.0)
    over = world.findings()
    assert over is not None
    assert over.conflicts == ()
    world.reporter.take_statistics(msgspec.structs.replace(stats, conflicts=()), 3.0)
    assert world.findings() is None, "nothing is written where nothing has changed"


def test_a_kernel_that_answers_by_itself_is_a_trouble_as_long_as_it_does(world: World) -> None:
    peers = (PeerView(NodeName("b"), True, 0.35, 0.0, 0),)
    stats = Stats(loop_at=0.0, ready=True, counters={}, kernel=(AddressText(WEB),), peers=peers)
    world.reporter.take_statistics(stats, 0.0)
    (trouble,) = world.reporter.present
    assert (trouble.reason, trouble.serious) == ("KernelAnswers", False)
    assert WEB in trouble.text
    assert "strictARP" in trouble.text
    assert ("KernelAnswers", "node-1") in world.events()
    world.reporter.take_statistics(msgspec.structs.replace(stats, kernel=()), 1.0)
    assert world.reporter.present == ()


def test_a_drain_and_its_end_are_told_once_on_the_node(world: World) -> None:
    for why in ("", "annotation berthlb.io/drain: new disk", "annotation berthlb.io/drain: new disk", ""):
        world.reporter.set_drain(why)
    assert world.events() == [("Draining", "node-1"), ("DrainOver", "node-1")]
