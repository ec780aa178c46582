"""The custom resource definitions hold what the daemons read, explain every field, and have a case for every CEL rule.

What only a real API server can tell (that it takes the definitions, that its CEL judges as
``tests/kubernetes/cel_cases.yaml`` says) is tested there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from msgspec import inspect

from cluster import config, node_pools, objects
from cluster.parts import ConfigError

ROOT = Path(__file__).parents[2]
CEL_CASES = ROOT / "tests/kubernetes/cel_cases.yaml"
REFERENCE = ROOT / "docs/reference/custom-resources.md"

Schema = dict[str, Any]

CRDS: dict[str, dict[str, Any]] = {
    path.name: yaml.safe_load(path.read_text()) for path in sorted((ROOT / "crds").glob("*.yaml"))
}
BY_KIND = {crd["spec"]["names"]["kind"]: crd for crd in CRDS.values()}

METALLB = {
    "BFDProfile": ("bfdprofiles", {"v1beta1"}),
    "BGPAdvertisement": ("bgpadvertisements", {"v1beta1"}),
    "BGPPeer": ("bgppeers", {"v1beta1", "v1beta2"}),
    "Community": ("communities", {"v1beta1"}),
    "ConfigurationState": ("configurationstates", {"v1beta1"}),
    "IPAddressPool": ("ipaddresspools", {"v1beta1"}),
    "L2Advertisement": ("l2advertisements", {"v1beta1"}),
    "ServiceBGPStatus": ("servicebgpstatuses", {"v1beta1"}),
    "ServiceL2Status": ("servicel2statuses", {"v1beta1"}),
}
"""MetalLB's kinds: the plural, and the versions that it serves."""
BERTHLB = {"NodeIPPool": ("nodeippools", {"v1alpha1"})}
"""Kinds that MetalLB does not have."""

VIEWS: dict[str, type[objects.Object]] = {
    "IPAddressPool": objects.IPAddressPool,
    "L2Advertisement": objects.L2Advertisement,
    "ServiceL2Status": objects.ServiceL2Status,
    "ConfigurationState": objects.ConfigurationState,
    "NodeIPPool": node_pools.NodeIPPool,
}


def versions() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each version of each kind, as ``Kind/version`` and its part of the definition."""
    for kind, crd in BY_KIND.items():
        for version in crd["spec"]["versions"]:
            yield f"{kind}/{version['name']}", version


VERSIONS = dict(versions())
every_version = pytest.mark.parametrize("version", VERSIONS.values(), ids=VERSIONS.keys())
every_view = pytest.mark.parametrize("kind", VIEWS)


def schema_of(version: dict[str, Any]) -> Schema:
    schema: Schema = version["schema"]["openAPIV3Schema"]
    return schema


def nodes(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    """Every node of a schema with its path: ``[]`` are the items of a list, ``{}`` the values of a map."""
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}".lstrip("."))
    if "items" in schema:
        yield from nodes(schema["items"], f"{path}[]")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from nodes(schema["additionalProperties"], f"{path}{{}}")


def rules() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every CEL rule: kind, path of the schema node, rule."""
    for name, version in VERSIONS.items():
        for path, node in nodes(schema_of(version)):
            for rule in node.get("x-kubernetes-validations", ()):
                yield name.partition("/")[0], path, rule


def follow(schema: Schema, steps: list[str]) -> Schema | None:
    """The schema node that the steps of a printer column's path lead to, or None."""
    node: Schema | None = schema
    for step in steps:
        if node is None:
            return None
        node = node.get("items") if step == "[]" else node.get("properties", {}).get(step)
    return node


# ------------------------------------------------------------------------ the definitions as such


def test_every_kind_of_metallb_is_defined_in_the_same_versions_and_our_own_beside_them() -> None:
    ours = {
        kind: (crd["spec"]["names"]["plural"], {v["name"] for v in crd["spec"]["versions"] if v["served"]})
        for kind, crd in BY_KIND.items()
    }
    assert ours == METALLB | BERTHLB


