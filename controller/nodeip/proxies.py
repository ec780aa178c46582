"""Which proxy carries traffic for Services in this cluster, by what is said of it and never by a guess.

1. The speakers' reports count, where any of them knows the mode: kube-proxy said it on the speaker's own node.
2. Where none does, the Pods of kube-proxy count: by ``--proxy-mode`` on their command lines, or by the ConfigMap
   ``kube-system/kube-proxy`` where that is silent. A ConfigMap without such a Pod is a relic, and counts for nothing.
3. Otherwise nobody says.

One node in IPVS mode makes it IPVS, and then one in an unknown mode makes it unknown: each node takes the addresses of
all others.

An empty ``mode`` in the ConfigMap is kube-proxy's own choice on Linux, iptables.

Not promised: a node whose kube-proxy says nothing, by speaker or Pod, is taken for one like the others.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from controller.nodeip.guards import ServiceProxy
from controller.nodeip.pods import ProxyPod

CONFIG_MAP = "kube-proxy"
"""Of ``kube-system``; kubeadm's."""
_CONFIG_KEY = "config.conf"
_MODE = re.compile(r"^mode:[ \t]*(?P<quote>[\"']?)(?P<mode>\w*)(?P=quote)[ \t]*(?:#.*)?$", re.MULTILINE)
_KIND = re.compile(r"^kind:[ \t]*KubeProxyConfiguration\b", re.MULTILINE)
_DEFAULT = "iptables"


def configured_mode(data: dict[str, str]) -> str:
    """The mode in kube-proxy's ConfigMap; empty: it cannot be read there."""
    text = data.get(_CONFIG_KEY, "")
    if not _KIND.search(text):
        return ""
    found = _MODE.search(text)
    if found is not None:
        return found["mode"] or _DEFAULT
    return "" if re.search(r"^mode:", text, re.MULTILINE) else _DEFAULT


def service_proxy(reported: Iterable[str | None], pods: Iterable[ProxyPod], configured: str) -> ServiceProxy | None:
    """``reported``: by each speaker. ``configured``: by the ConfigMap. None: nobody says."""
    modes = {mode for mode in reported if mode is not None} or {pod.mode or configured for pod in pods}
    return _of(modes) if modes else None


def _of(modes: set[str]) -> ServiceProxy:
    if "ipvs" in modes:
        return ServiceProxy.IPVS
    if modes - {"iptables", "nftables"}:
        return ServiceProxy.OTHER
    return ServiceProxy.IPTABLES if "iptables" in modes else ServiceProxy.NFTABLES
