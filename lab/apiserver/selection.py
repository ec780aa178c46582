"""What a list or watch asks for: a namespace, a label selector and a field selector.

A selection is parsed once and matched against many objects.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lab.apiserver.errors import bad_request
from lab.apiserver.kinds import ServedKind

Requirement = Callable[[Mapping[str, Any]], bool]

_SET_BASED = re.compile(r"^(?P<key>[^\s=!,()]+)\s+(?P<operator>in|notin)\s*\((?P<values>[^()]*)\)$")
_EQUALITY = re.compile(r"^(?P<key>[^\s=!,()]+)\s*(?P<operator>==|=|!=)\s*(?P<values>[^\s=!,()]*)$")
_PRESENCE = re.compile(r"^(?P<operator>!?)\s*(?P<key>[^\s=!,()]+)$")
_COMMA_OUTSIDE_PARENTHESES = re.compile(r",(?![^(]*\))")


@dataclass(frozen=True)
class Selection:
    namespace: str | None
    labels: tuple[Requirement, ...]
    fields: tuple[Requirement, ...]

    def matches(self, body: Mapping[str, Any]) -> bool:
        meta = body["metadata"]
        if self.namespace is not None and meta.get("namespace") != self.namespace:
            return False
        labels = meta.get("labels") or {}
        return all(fits(labels) for fits in self.labels) and all(fits(body) for fits in self.fields)


def select(kind: ServedKind, namespace: str | None, label_selector: str, field_selector: str) -> Selection:
    """Parse both selectors. Refuses (400) what does not parse and fields that the kind cannot be selected by."""
    labels = tuple(_of_labels(term) for term in _terms(label_selector))
    return Selection(namespace, labels, tuple(_of_fields(kind, term) for term in _terms(field_selector)))


def _terms(selector: str) -> list[str]:
    return [term.strip() for term in _COMMA_OUTSIDE_PARENTHESES.split(selector)] if selector.strip() else []


def _of_labels(term: str) -> Requirement:
    found = _SET_BASED.match(term) or _EQUALITY.match(term) or _PRESENCE.match(term)
    if not found:
        raise bad_request(f"unable to parse requirement: {term}")
    key, operator = found["key"], found["operator"]
    if operator in {"", "!"}:
        return lambda labels: (key in labels) is (operator == "")
    values = {value.strip() for value in found["values"].split(",")}
    return lambda labels: (labels.get(key) in values) is (operator in {"in", "=", "=="})


def _of_fields(kind: ServedKind, term: str) -> Requirement:
    found = _EQUALITY.match(term)
    if not found:
        raise bad_request(f"invalid selector: '{term}'; can't understand '{term}'")
    key, value, equal = found["key"], found["values"], found["operator"] != "!="
    if key not in {"metadata.name", "metadata.namespace", *kind.selectable}:
        raise bad_request(f"field label not supported: {key}")
    return lambda body: (_text_at(body, key) == value) is equal


def _text_at(body: Mapping[str, Any], path: str) -> str:
    value: Any = body
    for step in path.split("."):
        value = value.get(step) if isinstance(value, Mapping) else None
    return str(value or "")
