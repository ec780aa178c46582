"""What a container engine says of its networks and containers, read into plain values. Asks nobody.

``docker network inspect`` and ``podman network inspect`` say the same in two forms; both become a ``Network``. What
they leave out is filled in as the engine does it: where no gateway is named, it is the first address of what containers
get. Containers come from ``docker inspect``, which also knows the stopped ones: an address that is theirs by
configuration comes back with them. Podman says nothing like that of a stopped container.

Raises ``AnswerError`` for what is neither form.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from cluster.addresses import Address, AddressError, Family, Range, parse_address

CLUSTER_LABEL = "io.x-k8s.kind.cluster"
ROLE_LABEL = "io.x-k8s.kind.role"
T = TypeVar("T")


class AnswerError(ValueError):
    """An engine's answer that cannot be read; the message is one line."""


@dataclass(frozen=True, slots=True)
class Subnet:
    """One range of a network."""

    block: Range
    leased: Range | None
    """What the engine gives to containers on its own; None: any of the subnet."""
    reserved: tuple[Address, ...]
    """The gateway, and what was set aside when the network was made."""

    @property
    def text(self) -> str:
        """As a CIDR."""
        return self.block.short_text if self.block.count > 1 else f"{self.block.short_text}/{self.block.family.bits}"


@dataclass(frozen=True, slots=True)
class Network:
    name: str
    subnets: tuple[Subnet, ...]
    attached: tuple[Address, ...] = ()
    """Of running containers, as far as the network says it. Podman's does from version 5."""


@dataclass(frozen=True, slots=True)
class Container:
    name: str
    networks: tuple[str, ...]
    addresses: tuple[Address, ...]
    """Those it has, and those it is configured to have when it runs again; of all its networks."""
    running: bool
    cluster: str | None = None
    """The kind cluster of which it is a node."""
    control_plane: bool = False


# ------------------------------------------------------------------------ the two forms of a network


class _DockerConfig(msgspec.Struct, rename="pascal"):
    subnet: str = ""
    ip_range: str = msgspec.field(default="", name="IPRange")
    gateway: str = ""
    auxiliary_addresses: dict[str, str] | None = None


class _DockerIpam(msgspec.Struct, rename="pascal"):
    config: list[_DockerConfig] | None = None


class _DockerEndpoint(msgspec.Struct):
    ipv4: str = msgspec.field(default="", name="IPv4Address")
    ipv6: str = msgspec.field(default="", name="IPv6Address")


class _DockerNetwork(msgspec.Struct, rename="pascal"):
    name: str
    ipam: _DockerIpam = msgspec.field(name="IPAM", default_factory=_DockerIpam)
    containers: dict[str, _DockerEndpoint] | None = None


class _LeaseRange(msgspec.Struct):
    start_ip: str = ""
    end_ip: str = ""


class _PodmanSubnet(msgspec.Struct):
    subnet: str
    gateway: str = ""
    lease_range: _LeaseRange | None = None


class _PodmanAddress(msgspec.Struct):
    ipnet: str


class _PodmanInterface(msgspec.Struct):
    subnets: list[_PodmanAddress] | None = None


class _PodmanEndpoint(msgspec.Struct):
    interfaces: dict[str, _PodmanInterface] | None = None


class _PodmanNetwork(msgspec.Struct):
    name: str
    subnets: list[_PodmanSubnet] | None = None
    containers: dict[str, _PodmanEndpoint] | None = None


def networks(answer: bytes) -> tuple[Network, ...]:
    """Each network of ``network inspect``, of either engine."""
    found = []
    for each in _decoded(answer, list[msgspec.Raw], "networks"):
        keys = _decoded(bytes(each), dict[str, msgspec.Raw], "networks")
        if "IPAM" in keys:
            found.append(_docker_network(_decoded(bytes(each), _DockerNetwork, "networks")))
        else:
            found.append(_podman_network(_decoded(bytes(each), _PodmanNetwork, "networks")))
    return tuple(found)


def _docker_network(said: _DockerNetwork) -> Network:
    subnets = []
    for config in said.ipam.config or ():
        if config.subnet:
            block = _block(config.subnet)
            leased = _block(config.ip_range) if config.ip_range else None
            named = [config.gateway, *(config.auxiliary_addresses or {}).values()]
            subnets.append(_subnet(block, leased, named, gateway=config.gateway))
    endpoints = (said.containers or {}).values()
    return Network(
        said.name, tuple(subnets), tuple(_each(text for each in endpoints for text in (each.ipv4, each.ipv6)))
    )