def test_services_are_chosen_for_pools_of_both_kinds_in_the_same_words() -> None:
    ours, theirs = (
        schema_of(BY_KIND[kind]["spec"]["versions"][0])["properties"] for kind in ("NodeIPPool", "IPAddressPool")
    )
    for part in ("spec.serviceAllocation", "status.conditions.items"):
        top, *steps = part.split(".")
        one, other = ours[top]["properties"], theirs[top]["properties"]
        for step in steps:
            one, other = one[step], other[step]
        which = " or one of its addresses"  # which nobody can ask for in a NodeIPPool
        assert json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True).replace(which, ""), part


@pytest.mark.parametrize("file", CRDS)
def test_names_belong_together(file: str) -> None:
    crd = CRDS[file]
    spec, names = crd["spec"], crd["spec"]["names"]
    assert (crd["apiVersion"], crd["kind"]) == ("apiextensions.k8s.io/v1", "CustomResourceDefinition")
    group = "berthlb.io" if names["kind"] in BERTHLB else "metallb.io"
    assert (spec["group"], spec["scope"]) == (group, "Namespaced")
    assert crd["metadata"]["name"] == f"{names['plural']}.{group}"
    assert file == f"{group}_{names['plural']}.yaml"
    assert (names["singular"], names["listKind"]) == (names["kind"].lower(), f"{names['kind']}List")
    assert [v["storage"] for v in spec["versions"]].count(True) == 1


@every_version
def test_every_field_has_a_type(version: dict[str, Any]) -> None:
    untyped = [path for path, node in nodes(schema_of(version)) if "type" not in node]
    assert not untyped


@every_version
def test_every_list_and_map_says_what_it_holds(version: dict[str, Any]) -> None:
    open_ended = [
        path
        for path, node in nodes(schema_of(version))
        if (node["type"] == "array" and "items" not in node)
        or (
            node["type"] == "object"
            and not {"properties", "additionalProperties", "x-kubernetes-preserve-unknown-fields"} & node.keys()
            and path not in ("metadata", "spec")  # the server knows the one; the other is empty in status-only kinds
        )
    ]
    assert not open_ended


@every_version
def test_every_field_is_explained_in_sentences(version: dict[str, Any]) -> None:
    # The API server allows no description of metadata.
    unexplained = [
        path
        for path, node in nodes(schema_of(version))
        if path != "metadata" and not is_a_sentence(node.get("description", ""))
    ]
    assert not unexplained
    assert all(is_a_sentence(column["description"]) for column in version["additionalPrinterColumns"])


def is_a_sentence(text: str) -> bool:
    return len(text.split()) >= 3 and text.endswith(".")


@every_version
def test_required_fields_and_defaults_fit_the_schema(version: dict[str, Any]) -> None:
    types = {"string": str, "integer": int, "boolean": bool, "object": dict, "array": list}
    for path, node in nodes(schema_of(version)):
        assert set(node.get("required", ())) <= node.get("properties", {}).keys(), path
        if "default" in node:
            assert isinstance(node["default"], types[node["type"]]), path


@every_version
def test_the_status_is_a_subresource(version: dict[str, Any]) -> None:
    assert "status" in schema_of(version)["properties"]
    assert version["subresources"] == {"status": {}}


@every_version
def test_printer_columns_lead_to_fields(version: dict[str, Any]) -> None:
    fits = {"string": {"string", "array"}, "date": {"string"}, "integer": {"integer"}, "boolean": {"boolean"}}
    for column in version["additionalPrinterColumns"]:
        path = column["jsonPath"]
        if path == ".metadata.creationTimestamp":
            continue
        steps = re.findall(r"\w+|\[\]", re.sub(r"\[(\?\(@\.type==\"\w+\"\)|\*)\]", "[]", path))
        node = follow(schema_of(version), steps)
        assert node is not None, path
        assert node["type"] in fits[column["type"]], path


def test_age_is_always_the_last_column() -> None:
    assert {version["additionalPrinterColumns"][-1]["name"] for version in VERSIONS.values()} == {"Age"}


