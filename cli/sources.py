"""Where MetalLB's old configuration is, in the files that people have.

MetalLB read a ConfigMap. Few people wrote one: the Helm charts made it of their value ``configInline``, and the values
are in a HelmRelease of Flux, an Application of Argo CD, a HelmChart of k3s, the values of an umbrella chart and many
other things, as mappings or as a text that is YAML once more. So it is looked for everywhere:

1. a mapping under ``configInline``, if it has one of MetalLB's keys (other charts have a ``configInline`` too);
2. a mapping with ``address-pools``;
3. either of them in a text that has these words;
4. AddressPools, the custom resources that MetalLB 0.13 had for the same.

Not read: what the file only names and somebody else has (``valuesFrom``, value files, Secrets that are encrypted). It
is named as a hint.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from cli.yaml_text import YamlError, documents
from cluster.resources import METALLB_GROUP

INLINE = "configInline"
POOLS = "address-pools"
TELLING = (INLINE.lower(), POOLS)
"""Words of a text in which a configuration is."""
_BGP_KINDS = ("BGPPeer", "BGPAdvertisement", "BFDProfile", "Community")
_READ_AS_IT_IS = ("IPAddressPool", "L2Advertisement")
_SPELLINGS = {
    "autoAssign": "auto-assign",
    "avoidBuggyIPs": "avoid-buggy-ips",
    "bgpAdvertisements": "bgp-advertisements",
}
"""Fields of an AddressPool, as the ConfigMap spelled them."""


class SourceError(ValueError):
    """An input in which no configuration can be found; the message is one line."""


@dataclass(frozen=True, slots=True)
class FoundConfiguration:
    """The old configuration, as far as it was found."""

    value: Any
    """A text, or what it means."""
    origin: str
    """How to call it, for example ``ConfigMap metallb-system/config``."""
    prefix: str = ""
    """Where in the input a mistake in it is."""
    namespace: str = ""
    """Of the release, or of the ConfigMap; empty where that does not say."""
    doubtful: bool = False
    """Whether it may not be MetalLB's at all: it says nothing, or nothing that MetalLB knew."""


@dataclass(slots=True)
class _Search:
    """What was found so far."""

    known: Collection[str]
    """The keys of a configuration."""
    found: list[FoundConfiguration] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)
    """Where the configuration may be instead."""
    without_config: list[str] = field(default_factory=list)
    """ConfigMaps that are not MetalLB's."""
    pools: list[dict[Any, Any]] = field(default_factory=list)
    """AddressPools."""


def find(source: bytes | str, known: Collection[str], remarks: list[str]) -> FoundConfiguration:
    """The one configuration in the input; other objects are passed by with a remark. Raises ``SourceError``."""
    search = _Search(known, remarks=remarks)
    for place, each in _objects(_parsed(source)):
        if not isinstance(each, dict):
            raise SourceError(f"{place}: neither a ConfigMap nor a configuration of MetalLB: it is not a mapping")
        _look_at(each, place, search)
    if search.pools:
        search.found.append(_of_address_pools(search.pools))
    telling = [each for each in search.found if not each.doubtful] or search.found[:1]
    if len(telling) > 1:
        both = " and ".join(each.origin for each in telling[:2])
        raise SourceError(f"there are several configurations, {both}: convert one at a time")
    if not telling:
        raise SourceError(_why_none(search))
    remarks += [f'passed by: {name}, which has no key "config"' for name in search.without_config]
    remarks += search.hints
    return telling[0]


def _parsed(source: bytes | str) -> list[Any]:
    try:
        return documents(source)
    except YamlError as error:
        template = b"{{" in source if isinstance(source, bytes) else "{{" in source
        advice = "; it looks like a template: render it first, for example with helm template" if template else ""
        raise SourceError(f"{error}{advice}") from error


