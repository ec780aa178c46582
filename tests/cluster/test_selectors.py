"""Label selectors: Kubernetes' own semantics, and what it would not accept."""

from __future__ import annotations

import pytest

from cluster.objects import LabelSelector, LabelSelectorRequirement
from cluster.selectors import SelectorError, check, check_list, matches, matches_any

LABELS = {"app": "web", "tier": "front"}


def expression(key: str, operator: str, *values: str) -> LabelSelector:
    return LabelSelector(match_expressions=(LabelSelectorRequirement(key, operator, values),))


@pytest.mark.parametrize(
    ("selector", "selected"),
    [
        (LabelSelector(), True),
        (LabelSelector(match_labels={"app": "web"}), True),
        (LabelSelector(match_labels={"app": "web", "tier": "back"}), False),
        (LabelSelector(match_labels={"missing": ""}), False),
        (expression("app", "In", "web", "api"), True),
        (expression("app", "In", "api"), False),
        (expression("missing", "In", "api"), False),
        (expression("app", "NotIn", "api"), True),
        (expression("app", "NotIn", "web"), False),
        (expression("missing", "NotIn", "web"), True),
        (expression("app", "Exists"), True),
        (expression("missing", "Exists"), False),
        (expression("app", "DoesNotExist"), False),
        (expression("missing", "DoesNotExist"), True),
    ],
)
def test_selectors_match_as_in_kubernetes(selector: LabelSelector, selected: bool) -> None:
    check(selector)
    assert matches(selector, LABELS) is selected
    assert matches_any((expression("app", "In", "nothing"), selector), LABELS) is selected


def test_none_of_no_selectors_matches() -> None:
    assert not matches_any((), LABELS)


@pytest.mark.parametrize(
    ("selector", "where", "reason"),
    [
        (expression("app", "in", "web"), "matchExpressions[0].operator", "none of In, NotIn"),
        (expression("app", "In"), "matchExpressions[0].values", "needs a value"),
        (expression("app", "Exists", "web"), "matchExpressions[0].values", "must be empty"),
        (expression("app", "In", "web", "web"), "matchExpressions[0].values[1]", 'repeats "web"'),
        (expression("-app", "Exists"), "matchExpressions[0].key", "not a label key"),
        (expression("Example.com/app", "Exists"), "matchExpressions[0].key", "DNS subdomain"),
        (expression("app", "In", "a b"), "matchExpressions[0].values[0]", "not a label value"),
        (LabelSelector(match_labels={"app": "x" * 64}), "matchLabels[app]", "not a label value"),
    ],
)
def test_a_malformed_selector_is_refused_at_its_place(selector: LabelSelector, where: str, reason: str) -> None:
    with pytest.raises(SelectorError, match=reason) as refused:
        check(selector)
    assert refused.value.where == where


def test_a_selector_said_twice_is_refused_whatever_its_order() -> None:
    one = expression("app", "In", "a", "b")
    same = expression("app", "In", "b", "a")
    with pytest.raises(SelectorError, match=r"repeats the selector of \[0\]") as refused:
        check_list((one, same))
    assert refused.value.where == "[1]"
