"""A majority of the speakers with a fresh Lease takes a node out, and no less."""

from __future__ import annotations

import pytest

from cluster.objects import NodeName
from cluster.times import NEVER
from controller.nodeip.liveness import FRESH_S, Hearing, next_stale_at, unheard_nodes

NOW = 1000.0


def hearings(says: str, stale: str) -> dict[NodeName, Hearing]:
    """``a:bc d:`` is: the speaker on a does not hear b and c, that on d hears everybody."""
    found = {}
    for each in says.split():
        node, _, unheard = each.partition(":")
        renewed_at = NOW - FRESH_S if node in stale else NOW - 1
        found[NodeName(node)] = Hearing(renewed_at, frozenset(map(NodeName, unheard)))
    return found


@pytest.mark.parametrize(
    ("says", "stale", "unheard"),
    [
        ("a: b: c:", "", ""),
        ("a:c b:c c:", "", "c"),  # c's power is cut, its Lease is fresh yet
        ("a:c b:c c:ab", "", "c"),  # c is cut off, and says the same of the others
        ("a:c b: c:", "", ""),
        ("a:c b:c", "", "c"),
        ("a:b b:a", "", ""),  # of two none is a majority
        ("a:b b:a", "b", "b"),
        ("a:cd b:cd c:ab d:ab", "", ""),  # halves
        ("a:bc b:ac c:ab", "", ""),  # nobody hears anybody: the heartbeats are broken
        ("a:de b:de c:de d:abc e:abc", "", "de"),
        ("a:x b:x c:", "", "x"),  # a node without speaker
        ("a:c b:c c: d: e:", "", ""),
        ("a:c b:c c: d: e:", "de", "c"),
        ("a:a b:a c:", "", ""),  # what a speaker says of its own node does not count
        ("a:c b:c c:", "abc", ""),
        ("", "", ""),
    ],
)
def test_a_majority_takes_a_node_out(says: str, stale: str, unheard: str) -> None:
    assert unheard_nodes(hearings(says, stale), NOW) == set(unheard)


def test_the_verdict_stays_until_a_lease_is_stale() -> None:
    said = {NodeName("a"): Hearing(10.0), NodeName("b"): Hearing(20.0)}
    assert next_stale_at(said, 10.0) == 10.0 + FRESH_S
    assert next_stale_at(said, 10.0 + FRESH_S) == 20.0 + FRESH_S
    assert next_stale_at(said, 20.0 + FRESH_S) == NEVER
