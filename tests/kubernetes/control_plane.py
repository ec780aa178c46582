"""A real API server for tests: etcd and kube-apiserver in a network namespace of their own, with our manifests applied.

Nothing of it listens on the machine: the test's process reaches it through a relay on a free port of 127.0.0.1, hosts
of the same ``Wire`` at its address. There is no kubelet, and no kube-controller-manager but for a garbage collector
that a test asks for.
The audit log tells what the daemons' ServiceAccounts asked for.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from lab.assets.pinned import Program
from lab.controlplane import audit
from lab.controlplane.credentials import DAEMONS
from lab.layout import SERVICE_NETWORKS
from tests.real import program
from tests.waiting import wait_until
from tests.wire.network import Wire, WireHost

ROOT = Path(__file__).parents[2]
LIVENESS = "berthlb-liveness"
"""The ServiceAccount of speakers for liveness alone, beside those that announce."""
MANIFEST = ROOT / "deploy/berthlb.yaml"
PORT = 6443
START_S = 60.0  # about five, alone on two cores
HUNG_S = 300.0
"""A kubectl that takes longer will not end."""
UNDEFINED_S = 150.0  # kube-apiserver looks for a minute whether the last object of the kind is gone, then starts again
ADMIN_TOKEN = "admin"
DEFINITION = "CustomResourceDefinition"
MORTAL = ("setpriv", "--pdeathsig", "KILL")
"""Before a command: it ends with this process, however that ends."""
_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)


def make_credentials(directory: Path, address: str) -> None:
    """What ``server_flags`` names: ``server.crt`` is its own authority, and ``ADMIN_TOKEN`` the administrator's."""
    names = f"subjectAltName=IP:127.0.0.1,IP:{address},DNS:kubernetes.default.svc"
    new = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=kube-apiserver")
    files = ("-keyout", f"{directory}/server.key", "-out", f"{directory}/server.crt")
    subprocess.run([*new, "-addext", names, *files], check=True, capture_output=True)
    subprocess.run(["openssl", "genrsa", "-out", f"{directory}/sa.key", "2048"], check=True, capture_output=True)
    (directory / "tokens.csv").write_text(f'{ADMIN_TOKEN},admin,1,"system:masters"\n')


def etcd_flags(directory: Path) -> tuple[str, ...]:
    return (
        f"--data-dir={directory}/etcd",
        "--listen-client-urls=http://127.0.0.1:2379",
        "--advertise-client-urls=http://127.0.0.1:2379",
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--unsafe-no-fsync",
    )


def server_flags(directory: Path, address: str) -> tuple[str, ...]:
    """Of a kube-apiserver at that address, beside its etcd."""
    return (
        "--etcd-servers=http://127.0.0.1:2379",
        "--bind-address=0.0.0.0",
        f"--advertise-address={address}",
        f"--secure-port={PORT}",
        f"--tls-cert-file={directory}/server.crt",
        f"--tls-private-key-file={directory}/server.key",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-signing-key-file={directory}/sa.key",
        f"--service-account-key-file={directory}/sa.key",
        f"--service-cluster-ip-range={','.join(SERVICE_NETWORKS.values())}",
        "--authorization-mode=RBAC",
        f"--token-auth-file={directory}/tokens.csv",
        "--endpoint-reconciler-type=none",
    )


