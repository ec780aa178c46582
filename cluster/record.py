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

A Service may have the addresses of many nodes, and the record is never cut. Past ``RECORD_LIMIT`` it says how many
there are, and no more. Then the status says which, as where there is no condition.

Example: ``192.0.2.4, 2001:db8::4 from pool "lan"`` says that the Service was given these two addresses.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from cluster.addresses import Address, AddressError, parse_address
from cluster.objects import Condition, PoolName, Service, find_condition

ADDRESS_ASSIGNED: Final = "berthlb.io/AddressAssigned"
RECORD_LIMIT: Final = 24_000
"""Characters: 400 nodes with the longest addresses of both families. A condition's message may have 32,768."""
_TEXTS: Final = r"([0-9a-f:.]+(?:, [0-9a-f:.]+)*)"
_ASSIGNED: Final = re.compile(_TEXTS + ' from pool "')
_KEPT: Final = re.compile(f".*; {_TEXTS} stays reserved for it", re.DOTALL)
"""The last such words: before them stands a name that somebody else chose."""
_COUNTED: Final = re.compile(r'\d+ addresses from pool "|.*; \d+ addresses stays reserved for it', re.DOTALL)
_POOL: Final = re.compile(r'[0-9a-f:., ]+(?: addresses)? from pool "([^"]*)"')


def addresses_in_status(service: Service) -> tuple[Address, ...]:
    """The addresses of ``status.loadBalancer.ingress``; what is no address is left out."""
    found = []
    for ingress in service.status.load_balancer.ingress:
        try:
            found.append(parse_address(ingress.ip))
        except AddressError:
            continue
    return tuple(dict.fromkeys(found))


def assigned_words(addresses: Iterable[Address], pool: str | None) -> str:
    """How the condition of a Service that has addresses begins."""
    return f'{_listed(addresses)} from pool "{pool}"'


def kept_words(addresses: Iterable[Address]) -> str:
    """How the condition of a contested Service says what it has; to be put behind "; "."""
    return f"{_listed(addresses)} stays reserved for it"


def _listed(addresses: Iterable[Address]) -> str:
    texts = [address.text for address in addresses]
    text = ", ".join(texts)
    return text if len(text) <= RECORD_LIMIT else f"{len(texts)} addresses"


def recorded_texts(said: Condition) -> tuple[str, ...]:
    """The addresses in such a condition, as they are written there."""
    found = _ASSIGNED.match(said.message) or _KEPT.match(said.message)
    return tuple(found[1].split(", ")) if found else ()


def recorded(view: Service) -> tuple[Address, ...] | None:
    """What the Service has by its condition; empty: nothing. None: it does not say."""
    said = find_condition(view.status.conditions, ADDRESS_ASSIGNED)
    return None if said is None else _read(said)


def recorded_pool(view: Service) -> PoolName:
    """The pool that the Service's addresses are from, by its condition; empty: it does not say."""
    said = find_condition(view.status.conditions, ADDRESS_ASSIGNED)
    found = None if said is None else _POOL.match(said.message)
    return PoolName(found[1] if found else "")


def _read(said: Condition) -> tuple[Address, ...] | None:
    texts = recorded_texts(said)
    if not texts and _COUNTED.match(said.message):
        return None
    try:
        return tuple(parse_address(text) for text in texts)
    except AddressError:
        return ()
