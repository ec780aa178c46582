"""In which order several processes begin the tests."""

from __future__ import annotations

from tests.order import Listed, mixed

GROUPS = {"small": 2, "large": 6}
TESTS = [
    *(Listed(f"computes {n}", f"computes {n}", waits=False) for n in range(20)),
    *(Listed(f"{group} {n}", group, waits=True) for group, count in GROUPS.items() for n in range(count)),
    *(Listed(f"waits {n}", f"waits {n}", waits=True) for n in range(2)),
]


def test_every_test_is_run_and_those_of_a_group_one_after_the_other() -> None:
    order = mixed(TESTS)
    assert sorted(order) == sorted(test.item for test in TESTS)
    for group, count in GROUPS.items():
        first = order.index(f"{group} 0")
        assert order[first : first + count] == [f"{group} {n}" for n in range(count)]


def test_the_largest_group_is_begun_first_and_what_computes_is_spread_between_those_that_wait() -> None:
    order = mixed(TESTS)
    begun = [each for each in order if (not each.startswith("computes") and each[-1] == "0") or each == "waits 1"]
    assert begun == ["large 0", "small 0", "waits 0", "waits 1"]
    assert [order.index(each) for each in begun] == [0, 18, 24, 27], "twelve after the six, four after the two"


def test_where_nothing_waits_or_nothing_computes_the_rest_is_in_order() -> None:
    for waits in (True, False):
        tests = [Listed(n, str(n), waits) for n in range(3)]
        assert mixed(tests) == [0, 1, 2]
    assert mixed([]) == []
