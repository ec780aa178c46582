"""Which tables of a speaker the LAN can make grow: the security page lists all of them, with their bounds."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from speaker.protocol import claims, heartbeat, subnets
from speaker.wire.heartbeats import ipv4, ipv6
from tests.bounds import listed
from tests.pages import ROOT

CONTAINERS = {"dict", "set", "list", "OrderedDict", "deque", "Counter", "defaultdict"}
OURS = {
    "what is held, and where": {
        "Answering._links_of", "Answering._macs_of", "Answers._changes", "Answers._claim_changes",
        "Answers._told_claims", "Answers.where",
        "ClaimLog._steps", "ClaimLog._uncommitted", "ClaimLog.claims", "HeldFilter._addresses", "HeldFilter._missing",
        "HeldFilter._neighbourhoods", "HeldResponder._held", "Informer._untold", "Informer.claims",
        "Informer.gratuitous", "LinkChange.gained", "LinkChange.lost", "Ownership.touched", "Voice._repeats",
        "_Queue.marks", "Groups._full", "Groups._member", "Groups._queue", "Groups._sizes", "Groups._wanted",
        "Memberships._sockets",
    },
    "the Plan": {
        "Arbitration._held", "Arbitration._lost", "Arbitration._open", "Arbitration._won", "Bundles.by_id",
        "Bundles.groups", "Bundles.of", "Choosing._ability", "Chosen._addresses", "Chosen._of", "Claiming._fresh",
        "Claiming._offered", "Claiming._partial", "Claiming._reasons", "Claiming._unowned",
        "Former._holders", "Giving._arrivals", "Giving._given_to",
        "HandOvers._in_vain", "HandOvers._offers", "HandOvers._open", "HandOvers._taken", "HandOvers._waiting",
        "Moving._fresh", "Moving._loads",
        "Moving._restless", "Moving._take_backs", "Rebalancing._given", "Spreading._counts", "Spreading._places",
        "Moving.tenures", "Owners._epochs", "Owners._places",
        "Ownership._former", "Ownership._former_tenures", "Ownership._to_look_at", "Successors._named",
        "Successors._pauses", "Tenure.regards", "Unserved._since", "Probes._asked", "Probes._found_out", "Probes._new",
        "HeldResponder._probed", "Resolver._probed",
    },
    "the node's interfaces, their addresses, and the processes": {
        "Failures._said", "GratuitousSchedule._links", "Link.also", "LinkSocket._to_dump", "LinkTable._addresses",
        "LinkTable._interfaces", "LinkTable._lost_carrier", "LinkTable._lost_interfaces", "LinkTable._lost_ipv6",
        "LinkTable._unconfirmed", "OpenLink._order", "OpenLink.resolvers", "OpenLinks._links", "OpenLinks.refused",
        "OwnTrouble._refused", "OwnTrouble._said", "Responders._links", "Roster.links", "Sender._mute",
        "Voice._turns", "Usability.reasons", "Waiting._left", "WatcherKeeper._ended", "WatcherKeeper._lost",
        "one_of_each_subnet", "Knocking._watched",
    },
    "the directory, which the API makes": {
        "Expected._by_mac", "Expected._listed", "Expected._missing", "_Listed.known_at", "_Listed.lives_at",
        "_Listed.places",
    },
    "what one decision says": {"Decision.fields"},
    "the causes in the code; what a move is remembered of: the 1,024 peers, and the addresses held": {
        "Timings._deaths", "Timings._offered", "Timings._stands_in", "Timings.taken",
    },
}  # fmt: skip
"""Tables that no host on the LAN makes grow, by what they grow with."""


def tables() -> Iterator[str]:
    """Every container that outlives a call, and every cache, of what reads from the LAN."""
    for room in ("protocol", "wire"):
        for path in sorted((ROOT / "speaker" / room).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ClassDef):
                    yield from (f"{node.name}.{attribute}" for attribute in _containers(node))
                elif isinstance(node, ast.FunctionDef) and "cache" in " ".join(map(ast.unparse, node.decorator_list)):
                    yield node.name


def _containers(of: ast.ClassDef) -> Iterator[str]:
    for node in ast.walk(of):
        if isinstance(node, ast.AnnAssign) and _is_container(node.annotation):
            if isinstance(node.target, ast.Attribute):
                yield node.target.attr
            elif isinstance(node.target, ast.Name) and node in of.body:
                yield node.target.id
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and _is_container(node.value.func):
            yield from (target.attr for target in node.targets if isinstance(target, ast.Attribute))


def _is_container(kind: ast.expr) -> bool:
    return ast.unparse(kind).partition("[")[0] in CONTAINERS


def test_every_table_is_bounded_or_grows_with_what_is_ours() -> None:
    ours = [name for names in OURS.values() for name in names]
    assert sorted(set(tables())) == sorted([*listed(), *ours]), (
        "a table that the LAN can make grow belongs on the security page, with a bound; any other into this test"
    )


@pytest.mark.parametrize(
    "cached",
    [
        subnets.networks_of,
        heartbeat.pack_address,
        heartbeat.unpack_address,
        heartbeat.unpack_families,
        claims.tie_break,
        ipv4.is_hosts,
        ipv6.is_hosts,
    ],
    ids=lambda cached: str(cached.__name__),
)
def test_a_cache_is_as_large_as_the_page_says(cached: object) -> None:
    assert cached.cache_parameters()["maxsize"] == listed()[cached.__name__]  # type: ignore[attr-defined]
