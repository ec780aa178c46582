"""How ServiceL2Status objects are named and labelled. Speakers write them, the controller deletes those of the dead."""

from __future__ import annotations

from hashlib import blake2b

from cluster.objects import ServiceL2Status

NODE_LABEL = "metallb.io/node"
SERVICE_NAME_LABEL = "metallb.io/service-name"
SERVICE_NAMESPACE_LABEL = "metallb.io/service-namespace"
EPOCH_ANNOTATION = "berthlb.io/epoch"
"""Of the claim with which the node holds the Service, or for which it won the record: a decimal number."""


def status_name(uid: str) -> str:
    """The name of a Service's ServiceL2Status: the same on every node."""
    return f"l2-{blake2b(uid.encode(), digest_size=10).hexdigest()}"


def announcing_node(status: ServiceL2Status) -> str:
    """The node that announces, as the object says. Between its creation and the first status its label does."""
    return status.status.node or status.metadata.labels.get(NODE_LABEL, "")


def announced_service(status: ServiceL2Status) -> str:
    """The Service that is announced, ``namespace/name``."""
    labels = status.metadata.labels
    namespace = status.status.service_namespace or labels.get(SERVICE_NAMESPACE_LABEL, "")
    return f"{namespace}/{status.status.service_name or labels.get(SERVICE_NAME_LABEL, '')}"
