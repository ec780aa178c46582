"""What there is to say about each advertisement beside ``Valid``: looked up once, and anew when something has changed.

It depends on the pools, on the nodes' labels, and on what each speaker says of its node's interfaces.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from cluster.components import speaker_node
from cluster.config import Advertisement
from cluster.objects import Condition, ConfigurationState, NodeName
from controller.pools import conditions


class AdvertisementFindings:
    """See the module's docstring. One thread only."""

    def __init__(self) -> None:
        self._nodes: dict[NodeName, Mapping[str, str]] = {}
        self._without_interface: dict[NodeName, frozenset[str]] = {}
        self._found: dict[str, dict[str, Condition]] = {}

    def clear(self) -> None:
        """Pools or advertisements have changed."""
        self._found.clear()

    def set_node(self, name: str, labels: Mapping[str, str] | None) -> None:
        """A node's labels; None: it is gone."""
        node = NodeName(name)
        if self._nodes.get(node) == labels:
            return
        self._found.clear()
        if labels is None:
            del self._nodes[node]
        else:
            self._nodes[node] = labels

    def set_speaker_state(self, view: ConfigurationState, *, gone: bool = False) -> None:
        """What a speaker says of its node; what other ConfigurationStates say is not looked at."""
        node = speaker_node(view.metadata.labels)
        if node is None:
            return
        said = None if gone else view.status.advertisements_without_interface
        now = None if said is None else frozenset(said)
        if self._without_interface.get(node) == now:
            return
        self._found.clear()
        if now is None:
            del self._without_interface[node]
        else:
            self._without_interface[node] = now

    def of(self, advertisement: Advertisement, pools: Collection[str]) -> dict[str, Condition]:
        """The conditions, by type. ``pools``: the names of those that exist."""
        name = advertisement.name
        if name not in self._found:
            matching = conditions.matching_nodes(advertisement, self._nodes)
            said = (
                conditions.pools_exist(advertisement, pools),
                conditions.nodes_match(advertisement, matching),
                conditions.interfaces_exist(advertisement, matching, self._without_interface),
            )
            self._found[name] = {each.type: each for each in said}
        return self._found[name]
