"""The ledger against the plainest of models: a list of who holds what, asked address by address."""

from __future__ import annotations

from itertools import combinations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cluster.addresses import Address, Family, parse_address
from cluster.config import Pool
from cluster.objects import PoolName
from cluster.sharing import Sharer
from controller.allocation.ledger import Ledger
from tests.controller.world import config_of
from tests.oracle.services import Body, may_share

V4 = Family.IPV4
BASE = parse_address("10.0.0.252").value
POOLS = [
    {},
    {"a": "10.0.0.252-10.0.1.3"},
    {"a": {"addresses": ["10.0.1.0-10.0.1.3", "10.0.0.252-10.0.0.255"], "avoidBuggyIPs": True}},
    {"a": "10.0.0.254-10.0.0.255", "b": ["10.0.1.2/31", "10.0.0.252/31", "2001:db8::/32"]},
]
PORTS = st.sets(st.tuples(st.sampled_from(["TCP", "UDP"]), st.sampled_from([80, 443])), min_size=1)
HOLDERS = st.builds(
    lambda service, key, backends, ports: (
        Sharer(service, key, backends, tuple(sorted(ports))) if key else Sharer(service)
    ),
    st.sampled_from(["u", "v", "w", "x"]),
    st.sampled_from(["", "key", "other"]),
    st.sampled_from(["", "app=web"]),
    PORTS,
)
ADDRESSES = st.integers(BASE, BASE + 8).map(lambda value: Address(V4, value))


def in_order(pool: Pool) -> list[Address]:
    """Every IPv4 address that the pool gives out, in its order."""
    addresses = (
        Address(V4, value)
        for block in pool.ranges
        if block.family is V4
        for value in range(block.first, block.last + 1)
    )
    return [each for each in addresses if not (pool.avoid_buggy_ips and each.value % 256 in {0, 255})]


def suits(one: Sharer, other: Sharer) -> bool:
    """Whether the two may have one address, by the oracle."""
    return may_share(_body(one), _body(other))


def _body(sharer: Sharer) -> Body:
    """A Service that shares on these terms."""
    key = {"metallb.io/allow-shared-ip": sharer.sharing_key} if sharer.sharing_key else {}
    policy = {"externalTrafficPolicy": "Local", "selector": {"app": "web"}} if sharer.backends else {}
    ports = [{"protocol": protocol, "port": port} for protocol, port in sharer.ports]
    return {"metadata": {"annotations": key}, "spec": {"ports": ports, **policy}}


class LedgerMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()
        self.pools = config_of({}).pools
        self.held: dict[Address, dict[str, Sharer]] = {}

    @rule(pools=st.sampled_from(POOLS))
    def configure(self, pools: dict[str, object]) -> None:
        self.pools = config_of(pools).pools
        self.ledger.set_pools(self.pools)

    @rule(address=ADDRESSES, holder=HOLDERS)
    def take(self, address: Address, holder: Sharer) -> None:
        """Whether or not the holders agree: the ledger records what it is told."""
        present = self.held.setdefault(address, {})
        changed = bool(present) and present.get(holder.service) != holder
        assert self.ledger.take(address, holder) is changed
        present[holder.service] = holder

    @rule(address=ADDRESSES, service=st.sampled_from(["u", "v", "w", "x"]))
    def give_back(self, address: Address, service: str) -> None:
        present = self.held.get(address, {})
        around = [name for name, pool in self.pools.items() if any(address in block for block in pool.ranges)]
        expected = around[0] if around and service in present else None
        assert self.ledger.give_back(address, service) == expected
        present.pop(service, None)

    @rule(asking=HOLDERS)
    def ask(self, asking: Sharer) -> None:
        for name, pool in self.pools.items():
            candidates = in_order(pool)
            free = [each for each in candidates if not self.held.get(each)]
            assert self.ledger.first_free(name, V4) == (free[0] if free else None)
            shared = [
                each
                for each in candidates
                if (holders := self.held.get(each, {}))
                and all(suits(asking, other) for other in holders.values())
                and all(suits(one, other) for one, other in combinations(holders.values(), 2))
            ]
            assert self.ledger.first_shared(name, V4, asking) == (shared[0] if shared else None)

    @rule(address=ADDRESSES, asking=HOLDERS)
    def conflict(self, address: Address, asking: Sharer) -> None:
        others = [each for each in self.held.get(address, {}).values() if each.service != asking.service]
        in_the_way = [each for each in others if not suits(asking, each)]
        other = self.ledger.conflict(address, asking)
        assert other in in_the_way if in_the_way else other is None

    @invariant()
    def it_counts_and_lists_as_the_model_does(self) -> None:
        for address, holders in self.held.items():
            assert set(self.ledger.having(address)) == set(holders.values())
        for name, pool in self.pools.items():
            addresses = in_order(pool)
            taken = sum(bool(self.held.get(each)) for each in addresses)
            assert self.ledger.counts(name, V4) == (taken, len(addresses) - taken)
            assert [self.ledger.place(name, each) for each in addresses] == sorted(
                place for each in addresses if (place := self.ledger.place(name, each)) is not None
            )


TestLedger = LedgerMachine.TestCase
TestLedger.settings = settings(max_examples=150, stateful_step_count=40)


def test_a_thousand_may_share_one_address_as_long_as_their_ports_differ() -> None:
    ledger = Ledger()
    ledger.set_pools(config_of({"p": "10.0.0.0/30"}).pools)
    address = parse_address("10.0.0.0")
    for number in range(1000):
        sharer = Sharer(f"default/s{number}", "key", "", (("TCP", number + 1),))
        assert ledger.first_shared(PoolName("p"), V4, sharer) == (address if number else None)
        ledger.take(address, sharer)
    new = Sharer("default/new", "key", "", (("TCP", 500),))
    other = ledger.conflict(address, new)
    assert other is not None
    assert new.why_not_with(other) == "default/s499 holds it and uses port 500/TCP too"
    ledger.give_back(address, "default/s499")
    assert ledger.conflict(address, new) is None
