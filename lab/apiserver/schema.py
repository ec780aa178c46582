"""Structural schemas of custom resources: prune what they do not name, fill in defaults, validate the rest.

The keywords that structural schemas of CustomResourceDefinitions may use, without CEL (``x-kubernetes-validations``),
``format`` and ``anyOf``/``oneOf``/``not``.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import Any

from lab.apiserver.errors import Problem, duplicate, required, shown, unsupported, wrong

Schema = Mapping[str, Any]

_TYPES: Mapping[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "integer,string": (int, str),
}
_ROOT_FIELDS = ("apiVersion", "kind", "metadata")  # the API's own, whatever the schema says


def prune_object(body: dict[str, Any], schema: Schema) -> list[str]:
    """Drop, in place, what the schema does not name. Returns the paths of what was dropped."""
    unknown: list[str] = []
    kept = {name: body.pop(name) for name in _ROOT_FIELDS}
    _prune(body, schema, "", unknown)
    body.update(kept)
    return unknown


def fill_defaults(value: Any, schema: Schema) -> None:
    """Fill in, in place, the defaults of absent fields (and of null ones that may not be null)."""
    if isinstance(value, dict):
        for name, inner in schema.get("properties", {}).items():
            if value.get(name) is None and "default" in inner and not (name in value and inner.get("nullable")):
                value[name] = copy.deepcopy(inner["default"])
        for name, inner_value in value.items():
            fill_defaults(inner_value, _schema_of(name, schema) or {})
    elif isinstance(value, list):
        for item in value:
            fill_defaults(item, schema.get("items", {}))


def validate_object(body: dict[str, Any], schema: Schema) -> list[Problem]:
    problems: list[Problem] = []
    _validate({name: value for name, value in body.items() if name not in _ROOT_FIELDS}, schema, "", problems)
    return problems


def _schema_of(name: str, schema: Schema) -> Schema | None:
    rest = schema.get("additionalProperties")
    found: Schema | None = schema.get("properties", {}).get(name, rest if isinstance(rest, dict) else None)
    return found


def _under(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _prune(value: Any, schema: Schema, path: str, unknown: list[str]) -> None:
    if isinstance(value, dict):
        for name in list(value):
            if (inner := _schema_of(name, schema)) is not None:
                _prune(value[name], inner, _under(path, name), unknown)
            elif not (schema.get("additionalProperties") or schema.get("x-kubernetes-preserve-unknown-fields")):
                unknown.append(_under(path, name))
                del value[name]
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _prune(item, schema.get("items", {}), f"{path}[{index}]", unknown)


def _validate(value: Any, schema: Schema, path: str, problems: list[Problem]) -> None:
    if value is None and schema.get("nullable"):
        return
    expected = "integer,string" if schema.get("x-kubernetes-int-or-string") else schema.get("type", "")
    fits = not expected or isinstance(value, _TYPES[expected])
    if not fits or (isinstance(value, bool) and expected not in {"", "boolean"}):
        why = f"Invalid value: {shown(value)}: {path} in body must be of type {expected}: {shown(value)}"
        problems.append(Problem(path, "FieldValueTypeInvalid", why))
        return
    if "enum" in schema and value not in schema["enum"]:
        problems.append(unsupported(path, value, schema["enum"]))
    if isinstance(value, str) and "pattern" in schema and not re.search(schema["pattern"], value):
        problems.append(wrong(path, value, f"{path} in body should match '{schema['pattern']}'"))
    if isinstance(value, int | float) and value < schema.get("minimum", value):
        problems.append(wrong(path, value, f"{path} in body should be greater than or equal to {schema['minimum']}"))
    if isinstance(value, int | float) and value > schema.get("maximum", value):
        problems.append(wrong(path, value, f"{path} in body should be less than or equal to {schema['maximum']}"))
    if isinstance(value, str):
        _validate_size(len(value), schema, "Length", path, problems)
    elif isinstance(value, dict):
        _validate_size(len(value), schema, "Properties", path, problems)
        problems += [required(_under(path, name)) for name in schema.get("required", ()) if name not in value]
        for name, inner_value in value.items():
            _validate(inner_value, _schema_of(name, schema) or {}, _under(path, name), problems)
    elif isinstance(value, list):
        _validate_size(len(value), schema, "Items", path, problems)
        _validate_items(value, schema, path, problems)


def _validate_size(size: int, schema: Schema, of_what: str, path: str, problems: list[Problem]) -> None:
    if size < schema.get(f"min{of_what}", 0):
        why = f"{path} in body should have at least {schema[f'min{of_what}']} {of_what.lower()}"
        problems.append(wrong(path, size, why))
    elif size > (limit := schema.get(f"max{of_what}", size)):
        reason, word = ("FieldValueTooLong", "long") if of_what == "Length" else ("FieldValueTooMany", "many")
        problems.append(Problem(path, reason, f"Too {word}: {size}: must have at most {limit}"))


def _validate_items(value: list[Any], schema: Schema, path: str, problems: list[Problem]) -> None:
    unique, keys = schema.get("x-kubernetes-list-type") in {"set", "map"}, schema.get("x-kubernetes-list-map-keys", ())
    seen: set[str] = set()
    for index, item in enumerate(value):
        _validate(item, schema.get("items", {}), f"{path}[{index}]", problems)
        identity = {key: item.get(key) for key in keys} if keys and isinstance(item, dict) else item
        if unique and shown(identity) in seen:
            problems.append(duplicate(f"{path}[{index}]", identity))
        seen.add(shown(identity))
