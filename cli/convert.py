"""MetalLB's configuration of versions up to 0.12, made into the custom resources that replace it.

1. Each layer2 pool becomes an IPAddressPool and an L2Advertisement of the same name. The old MetalLB announced every
   such pool from every node on every interface, and so does an advertisement that names only its pool.
2. Nothing that the old configuration says is dropped silently: what has no counterpart is left out with a remark.
3. BGP is left out with a remark too, since BerthLB does not serve it. MetalLB's BGP objects would be accepted and do
   nothing, and a pool that nothing announces would give out addresses that nobody can reach.
4. What comes out is accepted by the custom resource definitions and by the daemons. What could not be is refused here,
   in the words of the old format. So are keys that MetalLB did not know: a typing error would lose a setting.

The old format in its versions: until 0.2 a pool had ``cidr`` for ``addresses`` and protocol ``arp`` for ``layer2``, and
``arp-network``; later ones added auto-assign, BFD and, for a while, peer-autodiscovery.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from cli.sources import FoundConfiguration, SourceError, find, printable, quoted, shown
from cli.yaml_text import YamlError, documents
from cluster.addresses import Address, AddressError, Range, RangeMap, parse_range
from cluster.resources import IP_ADDRESS_POOLS, L2_ADVERTISEMENTS

DEFAULT_NAMESPACE = "metallb-system"
MAX_ADDRESSES = 1024
"""Entries of ``spec.addresses``; the definition of IPAddressPool allows no more."""
MAX_NAME = 253

_BGP_PARTS = {
    "peers": "BGP peers",
    "peer-autodiscovery": "the discovery of BGP peers",
    "bgp-communities": "names of BGP communities",
    "bfd-profiles": "BFD profiles for BGP peers",
}
CONFIG_KEYS = ("address-pools", *_BGP_PARTS)
_POOL_KEYS = (
    "name",
    "protocol",
    "addresses",
    "auto-assign",
    "avoid-buggy-ips",
    "bgp-advertisements",
    "cidr",
    "arp-network",
)
_LAYER2, _BGP = "layer2", "bgp"
_PROTOCOLS = {_LAYER2: _LAYER2, "arp": _LAYER2, _BGP: _BGP}
_WORDS = {**dict.fromkeys(("true", "yes", "on", "y"), True), **dict.fromkeys(("false", "no", "off", "n"), False)}
_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*")
"""RFC 1123 subdomain: ``metadata.name`` of a custom resource."""
_PLACEHOLDER = re.compile(r"ENC\[|\$\{|\$\(|\{\{|\{%|<path:")
"""Of sops, Flux and envsubst, Kustomize and Kubernetes, Go and Jinja, Argo CD's Vault plugin."""


class ConversionError(Exception):
    """An input that cannot be converted; the message is one line and says where and why."""


@dataclass(frozen=True, slots=True)
class Conversion:
    documents: tuple[dict[str, Any], ...]
    """Manifests, in the order of the pools."""
    remarks: tuple[str, ...]
    """What the user has to know: whatever was left out or renamed. One line each."""


@dataclass(frozen=True, slots=True)
class _OldPool:
    """A layer2 pool."""

    name: str
    addresses: tuple[str, ...]
    switches: Mapping[str, bool]
    """``autoAssign`` and ``avoidBuggyIPs``, where the old pool said so."""


def convert(source: bytes | str, namespace: str | None = None) -> Conversion:
    """Convert the configuration in a ConfigMap or wherever else it is (``sources``), or the bare one.

    The objects go to ``namespace``, or else to that of the ConfigMap or of the release, or else to metallb-system.
    Without a layer2 pool there are none. Raises ``ConversionError``.
    """
    remarks: list[str] = []
    try:
        config = find(source, CONFIG_KEYS, remarks)
    except SourceError as error:
        raise ConversionError(str(error)) from error
    try:
        pools, names_in_use = _read_config(config.value, remarks)
    except (ConversionError, YamlError) as error:
        raise ConversionError(f"{config.prefix}{error}") from error
    target = _namespace(config, namespace, remarks)
    made: list[dict[str, Any]] = []
    for pool, name in zip(pools, _new_names(pools, names_in_use, remarks), strict=True):
        metadata = {"name": name, "namespace": target}
        spec = {"addresses": list(pool.addresses), **pool.switches}
        made.append(_manifest(IP_ADDRESS_POOLS.api_version, IP_ADDRESS_POOLS.kind, metadata, spec))
        announced = {"ipAddressPools": [name]}
        made.append(_manifest(L2_ADVERTISEMENTS.api_version, L2_ADVERTISEMENTS.kind, dict(metadata), announced))
    return Conversion(tuple(made), tuple(remarks))


