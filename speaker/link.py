"""The names of a link and of a station on it, and what a link receives.

A *link* is an interface of this node on which the speaker announces.
"""

from __future__ import annotations

import enum
from typing import NewType

LinkName = NewType("LinkName", str)
"""The name of the interface, as the kernel has it now."""
Mac = NewType("Mac", bytes)
"""An Ethernet address: six octets."""


class Reception(enum.Enum):
    """Which of the frames that arrive at an interface its network card, or the bridge behind it, lets pass."""

    FILTERED = "filtered"
    """Those to its own MAC, to everybody, and to the groups of which it is a member."""
    ALL_MULTICAST = "allmulti"
    """Those to any group, too."""
    PROMISCUOUS = "promiscuous"
    """All."""
