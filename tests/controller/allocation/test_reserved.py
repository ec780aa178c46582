"""Addresses that the cluster uses itself: no Service gets one, what a Service has it keeps, the rest works."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.addresses import Address, Family, Range, RangeMap, parse_address, parse_range
from cluster.objects import PoolName
from cluster.sharing import Sharer
from controller.allocation.ledger import Ledger
from controller.allocation.reserved import Reservations, Reserved, Use
from tests.controller.world import World, config_of

LAN = "192.168.1.0/24"
POOL = PoolName("p")


@pytest.fixture
def world() -> World:
    world = World({"p": LAN})
    world.start()
    return world


def ledger_with(span: str, *reserved: str) -> Ledger:
    """A ledger with one pool, of which these ranges are reserved."""
    index: RangeMap[Reserved] = RangeMap()
    for text in reserved:
        index.add(parse_range(text), Reserved(Use.PODS, "n", text))
    ledger = Ledger()
    ledger.set_pools(config_of({"p": span}).pools, index)
    return ledger


# -------------------------------------------------------------------- what is reserved


def test_every_address_of_a_node_is_and_a_host_name_is_none() -> None:
    world = World({"p": [LAN, "2001:db8::/120"]})
    world.node("n1", "192.168.1.0", "n1.example.com", "::ffff:192.168.1.1", "2001:db8::")
    world.start()
    world.put("v4")
    world.put("v6", clusterIP="fd00::1", clusterIPs=["fd00::1"])
    world.settle()
    assert (world.ip("v4"), world.ip("v6")) == ("192.168.1.2", "2001:db8::1")


def test_the_address_that_every_router_of_a_nodes_subnet_answers_for_is() -> None:
    """RFC 4291 §2.6.1. A node forwards, so its kernel answers for the prefix with nothing behind it."""
    world = World({"p": ["2001:db8::/120", "2001:db8:0:1::/120"]})
    world.node("n1", "192.168.1.1", "2001:db8::b", "fe80::b")
    world.start()
    world.put("asks", clusterIP="fd00::1", clusterIPs=["fd00::1"], loadBalancerIP="2001:db8::")
    world.put("first", clusterIP="fd00::2", clusterIPs=["fd00::2"])
    world.put("off-link", clusterIP="fd00::3", clusterIPs=["fd00::3"], loadBalancerIP="2001:db8:0:1::")
    world.settle()
    assert world.condition("asks")[:2] == ("False", "AddressReserved")
    assert world.condition("asks")[2].startswith(
        '2001:db8:: is the Subnet-Router anycast address of node "n1" (2001:db8::b); use an address of its subnet'
    )
    assert (world.ip("first"), world.ip("off-link")) == ("2001:db8::1", "2001:db8:0:1::")


def test_the_ranges_of_services_and_pods_are(world: World) -> None:
    world.service_range("kubernetes", "192.168.1.0/28", "not a range")
    world.node("n1", pods=("192.168.1.16/28", "2001:db8:1::/64"))
    world.put("web")
    world.settle()
    assert world.ip("web") == "192.168.1.32"


def test_what_two_contain_is_named_after_the_more_telling_one() -> None:
    reservations = Reservations()
    world = World()
    world.reservations = reservations
    world.node("n1", pods=("10.0.0.0/24",))
    world.service_range("kubernetes", "10.0.0.0/25")
    world.node("n2", "10.0.0.7", pods=("10.0.0.128/25",))
    reserved = world.controller.ledger.withheld
    texts = {text: found.text for text in ("10.0.0.7", "10.0.0.8", "10.0.0.200") if (found := reserved(address(text)))}
    assert texts == {
        "10.0.0.7": 'an address of node "n2"',
        "10.0.0.8": 'in the Service range 10.0.0.0/25 (ServiceCIDR "kubernetes")',
        "10.0.0.200": 'in the Pod range 10.0.0.0/24 of node "n1"',
    }
    assert reserved(address("10.0.1.0")) is None


def address(text: str) -> Address:
    return parse_address(text)


def test_news_of_a_node_that_change_no_address_change_nothing(world: World) -> None:
    world.node("n1", "192.168.1.1")
    before = world.reservations.ranges
    world.node("n1", "192.168.1.1")
    assert world.reservations.ranges is before


# -------------------------------------------------------------------- what Services see


def test_a_pool_on_the_nodes_own_network_gives_out_the_rest(world: World) -> None:
    for number in range(3):
        world.node(f"n{number}", f"192.168.1.{number}")
    world.put("web")
    world.settle()
    assert world.ip("web") == "192.168.1.3"
    assert world.controller.ledger.counts(POOL, Family.IPV4) == (1, 256 - 3 - 1)


def test_a_node_address_that_is_asked_for_is_refused_with_what_to_use_instead(world: World) -> None:
    world.node("n1", "192.168.1.5", "10.9.9.9")
    world.put("web", annotations={"metallb.io/loadBalancerIPs": "192.168.1.5"})
    world.put("outside", loadBalancerIP="10.9.9.9")
    world.settle()
    advice = "use an address of its subnet that nothing has and DHCP does not give out, or the type NodePort"
    assert world.condition("web") == (
        "False",
        "AddressReserved",
        f'192.168.1.5 is an address of node "n1"; {advice}',
    )
    assert world.condition("outside")[2].startswith('10.9.9.9 is an address of node "n1"')
    world.node("n1", "192.168.1.6")
    world.settle()
    assert world.ip("web") == "192.168.1.5"


def test_a_pool_of_nothing_but_the_nodes_own_address_says_what_to_use_instead() -> None:
    world = World({"p": "192.168.1.5/32"})
    world.node("only", "192.168.1.5")
    world.start()
    world.put("web")
    world.settle()
    status, reason, message = world.condition("web")
    assert (status, reason) == ("False", "AddressReserved")
    assert message.startswith('pool "p" has no free IPv4 address (0 of 1 in use) and does not give out 192.168.1.5, ')
    assert "NodePort" in message


def test_a_full_pool_tells_of_what_it_does_not_give_out() -> None:
    world = World({"p": "192.168.1.4/30"})
    world.node("n1", "192.168.1.5")
    world.node("n2", pods=("192.168.1.6/31",))
    world.start()
    world.put("first")
    world.put("second")
    world.settle()
    assert world.ip("first") == "192.168.1.4"
    status, reason, message = world.condition("second")
    assert (status, reason) == ("False", "PoolExhausted")
    assert "has no free IPv4 address (1 of 4 in use) and does not give out 192.168.1.5" in message
    assert "and 1 more" in message


def test_an_address_that_a_node_gets_is_kept_by_the_service_and_reported(world: World) -> None:
    world.put("web")
    world.settle()
    world.take_events()
    world.node("n1", "192.168.1.0")
    world.settle()
    assert world.ip("web") == "192.168.1.0"
    assert world.condition("web") == (
        "True",
        "AddressReserved",
        '192.168.1.0 from pool "p", which it keeps although 192.168.1.0 is an address of node "n1"',
    )
    assert world.take_events() == []
    assert world.controller.ledger.counts(POOL, Family.IPV4) == (1, 255)


def test_a_kept_address_survives_a_restart_and_is_given_to_nobody_after_its_end(world: World) -> None:
    world.put("web")
    world.settle()
    world.node("n1", "192.168.1.0")
    world.settle()
    world.take_writes()
    world.start()
    world.settle()
    assert (world.ip("web"), world.take_writes()) == ("192.168.1.0", [])
    world.delete("web")
    world.put("next")
    world.settle()
    assert world.ip("next") == "192.168.1.1"
    assert world.controller.ledger.counts(POOL, Family.IPV4) == (1, 254)


def test_a_kept_address_is_shared_with_nobody_new(world: World) -> None:
    sharing = {"metallb.io/allow-shared-ip": "k"}
    world.put("one", annotations=sharing, ports=[{"port": 80}])
    world.settle()
    world.node("n1", "192.168.1.0")
    world.put("two", annotations=sharing, ports=[{"port": 81}])
    world.settle()
    assert (world.ip("one"), world.ip("two")) == ("192.168.1.0", "192.168.1.1")


def test_who_waits_is_served_when_the_node_goes() -> None:
    world = World({"p": "192.168.1.5/32"})
    world.node("n1", "192.168.1.5")
    world.start()
    world.put("web")
    world.settle()
    assert world.ip("web") == ""
    world.node("n1")
    world.settle()
    assert world.ip("web") == "192.168.1.5"


def test_a_node_elsewhere_has_nobody_judged_anew(world: World) -> None:
    world.put("web")
    world.settle()
    world.take_writes()
    world.node("n1", "10.1.2.3")
    world.decide()
    assert (world.pending, world.take_writes()) == ([], [])


# -------------------------------------------------------------------- the ledger


def test_half_of_a_64_is_reserved_as_one_interval() -> None:
    ledger = ledger_with("2001:db8::/64", "2001:db8::/65")
    assert ledger.first_free(POOL, Family.IPV6) == parse_address("2001:db8:0:0:8000::")
    assert ledger.counts(POOL, Family.IPV6) == (0, 2**63)
    ledger = ledger_with("2001:db8::/64", "2001:db8::/66", "2001:db8:0:0:4000::/66")
    assert ledger.counts(POOL, Family.IPV6) == (0, 2**63)


SPAN = st.tuples(st.integers(0, 40), st.integers(0, 9))


@given(
    reservations=st.lists(st.lists(SPAN, max_size=4), min_size=1, max_size=4),
    avoid=st.booleans(),
    steps=st.lists(
        st.tuples(st.sampled_from(["take", "give back", "last", "not last"]), st.integers(0, 39)), max_size=30
    ),
)
def test_counts_and_choice_equal_a_recount_whatever_is_reserved_when(
    reservations: list[list[tuple[int, int]]], avoid: bool, steps: list[tuple[str, int]]
) -> None:
    base = parse_address("10.0.0.250").value
    addresses = ["10.0.0.250-10.0.1.9", "10.0.1.15-10.0.1.33"]
    pools = config_of({"p": {"addresses": addresses, "avoidBuggyIPs": avoid}}).pools
    ledger = Ledger()
    held: set[Address] = set()
    last: set[Address] = set()
    for spans in reservations:
        index: RangeMap[Reserved] = RangeMap()
        for first, extent in spans:
            for piece in index.gaps(Range(Family.IPV4, base + first, base + first + extent)):
                index.add(piece, Reserved(Use.PODS, "n", ""))
        ledger.set_pools(pools, index)
        for step, offset in steps:
            one = Address(Family.IPV4, base + offset)
            if step == "take" and one not in held:
                ledger.take(one, Sharer("a/b"))
                held.add(one)
            elif step == "give back" and one in held:
                ledger.give_back(one, "a/b")
                held.discard(one)
            elif "last" in step:
                ledger.give_last(one, last=step == "last")
                last = last | {one} if step == "last" else last - {one}
        given = [each for each in (Address(Family.IPV4, base + n) for n in range(40)) if each in pools[POOL]]
        free = [each for each in given if each not in held and index.find(each) is None]
        free.sort(key=lambda each: (each in last, each))
        assert ledger.counts(POOL, Family.IPV4) == (len([each for each in given if each in held]), len(free))
        assert ledger.first_free(POOL, Family.IPV4) == (free[0] if free else None)


TEXTS = st.lists(st.tuples(st.sampled_from(["n1", "n2", "n3"]), st.integers(0, 31), st.integers(26, 32)), max_size=8)


@given(nodes=TEXTS, pods=TEXTS, services=TEXTS)
def test_an_address_is_reserved_when_some_source_has_it_and_named_after_the_most_telling(
    nodes: list[tuple[str, int, int]], pods: list[tuple[str, int, int]], services: list[tuple[str, int, int]]
) -> None:
    world = World()
    for name in ("n1", "n2", "n3"):
        addresses = [f"10.0.0.{offset}" for owner, offset, _ in nodes if owner == name]
        cidrs = tuple(f"10.0.0.{offset}/{length}" for owner, offset, length in pods if owner == name)
        world.node(name, *addresses, pods=cidrs)
    for number, (_, offset, length) in enumerate(services):
        world.service_range(f"s{number}", f"10.0.0.{offset}/{length}")

    def contains(sources: list[tuple[str, int, int]], at: Address) -> bool:
        return any(at in parse_range(f"10.0.0.{offset}/{length}") for _, offset, length in sources)

    for value in range(64):
        one = parse_address(f"10.0.0.{value}")
        expected = (
            Use.NODE
            if value in {offset for _, offset, _ in nodes}
            else Use.SERVICES
            if contains(services, one)
            else Use.PODS
            if contains(pods, one)
            else None
        )
        found = world.controller.ledger.withheld(one)
        assert (found.use if found else None) is expected
