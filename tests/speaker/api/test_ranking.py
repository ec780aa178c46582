"""How well nodes suit a bundle: tables, and that the hash spreads evenly and moves little."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from hashlib import sha256
from types import EllipsisType

import pytest
from msgspec.structs import replace

from cluster.config import FAILBACK_ANNOTATION
from cluster.drain import DRAIN_ANNOTATION, drained_by
from cluster.nodes import EXCLUDE_LABEL, OUT_OF_SERVICE_TAINT
from cluster.objects import (
    AddressText,
    L2Advertisement,
    L2AdvertisementSpec,
    LabelSelector,
    Node,
    NodeName,
    NodeSpec,
    ObjectMeta,
    PreferredNodeSelector,
    Taint,
)
from speaker.api.ranking import NodeFacts, Ranking, Rendezvous, Requirement
from speaker.plan import DRAINED_TIER, BundleId
from tests.speaker.api.objects import a_config, a_node, an_advertisement

A, B, C = (NodeName(f"node-{letter}") for letter in "abc")
BUNDLE = BundleId("uid-web")
ADDRESS = AddressText("192.0.2.1")
GOLD = LabelSelector(match_labels={"tier": "gold"})


def facts(node: Node, *, ignore_exclude: bool = False) -> NodeFacts:
    return NodeFacts.of(node, ignore_exclude=ignore_exclude, drain_cordoned=False)


def ranking(nodes: Mapping[NodeName, Node], **advertisements: L2AdvertisementSpec) -> Ranking:
    found = Ranking(A)
    found.set_config(a_config(*(an_advertisement(name, spec) for name, spec in advertisements.items())))
    for name, node in nodes.items():
        found.set_node(name, facts(node))
    return found


def tiers(found: Ranking, *requirements: Requirement) -> list[tuple[int, int, set[NodeName]]]:
    """Tier, preference and nodes, best first."""
    levels: list[tuple[int, int, set[NodeName]]] = []
    for each in found.rank(BUNDLE, requirements, ADDRESS):
        if not levels or levels[-1][:2] != (each.tier, each.preference):
            levels.append((each.tier, each.preference, set()))
        levels[-1][2].add(each.node)
    return levels


ANYWHERE = Requirement(frozenset({"all"}), None)


@pytest.mark.parametrize(
    ("node", "permitted", "connected", "tier"),
    [
        (a_node("n"), True, True, 0),
        (a_node("n", ready=False), True, True, 1),
        (a_node("n", network_unavailable=True), True, False, 0),
        (a_node("n", labels={EXCLUDE_LABEL: ""}), False, True, 0),
        (a_node("n", taints=(Taint(OUT_OF_SERVICE_TAINT),)), True, True, 2),
        (a_node("n", ready=False, taints=(Taint(OUT_OF_SERVICE_TAINT),)), True, True, 2),
        (a_node("n", taints=(Taint("other"),)), True, True, 0),
        (Node(ObjectMeta(name="n")), True, True, 1),
    ],
    ids=[
        "ready",
        "not ready",
        "no network",
        "excluded",
        "out of service",
        "out of service, and not ready",
        "another taint",
        "nothing is known of it",
    ],
)
def test_what_matters_about_a_node(node: Node, permitted: bool, connected: bool, tier: int) -> None:
    assert (facts(node).permitted, facts(node).connected, facts(node).tier) == (permitted, connected, tier)
    assert facts(node, ignore_exclude=True).permitted is True


def annotated(node: Node, **annotations: str) -> Node:
    return replace(node, metadata=replace(node.metadata, annotations=annotations))


@pytest.mark.parametrize(
    ("node", "why", "why_with_cordon"),
    [
        (a_node("n"), "", ""),
        (annotated(a_node("n"), **{DRAIN_ANNOTATION: "new disk"}), "annotation berthlb.io/drain: new disk", ...),
        (annotated(a_node("n"), **{DRAIN_ANNOTATION: ""}), "annotation berthlb.io/drain", ...),
        (a_node("n", taints=(Taint(OUT_OF_SERVICE_TAINT),)), "taint node.kubernetes.io/out-of-service", ...),
        (Node(ObjectMeta(name="n"), NodeSpec(unschedulable=True)), "", "cordoned"),
    ],
    ids=["in use", "annotated", "annotated without a reason", "out of service", "cordoned"],
)
def test_why_a_node_is_drained(node: Node, why: str, why_with_cordon: str | EllipsisType) -> None:
    with_cordon = why if isinstance(why_with_cordon, EllipsisType) else why_with_cordon
    assert (drained_by(node, cordon=False), drained_by(node, cordon=True)) == (why, with_cordon)
    for cordon in (False, True):
        tier = NodeFacts.of(node, ignore_exclude=False, drain_cordoned=cordon).tier
        assert (tier == DRAINED_TIER) is bool(drained_by(node, cordon=cordon))


THREE = {A: a_node(A, labels={"tier": "gold"}), B: a_node(B), C: a_node(C, ready=False, labels={"tier": "gold"})}


@pytest.mark.parametrize(
    ("advertisements", "requirements", "levels"),
    [
        ({"all": L2AdvertisementSpec()}, [ANYWHERE], [(0, 0, {A, B}), (1, 0, {C})]),
        ({"all": L2AdvertisementSpec(node_selectors=(GOLD,))}, [ANYWHERE], [(0, 0, {A}), (1, 0, {C})]),
        (
            {"all": L2AdvertisementSpec(preferred_node_selectors=(PreferredNodeSelector(5, GOLD),))},
            [ANYWHERE],
            [(0, 5, {A}), (0, 0, {B}), (1, 5, {C})],
        ),
        (
            {
                "all": L2AdvertisementSpec(preferred_node_selectors=(PreferredNodeSelector(5, GOLD),)),
                "more": L2AdvertisementSpec(preferred_node_selectors=(PreferredNodeSelector(2, GOLD),)),
            },
            [ANYWHERE, Requirement(frozenset({"more"}), None)],
            [(0, 7, {A}), (0, 0, {B}), (1, 7, {C})],
        ),
        (
            {"all": L2AdvertisementSpec()},
            [Requirement(frozenset({"all"}), frozenset({B, C}))],
            [(0, 0, {B}), (1, 0, {C})],
        ),
        (
            {"all": L2AdvertisementSpec()},
            [Requirement(frozenset({"all"}), frozenset({A, B})), Requirement(frozenset({"all"}), frozenset({B}))],
            [(0, 0, {B})],
        ),
        (
            {"all": L2AdvertisementSpec()},
            [Requirement(frozenset({"all"}), frozenset({A})), Requirement(frozenset({"all"}), frozenset({B}))],
            [(0, 0, {A})],
        ),
        ({"all": L2AdvertisementSpec()}, [Requirement(frozenset({"all"}), frozenset())], []),
    ],
    ids=[
        "ready before not ready",
        "selected",
        "by weight within a tier",
        "weights add up over advertisements",
        "where its endpoints are",
        "where the endpoints of both are",
        "of two without a node in common the older is served",
        "nowhere",
    ],
)
def test_the_order_of_nodes(
    advertisements: dict[str, L2AdvertisementSpec],
    requirements: list[Requirement],
    levels: list[tuple[int, int, set[NodeName]]],
) -> None:
    found = ranking(THREE, **advertisements)
    assert tiers(found, *requirements) == levels
    if len(requirements) == 1:
        assert found.possible(requirements[0]) is bool(levels)


@pytest.mark.parametrize(
    ("node", "local", "unfit"),
    [
        (a_node(A, labels={"tier": "gold"}), None, ()),
        (a_node(A, labels={"tier": "gold"}, network_unavailable=True), None, (A,)),
        (a_node(A, labels={"tier": "gold"}), frozenset({B}), (A,)),
        (a_node(A, labels={"tier": "gold", EXCLUDE_LABEL: ""}, network_unavailable=True), None, ()),
        (a_node(A, network_unavailable=True), None, ()),
        (a_node(A, labels={"tier": "gold"}, ready=False), None, ()),
    ],
    ids=["fit", "no network", "no endpoint", "excluded", "not preferred", "a candidate, though not ready"],
)
def test_which_preferred_nodes_are_lacking_by_themselves(
    node: Node, local: frozenset[NodeName] | None, unfit: tuple[NodeName, ...]
) -> None:
    gold = L2AdvertisementSpec(preferred_node_selectors=(PreferredNodeSelector(5, GOLD),))
    found = ranking({A: node, B: a_node(B)}, all=gold)
    assert found.unfit((Requirement(frozenset({"all"}), local),)) == unfit


@pytest.mark.parametrize(
    ("interfaces", "selected", "where"),
    [
        ([("eth1", "eth0")], [()], ("eth0", "eth1")),
        ([("eth1",), ("eth0",)], [(), ()], ("eth0", "eth1")),
        ([("eth1",), ()], [(), ()], ()),
        ([("eth1",), ("eth9",)], [(), (LabelSelector(match_labels={"tier": "none"}),)], ("eth1",)),
    ],
    ids=[
        "those that are named",
        "those of all",
        "everywhere if one names none",
        "those of advertisements for the node",
    ],
)
def test_where_a_node_announces(
    interfaces: list[tuple[str, ...]], selected: list[tuple[LabelSelector, ...]], where: tuple[str, ...]
) -> None:
    specs = {
        f"a{number}": L2AdvertisementSpec(interfaces=names, node_selectors=selectors)
        for number, (names, selectors) in enumerate(zip(interfaces, selected, strict=True))
    }
    found = ranking(THREE, **specs)
    requirement = Requirement(frozenset(specs), None)
    assert found.interfaces((requirement,)) == where
    assert found.rank(BUNDLE, (requirement,), ADDRESS)[0].interfaces == where


def test_a_node_changes_candidates_only_by_what_matters() -> None:
    found = ranking(THREE, all=L2AdvertisementSpec())
    assert not found.set_node(A, facts(a_node(A, labels={"tier": "gold"})))
    assert found.set_node(A, facts(a_node(A, ready=False)))
    assert found.set_node(B, None)
    assert tiers(found, ANYWHERE) == [(1, 0, {A, C})]


# ------------------------------------------------------------------------ the hash


BUNDLES = [BundleId(f"uid-{number}") for number in range(600)]


def order_of(*nodes: NodeName) -> Rendezvous:
    found = Rendezvous()
    for node in nodes:
        found.add(node)
    return found


def test_the_hash_is_everybodys_whatever_the_order_in_which_nodes_came() -> None:
    one, other = order_of(A, B, C), order_of(C, A)
    for bundle in BUNDLES[:20]:
        other.order(bundle)
    other.add(NodeName("gone"))
    other.add(B)
    other.remove(NodeName("gone"))
    assert [list(one.order(each)) for each in BUNDLES] == [list(other.order(each)) for each in BUNDLES]


def test_bundles_are_spread_evenly_and_only_those_of_a_node_that_leaves_move() -> None:
    found = order_of(A, B, C)
    before = {each: found.order(each)[0] for each in BUNDLES}
    assert all(150 < count < 250 for count in Counter(before.values()).values())
    found.remove(B)
    after = {each: found.order(each)[0] for each in BUNDLES}
    assert {each for each in BUNDLES if before[each] != after[each]} == {each for each in BUNDLES if before[each] == B}


def test_a_bundle_that_is_forgotten_is_hashed_anew_all_the_same() -> None:
    found = order_of(A, B, C)
    before = list(found.order(BUNDLE))
    found.forget(BUNDLE)
    found.forget(BundleId("never seen"))
    assert list(found.order(BUNDLE)) == before


# ------------------------------------------------------------------------ failback


WORKERS = {NodeName(name): a_node(name) for name in ("worker-1", "worker-2", "worker-3")}
ELECTED = {"192.0.2.1": "worker-1", "192.0.2.2": "worker-3", "192.0.2.7": "worker-1", "2001:db8::1": "worker-2"}
"""By ``for n in 1 2 3; do printf "worker-$n#192.0.2.1" | sha256sum; done``: the least."""


@pytest.mark.parametrize(("address", "first"), ELECTED.items())
def test_what_goes_back_is_ranked_by_metallbs_election(address: str, first: str) -> None:
    found = Ranking(A, failback=True)
    found.set_config(a_config())
    for name, node in WORKERS.items():
        found.set_node(name, facts(node))
    assert found.rank(BUNDLE, (ANYWHERE,), AddressText(address))[0].node == first
    assert found.failback((ANYWHERE,))
    found.set_node(NodeName(first), None)
    others = [node for node in WORKERS if node != first]
    scores = {node: sha256(f"{node}#{address}".encode()).digest() for node in others}
    assert [each.node for each in found.rank(BUNDLE, (ANYWHERE,), AddressText(address))] == sorted(
        others, key=scores.__getitem__
    )


@pytest.mark.parametrize(
    ("flag", "said", "failback"),
    [
        (False, (None,), False),
        (True, (None,), True),
        (True, ("false",), False),
        (False, ("true",), True),
        (False, ("true", None), True),
        (True, ("false", None), True),
        (True, ("false", "false"), False),
    ],
)
def test_an_advertisement_says_more_than_the_command_line(
    flag: bool, said: tuple[str | None, ...], failback: bool
) -> None:
    found = Ranking(A, failback=flag)
    advertisements = [
        L2Advertisement(
            ObjectMeta(name=f"a{i}", annotations={} if value is None else {FAILBACK_ANNOTATION: value}),
            L2AdvertisementSpec(),
        )
        for i, value in enumerate(said)
    ]
    found.set_config(a_config(*advertisements))
    requirement = Requirement(frozenset(each.metadata.name for each in advertisements), None)
    assert found.failback((requirement,)) is failback


def test_of_what_goes_back_every_node_that_lacks_a_network_is_told() -> None:
    found = Ranking(A, failback=True)
    found.set_config(a_config())
    for name in THREE:
        found.set_node(name, facts(a_node(name, network_unavailable=name == B)))
    assert found.unfit((ANYWHERE,)) == (B,)