def _manifest(api_version: str, kind: str, metadata: dict[str, Any], spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec}


# ------------------------------------------------------------------------ where the objects go


def _namespace(config: FoundConfiguration, asked: str | None, remarks: list[str]) -> str:
    namespace = asked or config.namespace or DEFAULT_NAMESPACE
    if not re.fullmatch(_LABEL, namespace) or len(namespace) > 63:
        raise ConversionError(f"{quoted(namespace)} cannot be the name of a namespace")
    if not asked and namespace != DEFAULT_NAMESPACE:
        remarks.append(
            f"the objects go to the namespace {namespace}, as {config.origin} says; BerthLB reads those in its own "
            f"namespace only, so start it with --namespace {namespace}, or convert with --namespace {DEFAULT_NAMESPACE}"
        )
    return namespace


# ------------------------------------------------------------------------ the old format


def _read_config(config: Any, remarks: list[str]) -> tuple[list[_OldPool], set[str]]:
    """The layer2 pools, and the names of all pools."""
    if isinstance(config, str):
        parsed = [each for each in documents(config) if each is not None]
        if len(parsed) > 1:
            raise ConversionError("there are several YAML documents in it")
        config = parsed[0] if parsed else None
    if not isinstance(config, dict | None):
        raise ConversionError("the configuration is not a mapping")
    config = config or {}
    _check_filled_in(config)
    _check_keys(config, CONFIG_KEYS, "")
    for key, what in _BGP_PARTS.items():
        if value := config.get(key):
            count = f" ({len(value)})" if isinstance(value, list | dict) and key != "peer-autodiscovery" else ""
            remarks.append(f"{key}: left out, {what}{count}: BerthLB does not serve BGP")
    pools: list[_OldPool] = []
    names: set[str] = set()
    taken: RangeMap[str] = RangeMap()
    for position, source in enumerate(_list(config.get("address-pools"), "address-pools")):
        where = f"address-pools[{position}]"
        if not isinstance(source, dict):
            raise ConversionError(f"{where}: a pool is a mapping with name, protocol and addresses")
        if not (name := source.get("name")):
            _check_keys(source, _POOL_KEYS, f"{where}: ")
            raise ConversionError(f"{where}: the pool has no name")
        if not isinstance(name, str):
            raise ConversionError(f"{where}: the name is not a text")
        if name in names:
            raise ConversionError(f"{where}: there is another pool named {quoted(name)}")
        names.add(name)
        if (pool := _read_pool(name, source, taken, remarks)) is not None:
            pools.append(pool)
    if not pools:
        remarks.append("there is no layer2 pool: nothing to apply")
    return pools, names


def _read_pool(name: str, source: dict[Any, Any], taken: RangeMap[str], remarks: list[str]) -> _OldPool | None:
    """A pool, or None with a remark where it is left out."""
    where = f"pool {quoted(name)}: "
    _check_keys(source, _POOL_KEYS, where)
    if _protocol(source.get("protocol"), where) == _BGP:
        remarks.append(
            f"{where}left out with all that is in it: BerthLB does not serve BGP, so Services lose the addresses that "
            "they have from it; write protocol layer2 to have nodes answer for them on their own network instead"
        )
        return None
    if source.get("bgp-advertisements"):
        remarks.append(f"{where}bgp-advertisements are left out: a layer2 pool has no use for them")
    if (network := source.get("arp-network")) is not None:
        remarks.append(
            f"{where}arp-network {shown(network)} is left out: if the first or the last address of that network is "
            "in the pool, take it out"
        )
    switches = {}
    for key, field in (("auto-assign", "autoAssign"), ("avoid-buggy-ips", "avoidBuggyIPs")):
        if (text := source.get(key)) is not None:
            word = _WORDS.get(text.lower()) if isinstance(text, str) else None
            if word is None:
                raise ConversionError(f"{where}{key}: {quoted(text)} is neither true nor false")
            switches[field] = word
    return _OldPool(name, _addresses(source, where, taken), switches)


def _protocol(value: Any, where: str) -> str:
    if value is None or value == "":
        raise ConversionError(f"{where}the pool has no protocol; for addresses that nodes answer for it is layer2")
    known = _PROTOCOLS.get(value) if isinstance(value, str) else None
    if known is None:
        raise ConversionError(f"{where}protocol: {quoted(value)} is unknown; there are layer2 and bgp")
    return known


