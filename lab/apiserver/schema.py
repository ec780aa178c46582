"""Structural schemas: they drop fields that they do not name, fill in defaults, and name what is still wrong.

The keywords are those that our CustomResourceDefinitions use, without CEL (``x-kubernetes-validations``), ``format``
and the uniqueness of list items.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from typing import Any

from lab.apiserver.errors import FieldProblem, required, shown, unsupported, wrong

Schema = Mapping[str, Any]

_TYPES: Mapping[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
}
_COUNTED = {str: "Length", list: "Items", dict: "Properties"}
_ROOT_FIELDS = ("apiVersion", "kind", "metadata")  # the API's own, whatever the schema says


def conform(body: dict[str, Any], schema: Schema) -> list[FieldProblem]:
    """Make an object fit its schema as far as that goes, in place. Returns what does not fit."""
    own = {name: body.pop(name) for name in _ROOT_FIELDS}
    problems = list(_conform(body, schema, ""))
    body.update(own)
    return problems


def _conform(value: Any, schema: Schema, path: str) -> Iterator[FieldProblem]:
    expected = schema.get("type")
    if expected and (not isinstance(value, _TYPES[expected]) or (isinstance(value, bool) and expected != "boolean")):
        why = f"Invalid value: {shown(value)}: {path} in body must be of type {expected}: {shown(value)}"
        yield FieldProblem(path, "FieldValueTypeInvalid", why)
        return
    if "enum" in schema and value not in schema["enum"]:
        yield unsupported(path, value, schema["enum"])
    if "pattern" in schema and not re.search(schema["pattern"], value):
        yield wrong(path, value, f"{path} in body should match '{schema['pattern']}'")
    yield from _beyond_limits(value, schema, path)
    if isinstance(value, dict):
        yield from _conform_fields(value, schema, path)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _conform(item, schema.get("items", {}), f"{path}[{index}]")


def _conform_fields(value: dict[str, Any], schema: Schema, path: str) -> Iterator[FieldProblem]:
    properties, others = schema.get("properties", {}), schema.get("additionalProperties")
    for name, inner in properties.items():
        if name not in value and "default" in inner:
            value[name] = copy.deepcopy(inner["default"])
    for name in list(value):
        below = f"{path}.{name}" if path else name
        if (inner := properties.get(name, others)) is not None:
            yield from _conform(value[name], inner, below)
        elif not schema.get("x-kubernetes-preserve-unknown-fields"):
            del value[name]
    for name in schema.get("required", ()):
        if name not in value:
            yield required(f"{path}.{name}" if path else name)


def _beyond_limits(value: Any, schema: Schema, path: str) -> Iterator[FieldProblem]:
    size, least, most = value, "minimum", "maximum"
    if isinstance(value, str | list | dict):
        counted = _COUNTED[type(value)]
        size, least, most = len(value), f"min{counted}", f"max{counted}"
    if least in schema and size < schema[least]:
        yield wrong(path, size, f"{least} is {schema[least]}")
    if most in schema and size > schema[most]:
        yield wrong(path, size, f"{most} is {schema[most]}")
