"""What a list or watch asks for: a namespace, a label selector and a field selector, parsed once, matched often."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lab.apiserver.errors import bad_request
from lab.apiserver.kinds import Kind

Labels = Mapping[str, str]
Requirement = Callable[[Labels], bool]

_SET_BASED = re.compile(r"^(?P<key>[^\s=!,()]+)\s+(?P<operator>in|notin)\s*\((?P<values>[^()]*)\)$")
_EQUALITY = re.compile(r"^(?P<key>[^\s=!,()]+)\s*(?P<operator>==|=|!=)\s*(?P<value>[^\s=!,()]*)$")
_PRESENCE = re.compile(r"^(?P<absent>!?)\s*(?P<key>[^\s=!,()]+)$")
_COMMA_OUTSIDE_PARENTHESES = re.compile(r",(?![^(]*\))")


@dataclass(frozen=True)
class Selection:
    namespace: str | None
    labels: tuple[Requirement, ...]
    fields: tuple[tuple[tuple[str, ...], str, bool], ...]
    """Path, value, and whether they must be equal (or unequal)."""

    def matches(self, body: Mapping[str, Any]) -> bool:
        meta = body["metadata"]
        if self.namespace is not None and meta.get("namespace") != self.namespace:
            return False
        if self.labels:
            labels = meta.get("labels") or {}
            if not all(requirement(labels) for requirement in self.labels):
                return False
        return all((_text_at(body, path) == value) is equal for path, value, equal in self.fields)


def select(kind: Kind, namespace: str | None, label_selector: str, field_selector: str) -> Selection:
    """Parse both selectors. Refuses (400) what does not parse and fields that the kind cannot be selected by."""
    return Selection(
        namespace,
        tuple(_requirement(term) for term in _terms(label_selector)),
        tuple(_field(kind, term) for term in _terms(field_selector)),
    )


def _terms(selector: str) -> list[str]:
    return [term.strip() for term in _COMMA_OUTSIDE_PARENTHESES.split(selector)] if selector.strip() else []


def _requirement(term: str) -> Requirement:
    if found := _SET_BASED.match(term):
        key, values = found["key"], frozenset(value.strip() for value in found["values"].split(","))
        if found["operator"] == "in":
            return lambda labels: labels.get(key) in values
        return lambda labels: labels.get(key) not in values
    if found := _EQUALITY.match(term):
        key, value = found["key"], found["value"]
        if found["operator"] == "!=":
            return lambda labels: labels.get(key) != value
        return lambda labels: labels.get(key) == value
    if found := _PRESENCE.match(term):
        key, absent = found["key"], bool(found["absent"])
        return lambda labels: (key in labels) is not absent
    raise bad_request(f"unable to parse requirement: {term}")


def _field(kind: Kind, term: str) -> tuple[tuple[str, ...], str, bool]:
    found = _EQUALITY.match(term)
    if not found:
        raise bad_request(f"invalid selector: '{term}'; can't understand '{term}'")
    label = found["key"]
    if label not in kind.fields:
        raise bad_request(f"field label not supported: {label}")
    return kind.fields[label], found["value"], found["operator"] != "!="


def _text_at(body: Mapping[str, Any], path: tuple[str, ...]) -> str:
    value: Any = body
    for step in path:
        if not isinstance(value, Mapping):
            return ""
        value = value.get(step)
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "false" if path == ("spec", "unschedulable") else ""
    return str(value)
