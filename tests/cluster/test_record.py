"""What a Service's condition tells of its addresses: read as it was written, and from no other words."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.addresses import Address, parse_address
from cluster.objects import Condition, NodeName, PoolName, Service, decode
from cluster.record import RECORD_LIMIT, recorded, recorded_pool
from controller.allocation.outcomes import Reason, Refusal
from controller.nodeip.reasons import LeftOut
from controller.services.contest import Contest
from controller.services.judgement import Judgement, condition

ADDRESSES = st.lists(
    (st.ip_addresses(v=4) | st.ip_addresses(v=6)).map(lambda each: parse_address(str(each))),
    min_size=1,
    max_size=2,
    unique=True,
).map(tuple)
REFUSALS = st.none() | st.builds(Refusal, st.just(Reason.ADDRESS_IN_USE), st.text(max_size=20))


def saying(said: Condition) -> Service:
    status = {"conditions": [msgspec.to_builtins(said)]}
    return decode(msgspec.json.encode({"metadata": {"name": "web"}, "status": status}), Service)


@given(ADDRESSES, st.sampled_from(["lan", "", 'x from pool "']), REFUSALS, REFUSALS, REFUSALS)
def test_a_condition_that_says_assigned_is_read_as_it_was_written(
    addresses: tuple[object, ...], pool: str, refusal: Refusal | None, lacking: Refusal | None, remark: Refusal | None
) -> None:
    judgement = Judgement(addresses, PoolName(pool), refusal, lacking, remark=remark)  # type: ignore[arg-type]
    assert recorded(saying(condition(judgement))) == addresses


@given(ADDRESSES, st.booleans(), st.none() | st.text(max_size=20) | st.just("; 10.9.9.9 stays reserved for it"))
def test_a_condition_that_says_contested_is_read_as_it_was_written(
    addresses: tuple[object, ...], written: bool, rival: str | None
) -> None:
    message = Contest(rival=rival).refusal(addresses, written=written).message  # type: ignore[arg-type]
    assert recorded(saying(Condition("berthlb.io/AddressAssigned", "False", "Contested", message))) == addresses


@pytest.mark.parametrize(
    "message",
    [
        "",
        "10.0.0.1 is in no pool",
        'pool "a" has no free IPv4 address (1 of 1 in use)',
        '10.0.0.1 belongs to pool "a", and the Service asks for pool "b"',
        'no address; 10.0.0.1 from pool "a"',
        '10.0.0.1.1 from pool "a"',
        Contest(rival="k3s").refusal((), written=False).message,
    ],
)
def test_other_words_say_that_it_has_none(message: str) -> None:
    assert recorded(saying(Condition("berthlb.io/AddressAssigned", "False", "NoPool", message))) == ()


def test_without_the_condition_nothing_is_said() -> None:
    assert recorded(saying(Condition("example.com/AddressAssigned", "True", "", '10.0.0.1 from pool "a"'))) is None


def of_nodes(count: int) -> tuple[Address, ...]:
    """The longest that there are."""
    texts = [f"203.0.{113 + n // 100}.{100 + n % 100}" for n in range(count)]
    texts += [f"2001:db8:1111:2222:3333:4444:5555:{0x1000 + n:x}" for n in range(count)]
    return tuple(parse_address(text) for text in texts)


@pytest.mark.parametrize("count", [1, 50, 400])
def test_the_addresses_of_many_nodes_are_recorded_whole_whatever_else_there_is_to_say(count: int) -> None:
    much = Refusal(Reason.PORT_IN_USE, "x" * 5000)
    left_out = {NodeName(f"a-node-with-a-long-name-{n}"): LeftOut.NOT_READY for n in range(1000)}
    for judgement in (
        Judgement(of_nodes(count), PoolName("nodes")),
        Judgement(of_nodes(count), PoolName("nodes"), much, left_out=left_out, unread="y" * 300),
    ):
        said = condition(judgement)
        assert recorded(saying(said)) == of_nodes(count)
        assert recorded_pool(saying(said)) == "nodes"
        assert len(said.message) < 32_768
    message = Contest(rival="k3s").refusal(of_nodes(count), written=False).message
    assert recorded(saying(Condition("berthlb.io/AddressAssigned", "False", "Contested", message))) == of_nodes(count)


def test_more_than_can_be_recorded_are_counted_and_then_the_status_says_which() -> None:
    said = condition(Judgement(of_nodes(600), PoolName("nodes")))
    assert said.message == '1200 addresses from pool "nodes"'
    assert (recorded(saying(said)), recorded_pool(saying(said))) == (None, "nodes")
    message = Contest(rival="k3s").refusal(of_nodes(600), written=False).message
    assert len(message) < RECORD_LIMIT
    assert recorded(saying(Condition("berthlb.io/AddressAssigned", "False", "Contested", message))) is None


def test_a_condition_without_addresses_names_no_pool() -> None:
    said = Condition("berthlb.io/AddressAssigned", "False", "PortInUse", 'pool "nodes" has no node with 80/TCP free')
    assert (recorded(saying(said)), recorded_pool(saying(said))) == ((), "")