def _objects(parsed: list[Any]) -> Iterator[tuple[str, Any]]:
    """Each object with its place, those of lists one by one."""
    for number, each in enumerate(parsed, 1):
        if each is None:
            continue
        items = each.get("items") if isinstance(each, dict) and str(each.get("kind")).endswith("List") else None
        if isinstance(items, list):
            yield from ((f"document {number}, item {position}", item) for position, item in enumerate(items, 1))
        else:
            yield f"document {number}", each


def _why_none(search: _Search) -> str:
    if search.hints:
        return f"there is no configuration of MetalLB in it; {'; '.join(search.hints[:3])}"
    if search.without_config:
        return f'{search.without_config[0]} has no key "config" in data, where MetalLB\'s configuration is'
    return "there is no configuration of MetalLB in it" if search.remarks else "it is empty"


# ------------------------------------------------------------------------ one object


def _look_at(each: dict[Any, Any], place: str, search: _Search) -> None:
    kind, group = _text(each.get("kind")), _text(each.get("apiVersion")).rpartition("/")[0]
    name = f"{shown(kind)} {_key(each)}" if kind else ""
    if kind == "ConfigMap" and "config" in _mapping(each.get("data")):
        search.found.append(_of_config_map(each))
        return
    if group == METALLB_GROUP and kind == "AddressPool":
        search.pools.append(each)
        return
    if group == METALLB_GROUP and kind in _BGP_KINDS:
        search.remarks.append(f"left out: {name}: BerthLB does not serve BGP")
        return
    if group == METALLB_GROUP and kind in _READ_AS_IT_IS:
        search.hints.append(f"passed by: {name}, which BerthLB reads as it is: apply it")
        return
    if kind == "Kustomization":
        search.found += _of_literals(each, name)
    if kind == "Secret":
        each = {**each, "data": _decoded(_mapping(each.get("data")))}
    before = len(search.found)
    for part in _within(each, bare=not kind):
        _add(part, name, _release_namespace(each), search)
    hints = [f"{name}: {hint}" if name else hint for hint in (*_hints(each), *_existing_config_maps(each, name))]
    search.hints += hints
    if len(search.found) > before:
        return
    if kind == "ConfigMap":
        search.without_config.append(f"ConfigMap {_key(each)}")
    elif kind:
        search.remarks.append(f"passed by: {name}")
    elif not hints:
        doubtful = not _is_like_metallbs(each, search.known)
        search.found.append(FoundConfiguration(each, f"the configuration in {place}", doubtful=doubtful))


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of an object where a configuration may be."""

    value: Any
    path: str
    """From the object's top; empty: the object itself."""
    beside: tuple[str, ...] = ()
    """The keys beside it, where it is a value of a chart."""


def _add(part: _Part, owner: str, namespace: str, search: _Search) -> None:
    if isinstance(part.value, dict) and part.value and not _is_like_metallbs(part.value, search.known):
        search.remarks.append(f"passed by: {part.path}, which has nothing of MetalLB's configuration")
        return
    origin = " of ".join(each for each in (part.path, owner) if each) or "the configuration"
    prefix = f"{part.path}: " if part.path else ""
    search.found.append(FoundConfiguration(part.value, origin, prefix, namespace, doubtful=not part.value))
    if part.beside:
        search.remarks.append(f"passed by: the other Helm values: {', '.join(part.beside)}")


def _is_like_metallbs(mapping: dict[Any, Any], known: Collection[str]) -> bool:
    return any(get_close_matches(str(key), known, 1) for key in mapping)


def _within(top: dict[Any, Any], *, bare: bool) -> Iterator[_Part]:
    """What stands in an object where a configuration may be. ``bare``: the object itself may be one."""
    for each, path in _mappings(top):
        if POOLS in each and (path or bare):
            yield _Part(each, path)
            continue
        for key, value in each.items():
            if _is_inline(key):
                yield _Part(value, _below(path, key), tuple(shown(other) for other in each if other != key))