# ------------------------------------------------------------------------ what the daemons read and write


@every_view
def test_every_field_that_the_daemons_read_exists(kind: str) -> None:
    view = inspect.type_info(VIEWS[kind])
    assert isinstance(view, inspect.StructType)
    schema = schema_of(BY_KIND[kind]["spec"]["versions"][0])
    parts = [field for field in view.fields if field.encode_name != "metadata"]
    assert parts
    for part in parts:
        compare(part.type, schema["properties"][part.encode_name], part.encode_name)


def compare(type_: inspect.Type, node: Schema, path: str) -> None:
    """Fails unless values of the schema node are what the view's type decodes."""
    match type_:
        case inspect.StructType(fields=fields):
            assert node["type"] == "object", path
            for field in fields:
                assert field.encode_name in node["properties"], f"{path}.{field.encode_name}"
                compare(field.type, node["properties"][field.encode_name], f"{path}.{field.encode_name}")
                required = field.encode_name in node.get("required", ())
                assert required or not field.required, f"{path}.{field.encode_name} may be absent, the view needs it"
        case inspect.VarTupleType(item_type=item):
            assert node["type"] == "array", path
            compare(item, node["items"], f"{path}[]")
        case inspect.DictType(value_type=value):
            assert node["type"] == "object", path
            compare(value, node["additionalProperties"], f"{path}{{}}")
        case inspect.UnionType(types=types):
            (some,) = [t for t in types if not isinstance(t, inspect.NoneType)]
            compare(some, node, path)
        case _:
            names = {inspect.StrType: "string", inspect.IntType: "integer", inspect.BoolType: "boolean"}
            assert node["type"] == names[type(type_)], path


@every_view
def test_every_field_of_the_spec_and_status_is_read(kind: str) -> None:
    """A field that the schema accepts and no daemon reads would be a promise that nobody keeps."""
    view = inspect.type_info(VIEWS[kind])
    assert isinstance(view, inspect.StructType)
    read = set(view_paths(view, ""))
    accepted = {path for path, _ in nodes(schema_of(BY_KIND[kind]["spec"]["versions"][0])) if "." in path}
    assert accepted - read == set()


def view_paths(type_: inspect.Type, path: str) -> Iterator[str]:
    yield path
    match type_:
        case inspect.StructType(fields=fields):
            for field in fields:
                yield from view_paths(field.type, f"{path}.{field.encode_name}".lstrip("."))
        case inspect.VarTupleType(item_type=item):
            yield from view_paths(item, f"{path}[]")
        case inspect.DictType(value_type=value):
            yield from view_paths(value, f"{path}{{}}")
        case inspect.UnionType(types=types):
            for some in types:
                yield from view_paths(some, path)


@every_version
def test_conditions_have_the_shape_of_every_other_kind(version: dict[str, Any]) -> None:
    """``metav1.Condition``, one of each type."""
    conditions = schema_of(version)["properties"]["status"]["properties"].get("conditions")
    if conditions is None:
        assert schema_of(version)["properties"]["kind"]["description"].endswith("ServiceL2Status.")
        return
    assert conditions["x-kubernetes-list-type"] == "map"
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]
    assert set(conditions["items"]["required"]) == {"type", "status", "reason", "message", "lastTransitionTime"}


@pytest.mark.parametrize("kind", ["BGPPeer", "BGPAdvertisement", "Community", "BFDProfile"])
def test_bgp_objects_say_that_bgp_is_not_served(kind: str) -> None:
    for version in BY_KIND[kind]["spec"]["versions"]:
        schema = schema_of(version)
        (condition,) = schema["properties"]["status"]["default"]["conditions"]
        served = msgspec.convert(condition, objects.Condition)
        assert (served.type, served.status) == ("Served", "False")
        assert served.message.startswith("BGP is not served yet.")
        assert "BGP is not served yet" in schema["description"]
        assert schema["properties"]["spec"]["x-kubernetes-preserve-unknown-fields"] is True


