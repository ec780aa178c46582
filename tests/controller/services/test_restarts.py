"""What a restart finds, and others who write: outcomes read from the API's table."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.config import GRACE_S
from controller.changes import Moment, Write
from tests.controller.world import World, assigned

POOL_ANNOTATION = "metallb.io/ip-allocated-from-pool"
ADDRESS_POOL = "metallb.io/address-pool"


@pytest.fixture
def world() -> World:
    world = World()
    world.start()
    return world


# ------------------------------------------------------------------------ restarts, and others who write


def test_a_restart_writes_nothing_and_says_nothing(world: World) -> None:
    assigned(world, web={}, stuck={"loadBalancerIP": "10.9.9.9"}, other={})
    world.take_events(), world.take_writes()
    world.start()
    world.settle()
    assert (world.take_events(), world.take_writes()) == ([], [])


def test_a_service_does_not_get_back_what_it_is_just_leaving(world: World) -> None:
    """The API shows the address until the write that takes it away is made, and that one failed."""
    assigned(world, web={})
    world.configure(other={"addresses": ["10.0.0.1/32"], "autoAssign": False})
    world.wait(GRACE_S)
    (write,) = world.pending
    world.pending.clear()
    world.controller.failed(write, 0.0, Moment(world.time, 0.0))
    world.put("web", labels={"touched": "yes"})
    world.settle()
    assert world.ip("web") == ""


@pytest.mark.parametrize("falsified", [None, [{"ip": "10.6.6.6"}], [{"ip": "172.18.255.201"}], [{"hostname": "x"}]])
def test_a_status_emptied_or_falsified_is_put_right_without_moving_the_service(world: World, falsified: Any) -> None:
    assigned(world, web={}, other={})
    world.put("web", status={"loadBalancer": {"ingress": falsified}})
    world.settle()
    assert (world.ip("web"), world.ip("other")) == ("172.18.255.200", "172.18.255.201")


def test_conditions_of_others_are_left_alone(world: World) -> None:
    theirs = {
        "type": "Their",
        "status": "True",
        "reason": "R",
        "message": "m",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    world.put("web", status={"conditions": [theirs]})
    world.settle()
    assert [each.type for each in world.view("web").status.conditions] == ["Their", "berthlb.io/AddressAssigned"]
    world.put("web", type="ClusterIP")
    world.settle()
    assert world.services["default/web"]["status"]["conditions"] == [theirs]


def test_a_write_that_somebody_else_forestalled_is_judged_anew(world: World) -> None:
    world.put("web")
    world.decide()
    (write,) = world.pending
    world.put("web", loadBalancerIP="172.18.255.222")
    world.carry_out(write)
    world.settle()
    assert world.ip("web") == "172.18.255.222"


def test_a_rival_that_is_always_faster_is_not_chased_without_a_pause(world: World) -> None:
    world.put("web")
    for _ in range(10):
        world.decide()
        for write in list(world.pending):
            world.put("web", annotations={"their": str(world.time)})
            world.carry_out(write)
    assert world.controller.next_deadline() is not None


def test_a_failed_write_is_repeated_later_and_later_and_holds_up_nobody_else(world: World) -> None:
    world.put("web")
    waits: list[float] = []
    for _ in range(8):
        world.decide()
        (write,) = world.pending
        world.pending.clear()
        world.controller.failed(write, 0.0, Moment(world.time, 0.0))
        assigned_meanwhile = f"other{len(waits)}"
        deadline = world.controller.next_deadline()
        assert deadline is not None
        waits.append(deadline - world.time)
        assert isinstance(write, Write)
        world.put(assigned_meanwhile)
        world.decide()
        for change in list(world.pending):
            world.carry_out(change)
        assert world.ip(assigned_meanwhile)
        world.time = deadline
    assert 0.25 <= waits[0] <= 0.375
    assert waits[3] > 2 * waits[0]
    assert max(waits) <= 22.5
    world.settle()
    assert world.ip("web") == "172.18.255.200"


def test_the_server_is_asked_again_no_sooner_than_it_says(world: World) -> None:
    world.put("web")
    world.decide()
    (write,) = world.pending
    world.controller.failed(write, 60.0, Moment(world.time, 0.0))
    deadline = world.controller.next_deadline()
    assert deadline is not None
    assert deadline >= world.time + 60.0


def test_a_service_that_left_the_watch_keeps_its_address_until_the_api_says_that_it_is_gone() -> None:
    world = World({"tiny": "10.0.0.1/32"})
    world.start()
    assigned(world, first={}, second={})
    world.delete("first")
    world.decide()
    (look,) = world.pending
    world.pending.clear()
    world.controller.failed(look, 0.0, Moment(world.time, 0.0))
    world.decide()
    assert (world.ip("second"), world.pending) == ("", [])
    world.settle()
    assert world.ip("second") == "10.0.0.1"


def test_a_late_word_that_the_former_service_is_gone_does_not_touch_its_namesake(world: World) -> None:
    assigned(world, web={})
    world.delete("web")
    world.decide()
    (look,) = world.pending
    world.put("web")
    world.settle()
    world.controller.answered(look, None)
    world.put("other")
    world.settle()
    assert world.ip("web") != world.ip("other")
    assert world.ip("web") != ""


def test_news_older_than_the_answer_to_a_write_is_not_believed(world: World) -> None:
    stale = world.put("web")
    world.settle()
    world.take_writes()
    world.controller.observe(stale)
    world.settle()
    assert world.take_writes() == []


# ------------------------------------------------------------------------ found by histories


def test_a_pool_that_comes_back_before_anybody_saw_the_move_moves_nobody() -> None:
    """The address that the Service left was its own still, and so did not count as free."""
    world = World({"a": "10.0.0.1-10.0.0.3"})
    world.start()
    assigned(world, web={})
    world.configure(b="10.0.1.0/24")
    world.wait(GRACE_S)
    (moving,) = world.pending
    world.put("web", annotations={"their": "note"})
    world.configure(a="10.0.0.1-10.0.0.3")
    world.carry_out(moving)
    world.settle()
    assert world.ip("web") == "10.0.0.1"


def test_what_a_service_never_showed_is_free_again_once_it_is_being_deleted() -> None:
    """Its write came too late; what it was to get stayed taken until its finalizers were gone."""
    world = World({"tiny": "10.0.0.1/32"})
    world.start()
    world.put("dying")
    world.decide()
    world.put("dying", deletionTimestamp="2026-01-02T00:00:00Z")
    world.put("web")
    world.settle()
    assert (world.ip("dying"), world.ip("web")) == ("", "10.0.0.1")


def test_reasons_that_do_not_pass_come_before_those_that_do() -> None:
    """Or who else came to hold the address would change the reason, with nobody to tell of it."""
    world = World({"a": "10.0.0.1/32", "b": "10.0.1.0/24"})
    world.start()
    wish = {"metallb.io/loadBalancerIPs": "10.0.0.1", "metallb.io/address-pool": "b"}
    assigned(world, web={"annotations": wish})
    before = world.condition("web")
    assigned(world, other={})
    world.start()
    world.settle()
    assert world.condition("web") == before
    assert before[2] == '10.0.0.1 belongs to pool "a", and the Service asks for pool "b"'


def test_after_a_start_who_waits_is_served_before_those_who_have_an_address_are_looked_at() -> None:
    """With ten thousand of them it took seconds, also for a Service that came in the meantime."""
    world = World()
    for name in [f"web-{number}" for number in range(20)]:
        world.put(name)
    world.start()
    world.settle()
    world.take_writes()
    world.put("waits")
    world.start()
    (first,) = world.controller.decide(world.now, services=1)
    assert isinstance(first, Write)
    assert first.name == "waits"
    assert world.controller.decide(world.now, services=5) == []
    world.put("comes-meanwhile")
    (second,) = world.controller.decide(world.now, services=1)
    assert isinstance(second, Write)
    assert second.name == "comes-meanwhile"
    assert world.controller.backlog == 15
