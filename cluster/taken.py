"""What a Service's condition says of an address that somebody else on the LAN has.

The speakers find that out and say it in their ConfigurationStates. The controller writes the condition, so that no
speaker needs the right to change a Service. The condition is there while somebody else has an address of the Service,
and is taken out when it is over.

A speaker that starts reads it for one thing: an address that was withheld then is no address that the cluster held.
"""

from __future__ import annotations

from typing import Final

from cluster.objects import Condition, Service, find_condition

ADDRESS_CONFLICT: Final = "berthlb.io/AddressConflict"
WITHHELD: Final = "Withheld"
"""Its reason where the address was never announced, since somebody has it …"""
RIVAL: Final = "Rival"
"""… and where it is announced, and somebody else answers for it too."""


def conflict_condition(message: str, *, withheld: bool) -> Condition:
    """The condition of a Service, somebody else having its address."""
    return Condition(ADDRESS_CONFLICT, "True", WITHHELD if withheld else RIVAL, message)


def is_withheld(service: Service) -> bool:
    """Whether an address of the Service has not been announced since it was assigned."""
    said = find_condition(service.status.conditions, ADDRESS_CONFLICT)
    return said is not None and said.reason == WITHHELD
