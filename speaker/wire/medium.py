"""What a speaker's heartbeats travel by: frames on each of its links, or datagrams that the kernel routes.

A speaker that announces has a link for each interface, resolves addresses there in each family, and sends frames. One
that watches over nodes' lives alone (``--liveness-only``) has one link, on which everybody of the directory is reached,
wherever the node is. It resolves no address and needs no capability.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cluster.addresses import Family
from speaker.link import LinkName
from speaker.protocol.effects import ROUTED_MAC, LinkState
from speaker.wire.families import RESOLUTIONS
from speaker.wire.heartbeats.routed import Heartbeats, open_routed
from speaker.wire.heartbeats.sockets import open_heartbeats
from speaker.wire.resolution import Resolution

ROUTED = LinkName("routed")


@dataclass(frozen=True, slots=True)
class Medium:
    """See the module's docstring."""

    resolutions: Mapping[Family, Resolution]
    """The families in which addresses are asked for and answered."""
    open_heartbeats: Callable[[LinkState], Mapping[Family, Heartbeats]]
    """What has a link's heartbeats, in each family. Raises ``OSError``."""
    links: Callable[[tuple[LinkState, ...]], tuple[LinkState, ...]]
    """The links that there are, from the interfaces that could be announced on."""


def routed_links(interfaces: tuple[LinkState, ...]) -> tuple[LinkState, ...]:
    """The one link of a speaker that the kernel routes for. It says the MAC and the subnets of the interface with a
    default route, or else of the first: speakers that announce answer to that MAC."""
    home = next((each for each in interfaces if each.gateways), interfaces[0] if interfaces else None)
    mac, prefixes = (ROUTED_MAC, ()) if home is None else (home.mac, home.prefixes)
    return (LinkState(ROUTED, 0, mac, True, prefixes, routed=True),)


FRAMES = Medium(RESOLUTIONS, open_heartbeats, lambda interfaces: interfaces)
DATAGRAMS = Medium({}, open_routed, routed_links)