def _mappings(top: dict[Any, Any]) -> Iterator[tuple[dict[Any, Any], str]]:
    """All mappings in an object with their paths, in order, those in telling texts too; not what is in a
    ``configInline``. Each comes once, whatever refers to it."""
    seen: set[int] = set()
    texts: list[object] = []  # what was read from texts lives as long as its ids are in use
    waiting: list[tuple[Any, str]] = [(top, "")]
    while waiting:
        each, path = waiting.pop()
        inner: list[tuple[Any, str]] = []
        if isinstance(each, dict | list):
            if id(each) in seen:
                continue
            seen.add(id(each))
        if isinstance(each, dict):
            yield each, path
            inner = [(value, _below(path, key)) for key, value in each.items() if not _is_inline(key)]
        elif isinstance(each, list):
            inner = [(value, f"{path}[{position}]") for position, value in enumerate(each)]
        elif isinstance(each, str) and any(word in each.lower() for word in TELLING):
            inner = [(value, path) for value in _of_text(each, path) if isinstance(value, dict | list)]
            texts.append(inner)
        waiting += reversed(inner)


def _is_inline(key: Any) -> bool:
    return str(key).lower() == INLINE.lower()


def _below(path: str, key: Any) -> str:
    return f"{path}.{shown(key)}" if path else shown(key)


def _of_text(text: str, path: str) -> list[Any]:
    """The documents of a text in an object."""
    try:
        return _parsed(text)
    except SourceError as error:
        raise SourceError(f"{path}: {error}") from error


def _decoded(data: dict[Any, Any]) -> dict[Any, Any]:
    """A Secret's data, as far as it is text."""
    found = {}
    for key, value in data.items():
        try:
            found[key] = base64.b64decode(_text(value), validate=True).decode()
        except ValueError:  # of base64 or of UTF-8
            continue
    return found


# ------------------------------------------------------------------------ kinds that are known


def _of_config_map(each: dict[Any, Any]) -> FoundConfiguration:
    name = f"ConfigMap {_key(each)}"
    text = each["data"]["config"]
    if not isinstance(text, str | None):
        raise SourceError(f'{name}: data.config is not a text: it begins with "config: |"')
    return FoundConfiguration(text or "", name, "data.config: ", _text(_mapping(each.get("metadata")).get("namespace")))


def _of_literals(each: dict[Any, Any], name: str) -> Iterator[FoundConfiguration]:
    """ConfigMaps that kustomize makes: ``configMapGenerator`` with ``config=`` and the text."""
    for position, generator in enumerate(_list(each.get("configMapGenerator"))):
        for literal in _list(_mapping(generator).get("literals")):
            key, _, text = _text(literal).partition("=")
            if key == "config" and POOLS in text:
                path = f"configMapGenerator[{position}].literals"
                namespace = _text(_mapping(generator).get("namespace")) or _text(each.get("namespace"))
                yield FoundConfiguration(text, f"{path} of {name}", f"{path}: ", namespace)


def _of_address_pools(pools: list[dict[Any, Any]]) -> FoundConfiguration:
    """All of them as one configuration in the old words."""
    namespaces = {_text(_mapping(each.get("metadata")).get("namespace")) for each in pools}
    if len(namespaces) > 1:
        raise SourceError("there are AddressPools of several namespaces: convert those of one at a time")
    translated = []
    for each in pools:
        spec = each.get("spec")
        if not isinstance(spec, dict):
            raise SourceError(f"AddressPool {_key(each)}: it has no spec")
        renamed = {_SPELLINGS.get(key, key) if isinstance(key, str) else key: value for key, value in spec.items()}
        name = _text(_mapping(each.get("metadata")).get("name"))
        translated.append({**renamed, "name": name})
    names = "AddressPools" if len(pools) > 1 else f"AddressPool {_key(pools[0])}"
    return FoundConfiguration({POOLS: translated}, names, namespace=namespaces.pop())


