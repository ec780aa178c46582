"""The page on node-IP mode has each guard, each reason and each number that the code has, and no other."""

from __future__ import annotations

import re

import msgspec
import pytest
import yaml

from cluster.config import load
from cluster.node_pools import NodeIPPool
from controller.nodeip.damping import CALM_S, LONGEST_PAUSE_S, PAUSE_S
from controller.nodeip.guards import NODE_PORTS, PortKey, guarded_port
from controller.nodeip.liveness import FRESH_S
from controller.nodeip.reasons import LeftOut, NodePoolRefusalReason
from tests.controller.world import World
from tests.pages import PAGES, ROOT, rows, section

PAGE = ROOT / "docs/node-ip.md"


def tables(heading: str) -> list[list[list[str]]]:
    """The rows of each table of a section."""
    found = re.findall(r"^\|[-|]+\|\n(?:\|.*\n)+", section(PAGE, heading), re.MULTILINE)
    return [rows(table) for table in found]


def test_the_page_explains_every_reason_and_no_other() -> None:
    refusals, left_out, _ = tables("What each guard protects from")
    assert sorted(row[0].strip("`") for row in refusals) == sorted(each.value for each in NodePoolRefusalReason)
    assert sorted(row[0].strip("`") for row in left_out) == sorted(each.value for each in LeftOut)


def test_the_page_lists_every_guarded_port_with_what_needs_it_and_no_other() -> None:
    _, _, ports = tables("What each guard protects from")
    told = {
        PortKey(protocol, port): need
        for numbers, protocols, need in ports
        for protocol in protocols.split(", ")
        for port in range(int(numbers.split("-")[0]), int(numbers.split("-")[-1]) + 1)
    }
    every = (PortKey(protocol, port) for protocol in ("TCP", "UDP", "SCTP") for port in range(1, 65536))
    guarded = {key: found.need for key in every if (found := guarded_port([key], frozenset(), NODE_PORTS))}
    assert told == guarded


def test_the_page_has_the_numbers_of_the_code() -> None:
    (numbers,) = tables("Which nodes are shown")
    assert [value for _, value in numbers] == [f"{each:g} s" for each in (PAUSE_S, LONGEST_PAUSE_S, CALM_S, FRESH_S)]


def test_the_page_shows_what_a_service_says() -> None:
    world = World({})
    world.configure_nodes(nodes={})
    world.machine("node-a", external="203.0.113.10", internal="10.0.0.1")
    world.machine("node-b", external="203.0.113.11", internal="10.0.0.2")
    world.machine("node-c", external="203.0.113.12", internal="10.0.0.3", ready="Unknown")
    world.machine("node-d", internal="10.0.0.4")
    world.start()
    world.put("web", ports=[{"port": 80}])
    world.put("git", ports=[{"port": 22}])
    world.settle()
    shown = re.findall(r"```text\n(.*)\n```", section(PAGE, "What a Service says"))
    assert shown == [world.condition("web")[2], world.condition("git")[2]]


POOLS = [
    pytest.param(body, id=f"{page.stem}-{body['metadata']['name']}")
    for page in PAGES
    for block in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL)
    for body in yaml.safe_load_all(block)
    if isinstance(body, dict) and body.get("kind") == "NodeIPPool"
]


@pytest.mark.parametrize("body", POOLS)
def test_every_node_pool_that_a_page_shows_is_in_force(body: object) -> None:
    loaded = load([], [], None, [msgspec.convert(body, NodeIPPool)])
    assert len(loaded.config.node_pools) == 1
    assert not loaded.problems