def _addresses(source: dict[Any, Any], where: str, taken: RangeMap[str]) -> tuple[str, ...]:
    """The pool's ranges as IPAddressPool takes them; ``taken`` has those of the pools before, and gets these."""
    if "cidr" in source and "addresses" in source:
        raise ConversionError(f"{where}cidr is the old word for addresses; keep one of them")
    key = "cidr" if "cidr" in source else "addresses"
    entries = _list(source.get(key), f"{where}{key}")
    if not entries:
        raise ConversionError(f"{where}{key}: give at least one prefix or range")
    if len(entries) > MAX_ADDRESSES:
        raise ConversionError(f"{where}{key}: {len(entries)} entries; a pool takes {MAX_ADDRESSES}: make two of it")
    written: list[str] = []
    for position, text in enumerate(entries):
        if not isinstance(text, str):
            raise ConversionError(f"{where}{key}[{position}]: not a text such as 192.0.2.10-192.0.2.20")
        at = f"{where}{key}[{position}]: {quoted(text)}"
        try:
            block = parse_range(text)
        except AddressError as error:
            raise ConversionError(f"{at} {printable(str(error))}") from error
        if (found := taken.overlapping(block)) is not None:
            raise ConversionError(f"{at} overlaps {found[1]}")
        canonical = _written(block, prefix="/" in text)
        taken.add(block, f"{canonical} of pool {quoted(source['name'])}")
        written.append(canonical)
    return tuple(written)


def _written(block: Range, *, prefix: bool) -> str:
    """The range in one form only: the API server is stricter about spaces and zeros than MetalLB was."""
    if not prefix:
        return block.text
    return f"{Address(block.family, block.first).text}/{block.family.bits - block.count.bit_length() + 1}"


def _check_keys(mapping: dict[Any, Any], known: Collection[str], where: str) -> None:
    for key in mapping:
        if key not in known:
            close = get_close_matches(str(key), known, 1)
            hint = f'did you mean "{close[0]}"?' if close else f"MetalLB knew {', '.join(known)}"
            raise ConversionError(f"{where}unknown key {quoted(key)}; {hint}")


def _check_filled_in(config: dict[Any, Any]) -> None:
    """A text that somebody else was to put something in for cannot be converted, wherever it stands."""
    seen: set[int] = set()
    waiting: list[Any] = [config]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict | list) and id(each) not in seen:
            seen.add(id(each))
            waiting += reversed([*each, *each.values()] if isinstance(each, dict) else each)
        elif isinstance(each, str) and (found := _PLACEHOLDER.search(each)) is not None:
            if found[0].startswith("ENC["):
                raise ConversionError("it is encrypted with sops: decrypt it first, with sops --decrypt")
            raise ConversionError(f"{quoted(each)} has a placeholder: fill it in first")


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list | None):
        raise ConversionError(f"{where}: not a list")
    return value or []


# ------------------------------------------------------------------------ names


def _new_names(pools: list[_OldPool], old: set[str], remarks: list[str]) -> list[str]:
    """A name that Kubernetes accepts for each pool, all different: its own where it can be kept.

    No pool gets what was another one's name, of a pool that is left out either: Services may still ask for it.
    """
    taken = {name for name in old if _is_name(name)}
    names = []
    for pool in pools:
        name = pool.name
        if not _is_name(name):
            name = _distinct(_lowered(name), taken)
            taken.add(name)
            remarks.append(
                f"pool {quoted(pool.name)} is named {name}, since Kubernetes allows only lower-case letters, digits, "
                f'"-" and "." in a name: change the annotation metallb.universe.tf/address-pool of Services to {name}'
            )
        names.append(name)
    return names


def _is_name(text: str) -> bool:
    return len(text) <= MAX_NAME and _NAME.fullmatch(text) is not None


def _lowered(text: str) -> str:
    """The nearest name that Kubernetes accepts."""
    labels = (re.sub(r"[^a-z0-9]+", "-", part).strip("-") for part in text.lower().split("."))
    return ".".join(label for label in labels if label)[:MAX_NAME].strip("-.") or "pool"


def _distinct(name: str, taken: set[str]) -> str:
    candidate, number = name, 1
    while candidate in taken:
        number += 1
        suffix = f"-{number}"
        candidate = name[: MAX_NAME - len(suffix)].rstrip("-.") + suffix
    return candidate