class ControlPlane:
    """Runs from ``start`` to ``end``, on a host of the wire. ``definitions``: a directory of CustomResourceDefinitions
    that it has instead of ours. ``manifest``: what is installed in it; None: nothing."""

    def __init__(
        self,
        wire: Wire,
        directory: Path,
        *flags: str,
        definitions: Path | None = None,
        manifest: Path | None = MANIFEST,
    ) -> None:
        self._directory = directory
        self._flags = flags
        self._definitions = definitions
        self._manifest = manifest
        self._processes: list[subprocess.Popen[bytes]] = []
        self._audit = directory / "audit.log"
        self.host = wire.host("cp")
        self.address = wire.address(self.host)
        self._relay = Relay(self.host, PORT)

    def start(self) -> ControlPlane:
        """Returns when the server is ready and has taken the manifest."""
        make_credentials(self._directory, self.address)
        audit.write_policy(self._directory / "audit.yaml", (*DAEMONS, LIVENESS))
        self._run("etcd", *etcd_flags(self._directory))
        self._run(
            "kube-apiserver",
            *server_flags(self._directory, self.address),
            f"--audit-policy-file={self._directory}/audit.yaml",
            f"--audit-log-path={self._audit}",
            *self._flags,
        )
        self._relay.start()
        wait_until(self._is_ready, START_S, f"kube-apiserver is not ready; its log is in {self._directory}")
        if self._manifest is None:
            return self
        if self._definitions is None:
            self.kubectl("apply", "-f", str(self._manifest))
        else:
            self.kubectl("apply", "-f", str(self._definitions))
            rest = [each for each in yaml.safe_load_all(self._manifest.read_text()) if each["kind"] != DEFINITION]
            self.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(rest))
        self.await_definitions()
        return self

    def end(self) -> None:
        for process in self._processes:
            process.kill()  # an end by request waits ten seconds for watches, and nothing is kept
            process.wait()
        self._relay.end()

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """What kubectl prints; it must succeed."""
        done = self.try_kubectl(*arguments, stdin=stdin)
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def try_kubectl(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        command = [program("kubectl"), f"--kubeconfig={self.kubeconfig()}", *arguments]
        home = {"HOME": str(self._directory), "PATH": os.environ["PATH"]}
        return subprocess.run(
            command, input=stdin, capture_output=True, text=True, check=False, timeout=HUNG_S, env=home
        )

    def await_definitions(self) -> None:
        """Return when all that are there are served."""
        self.kubectl("wait", "--for=condition=Established", "--all", "crd", "--timeout=120s")

    def undefine(self, *named: str) -> None:
        """Delete definitions with all their objects. ``named``: as for ``kubectl delete``."""
        self.kubectl("delete", *named, "--ignore-not-found", "--wait=false")

        def are_gone() -> bool:
            return not self.kubectl("get", "crd", "-o", "jsonpath={.items[?(@.metadata.deletionTimestamp)].status}")

        wait_until(are_gone, UNDEFINED_S, f"definitions do not go; the servers' logs are in {self._directory}")

    def kubeconfig(self, token: str = ADMIN_TOKEN, *, on_the_wire: bool = False) -> Path:
        """A kubeconfig for the bearer of a token, in this process's network or for hosts ``on_the_wire``."""
        server = f"https://{self.address}:{PORT}" if on_the_wire else f"https://127.0.0.1:{self._relay.port}"
        cluster = {"server": server, "certificate-authority": f"{self._directory}/server.crt"}
        config: dict[str, Any] = {"apiVersion": "v1", "kind": "Config", "current-context": "test"}
        config["clusters"] = [{"name": "test", "cluster": cluster}]
        config["users"] = [{"name": "test", "user": {"token": token}}]
        config["contexts"] = [{"name": "test", "context": {"cluster": "test", "user": "test"}}]
        path = self._directory / f"kubeconfig-{hash((token, on_the_wire)) & 0xFFFFFFFF:08x}"
        path.write_text(json.dumps(config))
        return path

    @contextmanager
    def garbage_collector(self) -> Iterator[None]:
        """kube-controller-manager's, from when it has taken a first object away."""
        number = len(self._processes)
        self._run(
            "kube-controller-manager",
            f"--kubeconfig={self.kubeconfig(on_the_wire=True)}",
            "--controllers=garbage-collector-controller",
            "--leader-elect=false",
            f"--cert-dir={self._directory}",
        )
        owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "nobody", "uid": "nobody"}
        meta = {"name": "orphan", "namespace": "default", "ownerReferences": [owner]}
        orphan = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta}
        try:
            self.kubectl("apply", "-f", "-", stdin=json.dumps(orphan))
            gone = ("get", "configmap", "orphan", "--namespace=default", "--ignore-not-found", "-o", "name")
            wait_until(lambda: not self.kubectl(*gone), START_S, f"nothing collects garbage; see {self._directory}")
            yield
        finally:
            process = self._processes.pop(number)
            process.kill()
            process.wait()

    def token(self, service_account: str) -> str:
        """A token of a ServiceAccount in ``metallb-system``, by the TokenRequest API."""
        return self.kubectl("create", "token", service_account, "--namespace=metallb-system").strip()

    def requests(self, service_account: str) -> list[audit.ApiRequest]:
        """What a ServiceAccount of ``metallb-system`` has asked so far."""
        return audit.requests(self._audit, service_account)

    def _run(self, name: Program, *flags: str) -> None:
        with (self._directory / f"{name}.log").open("wb") as log:
            self._processes.append(self.host.start(*MORTAL, program(name), *flags, stdout=log, stderr=log))

    def _is_ready(self) -> bool:
        for process in self._processes:
            assert process.poll() is None, f"a server ended; its log is in {self._directory}"
        return self.try_kubectl("get", "--raw", "/readyz").returncode == 0


class Relay:
    """Connections to a free port of 127.0.0.1 here go on to a port of 127.0.0.1 in a host's namespace."""

    def __init__(self, host: WireHost, port: int) -> None:
        self._host = host
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def start(self) -> None:
        threading.Thread(target=self._accept, daemon=True).start()

    def end(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):  # ended
            while True:
                here, _ = self._listener.accept()
                threading.Thread(target=self._carry, args=(here,), daemon=True).start()

    def _carry(self, here: socket.socket) -> None:
        with closing(here), self._host.namespace.open() as namespace:
            if _LIBC.setns(namespace.fileno(), _CLONE_NEWNET):
                return
            with suppress(OSError), socket.create_connection(("127.0.0.1", self._to)) as there:
                back = threading.Thread(target=_pump, args=(there, here), daemon=True)
                back.start()
                _pump(here, there)
                back.join()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    """Carry octets until one end has had enough."""
    with suppress(OSError):
        while octets := source.recv(1 << 16):
            sink.sendall(octets)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
