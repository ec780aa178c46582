"""What is ordered of the writer, for what happened: tables. What the orders do to objects is in test_scribe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from msgspec.structs import replace

from cluster.api.listwatch import Change
from cluster.l2status import NODE_LABEL, status_name
from cluster.objects import AddressText, NodeName, ObjectMeta, ServiceL2Status, ServiceL2StatusStatus
from speaker.api.announcements import Announced, Transition, TransitionKind
from speaker.api.publisher import (
    LONGEST_LOOK_S,
    LOOK_S,
    SUCCESSOR_S,
    LookAtStatus,
    Order,
    Publisher,
    WriteConfigurationState,
    WriteEvent,
    WriteMerged,
    WriteStatus,
)
from speaker.api.records import About, Findings

NODE, OTHER = NodeName("node-1"), NodeName("node-2")
WEB = Announced("default/web", "uid-web", (AddressText("192.0.2.1"),), (), 2)
NAME = status_name("uid-web")
STATUS = Order(f"status/{NAME}", WriteStatus(NAME))
LATER = replace(STATUS, delay_s=SUCCESSOR_S)
LOOK = Order(f"look/{NAME}", LookAtStatus(NAME, LOOK_S), LOOK_S)
ABOUT = About("Service", "default", "web", "uid-web")
ASSIGNED = Order(
    "assigned/uid-web",
    WriteEvent(ABOUT, "Normal", "nodeAssigned", 'announcing from node "node-1" with protocol "layer2"'),
    news=True,
)


@dataclass
class RecordingWriter:
    """Takes orders, and notes them."""

    placed: list[Order | str] = field(default_factory=list)
    """Orders, and the keys of those that were withdrawn."""
    full: bool = False
    """So much news waits that no more is taken."""

    def place(self, order: Order) -> bool:
        if self.full and order.news:
            return False
        self.placed.append(order)
        return True

    def withdraw(self, key: str) -> None:
        self.placed.append(key)

    def take(self) -> list[Order | str]:
        placed, self.placed = self.placed, []
        return placed


def record(node: NodeName) -> ServiceL2Status:
    return ServiceL2Status(
        ObjectMeta(name=NAME, namespace="metallb-system", uid="u", labels={NODE_LABEL: node}),
        ServiceL2StatusStatus(node, "web", "default"),
    )


def appeared(node: NodeName) -> Change[ServiceL2Status]:
    return Change("added", None, record(node))


def vanished() -> Change[ServiceL2Status]:
    return Change("deleted", record(NODE), None)


def tell(kind: TransitionKind) -> Callable[[Publisher], None]:
    return lambda publisher: publisher.tell([Transition(kind, WEB)])


def see(change: Change[ServiceL2Status]) -> Callable[[Publisher], None]:
    return lambda publisher: publisher.recorded(change)


GAINED, CHANGED, LOST, ENDED = (tell(kind) for kind in TransitionKind)


def review(services: list[str] | None, *, idle: bool) -> Callable[[Publisher], None]:
    return lambda publisher: publisher.review_left(services, lambda _: idle)


READY, READY_IDLE = review(None, idle=False), review(None, idle=True)
SERVES = review(["default/web", "default/other"], idle=False)


@pytest.mark.parametrize(
    ("before", "happens", "ordered"),
    [
        pytest.param([], GAINED, [STATUS, ASSIGNED], id="a Service that is announced is recorded and told of"),
        pytest.param(
            [see(appeared(NODE))], GAINED, [STATUS], id="what named this node before is no news: a watcher began anew"
        ),
        pytest.param([see(appeared(OTHER))], GAINED, [STATUS, ASSIGNED], id="what named another node before is news"),
        pytest.param([GAINED], CHANGED, [STATUS], id="other addresses or interfaces are recorded and not told of"),
        pytest.param(
            [GAINED], LOST, ["assigned/uid-web", LATER], id="the next holder has time to overwrite the object"
        ),
        pytest.param(
            [GAINED], ENDED, ["assigned/uid-web", STATUS], id="the object of what nobody announces goes at once"
        ),
        pytest.param([GAINED], see(appeared(NODE)), [], id="our own word is seen, and all is well"),
        pytest.param([GAINED], see(vanished()), [LOOK], id="somebody deleted it, or another node wrote over it"),
        pytest.param([], see(vanished()), [], id="an object that is not ours any more is none of our business"),
        pytest.param([], see(appeared(NODE)), [], id="what is from before is left alone, until this node can claim"),
        pytest.param([see(appeared(NODE))], READY, [LATER], id="then it is removed, if it still names us by then"),
        pytest.param([READY], see(appeared(NODE)), [LATER], id="so is what names us later"),
        pytest.param([see(appeared(NODE))], READY_IDLE, [], id="not while the Service only lacks endpoints"),
        pytest.param(
            [see(appeared(NODE)), READY_IDLE], SERVES, [LATER], id="somebody announces it, now that it serves"
        ),
        pytest.param([see(appeared(NODE)), READY_IDLE, see(vanished())], SERVES, [], id="another node has taken it"),
        pytest.param([see(appeared(NODE)), READY_IDLE, GAINED], SERVES, [], id="this node announces it again"),
        pytest.param(
            [GAINED, LOST], GAINED, [STATUS, ASSIGNED], id="what is gained again is told again, the object being gone"
        ),
    ],
)
def test_what_is_ordered_for_what_happens(
    before: list[Callable[[Publisher], None]], happens: Callable[[Publisher], None], ordered: list[Order | str]
) -> None:
    writer = RecordingWriter()
    publisher = Publisher(writer, NODE)
    for earlier in before:
        earlier(publisher)
    writer.take()
    happens(publisher)
    assert writer.take() == ordered


@pytest.mark.parametrize(
    ("present", "free", "waits"),
    [(None, True, None), (record(NODE), False, None), (record(OTHER), False, 2 * LOOK_S)],
    ids=["free to be written", "ours already", "another's: looked at again"],
)
def test_a_node_leaves_another_ones_word_alone_and_looks_again(
    present: ServiceL2Status | None, free: bool, waits: float | None
) -> None:
    writer = RecordingWriter()
    publisher = Publisher(writer, NODE)
    assert publisher.looked(LookAtStatus(NAME, LOOK_S), present) is free
    assert writer.take() == ([] if waits is None else [Order(f"look/{NAME}", LookAtStatus(NAME, waits), waits)])


def test_looks_become_ever_more_seldom_and_never_end() -> None:
    writer = RecordingWriter()
    publisher = Publisher(writer, NODE)
    look, waits = LookAtStatus(NAME, LOOK_S), [LOOK_S]
    for _ in range(10):
        publisher.looked(look, record(OTHER))
        (order,) = writer.take()
        assert isinstance(order, Order)
        assert isinstance(order.work, LookAtStatus)
        look = order.work
        waits.append(order.delay_s)
    assert waits == sorted(waits)
    assert waits[-1] == LONGEST_LOOK_S


@pytest.mark.parametrize(
    ("found", "recorded", "announced", "look_first"),
    [
        ([], None, True, False),
        ([True], None, True, True),
        ([True, False], None, True, False),
        ([True], NODE, True, False),
        ([True], None, False, False),
    ],
    ids=[
        "a new Service is recorded without asking what is there",
        "in a take-over another's object is probably there",
        "until one is not",
        "what the cache knows is not asked for",
        "what is not wanted is not asked for",
    ],
)
def test_whether_an_object_is_asked_for_before_it_is_written(
    found: list[bool], recorded: NodeName | None, announced: bool, look_first: bool
) -> None:
    publisher = Publisher(RecordingWriter(), NODE)
    if recorded:
        publisher.recorded(appeared(recorded))
    if announced:
        publisher.tell([Transition(TransitionKind.GAINED, WEB)])
    for there in found:
        publisher.found(there=there)
    target = publisher.status_target(NAME)
    assert target.look_first is look_first
    assert (target.wanted is not None) is announced
    assert (target.known is not None) is (recorded is not None)
    assert publisher.wants(NAME) is announced


def test_what_is_too_much_news_becomes_one_event_on_the_node() -> None:
    writer = RecordingWriter(full=True)
    publisher = Publisher(writer, NODE)
    gained = [Transition(TransitionKind.GAINED, WEB._replace(uid=f"uid-{number}")) for number in range(3)]
    publisher.tell(gained)
    assert [order for order in writer.take() if isinstance(order, Order) and isinstance(order.work, WriteMerged)]
    assert publisher.merged_event() is None, "there is no Node that it could be on"
    publisher.set_own_node("uid-node")
    assert publisher.merged_event() == (
        WriteEvent(
            About("Node", "", NODE, "uid-node"),
            "Normal",
            "nodeAssigned",
            'announcing 3 more Services from node "node-1": their ServiceL2Status objects say which',
        ),
        3,
    )
    publisher.tell(gained[:1])
    publisher.merged_written(3)
    again = publisher.merged_event()
    assert again is not None
    assert again[1] == 1, "one came while the others were told of"
    publisher.merged_written(1)
    assert publisher.merged_event() is None


def test_warnings_and_findings_are_urgent_and_a_warning_of_the_node_waits_for_its_node() -> None:
    writer = RecordingWriter()
    publisher = Publisher(writer, NODE)
    publisher.warn_of_node("DuplicateNode", "twice")
    assert not publisher.knows_own_node
    assert writer.take() == []
    publisher.set_own_node("uid-node")
    publisher.warn_of_node("DuplicateNode", "twice", 1_790_000_000.0)
    publisher.warn(ABOUT, "AddressConflict", "a rival")
    publisher.find(Findings(()))
    node = About("Node", "", NODE, "uid-node")
    assert writer.take() == [
        Order(
            "DuplicateNode/uid-node/twice",
            WriteEvent(node, "Warning", "DuplicateNode", "twice", 1_790_000_000.0),
            news=True,
            urgent=True,
        ),
        Order(
            "AddressConflict/uid-web/a rival",
            WriteEvent(ABOUT, "Warning", "AddressConflict", "a rival"),
            news=True,
            urgent=True,
        ),
        Order("configuration", WriteConfigurationState(Findings(())), urgent=True),
    ]
