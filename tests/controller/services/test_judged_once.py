"""How often a Service is judged: once for each change, and not once more for what the controller itself wrote."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from controller.changes import Write
from controller.services.judgement import judge
from tests.controller.world import World

MANY = 200

Judgements = Callable[[], int]


@pytest.fixture
def judgements(monkeypatch: pytest.MonkeyPatch) -> Judgements:
    """How many verdicts were asked for since the last call."""
    asked = 0

    def counting(*arguments: Any, **named: Any) -> Any:
        nonlocal asked
        asked += 1
        return judge(*arguments, **named)

    def take() -> int:
        nonlocal asked
        taken, asked = asked, 0
        return taken

    monkeypatch.setattr("controller.services.decisions.judge", counting)
    return take


@pytest.fixture(params=["the watch tells first", "the answer tells first"])
def world(request: pytest.FixtureRequest) -> World:
    """Of a write the controller hears twice: its answer, and what the watch says."""
    made = World({"lan": "10.0.0.0/16"})
    made.start()
    made.lagging = request.param == "the answer tells first"
    return made


def rest(world: World) -> None:
    for _ in range(3):
        world.rest()  # delivers first what the watch still has to say


def test_new_services_are_judged_once_each(world: World, judgements: Judgements) -> None:
    for number in range(MANY):
        world.put(f"new-{number:03d}")
    rest(world)
    assert len({world.ip(f"new-{number:03d}") for number in range(MANY)}) == MANY
    assert judgements() == MANY


def test_services_that_wait_are_judged_once_each(world: World, judgements: Judgements) -> None:
    world.configure(lan="10.0.0.1/32")
    world.put("first")
    rest(world)
    judgements()
    for number in range(MANY):
        world.put(f"new-{number:03d}")
    rest(world)
    assert {world.condition(f"new-{number:03d}")[1] for number in range(MANY)} == {"PoolExhausted"}
    assert judgements() == MANY


def test_each_change_is_judged_once(world: World, judgements: Judgements) -> None:
    world.put("web")
    rest(world)
    judgements()
    world.put("web", annotations={"metallb.io/loadBalancerIPs": "10.0.0.77"})
    rest(world)
    assert world.ip("web") == "10.0.0.77"
    moved = judgements()
    world.put("web", labels={"tier": "front"})
    rest(world)
    assert (moved, judgements()) == (1, 1)


def test_a_restart_judges_everybody_once(judgements: Judgements) -> None:
    world = World({"lan": "10.0.0.0/16"})
    for number in range(MANY):
        world.put(f"new-{number:03d}")
    world.start()
    rest(world)
    assert judgements() == MANY
    world.start()
    rest(world)
    assert judgements() == MANY


def test_a_node_that_changes_has_those_judged_and_written_that_show_it_and_nobody_else(
    world: World, judgements: Judgements
) -> None:
    edge = {"nodeSelectors": [{"matchLabels": {"edge": "yes"}}], "autoAssign": False}
    world.configure_nodes(nodes={"nodeSelectors": [{"matchLabels": {"edge": "no"}}], "autoAssign": False}, edge=edge)
    for number in range(1, 6):
        world.machine(f"n{number}", internal=f"10.7.0.{number}", labels={"edge": "yes" if number == 5 else "no"})
    for number in range(MANY):
        pool = ("nodes", "edge", "lan", "lan")[number % 4]
        world.put(f"new-{number:03d}", annotations={"metallb.io/address-pool": pool}, ports=[{"port": 20_000 + number}])
    rest(world)
    assert {world.ip("new-000"), world.ip("new-001")} == {"10.7.0.1,10.7.0.2,10.7.0.3,10.7.0.4", "10.7.0.5"}
    judgements(), world.take_writes()
    for ready, shown in (("False", 1), ("Unknown", 0), ("True", 1)):
        world.machine("n4", internal="10.7.0.4", labels={"edge": "no"}, ready=ready)
        rest(world)
        assert judgements() == len(world.take_writes()) == shown * MANY // 4
    world.put("new-000", ports=[{"port": 20_004}])
    rest(world)
    assert (world.ip("new-000"), judgements()) == ("", 1)
    world.delete("new-004")
    rest(world)
    assert (world.ip("new-000"), judgements()) == ("10.7.0.1,10.7.0.2,10.7.0.3,10.7.0.4", 1)


# ------------------------------------------------------------------------ what must be judged again all the same


@pytest.mark.parametrize(
    "change",
    [
        {"annotations": {"metallb.io/loadBalancerIPs": "10.0.0.77"}},
        {"loadBalancerIP": "10.0.0.77"},
        {"annotations": {"metallb.io/loadBalancerIPs": "10.0.0.77"}, "status": {"loadBalancer": None}},
    ],
)
@pytest.mark.parametrize("when", ["before the write", "after it, before its answer", "after its answer"])
def test_what_somebody_writes_meanwhile_is_seen(world: World, change: dict[str, Any], when: str) -> None:
    world.put("web")
    world.deliver()
    world.decide()
    (write,) = world.pending
    if when == "before the write":
        world.put("web", **change)
        world.carry_out(write)
    elif when == "after its answer":
        world.carry_out(write)
        world.put("web", **change)
    else:
        world.carry_out(write, tell=False)
        seen = world.view("web")
        world.put("web", **change)
        world.controller.answered(write, seen)
    rest(world)
    assert world.ip("web") == "10.0.0.77"
    assert world.condition("web")[1] == "Assigned"


def test_what_a_server_makes_of_a_write_is_seen(world: World) -> None:
    """Where something changes what is written on its way, the answer is not what was written."""
    world.put("web")
    world.deliver()
    world.decide()
    (write,) = world.pending
    assert isinstance(write, Write)
    write.body["status"]["loadBalancer"]["ingress"] = [{"ip": "10.9.9.9"}]
    world.carry_out(write)
    rest(world)
    assert world.ip("web") == "10.0.0.0"


def test_a_pool_that_changes_during_a_write_is_heeded(world: World) -> None:
    world.put("web")
    world.deliver()
    world.decide()
    world.configure(lan="10.7.0.0/24")
    world.decide()  # its turn comes while the write is under way
    rest(world)
    assert world.ip("web") == "10.7.0.0"


def test_a_service_deleted_during_a_write_gives_its_address_back(world: World) -> None:
    world.configure(lan="10.0.0.1/32")
    world.put("web")
    world.deliver()
    world.decide()
    (write,) = world.pending
    world.carry_out(write, tell=False)
    seen = world.view("web")
    world.delete("web")
    world.deliver()
    world.decide()
    world.controller.answered(write, seen)
    world.put("next")
    rest(world)
    assert world.ip("next") == "10.0.0.1"


def test_a_service_that_is_being_deleted_waits_no_more_though_that_began_during_a_write(world: World) -> None:
    world.configure()
    world.put("web")
    world.deliver()
    world.decide()
    (write,) = world.pending
    world.carry_out(write, tell=False)
    seen = world.view("web")
    world.put("web", deletionTimestamp="2026-01-02T00:00:00Z")
    world.deliver()
    world.controller.answered(write, seen)
    rest(world)
    assert world.controller.figures().waiting == {}
