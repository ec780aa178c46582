"""Of two copies of a datagram one counts, and nobody can have another one ignored."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cluster.addresses import Family
from speaker.wire.heartbeats.copies import MOST, DatagramCopies

IPV4, IPV6 = Family
datagrams = st.integers(0, 3).map(lambda n: bytes((n,)))
families = st.sampled_from(Family)


def test_the_copy_by_the_other_family_is_one_once() -> None:
    copies = DatagramCopies()
    assert not copies.take(b"heartbeat", IPV4)
    copies.note(b"heartbeat", IPV4)
    assert not copies.take(b"heartbeat", IPV4), "a replay is none"
    assert not copies.take(b"Heartbeat", IPV6)
    assert copies.take(b"heartbeat", IPV6)
    assert not copies.take(b"heartbeat", IPV6), "the second one is a replay"


@given(arrivals=st.lists(st.tuples(datagrams, families, st.booleans())))
def test_nothing_is_ignored_that_was_not_believed_before(arrivals: list[tuple[bytes, Family, bool]]) -> None:
    """Whatever a stranger sends, believed or not, in between."""
    copies, believed = DatagramCopies(), dict[bytes, set[Family]]()
    for data, family, is_believed in arrivals:
        if copies.take(data, family):
            assert believed.get(data, set()) - {family}
        elif is_believed:
            copies.note(data, family)
            believed.setdefault(data, set()).add(family)


def test_the_memory_is_bounded_and_keeps_the_latest() -> None:
    copies = DatagramCopies()
    for number in range(2 * MOST):
        copies.note(number.to_bytes(2, "big"), IPV6)
    known = [number for number in range(2 * MOST) if copies.take(number.to_bytes(2, "big"), IPV4)]
    assert known == list(range(MOST, 2 * MOST))
