"""Our daemons as Compose services, run as the manifests that we install have Kubernetes run them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lab.shipped.installed import installed

MANIFEST = Path(__file__).parents[2] / "deploy/berthlb.yaml"
ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
"""Where a pod finds its ServiceAccount's token, the cluster's authority and its namespace."""
KUBELETS = {"ports", "startupProbe", "livenessProbe", "readinessProbe", "resources", "imagePullPolicy", "name"}
"""Fields of a container that are for others than its runtime."""


def pod_of(kind: str) -> dict[str, Any]:
    """The pod of our only object of a kind."""
    (found,) = [each for each in installed() if each["kind"] == kind]
    spec = found["spec"]["template"]["spec"]
    assert isinstance(spec, dict)
    return spec


def as_service(
    pod: Mapping[str, Any], image: str, fields: Mapping[str, str], api: str, account: Path
) -> dict[str, Any]:
    """The pod's only container, but for its network. ``fields``: the pod's that its environment refers to. ``api``: the
    API server's ``ADDRESS:PORT``. ``account``: the directory that is shown at ``ACCOUNT``.

    Raises ``AssertionError`` where the manifest asks for something that would be left out here.
    """
    (container,) = pod["containers"]
    context = {**pod["securityContext"], **container["securityContext"]}
    assert container.keys() <= KUBELETS | {"image", "command", "args", "env", "securityContext"}
    assert not pod.get("volumes")
    assert context.pop("seccompProfile") == {"type": "RuntimeDefault"}, "which is what an engine does unasked"
    assert not context.pop("runAsNonRoot", False) or context["runAsUser"] != 0
    assert context.pop("allowPrivilegeEscalation") is False
    host, _, port = api.rpartition(":")
    given = {each["name"]: fields[each["valueFrom"]["fieldRef"]["fieldPath"]] for each in container["env"]}
    service = {
        "image": image,
        "entrypoint": container["command"],
        "command": [re.sub(r"\$\((\w+)\)", lambda found: given[found[1]], each) for each in container["args"]],
        "environment": {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port, **given},
        "user": f"{context.pop('runAsUser')}:{context.pop('runAsGroup', 0)}",
        "cap_drop": context["capabilities"]["drop"],
        "cap_add": context.pop("capabilities").get("add", []),
        "read_only": context.pop("readOnlyRootFilesystem"),
        "security_opt": ["no-new-privileges:true"],
        "stop_grace_period": f"{pod['terminationGracePeriodSeconds']}s",
        "volumes": [f"{account}:{ACCOUNT}:ro"],
    }
    assert not context, "the rest of securityContext"
    return service