def _release_namespace(each: dict[Any, Any]) -> str:
    """Where what the object installs lives, as far as it says so."""
    metadata, spec = _mapping(each.get("metadata")), _mapping(each.get("spec"))
    if _text(each.get("kind")) in {"HelmRelease", "HelmChart"}:
        return _text(spec.get("targetNamespace")) or _text(metadata.get("namespace"))
    if each.get("kind") == "ApplicationSet":
        spec = _mapping(_mapping(spec.get("template")).get("spec"))
    return _text(_mapping(spec.get("destination")).get("namespace"))


def _hints(each: dict[Any, Any]) -> Iterator[str]:
    """Where else a configuration may be, as far as the object names it."""
    unread = f"is not read: if {INLINE} is there, convert that"
    if isinstance(each.get("sops"), dict):
        yield "it is encrypted with sops: decrypt it first, with sops --decrypt"
    spec = _mapping(each.get("spec"))
    for other in _list(spec.get("valuesFrom")):
        reference = _mapping(other)
        if reference:
            key = _text(reference.get("valuesKey")) or "values.yaml"
            yield f"{_named(reference)} ({shown(key)}), which spec.valuesFrom names, {unread}"
    for other in _list(spec.get("valuesSecrets")):
        yield f"Secret {_name(other)}, which spec.valuesSecrets names, {unread}"
    for generator in _list(each.get("configMapGenerator")):
        for file in _list(_mapping(generator).get("files")):
            key, _, path = _text(file).rpartition("=")
            if (key or path.rpartition("/")[2]) == "config":
                yield f"the file {shown(path)}, which configMapGenerator names, has the configuration: convert that"
    for chart in _list(each.get("helmCharts")):
        own = (_mapping(chart).get("valuesFile"), *_list(_mapping(chart).get("additionalValuesFiles")))
        for file in filter(None, own):
            yield f"the value file {shown(file)} {unread}"
    if any(str(key).lower().startswith(INLINE.lower()) for key in _mapping(spec.get("set"))):
        yield f"spec.set has parts of {INLINE}: write them as YAML, under {INLINE}"
    if each.get("kind") == "ApplicationSet":
        spec = _mapping(_mapping(spec.get("template")).get("spec"))
    for source in (spec.get("source"), *_list(spec.get("sources"))):
        helm = _mapping(_mapping(source).get("helm"))
        for file in _list(helm.get("valueFiles")):
            yield f"the value file {shown(file)} {unread}"
        names = [_text(_mapping(parameter).get("name")) for parameter in _list(helm.get("parameters"))]
        if any(name.lower().startswith(INLINE.lower()) for name in names):
            yield f"helm.parameters has parts of {INLINE}: write them as YAML, under {INLINE}"


def _existing_config_maps(each: dict[Any, Any], name: str) -> Iterator[str]:
    """The ConfigMaps that the values of a chart name instead. Many charts have that value: it counts where the object
    or the part has MetalLB in its name."""
    for values, path in _mappings(each):
        other = _text(values.get("existingConfigMap"))
        if other and "metallb" in f"{name} {path}".lower():
            yield f"ConfigMap {shown(other)}, which {path}.existingConfigMap names, has the configuration: convert that"


def _named(reference: dict[Any, Any]) -> str:
    return f"{shown(_text(reference.get('kind')) or 'ConfigMap')} {_name(reference)}"


def _name(reference: Any) -> str:
    return shown(_text(_mapping(reference).get("name")) or "without a name")


def _key(each: dict[Any, Any]) -> str:
    metadata = _mapping(each.get("metadata"))
    parts = (_text(metadata.get("namespace")), _text(metadata.get("name")))
    return shown("/".join(part for part in parts if part) or "without a name")


def _mapping(value: Any) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


# ------------------------------------------------------------------------ texts


def shown(value: Any) -> str:
    """Somebody's text in a line of ours: no control characters, not endless."""
    text = value if isinstance(value, str) else "?" if isinstance(value, dict | list) else str(value)
    return printable(text if len(text) <= 80 else text[:79] + "…")


def printable(text: str) -> str:
    return text if text.isprintable() else json.dumps(text)[1:-1]


def quoted(value: Any) -> str:
    return f'"{shown(value)}"'
