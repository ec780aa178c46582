"""What a daemon's container may do, read from the manifest that we install, ``deploy/berthlb.yaml``.

A lab, a test or a benchmark gives a daemon these rights (``lab.machines.container``), so that it shows and measures
what a cluster gets.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from lab.shipped.installed import MANIFEST, pod_of

DaemonName = Literal["controller", "speaker"]
DAEMONS: tuple[DaemonName, ...] = ("controller", "speaker")


class Rights(msgspec.Struct, frozen=True):
    """What one container may do. Kubernetes' names are those of its securityContext."""

    user: int
    """Its user id (``runAsUser``)."""
    group: int
    """Its group id (``runAsGroup``); 0 where it is not said."""
    capabilities: tuple[str, ...]
    """All that it can ever have, without ``CAP_`` (``capabilities.add``)."""


def rights_of(daemon: DaemonName, manifest: Path = MANIFEST) -> Rights:
    """The rights of one of our daemons, as a manifest gives them.

    Raises ``ValueError`` where the manifest gives more than ``Rights`` can say."""
    pod = pod_of(daemon, manifest)
    (container,) = pod["containers"]
    context = {**pod["securityContext"], **container["securityContext"]}
    if (
        context["capabilities"]["drop"] != ["ALL"]
        or context["allowPrivilegeEscalation"] is not False
        or context["readOnlyRootFilesystem"] is not True
    ):
        raise ValueError(
            f"{daemon}: not all capabilities are dropped, or privileges can be escalated, or files written"
        )
    return Rights(
        user=context["runAsUser"],
        group=context.get("runAsGroup", 0),
        capabilities=tuple(context["capabilities"].get("add", ())),
    )
