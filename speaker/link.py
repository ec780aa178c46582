"""The names of a link and of a station on it.

A *link* is an interface of this node on which the speaker announces.
"""

from __future__ import annotations

from typing import NewType

LinkName = NewType("LinkName", str)
"""The name of the interface, as the kernel has it now."""
Mac = NewType("Mac", bytes)
"""An Ethernet address: six octets."""
