"""Structural schemas of custom resources: prune what they do not name, fill in defaults, validate the rest.

The keywords that structural schemas of CustomResourceDefinitions may use, without CEL (``x-kubernetes-validations``),
``format``, ``anyOf``/``oneOf``/``not`` (ours have none).
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from lab.apiserver.errors import Problem, duplicate, required, unsupported, wrong

Schema = Mapping[str, Any]

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
}
_ROOT_FIELDS = ("apiVersion", "kind", "metadata")  # the API's own, whatever the schema says


def prune_object(body: dict[str, Any], schema: Schema) -> list[str]:
    """Drop, in place, what the schema does not name. Returns the paths of what was dropped."""
    unknown: list[str] = []
    kept = {name: body.pop(name) for name in _ROOT_FIELDS if name in body}
    _prune(body, schema, "", unknown)
    body.update(kept)
    return unknown


def fill_defaults(value: Any, schema: Schema) -> None:
    """Fill in, in place, the defaults of absent fields (and of null ones that may not be null)."""
    if isinstance(value, dict):
        for name, inner in schema.get("properties", {}).items():
            if value.get(name) is None and "default" in inner and not (name in value and inner.get("nullable")):
                value[name] = copy.deepcopy(inner["default"])
            if name in value:
                fill_defaults(value[name], inner)
        if isinstance(rest := schema.get("additionalProperties"), dict):
            for inner_value in value.values():
                fill_defaults(inner_value, rest)
    elif isinstance(value, list):
        for item in value:
            fill_defaults(item, schema.get("items", {}))


def validate_object(body: dict[str, Any], schema: Schema) -> list[Problem]:
    problems: list[Problem] = []
    _validate({name: value for name, value in body.items() if name not in _ROOT_FIELDS}, schema, "", problems)
    return problems


def _prune(value: Any, schema: Schema, path: str, unknown: list[str]) -> None:
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        return
    if isinstance(value, dict):
        properties, rest = schema.get("properties", {}), schema.get("additionalProperties")
        for name in list(value):
            inner = properties.get(name, rest if isinstance(rest, dict) else None)
            if inner is not None:
                _prune(value[name], inner, _under(path, name), unknown)
            elif not rest:
                unknown.append(_under(path, name))
                del value[name]
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _prune(item, schema.get("items", {}), f"{path}[{index}]", unknown)


def _under(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _validate(value: Any, schema: Schema, path: str, problems: list[Problem]) -> None:
    if value is None and schema.get("nullable"):
        return
    if schema.get("x-kubernetes-int-or-string"):
        expected, fits = "integer,string", isinstance(value, int | str) and not isinstance(value, bool)
    else:
        expected = schema.get("type", "")
        fits = not expected or (isinstance(value, _TYPES[expected]) and (expected == "boolean" or value is not True))
        fits = fits and not (isinstance(value, bool) and expected in {"integer", "number"})
    if not fits:
        shown = msgspec.json.encode(value).decode()
        why = f"{path} in body must be of type {expected}: {shown}"
        problems.append(Problem(path, "FieldValueTypeInvalid", f"Invalid value: {shown}: {why}"))
        return
    if "enum" in schema and value not in schema["enum"]:
        problems.append(unsupported(path, value, schema["enum"]))
    if isinstance(value, dict):
        _validate_object(value, schema, path, problems)
    elif isinstance(value, list):
        _validate_list(value, schema, path, problems)
    elif isinstance(value, str):
        if "pattern" in schema and not re.search(schema["pattern"], value):
            problems.append(wrong(path, value, f"{path} in body should match '{schema['pattern']}'"))
        if len(value) < schema.get("minLength", 0):
            problems.append(wrong(path, value, f"{path} in body should be at least {schema['minLength']} chars long"))
        if "maxLength" in schema and len(value) > schema["maxLength"]:
            why = f"Too long: may not be more than {schema['maxLength']} bytes"
            problems.append(Problem(path, "FieldValueTooLong", why))
    elif isinstance(value, int | float):
        if "minimum" in schema and value < schema["minimum"]:
            problems.append(
                wrong(path, value, f"{path} in body should be greater than or equal to {schema['minimum']}")
            )
        if "maximum" in schema and value > schema["maximum"]:
            problems.append(wrong(path, value, f"{path} in body should be less than or equal to {schema['maximum']}"))


def _validate_object(value: dict[str, Any], schema: Schema, path: str, problems: list[Problem]) -> None:
    problems += [required(_under(path, name)) for name in schema.get("required", ()) if name not in value]
    if len(value) < schema.get("minProperties", 0):
        why = f"{path} in body should have at least {schema['minProperties']} properties"
        problems.append(wrong(path, len(value), why))
    if "maxProperties" in schema and len(value) > schema["maxProperties"]:
        why = f"Too many: {len(value)}: must have at most {schema['maxProperties']} items"
        problems.append(Problem(path, "FieldValueTooMany", why))
    properties, rest = schema.get("properties", {}), schema.get("additionalProperties")
    for name, inner_value in value.items():
        if name in properties:
            _validate(inner_value, properties[name], _under(path, name), problems)
        elif isinstance(rest, dict):
            _validate(inner_value, rest, _under(path, name), problems)


def _validate_list(value: list[Any], schema: Schema, path: str, problems: list[Problem]) -> None:
    if len(value) < schema.get("minItems", 0):
        why = f"{path} in body should have at least {schema['minItems']} items"
        problems.append(wrong(path, len(value), why))
    if "maxItems" in schema and len(value) > schema["maxItems"]:
        why = f"Too many: {len(value)}: must have at most {schema['maxItems']} items"
        problems.append(Problem(path, "FieldValueTooMany", why))
    list_type, seen = schema.get("x-kubernetes-list-type"), []
    for index, item in enumerate(value):
        _validate(item, schema.get("items", {}), f"{path}[{index}]", problems)
        if list_type in {"set", "map"}:
            keys = schema.get("x-kubernetes-list-map-keys", ())
            identity = {key: item.get(key) for key in keys} if keys and isinstance(item, dict) else item
            if identity in seen:
                problems.append(duplicate(f"{path}[{index}]", msgspec.json.encode(identity).decode()))
            seen.append(identity)
