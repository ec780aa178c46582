"""The labels by which an object says which program, and which node's, it belongs to.

ConfigurationStates carry them as MetalLB's do, and the speakers' Leases the first of them.
"""

from __future__ import annotations

from collections.abc import Mapping

from cluster.objects import NodeName

COMPONENT_LABEL = "metallb.io/component-type"
NODE_NAME_LABEL = "metallb.io/node-name"


def speaker_node(labels: Mapping[str, str]) -> NodeName | None:
    """The node whose speaker an object with these labels belongs to; None: it is no speaker's."""
    name = labels.get(NODE_NAME_LABEL, "")
    return NodeName(name) if name and labels.get(COMPONENT_LABEL) == "speaker" else None