def test_a_service_may_move_without_a_new_status_object() -> None:
    """MetalLB forbids to change ``status.node``; here it is changed in place when another node takes over."""
    status = schema_of(BY_KIND["ServiceL2Status"]["spec"]["versions"][0])["properties"]["status"]
    assert not [path for path, node in nodes(status) if "x-kubernetes-validations" in node]


# ------------------------------------------------------------------------ CEL


def test_every_rule_names_the_reason_and_the_value() -> None:
    """The static message stands in where the expression cannot be evaluated, so both are there."""
    checked = list(rules())
    assert checked
    for kind, path, rule in checked:
        assert rule["reason"] == "FieldValueInvalid", (kind, path)
        assert "\n" not in rule["message"], (kind, path)
        assert "self" in rule["messageExpression"], (kind, path)


def test_everything_that_rules_look_at_is_bounded() -> None:
    """Without bounds the API server's estimate of a rule's cost goes over its budget, and it refuses the definition."""
    for kind, path, _ in rules():
        for version in BY_KIND[kind]["spec"]["versions"]:
            for at, node in nodes(schema_of(version)):
                above = path.startswith(at) and node["type"] == "array"
                judged = at.startswith(path)
                bound = {"array": "maxItems", "string": "maxLength"}.get(node["type"])
                if (above or judged) and bound and "enum" not in node:
                    assert bound in node, f"{kind} {at}"


def test_every_rule_has_cases_and_every_case_a_rule() -> None:
    cases = yaml.safe_load(CEL_CASES.read_text())["rules"]
    listed = [(case["kind"], case["field"], case["rule"]) for case in cases]
    assert len(set(listed)) == len(listed)
    assert set(listed) == {(kind, path, rule["message"]) for kind, path, rule in rules()}
    assert all(case["accepts"] and case["refuses"] for case in cases)


def parse(kind: str, spec: dict[str, Any]) -> None:
    """What the daemons do with an object of this spec; raises ``ConfigError``."""
    source = {"metadata": {"name": "example"}, "spec": spec}
    if kind == "IPAddressPool":
        config.parse_pool(msgspec.convert(source, objects.IPAddressPool))
    elif kind == "NodeIPPool":
        node_pools.parse_node_pool(msgspec.convert(source, node_pools.NodeIPPool))
    else:
        config.parse_advertisement(msgspec.convert(source, objects.L2Advertisement))


def specs(key: str) -> list[Any]:
    cases = [case for part in yaml.safe_load(CEL_CASES.read_text()).values() for case in part]
    return [pytest.param(case["kind"], spec, id=str(spec)) for case in cases for spec in case.get(key, ())]


@pytest.mark.parametrize(("kind", "spec"), specs("accepts"))
def test_what_the_rules_accept_the_daemons_accept(kind: str, spec: dict[str, Any]) -> None:
    parse(kind, spec)


@pytest.mark.parametrize(("kind", "spec"), specs("accepts_but_controller_refuses"))
def test_what_no_rule_can_tell_the_daemons_refuse(kind: str, spec: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        parse(kind, spec)


# ------------------------------------------------------------------------ documentation


@pytest.mark.parametrize("kind", BY_KIND)
def test_the_reference_page_tells_every_field(kind: str) -> None:
    page = REFERENCE.read_text()
    section = re.search(rf"^## (?:[^\n]*, )?{kind}(?:, [^\n]*)?$(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    assert section, f"no section {kind}"
    told = set(re.findall(r"^\| `([^`]+)` \|", section[1], re.MULTILINE))
    fields = {
        path
        for version in BY_KIND[kind]["spec"]["versions"]
        for path, _ in nodes(schema_of(version))
        if path.startswith(("spec.", "status.")) and not path.endswith(("[]", "{}"))
    }
    # Selectors and conditions are told once, in sections of their own.
    shared = re.compile(r"(.*)(\.match(Labels|Expressions)|conditions\[\])(\W.*)?")
    assert told == {path for path in fields if not shared.fullmatch(path)}
