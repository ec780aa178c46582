"""What a Service's own condition says of the addresses that the controller gave it.

The status shows addresses, and anybody who may write it can put others there. The condition
``berthlb.io/AddressAssigned`` is written in the same patch as the addresses, and its message begins with them. Rivals
leave it alone: they write ``status.loadBalancer``. Tools that replace whole objects (``kubectl replace``, GitOps) take
annotations away and do not touch a status.

So after a restart the condition says

1. whose an address is that two Services show;
2. which address a Service had whose status was emptied or falsified;
3. which address is kept for a Service in a contest.

It is read for that and for nothing else. Where it is missing, as on everything that MetalLB served, the status is all
there is.

Example: ``192.0.2.4, 2001:db8::4 from pool "lan"`` says that the Service was given these two addresses.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from cluster.addresses import Address, AddressError, parse_address
from cluster.objects import Condition, Service, find_condition

ADDRESS_ASSIGNED: Final = "berthlb.io/AddressAssigned"

_TEXTS: Final = r"([0-9a-f:.]+(?:, [0-9a-f:.]+)*)"
_ASSIGNED: Final = re.compile(_TEXTS + ' from pool "')
_KEPT: Final = re.compile(f".*; {_TEXTS} stays reserved for it", re.DOTALL)
"""The last such words: before them stands a name that somebody else chose."""


def assigned_words(addresses: Iterable[Address], pool: str | None) -> str:
    """How the condition of a Service that has addresses begins."""
    return ", ".join(address.text for address in addresses) + f' from pool "{pool}"'


def kept_words(addresses: Iterable[Address]) -> str:
    """How the condition of a contested Service says what it has; to be put behind "; "."""
    return ", ".join(address.text for address in addresses) + " stays reserved for it"


def recorded_texts(said: Condition) -> tuple[str, ...]:
    """The addresses in such a condition, as they are written there."""
    found = _ASSIGNED.match(said.message) or _KEPT.match(said.message)
    return tuple(found[1].split(", ")) if found else ()


def recorded(view: Service) -> tuple[Address, ...] | None:
    """What the Service has by its condition; empty: nothing. None: it does not say."""
    said = find_condition(view.status.conditions, ADDRESS_ASSIGNED)
    return None if said is None else _read(said)


def _read(said: Condition) -> tuple[Address, ...]:
    try:
        return tuple(parse_address(text) for text in recorded_texts(said))
    except AddressError:
        return ()
