"""Label selectors: whether one is well formed, and whether it matches an object's labels.

The semantics are Kubernetes' own (``metav1.LabelSelector``).

1. An object is selected when it meets every requirement, of ``matchLabels`` and of ``matchExpressions``.
2. An empty selector selects everything.
3. An object without the key meets ``NotIn`` and ``DoesNotExist``.

``check`` refuses what the API server would refuse, and a value that is there twice.

Example: ``matchExpressions: [{key: zone, operator: NotIn, values: [a]}]`` selects an object labelled ``zone: b``, and
one without ``zone``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from cluster.objects import LabelSelector, LabelSelectorRequirement

_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_PREFIX = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


class SelectorError(ValueError):
    """A selector that the API would not accept. ``where`` is the path inside the selector, the message the reason."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(reason)
        self.where = where


def matches(selector: LabelSelector, labels: Mapping[str, str]) -> bool:
    """Whether an object with these labels is selected. The selector must have passed ``check``."""
    for key, value in selector.match_labels.items():
        if labels.get(key) != value:
            return False
    return all(_holds(requirement, labels) for requirement in selector.match_expressions)


def matches_any(selectors: Iterable[LabelSelector], labels: Mapping[str, str]) -> bool:
    """Whether at least one selects it; none of no selectors does."""
    return any(matches(selector, labels) for selector in selectors)


def _holds(requirement: LabelSelectorRequirement, labels: Mapping[str, str]) -> bool:
    value = labels.get(requirement.key)
    match requirement.operator:
        case "In":
            return value in requirement.values
        case "NotIn":
            return value not in requirement.values
        case "Exists":
            return value is not None
        case _:  # DoesNotExist: check() lets nothing else through
            return value is None


def check(selector: LabelSelector) -> None:
    """Raise ``SelectorError`` where the selector is not one that Kubernetes would accept, or repeats a value."""
    for key, value in selector.match_labels.items():
        _check_key(key, f"matchLabels[{key}]")
        _check_value(value, f"matchLabels[{key}]")
    for index, requirement in enumerate(selector.match_expressions):
        where = f"matchExpressions[{index}]"
        _check_key(requirement.key, f"{where}.key")
        if requirement.operator in {"In", "NotIn"}:
            if not requirement.values:
                raise SelectorError(f"{where}.values", f"is empty, and operator {requirement.operator} needs a value")
        elif requirement.operator in {"Exists", "DoesNotExist"}:
            if requirement.values:
                raise SelectorError(f"{where}.values", f"must be empty with operator {requirement.operator}")
        else:
            raise SelectorError(
                f"{where}.operator", f'"{requirement.operator}" is none of In, NotIn, Exists, DoesNotExist'
            )
        for position, value in enumerate(requirement.values):
            _check_value(value, f"{where}.values[{position}]")
            if value in requirement.values[:position]:
                raise SelectorError(f"{where}.values[{position}]", f'repeats "{value}"')


def check_list(selectors: tuple[LabelSelector, ...]) -> None:
    """Check each selector of a list, and that none says the same as an earlier one. Raises ``SelectorError``."""
    seen: dict[object, int] = {}
    for index, selector in enumerate(selectors):
        try:
            check(selector)
        except SelectorError as error:
            raise SelectorError(f"[{index}].{error.where}", str(error)) from error
        first = seen.setdefault(_meaning(selector), index)
        if first != index:
            raise SelectorError(f"[{index}]", f"repeats the selector of [{first}]")


def _meaning(selector: LabelSelector) -> object:
    return (
        frozenset(selector.match_labels.items()),
        frozenset((each.key, each.operator, frozenset(each.values)) for each in selector.match_expressions),
    )


def _check_key(key: str, where: str) -> None:
    prefix, slash, name = key.rpartition("/")
    if slash and (len(prefix) > 253 or not _PREFIX.fullmatch(prefix)):
        raise SelectorError(where, f'"{key}" has a prefix that is not a DNS subdomain')
    if not _NAME.fullmatch(name):
        raise SelectorError(where, f'"{key}" is not a label key')


def _check_value(value: str, where: str) -> None:
    if value and not _NAME.fullmatch(value):
        raise SelectorError(where, f'"{value}" is not a label value')
