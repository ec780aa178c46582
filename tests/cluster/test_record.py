"""What a Service's condition tells of its addresses: read as it was written, and from no other words."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.addresses import parse_address
from cluster.objects import Condition, PoolName, Service, decode
from cluster.record import recorded
from controller.allocation.outcomes import Reason, Refusal
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
