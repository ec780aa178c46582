"""A difference counts when it has lasted, is told once, and is over when it is not found any more."""

from __future__ import annotations

from cluster.differences import Difference, DifferenceNews, Differences

WAS = Difference("changes", "default/web", "192.0.2.1", "192.0.2.2")
OTHER = Difference("changes", "default/web", "192.0.2.1", "192.0.2.3")
TAKEN = Difference("taken", "default/other", "192.0.2.9", "")


def made() -> Differences:
    return Differences(("changes", "taken"), 5.0)


def test_what_lasts_is_told_once_and_counts() -> None:
    differences = made()
    differences.set("web", WAS, 10.0)
    assert differences.take_news(14.9) == DifferenceNews()
    assert differences.next_deadline() == 15.0
    differences.set("web", WAS, 14.9)  # found again, which is no other difference
    assert differences.take_news(15.0) == DifferenceNews(begun=(WAS,))
    assert differences.take_news(99.0) == DifferenceNews()
    assert differences.counts() == {"changes": 1, "taken": 0}
    assert differences.next_deadline() is None


def test_what_is_over_before_it_lasted_is_never_told() -> None:
    differences = made()
    differences.set("web", WAS, 10.0)
    differences.set("web", None, 12.0)
    assert differences.take_news(99.0) == DifferenceNews()
    assert differences.counts() == {"changes": 0, "taken": 0}


def test_what_is_over_is_told_at_once() -> None:
    differences = made()
    differences.set_all({"web": WAS, "other": TAKEN}, 10.0)
    assert differences.take_news(15.0) == DifferenceNews(begun=(WAS, TAKEN))
    differences.set_all({"other": TAKEN}, 16.0)
    assert differences.take_news(16.0) == DifferenceNews(over=(WAS,))
    assert differences.counts() == {"changes": 0, "taken": 1}


def test_another_difference_about_the_same_takes_the_place_of_the_first_when_it_has_lasted() -> None:
    differences = made()
    differences.set("web", WAS, 10.0)
    assert differences.take_news(15.0).begun == (WAS,)
    differences.set("web", OTHER, 16.0)
    assert differences.take_news(16.0) == DifferenceNews()
    assert differences.take_news(21.0) == DifferenceNews(begun=(OTHER,), over=(WAS,))
    assert differences.counts()["changes"] == 1


def test_what_goes_back_to_what_was_told_is_told_no_second_time() -> None:
    differences = made()
    differences.set("web", WAS, 10.0)
    differences.take_news(15.0)
    differences.set("web", OTHER, 16.0)
    differences.set("web", WAS, 17.0)
    assert differences.take_news(99.0) == DifferenceNews()
    assert differences.counts()["changes"] == 1
