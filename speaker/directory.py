"""The directory: where the API says that speakers are, whether or not they are heard.

Each speaker keeps a Lease with the links on which it can be reached. The watcher makes the directory of the Leases, and
of the Nodes' addresses where a speaker keeps none (``speaker.api.directory``). The announcer asks those in it whom it
does not hear (``speaker.protocol.expected``).

What stands here was true when somebody wrote it, and may be no more. That a speaker is in it proves nothing: who lives
is found out on the wire.
"""

from __future__ import annotations

from msgspec import Struct

from cluster.objects import AddressText, NodeName
from speaker.link import LinkName

MAX_LISTED = 1024
"""Speakers, as many as there may be peers."""
MAX_LISTED_LINKS = 16
"""Of one speaker."""
MAX_LINK_ADDRESSES = 16
"""Of one link."""


class ListedLink(Struct, frozen=True, array_like=True, gc=False):
    """A link with carrier of a speaker."""

    name: LinkName
    """On its node. Empty: not known, as of an address that only the Node has."""
    mac: bytes
    """Six octets; empty: not known."""
    addresses: tuple[str, ...]
    """With prefix length, ``192.0.2.11/24``, the link-local one among them."""


class ListedSpeaker(Struct, frozen=True, array_like=True, gc=False):
    """A speaker that the API knows."""

    node: NodeName
    links: tuple[ListedLink, ...]
    fresh: bool
    """Its Lease was renewed lately, as far as this node can tell."""


class DirectoryChange(Struct, frozen=True, tag=True):
    """What changed in the directory. This node is not in it."""

    changed: tuple[ListedSpeaker, ...] = ()
    """New ones, and the new form of those that were there."""
    removed: tuple[NodeName, ...] = ()
    renewed: tuple[NodeName, ...] = ()
    """Whose Leases were renewed since the last change."""
    whole: bool = False
    """``changed`` is all that there is: a watcher's first."""


def address_of(text: str) -> AddressText:
    """The address of one with prefix length."""
    return AddressText(text.partition("/")[0])
