"""Who else on the LAN has the addresses of Services, as the speakers say.

Each speaker's ConfigurationState names the addresses that somebody else has, as long as that lasts. Here the words of
all are put together by address. A node that is not Ready while others are cannot be believed any more, since nobody
takes back what its speaker said. Where several speakers name one address, the first by name is quoted.
"""

from __future__ import annotations

from collections.abc import Iterable

from cluster.addresses import Address, AddressError, parse_address
from cluster.components import speaker_node
from cluster.nodes import is_ready
from cluster.objects import AddressConflict, Condition, ConfigurationState, Node, NodeName
from cluster.taken import conflict_condition
from controller.changes import shortened


class AddressConflicts:
    """See the module's docstring. One thread only."""

    def __init__(self) -> None:
        self._said: dict[NodeName, dict[Address, AddressConflict]] = {}
        """By node, whose speaker says something; no entry is empty."""
        self._ready: set[NodeName] = set()
        """Nodes."""

    def set_speaker_state(self, view: ConfigurationState, *, gone: bool = False) -> set[Address]:
        """What a speaker says. Returns the addresses of which there is something else to say now."""
        node = speaker_node(view.metadata.labels)
        if node is None:
            return set()
        before = self._said.pop(node, {})
        now = {} if gone else {address: each for each in view.status.address_conflicts for address in _address(each)}
        if now:
            self._said[node] = now
        return {address for address in before.keys() | now.keys() if before.get(address) != now.get(address)}

    def set_node(self, name: str, node: Node | None) -> set[Address]:
        """A node, None where it is gone. Returns the addresses of which there is something else to say now."""
        known = NodeName(name)
        ready = node is not None and is_ready(node)
        if ready is (known in self._ready):
            return set()
        any_before = bool(self._ready)
        (self._ready.add if ready else self._ready.discard)(known)
        said = [self._said.get(known, {})] if any_before and self._ready else self._said.values()
        return {address for each in said for address in each}

    def of(self, addresses: Iterable[Address]) -> Condition | None:
        """What a Service with these addresses says; None: nobody else has any of them."""
        if not self._said:
            return None
        believed = [node for node in sorted(self._said) if node in self._ready or not self._ready]
        for address in addresses:
            for node in believed:
                if (said := self._said[node].get(address)) is not None:
                    return conflict_condition(shortened(said.message), withheld=said.withheld)
        return None


def _address(said: AddressConflict) -> Iterable[Address]:
    try:
        return (parse_address(said.address),)
    except AddressError:
        return ()
