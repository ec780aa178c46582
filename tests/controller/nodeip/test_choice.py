"""Which addresses a Service gets from a pool of nodes, and why a node is left out."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.addresses import Family, parse_address, parse_range
from cluster.drain import DRAIN_ANNOTATION
from cluster.node_pools import AddressSource, NodePool
from cluster.objects import LabelSelector, Node, NodeName
from controller.nodeip.choice import NodeAddresses, NodePoolRefusal, NodeRequest, NodesOfPool, choose
from controller.nodeip.guards import ClusterRanges, PortKey, ServiceProxy
from controller.nodeip.reasons import LeftOut, NodePoolRefusalReason
from tests.controller.nodeip.bodies import ANNOTATION, EXTERNAL, INTERNAL, LABEL, V4, V6, node, pool_of, read_all

HTTP = PortKey("TCP", 80)


def chosen(
    of_pool: NodesOfPool,
    *families: tuple[Family, ...],
    key: str = "uid",
    ports: tuple[PortKey, ...] = (HTTP,),
    local: str | None = None,
    proxy: ServiceProxy = ServiceProxy.NFTABLES,
    listening: str = "",
) -> NodeAddresses | NodePoolRefusal:
    """``local`` and ``listening``: the names of nodes, of one letter each."""
    want = NodeRequest(key, families or ((V4,),), ports, None if local is None else frozenset(map(NodeName, local)))
    listeners = {NodeName(name): frozenset({HTTP}) for name in listening}
    return choose(of_pool, want, proxy=proxy, listeners=listeners)


def addresses(found: NodeAddresses | NodePoolRefusal) -> list[str]:
    assert isinstance(found, NodeAddresses), found
    return [each.text for each in found.addresses]


def left_out(found: NodeAddresses | NodePoolRefusal) -> dict[str, LeftOut]:
    return {str(name): why for name, why in found.left_out.items()}


def reason(found: NodeAddresses | NodePoolRefusal) -> NodePoolRefusalReason:
    assert isinstance(found, NodePoolRefusal), found
    return found.reason


TWO_KINDS = (
    node("a", external="203.0.113.10", internal="10.0.0.1"),
    node("b", internal="10.0.0.2"),
    node("c", external="203.0.113.9", internal="10.0.0.3"),
)


def test_one_source_counts_for_all_nodes_and_the_order_is_numeric() -> None:
    found = chosen(read_all(pool_of(), *TWO_KINDS))
    assert addresses(found) == ["203.0.113.9", "203.0.113.10"]
    assert left_out(found) == {"b": LeftOut.OTHER_SOURCE}


def drained(name: str, **fields: Any) -> Node:
    return node(name, annotations={DRAIN_ANNOTATION: "new disk"}, **fields)


@pytest.mark.parametrize(
    ("nodes", "local", "shown", "without"),
    [
        ((drained("a", external="203.0.113.1"), node("b", external="203.0.113.2")), None, ["203.0.113.2"], "a"),
        ((drained("a", external="203.0.113.1"), drained("b", external="203.0.113.2")), None,
         ["203.0.113.1", "203.0.113.2"], ""),
        ((drained("a", external="203.0.113.1"), node("b", external="203.0.113.2")), "a", ["203.0.113.1"], ""),
        ((drained("a", external="203.0.113.1"), node("b", internal="10.0.0.2")), None, ["203.0.113.1"], ""),
        ((drained("a", external="203.0.113.1"), node("b", external="203.0.113.2", ready="Unknown")), None,
         ["203.0.113.1"], ""),
    ],
    ids=["others can", "all are", "the only one with a pod", "the only one with the source", "the only one ready"],
)  # fmt: skip
def test_a_drained_node_is_left_out_where_others_have_what_the_service_needs(
    nodes: tuple[Node, ...], local: str | None, shown: list[str], without: str
) -> None:
    found = chosen(read_all(pool_of(), *nodes), local=local)
    assert addresses(found) == shown
    assert {name for name, why in left_out(found).items() if why is LeftOut.DRAINED} == set(without)


def test_a_drained_node_gives_the_family_that_no_other_has() -> None:
    both = drained("a", external="203.0.113.1 2001:db8::1"), node("b", external="203.0.113.2")
    assert addresses(chosen(read_all(pool_of(), *both), (V4, V6))) == ["203.0.113.1", "203.0.113.2", "2001:db8::1"]
    assert addresses(chosen(read_all(pool_of(), *both), (V4,))) == ["203.0.113.2"]
    assert addresses(chosen(read_all(pool_of(max_nodes=1), *both), (V4, V6), (V4,))) == ["203.0.113.1", "2001:db8::1"]


def test_mixing_is_explicit() -> None:
    found = chosen(read_all(pool_of(mix=True), *TWO_KINDS))
    assert addresses(found) == ["10.0.0.2", "203.0.113.9", "203.0.113.10"]
    assert left_out(found) == {}


def test_without_any_external_address_internal_ones_count() -> None:
    absences = {"a": LeftOut.JOINING, "c": LeftOut.UNHEARD}
    found = chosen(read_all(pool_of(), *TWO_KINDS, absences=absences))
    assert addresses(found) == ["10.0.0.2"]
    assert left_out(found) == absences


def test_the_source_is_chosen_for_each_family_by_itself() -> None:
    nodes = [node("a", external="203.0.113.1", internal="10.0.0.1 fd00::2"), node("b", internal="10.0.0.2 fd00::1")]
    found = chosen(read_all(pool_of(), *nodes), (V6, V4))
    assert addresses(found) == ["fd00::1", "fd00::2", "203.0.113.1"]
    assert left_out(found) == {}


@pytest.mark.parametrize("source", [LABEL, ANNOTATION])
def test_labels_and_annotations_are_sources(source: AddressSource) -> None:
    pool = pool_of(sources=(source,), allowed=(parse_range("203.0.113.0/24"),))
    nodes = [
        node("a", label="203.0.113.1", annotation="203.0.113.1", external="198.51.100.1"),
        node("b", label="198.51.100.2", annotation="198.51.100.2"),
        node("c", label="none", annotation="none"),
        node("d"),
    ]
    found = chosen(read_all(pool, *nodes))
    assert addresses(found) == ["203.0.113.1"]
    assert left_out(found) == {"b": LeftOut.NOT_ALLOWED, "c": LeftOut.UNREADABLE, "d": LeftOut.NO_ADDRESS}


def test_a_node_that_is_not_selected_is_not_named() -> None:
    pool = pool_of(node_selectors=(LabelSelector({"use-as-loadbalancer": "public"}),))
    nodes = [node("a", internal="10.0.0.1", labels={"use-as-loadbalancer": "public"}), node("b", internal="10.0.0.2")]
    found = chosen(read_all(pool, *nodes))
    assert (addresses(found), left_out(found)) == (["10.0.0.1"], {})


DUAL = (node("a", internal="10.0.0.1 fd00::1"), node("b", internal="10.0.0.2"), node("c", internal="fd00::3"))


@pytest.mark.parametrize(
    ("families", "expected", "without"),
    [
        ([(V4,)], ["10.0.0.1", "10.0.0.2"], {"c": LeftOut.NO_ADDRESS}),
        ([(V6,)], ["fd00::1", "fd00::3"], {"b": LeftOut.NO_ADDRESS}),
        ([(V4, V6)], ["10.0.0.1", "10.0.0.2", "fd00::1", "fd00::3"], {}),
        ([(V6, V4)], ["fd00::1", "fd00::3", "10.0.0.1", "10.0.0.2"], {}),
    ],
)
def test_the_order_of_families_is_the_service_s(
    families: list[tuple[Family, ...]], expected: list[str], without: dict[str, LeftOut]
) -> None:
    found = chosen(read_all(pool_of(), *DUAL), *families)
    assert (addresses(found), left_out(found)) == (expected, without)


def test_the_second_best_combination_of_families_is_taken_where_the_best_cannot_be_had() -> None:
    of_pool = read_all(pool_of(families=frozenset({V4})), *DUAL)
    assert addresses(chosen(of_pool, (V6, V4), (V6,), (V4,))) == ["10.0.0.1", "10.0.0.2"]
    assert reason(chosen(of_pool, (V6, V4))) is NodePoolRefusalReason.NO_FAMILY


def test_local_leaves_out_nodes_without_endpoint() -> None:
    of_pool = read_all(pool_of(), *DUAL)
    found = chosen(of_pool, local="b")
    assert addresses(found) == ["10.0.0.2"]
    assert left_out(found) == {"a": LeftOut.NO_ENDPOINT, "c": LeftOut.NO_ENDPOINT}
    assert reason(chosen(of_pool, local="")) is NodePoolRefusalReason.NO_NODE


def test_a_port_in_use_leaves_out_the_node_that_uses_it() -> None:
    of_pool = read_all(pool_of(), *DUAL)
    found = chosen(of_pool, listening="a")
    assert (addresses(found), left_out(found)["a"]) == (["10.0.0.2"], LeftOut.PORT_IN_USE)
    assert reason(chosen(of_pool, listening="abc")) is NodePoolRefusalReason.PORT_IN_USE
    assert addresses(chosen(of_pool, listening="abc", ports=(PortKey("UDP", 80),))) == ["10.0.0.1", "10.0.0.2"]
    allowing = read_all(pool_of(allow_ports=frozenset({80})), *DUAL)
    assert addresses(chosen(allowing, listening="abc")) == ["10.0.0.1", "10.0.0.2"]


def test_a_guarded_port_refuses_the_whole_service_and_is_named() -> None:
    found = chosen(read_all(pool_of(), *DUAL), ports=(HTTP, PortKey("TCP", 22)))
    assert reason(found) is NodePoolRefusalReason.PORT_GUARDED
    assert isinstance(found, NodePoolRefusal)
    assert found.port is not None
    assert (found.port.key.text, found.port.need) == ("22/TCP", "for SSH")


def test_a_proxy_that_does_not_work_refuses_the_service() -> None:
    assert reason(chosen(read_all(pool_of(), *DUAL), proxy=ServiceProxy.IPVS)) is NodePoolRefusalReason.PROXY_IPVS


@pytest.mark.parametrize(
    ("pool", "nodes", "why"),
    [
        (pool_of(), (), NodePoolRefusalReason.NO_NODE),
        (pool_of(), (node("a", internal="10.0.0.1", ready="False"),), NodePoolRefusalReason.NO_NODE),
        (pool_of(), (node("a"),), NodePoolRefusalReason.NO_FAMILY),
        (pool_of(), (node("a", internal="fd00::1"),), NodePoolRefusalReason.NO_FAMILY),
        (pool_of(), (node("a", internal="127.0.0.1"),), NodePoolRefusalReason.ADDRESS_NOT_ALLOWED),
        (
            pool_of(allowed=(parse_range("10.1.0.0/16"),)),
            (node("a", internal="10.0.0.1"), node("b", ready="False")),
            NodePoolRefusalReason.ADDRESS_NOT_ALLOWED,
        ),
    ],
)
def test_a_pool_that_has_nothing_says_why(pool: NodePool, nodes: tuple[Node, ...], why: NodePoolRefusalReason) -> None:
    found = chosen(read_all(pool, *nodes))
    assert reason(found) is why
    assert left_out(found).keys() == {each.metadata.name for each in nodes}


def members(found: NodeAddresses | NodePoolRefusal) -> frozenset[NodeName]:
    assert isinstance(found, NodeAddresses), found
    return found.nodes


def test_of_many_nodes_each_service_gets_its_own_few_and_a_node_s_coming_moves_its_share() -> None:
    pool = pool_of(max_nodes=3)
    ten = [node(f"n{at}", internal=f"10.0.0.{at + 1}") for at in range(10)]
    before, after = read_all(pool, *ten[:-1]), read_all(pool, *reversed(ten))
    moved, load = 0, dict[str, int]()
    for at in range(1000):
        old, new = members(chosen(before, key=f"s{at}")), members(chosen(after, key=f"s{at}"))
        assert len(old) == len(new) == 3
        assert new - old <= {"n9"}
        moved += new != old
        for name in new:
            load[name] = load.get(name, 0) + 1
    assert 200 < moved < 400  # 300 is its share: 3 places of 10 nodes
    assert all(200 < load[each.metadata.name] < 400 for each in ten)
    beyond = chosen(after, key="s0")
    assert set(left_out(beyond).values()) == {LeftOut.BEYOND_MAX}
    assert len(left_out(beyond)) == 7


def limited(max_nodes: int, *nodes: Node) -> NodesOfPool:
    return read_all(pool_of(max_nodes=max_nodes), *nodes)


def test_of_few_nodes_each_family_has_one() -> None:
    fours = [node(f"f{at}", internal=f"10.0.0.{at + 1}") for at in range(5)]
    sixes = [node(f"s{at}", internal=f"fd00::{at + 1}") for at in range(5)]
    both = node("both", internal="10.0.1.1 fd00::1:1")
    for at in range(50):
        key = f"s{at}"
        found = chosen(limited(2, *fours, sixes[0]), (V4, V6), key=key)
        assert len(members(found)) == 2
        assert addresses(found)[1] == "fd00::1"
        more = chosen(limited(2, *fours, *sixes), (V4, V6), key=key)
        assert {each.family for each in more.addresses} == {V4, V6} if isinstance(more, NodeAddresses) else False
        assert members(chosen(limited(1, *fours, *sixes, both), (V4, V6), key=key)) == {"both"}
    assert reason(chosen(limited(1, *fours, *sixes), (V4, V6))) is NodePoolRefusalReason.NO_FAMILY
    assert len(members(chosen(limited(1, *fours, *sixes), (V4, V6), (V4,)))) == 1


def test_all_addresses_of_the_source_count() -> None:
    of_pool = read_all(pool_of(), node("a", external="203.0.113.2 203.0.113.1 127.0.0.1", internal="10.0.0.1"))
    assert addresses(chosen(of_pool)) == ["203.0.113.1", "203.0.113.2"]
    assert of_pool.sources == {V4: EXTERNAL}
    assert INTERNAL in of_pool.pool.sources


# ------------------------------------------------------------------------ behind 1:1 NAT


def deliveries(of_pool: NodesOfPool) -> dict[str, tuple[str, list[str], LeftOut | None]]:
    return {
        address.text: (str(each.node), [to.text for to in each.addresses], each.refused)
        for address, each in of_pool.delivered.items()
    }


def nat(**fields: Any) -> NodePool:
    return pool_of(sources=(EXTERNAL,), delivered=(LABEL, INTERNAL), **fields)


def test_each_address_is_delivered_to_what_its_node_names_first_and_of_its_own_family() -> None:
    of_pool = read_all(
        nat(),
        node("a", external="203.0.113.1 2001:db8::1", internal="10.0.0.1 10.0.1.1", label="10.9.0.1"),
        node("b", external="203.0.113.2 2001:db8::2", internal="10.0.0.2 10.0.1.2 fd00::2"),
    )
    assert deliveries(of_pool) == {
        "203.0.113.1": ("a", ["10.9.0.1"], None),
        "203.0.113.2": ("b", ["10.0.0.2", "10.0.1.2"], None),
        "2001:db8::2": ("b", ["fd00::2"], None),
    }


def test_nothing_is_delivered_where_both_addresses_are_equal_or_the_pool_names_no_nat() -> None:
    same = node("a", external="203.0.113.1", internal="203.0.113.1")
    assert deliveries(read_all(nat(), same)) == {}
    other = node("a", external="203.0.113.1", internal="10.0.0.1")
    assert deliveries(read_all(pool_of(sources=(EXTERNAL,)), other)) == {}


def test_a_node_that_is_not_shown_at_present_keeps_its_delivery_and_one_that_is_not_selected_has_none() -> None:
    pool = nat(node_selectors=(LabelSelector({"edge": "yes"}),))
    away = node("a", external="203.0.113.1", internal="10.0.0.1", labels={"edge": "yes"}, ready="Unknown")
    foreign = node("b", external="203.0.113.2", internal="10.0.0.2")
    assert deliveries(read_all(pool, away, foreign)) == {"203.0.113.1": ("a", ["10.0.0.1"], None)}


@pytest.mark.parametrize(
    ("label", "why"),
    [
        ("127.0.0.1", LeftOut.UNREACHABLE_ADDRESS),
        ("10.96.0.1", LeftOut.SERVICE_RANGE),
        ("10.244.0.1", LeftOut.POD_RANGE),
        ("10.0.0.2", LeftOut.ANOTHER_NODES),
        ("10.0.0.3", LeftOut.ANOTHER_NODES),
        ("203.0.113.2", LeftOut.ANOTHER_NODES),
        ("192.168.0.1", LeftOut.NOT_ALLOWED),
    ],
)
def test_the_guards_judge_what_is_delivered_too(label: str, why: LeftOut) -> None:
    """b has 10.0.0.2 in its status, c writes the same as a."""
    ranges = ClusterRanges((parse_range("10.96.0.0/12"),), (parse_range("10.244.0.0/16"),))
    allowed = tuple(parse_range(each) for each in ("203.0.113.0/24", "10.0.0.0/8"))
    pool = pool_of(sources=(EXTERNAL,), delivered=(LABEL,), allowed=allowed)
    of_pool = read_all(
        pool,
        node("a", external="203.0.113.1", label=label),
        node("b", external="203.0.113.2", internal="10.0.0.2"),
        node("c", external="203.0.113.3", label="10.0.0.3"),
        ranges=ranges,
    )
    assert deliveries(of_pool)["203.0.113.1"] == ("a", [], why)
    assert of_pool.shown[NodeName("a")] == {V4: (parse_address("203.0.113.1"),)}
