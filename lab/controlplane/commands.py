"""The command lines of the control plane's programs: pure functions of a lab's ``Spec``."""

from __future__ import annotations

from pathlib import Path

from cluster.addresses import Family
from lab.control.messages import Spec
from lab.controlplane.credentials import (
    API_SERVER_CERTIFICATE,
    API_SERVER_KEY,
    AUDIT_POLICY,
    AUTHORITY,
    SERVICE_ACCOUNT_KEY,
    SERVICE_ACCOUNT_PUBLIC_KEY,
    TOKENS,
    credentials_directory,
    kubeconfig_of,
)
from lab.layout import API_PORT, Host, url_host

ETCD_PORT, ETCD_PEERS_PORT = 2379, 2380
LOOPBACK = {Family.IPV4: "127.0.0.1", Family.IPV6: "[::1]"}
EVERY_ADDRESS = {Family.IPV4: "0.0.0.0", Family.IPV6: "::"}
PROXY_HEALTH_PORT, PROXY_MODE_PORT = 10256, 10249  # kube-proxy's own defaults
MASQUERADE_MARK = "0x4000"  # kube-proxy's own default
DEFAULT_GRACE_S = 50.0  # kube-controller-manager's own, since Kubernetes 1.32
RENEWALS_PER_GRACE = 5  # kubelet: every 10 s of it
LOOKS_PER_GRACE = 10  # kube-controller-manager: every 5 s of it

LEAST_GRACE_S = 2.0  # a Lease says seconds in whole numbers, and busy machines need some of them


def etcd(spec: Spec) -> list[str]:
    clients, peers = _loopback(spec, ETCD_PORT), _loopback(spec, ETCD_PEERS_PORT)
    return [
        spec.programs["etcd"],
        f"--data-dir={Path(spec.directory, 'etcd')}",
        f"--listen-client-urls={clients}",
        f"--advertise-client-urls={clients}",
        f"--listen-peer-urls={peers}",
        f"--initial-advertise-peer-urls={peers}",
        f"--initial-cluster=default={peers}",
        "--unsafe-no-fsync",  # a lab ends with its machine
        "--log-level=warn",
    ]


def _loopback(spec: Spec, port: int) -> str:
    """A URL by which programs on one host reach each other, in the lab's primary family."""
    return f"http://{LOOPBACK[spec.layout.families[0]]}:{port}"


def api_server(spec: Spec) -> list[str]:
    files = credentials_directory(spec)
    return [
        spec.programs["kube-apiserver"],
        f"--etcd-servers={_loopback(spec, ETCD_PORT)}",
        f"--bind-address={EVERY_ADDRESS[spec.layout.families[-1]]}",  # "::" is both families', "0.0.0.0" IPv4's
        f"--advertise-address={spec.layout.control_plane.address}",
        f"--secure-port={API_PORT}",
        f"--tls-cert-file={files / API_SERVER_CERTIFICATE}",
        f"--tls-private-key-file={files / API_SERVER_KEY}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-signing-key-file={files / SERVICE_ACCOUNT_KEY}",
        f"--service-account-key-file={files / SERVICE_ACCOUNT_PUBLIC_KEY}",
        f"--service-cluster-ip-range={','.join(each.services for each in spec.layout.networks.values())}",
        "--authorization-mode=RBAC",
        f"--token-auth-file={files / TOKENS}",
        "--allow-privileged=true",  # as every installer sets it
        f"--audit-policy-file={files / AUDIT_POLICY}",
        f"--audit-log-path={audit_log(spec)}",
    ]


def audit_log(spec: Spec) -> Path:
    """The file in which the API server logs what our daemons ask; ``lab.controlplane.audit`` reads it."""
    return Path(spec.directory, "audit.log")


def controller_manager(spec: Spec) -> list[str]:
    files = credentials_directory(spec)
    grace_ms = round(spec.node_grace * 1000)
    return [
        spec.programs["kube-controller-manager"],
        f"--kubeconfig={kubeconfig_of(spec, 'kube-controller-manager')}",
        f"--service-account-private-key-file={files / SERVICE_ACCOUNT_KEY}",
        f"--root-ca-file={files / AUTHORITY}",
        "--use-service-account-credentials=true",  # each controller with its own role, as every installer has it
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
        f"--cert-dir={files}",
        f"--node-monitor-grace-period={grace_ms}ms",
        f"--node-monitor-period={grace_ms // LOOKS_PER_GRACE}ms",
    ]


def pod_network(node: Host) -> list[str]:
    """The command that does a network plugin's part: kube-proxy's masquerading works for a node's own pods too.

    kube-proxy marks packets whose sender is to be hidden, and hides it after routing, where packets for the pods of
    other network namespaces pass. A lab's pods have addresses of their node itself: what comes for them from outside
    passes input instead, and what the node sends to itself has the node's address already.
    """
    marked = f"meta mark & {MASQUERADE_MARK} == {MASQUERADE_MARK}"
    words = {Family.IPV4: "ip", Family.IPV6: "ip6"}
    hidden = "\n    ".join(
        f"{marked} snat {words[family]} to {address} fully-random" for family, address in node.addresses.items()
    )
    table = f"""\
table inet lab-pods {{
  chain nat-input {{
    type nat hook input priority 100
    {hidden}
  }}
  chain nat-postrouting {{
    type nat hook postrouting priority srcnat - 1
    oifname "lo" {marked} meta mark set meta mark ^ {MASQUERADE_MARK}
  }}
}}
"""
    return ["nft", table]


def proxy(spec: Spec, node: Host) -> list[str]:
    return [
        spec.programs["kube-proxy"],
        f"--kubeconfig={kubeconfig_of(spec, 'kube-proxy')}",
        f"--hostname-override={node.name}",
        f"--proxy-mode={spec.proxy_mode}",
        f"--cluster-cidr={','.join(each.pods for each in spec.layout.networks.values())}",
        f"--healthz-bind-address={url_host(EVERY_ADDRESS[spec.layout.families[-1]])}:{PROXY_HEALTH_PORT}",
        f"--metrics-bind-address=127.0.0.1:{PROXY_MODE_PORT}",
        "--conntrack-max-per-core=0",  # the machine's own limits stay as they are
        "--conntrack-tcp-timeout-established=0s",
        "--conntrack-tcp-timeout-close-wait=0s",
    ]