def _podman_network(said: _PodmanNetwork) -> Network:
    subnets = []
    for each in said.subnets or ():
        block = _block(each.subnet)
        leased = None
        if each.lease_range is not None:
            first, last = (
                _each_or(each.lease_range.start_ip, block.first),
                _each_or(each.lease_range.end_ip, block.last),
            )
            leased = Range(block.family, first, last)
        subnets.append(_subnet(block, leased, [each.gateway], gateway=each.gateway))
    interfaces = [
        interface for endpoint in (said.containers or {}).values() for interface in (endpoint.interfaces or {}).values()
    ]
    return Network(
        said.name, tuple(subnets), tuple(_each(one.ipnet for each in interfaces for one in each.subnets or ()))
    )


def _subnet(block: Range, leased: Range | None, named: list[str], gateway: str) -> Subnet:
    """``leased`` counts where it leaves anything else."""
    if leased is not None and leased.first <= block.first + 1 and leased.last >= block.last - 1:
        leased = None
    reserved = list(_each(named))
    if not gateway:  # which the engine takes itself, when it makes the bridge
        within = leased or block
        reserved += [Address(block.family, block.first + 1), Address(block.family, within.first)]
    return Subnet(block, leased, tuple(dict.fromkeys(reserved)))


# ------------------------------------------------------------------------ containers, the same in both


class _Configured(msgspec.Struct):
    ipv4: str | None = msgspec.field(default=None, name="IPv4Address")
    ipv6: str | None = msgspec.field(default=None, name="IPv6Address")


class _Secondary(msgspec.Struct, rename="pascal"):
    addr: str = ""


class _Attachment(msgspec.Struct):
    configured: _Configured | None = msgspec.field(default=None, name="IPAMConfig")
    ipv4: str = msgspec.field(default="", name="IPAddress")
    ipv6: str = msgspec.field(default="", name="GlobalIPv6Address")
    more_ipv4: list[_Secondary | str] | None = msgspec.field(default=None, name="SecondaryIPAddresses")
    """In podman's networks of several subnets; older versions have texts."""
    more_ipv6: list[_Secondary | str] | None = msgspec.field(default=None, name="SecondaryIPv6Addresses")


class _NetworkSettings(msgspec.Struct, rename="pascal"):
    networks: dict[str, _Attachment] | None = None


class _State(msgspec.Struct, rename="pascal"):
    running: bool = False


class _Config(msgspec.Struct, rename="pascal"):
    labels: dict[str, str] | None = None


class _Inspected(msgspec.Struct, rename="pascal"):
    name: str
    state: _State = msgspec.field(default_factory=_State)
    config: _Config = msgspec.field(default_factory=_Config)
    network_settings: _NetworkSettings = msgspec.field(default_factory=_NetworkSettings)


def containers(answer: bytes) -> tuple[Container, ...]:
    """Each container of ``inspect``, of either engine."""
    found = []
    for said in _decoded(answer, list[_Inspected], "containers"):
        attachments = said.network_settings.networks or {}
        texts = []
        for attachment in attachments.values():
            configured = attachment.configured or _Configured()
            texts += [attachment.ipv4, attachment.ipv6, configured.ipv4 or "", configured.ipv6 or ""]
            more = [*(attachment.more_ipv4 or ()), *(attachment.more_ipv6 or ())]
            texts += [each.addr if isinstance(each, _Secondary) else each for each in more]
        labels = said.config.labels or {}
        found.append(
            Container(
                name=said.name.removeprefix("/"),
                networks=tuple(attachments),
                addresses=tuple(dict.fromkeys(_each(texts))),
                running=said.state.running,
                cluster=labels.get(CLUSTER_LABEL),
                control_plane=labels.get(ROLE_LABEL) == "control-plane",
            )
        )
    return tuple(found)


# ------------------------------------------------------------------------ texts


def _decoded(answer: bytes, view: type[T], what: str) -> T:
    try:
        return msgspec.json.decode(answer, type=view)
    except msgspec.MsgspecError as error:
        raise AnswerError(f"the engine's answer about its {what} cannot be read: {error}") from error


def _block(text: str) -> Range:
    """A CIDR; its host bits do not count. Every range counts here, also those that no Service can have."""
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise AnswerError(f'the engine has a network with the subnet "{text}", which is none') from error
    return Range(Family(network.version), int(network.network_address), int(network.broadcast_address))


def _each(texts: Iterator[str] | list[str]) -> Iterator[Address]:
    """The addresses of the texts that have one, with a prefix length or without."""
    for text in texts:
        bare = text.partition("/")[0].strip()
        if bare and bare not in {"<nil>", "invalid IP"}:
            try:
                yield parse_address(bare)
            except AddressError as error:
                raise AnswerError(f'the engine has an address "{text}" that {error}') from error


def _each_or(text: str, otherwise: int) -> int:
    return next((address.value for address in _each([text])), otherwise)
