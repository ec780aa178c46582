#!/usr/bin/env python3
"""What kind and up.sh ask of a node that is not there in a container of these tests. One file under several names.

``node.py``: process 1. ``kubeadm``: starts etcd, kube-apiserver and kube-controller-manager. ``ctr``: keeps the names
of the images that are loaded, in ``/var/loaded``. ``curl``: asks for a URL. ``node.py proxy SUBNET``: is
``kube_proxy.py``, on a node that answers ARP for no address of the subnet.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
import urllib.request
from pathlib import Path

KUBE_PROXY = "/usr/local/bin/kube_proxy.py"
SERVER = "https://127.0.0.1:6443"
KUBECONFIG = Path("/etc/kubernetes/admin.conf")
TOKEN = "kubernetes-admin"  # of a cluster that lives for a test
STARTED_S = 120.0


def process_one() -> None:
    """Says what kind waits for, and reaps whatever ends."""
    sys.stdout.write("Reached target Multi-User System.\n")
    sys.stdout.flush()
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    while True:
        try:
            os.wait()
        except ChildProcessError:
            time.sleep(0.5)


def kubeadm(command: str) -> None:
    if command != "init":  # a node that joins is registered by what runs its pods
        return
    credentials = Path("/credentials")
    (credentials / "tokens.csv").write_text(f'{TOKEN},admin,1,"system:masters"\n')
    _start("etcd", "--data-dir=/var/etcd", "--unsafe-no-fsync")
    _start(
        "kube-apiserver",
        "--etcd-servers=http://127.0.0.1:2379",
        "--secure-port=6443",
        f"--tls-cert-file={credentials}/server.crt",
        f"--tls-private-key-file={credentials}/server.key",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-signing-key-file={credentials}/sa.key",
        f"--service-account-key-file={credentials}/sa.key",
        "--service-cluster-ip-range=10.96.0.0/16",
        "--authorization-mode=RBAC",
        f"--token-auth-file={credentials}/tokens.csv",
        "--endpoint-reconciler-type=none",
    )
    cluster = {"server": SERVER, "certificate-authority-data": _base64(credentials / "server.crt")}
    kubeconfig = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "node", "cluster": cluster}],
        "users": [{"name": "admin", "user": {"token": TOKEN}}],
        "contexts": [{"name": "admin@node", "context": {"cluster": "node", "user": "admin"}}],
        "current-context": "admin@node",
    }
    KUBECONFIG.write_text(json.dumps(kubeconfig))
    deadline = time.monotonic() + STARTED_S
    ask = ["kubectl", f"--kubeconfig={KUBECONFIG}", "get", "--raw", "/readyz"]
    while subprocess.run(ask, capture_output=True, check=False).stdout != b"ok":
        if time.monotonic() > deadline:
            sys.exit("kube-apiserver is not ready")
        time.sleep(0.3)
    _start(
        "kube-controller-manager",
        f"--kubeconfig={KUBECONFIG}",
        f"--service-account-private-key-file={credentials}/sa.key",
        f"--root-ca-file={credentials}/server.crt",
        "--controllers=deployment,replicaset,daemonset,endpointslice,serviceaccount,serviceaccount-token",
        "--leader-elect=false",
    )


def _start(*command: str) -> None:
    with Path(f"/var/{command[0]}.log").open("ab") as log:
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def ctr(arguments: list[str]) -> None:
    if "import" not in arguments:
        sys.exit(f"ctr stands for its import alone: {arguments}")
    with tarfile.open(fileobj=sys.stdin.buffer, mode="r|") as archive:
        for member in archive:
            if member.name == "manifest.json":
                content = archive.extractfile(member)
                assert content is not None
                tags = [tag for image in json.load(content) for tag in image["RepoTags"] or ()]
                with Path("/var/loaded").open("a") as loaded:
                    loaded.writelines(f"{tag}\n" for tag in tags)


def curl(url: str) -> None:
    """With the retries that up.sh asks for."""
    for _ in range(20):
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                answer.read()
                return
        except OSError as error:
            said = str(error)
            time.sleep(1)
    sys.exit(f"curl: {said}")


def proxy(subnet: str) -> None:
    for setting, value in (("arp_ignore", "1"), ("arp_announce", "2")):
        Path(f"/proc/sys/net/ipv4/conf/all/{setting}").write_text(value)
    os.execvp("python3", ["python3", KUBE_PROXY, subnet])


def main() -> None:
    name, arguments = Path(sys.argv[0]).name, sys.argv[1:]
    if name == "node.py" and arguments[:1] == ["proxy"]:
        proxy(arguments[1])
    elif name == "node.py":
        process_one()
    elif name == "kubeadm":
        kubeadm(arguments[0])
    elif name == "ctr":
        ctr(arguments)
    elif name == "crictl":
        sys.exit("no such image")  # so everything is loaded each time
    elif name == "containerd":
        sys.stdout.write('version = 3\n[plugins."io.containerd.cri.v1.images"]\nsnapshotter = "overlayfs"\n')
    elif name == "curl":
        curl(arguments[-1])


main()
