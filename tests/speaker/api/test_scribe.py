"""What orders do to objects, on a real API server in process: from whatever is there to what should be."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.api.client import connect
from cluster.api.listwatch import Change
from cluster.l2status import status_name
from cluster.objects import AddressText, NodeName, ObjectMeta, ServiceL2Status, ServiceL2StatusStatus
from lab.apiserver.embedded import EmbeddedApi
from speaker.api.announcements import Announced, Transition, TransitionKind
from speaker.api.records import Findings
from speaker.api.scribe import Scribe
from speaker.api.writer import Writer
from speaker.link import LinkName
from speaker.plan import BundleId
from speaker.protocol.effects import AskRecord, RecordAnswer
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

NODE, OTHER = NodeName("node-1"), NodeName("node-2")
OWN = "/apis/metallb.io/v1beta1/namespaces/metallb-system"
STATUSES = f"{OWN}/servicel2statuses"
EVENTS = "/api/v1/namespaces/default/events"
WEB = Announced("default/web", "uid-web", (AddressText("192.0.2.1"),), (LinkName("eth0"),), 2)
NAME = status_name("uid-web")
RIGHT = ({"metallb.io/node": NODE, "metallb.io/service-name": "web", "metallb.io/service-namespace": "default"}, NODE)
"""Labels and node of the object as it should be."""


class World:
    def __init__(self, api: EmbeddedApi, kubeconfig: Path, node: NodeName = NODE) -> None:
        self.api = api
        self.writer = Writer()
        client = connect(api.kubeconfig(kubeconfig), user_agent="berthlb-speaker")
        self.answers: list[RecordAnswer] = []
        """Whose records are, that were to be won."""
        self.publisher = Scribe(client, self.writer, node, "metallb-system", self.answers.append).publisher
        self.writer.start()

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        content = {"Content-Type": "application/merge-patch+json"} if method == "PATCH" else None
        status, answer = self.api.request(method, path, body, content)
        assert status < 300, answer
        return answer

    def make(self, node: str, labels: dict[str, str]) -> None:
        kind = {"apiVersion": "metallb.io/v1beta1", "kind": "ServiceL2Status"}
        self.ask("POST", STATUSES, {**kind, "metadata": {"name": NAME, "labels": labels}})
        self.ask("PATCH", f"{STATUSES}/{NAME}/status", {"status": {"node": node}})

    def know(self, node: NodeName) -> None:
        """Have the cache say so, whatever is there."""
        meta = ObjectMeta(name=NAME, namespace="metallb-system", uid="old", resource_version="1")
        self.publisher.recorded(Change("added", None, ServiceL2Status(meta, ServiceL2StatusStatus(node=node))))

    def tell(self, kind: TransitionKind) -> None:
        self.publisher.tell([Transition(kind, WEB)])

    def record(self) -> tuple[dict[str, str], str] | None:
        for each in self.ask("GET", STATUSES)["items"]:
            return each["metadata"].get("labels", {}), each.get("status", {}).get("node", "")
        return None


@pytest.fixture
def world(embedded_api: EmbeddedApi, tmp_path: Path) -> Iterator[World]:
    world = World(embedded_api, tmp_path / "kubeconfig")
    yield world
    world.writer.stop()


@pytest.mark.parametrize("known", [None, NODE, OTHER], ids=["not in the cache", "cached as ours", "as another's"])
@pytest.mark.parametrize(
    ("node", "labels"),
    [(None, {}), (OTHER, {"metallb.io/node": OTHER}), (NODE, {}), (NODE, RIGHT[0]), ("", RIGHT[0])],
    ids=["none", "another's", "ours without labels", "ours", "without status"],
)
def test_a_status_object_becomes_what_it_should_be_from_whatever_is_there(
    world: World, node: str | None, labels: dict[str, str], known: NodeName | None
) -> None:
    if node is not None:
        world.make(node, labels)
    if known is not None:
        world.know(known)
    world.tell(TransitionKind.GAINED)
    wait_until(lambda: world.record() == RIGHT)
    wait_until(lambda: world.writer.lag.writes == 0)
    if known is None:
        surprised = node is not None
        wait_until(lambda: world.publisher.status_target(NAME).look_first is surprised)


@pytest.mark.parametrize(("node", "stays"), [(NODE, False), (OTHER, True), (None, False)])
def test_what_nobody_announces_goes_and_another_ones_word_stays(world: World, node: str | None, stays: bool) -> None:
    if node is not None:
        world.make(node, {})
        body = world.ask("GET", f"{STATUSES}/{NAME}")["metadata"]
        meta = ObjectMeta(name=NAME, uid=body["uid"], resource_version=body["resourceVersion"])
        world.publisher.recorded(
            Change("added", None, ServiceL2Status(meta, ServiceL2StatusStatus(node=NodeName(node))))
        )
    world.tell(TransitionKind.ENDED)
    wait_until(lambda: world.writer.lag.writes == 0 and world.writer.writes)
    assert (world.record() is not None) is stays


def test_an_event_that_was_refused_twice_is_made_once_with_the_time_of_its_decision(world: World) -> None:
    world.api.inject(path=EVENTS, verb="create", status=503, count=2)
    world.publisher.set_own_node("uid-node")
    world.publisher.warn_of_node("DuplicateNode", "twice", 1_790_000_000.0)
    (event,) = wait_until(lambda: world.ask("GET", EVENTS)["items"])
    assert (event["reason"], event["firstTimestamp"]) == ("DuplicateNode", "2026-09-21T14:13:20Z")
    wait_until(lambda: world.writer.lag.writes == 0)
    assert world.writer.errors == 2


def test_findings_are_written_as_they_are_in_the_end(world: World) -> None:
    world.api.inject(path=f"{OWN}/configurationstates", status=503, count=2)
    world.publisher.find(Findings(None))
    world.publisher.find(Findings(()))

    def result() -> str:
        states = world.ask("GET", f"{OWN}/configurationstates")["items"]
        return states[0].get("status", {}).get("result", "") if states else ""

    wait_until(lambda: world.writer.errors == 2)  # before, a question of ours would meet the fault instead
    wait_until(lambda: result() == "Valid")


def win(world: World, blocked: str = "") -> RecordAnswer | None:
    question = AskRecord(BundleId("uid-web"), ("default/web",), 6, (NodeName(blocked),) if blocked else ())
    world.answers.clear()
    world.publisher.win(question, "default/web", time.monotonic())
    return wait_until(lambda: next(iter(world.answers), None))


def test_a_record_is_won_where_there_is_none_and_from_who_cannot_hold_it(world: World) -> None:
    ours = RecordAnswer(BundleId("uid-web"), 6, NODE)
    assert win(world) == ours
    assert world.record() == (RIGHT[0], "")
    world.ask("DELETE", f"{STATUSES}/{NAME}")
    world.make(OTHER, {**RIGHT[0], "metallb.io/node": OTHER})
    assert win(world, blocked=OTHER) == RecordAnswer(BundleId("uid-web"), 0, OTHER)
    assert world.record() == ({**RIGHT[0], "metallb.io/node": OTHER}, OTHER), "nothing was written"
    assert win(world) == ours
    assert world.record() == (RIGHT[0], OTHER), "the label says whose it is; the status follows with the claim"


def test_of_two_that_want_a_record_one_wins(world: World, embedded_api: EmbeddedApi, tmp_path: Path) -> None:
    rival = World(embedded_api, tmp_path / "rival", OTHER)
    try:
        for _ in range(10):
            for each, blocked in ((world, OTHER), (rival, NODE)):
                each.answers.clear()
                question = AskRecord(BundleId("uid-web"), ("default/web",), 6, (blocked,))
                each.publisher.win(question, "default/web", time.monotonic())
            wait_until(lambda: world.answers and rival.answers)
            won = [answer.epoch > 0 for answer in (world.answers[0], rival.answers[0])]
            assert sorted(won) == [False, True]
            world.ask("DELETE", f"{STATUSES}/{NAME}")
    finally:
        rival.writer.stop()
