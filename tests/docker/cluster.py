"""A cluster of containers on a private network: a real API server, two nodes, both daemons, a client.

A speaker shares its node's network, as a DaemonSet's pod with ``hostNetwork`` does, and beyond that has what the
manifest gives it. A node (``kube_proxy.py``) does what a kube-proxy would. Nothing of this is reached from outside: the
API server is asked by kubectl in its own container, the address by the client, and each daemon's ``/readyz`` from its
own network.
"""

from __future__ import annotations

import ipaddress
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tests.docker.manifest import MANIFEST, as_service, pod_of
from tests.engine import PATIENCE_S, docker, environment
from tests.kubernetes.control_plane import ADMIN_TOKEN, PORT, etcd_flags, make_credentials, server_flags
from tests.real import program
from tests.waiting import wait_until

KUBE_PROXY = Path(__file__).with_name("kube_proxy.py")
NAMESPACE = "metallb-system"
NODES = ("node-1", "node-2")
SPEAKERS = dict(zip(NODES, ("speaker-1", "speaker-2"), strict=True))
DAEMONS = ("controller", *SPEAKERS.values())
FOR_TESTS = ipaddress.IPv4Network("198.18.0.0/15")  # RFC 2544: nobody's
START_S = 120.0
GET = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=5).read().decode(), end='')"

Address = ipaddress.IPv4Address


def free_network() -> ipaddress.IPv4Network:
    """One that overlaps no other network of the engine."""
    found = json.loads(docker("network", "inspect", *docker("network", "ls", "--quiet").split()))
    subnets = [each["Subnet"] for network in found for each in network["IPAM"]["Config"] or ()]
    taken = [ipaddress.IPv4Network(each) for each in subnets if ":" not in each]
    return next(each for each in FOR_TESTS.subnets(new_prefix=24) if not any(each.overlaps(other) for other in taken))


class Cluster:
    """``file`` describes it to Compose. The ``first`` containers are to be brought up, then it is ``install``ed, then
    its daemons are brought up too."""

    first = ("etcd", "api", *NODES, "client")

    def __init__(self, project: str, directory: Path, images: dict[str, str]) -> None:
        """``images``: the id of each of ours. ``directory``: for what the cluster writes; it has to last as long."""
        self.project = project
        self._directory = directory
        self._images = {daemon: f"{project}/{daemon}" for daemon in images}
        for daemon, image in images.items():
            docker("tag", image, self._images[daemon])
        self._network = free_network()
        self._at = {
            name: str(self._network[number])
            for name, number in (("api", 2), ("controller", 3), ("node-1", 11), ("node-2", 12), ("client", 100))
        }
        self.addresses = ipaddress.IPv4Network(f"{self._network[200]}/29")
        """The pool."""
        make_credentials(directory, self._at["api"])
        for daemon in images:
            (directory / daemon).mkdir()
            shutil.copy(directory / "server.crt", directory / daemon / "ca.crt")
            (directory / daemon / "namespace").write_text(NAMESPACE)
        self.file = directory / "compose.yaml"
        self.file.write_text(json.dumps(self._compose()))

    # -------------------------------------------------------------------- what it consists of

    def _compose(self) -> dict[str, Any]:
        services = self._api() | {name: self._node() for name in NODES} | {"client": self._python("sleep", "infinity")}
        for name, service in services.items():
            if name in self._at:
                service["networks"] = {"lan": {"ipv4_address": self._at[name]}}
        services["controller"] = self._daemon("controller", "Deployment", "controller")
        services["controller"]["networks"] = {"lan": {"ipv4_address": self._at["controller"]}}
        for node, speaker in SPEAKERS.items():
            services[speaker] = {**self._daemon("speaker", "DaemonSet", node), "network_mode": f"service:{node}"}
        for name, service in services.items():
            service["container_name"] = f"{self.project}-{name}"
            if "network_mode" not in service:
                service["hostname"] = name
        # Not "internal": its firewall may drop what goes from one container to a group, and so the heartbeats.
        alone = {"com.docker.network.bridge.enable_ip_masquerade": "false"}
        lan = {"ipam": {"config": [{"subnet": str(self._network)}]}, "driver_opts": alone}
        return {"version": "2.4", "services": services, "networks": {"lan": lan}}

    def _api(self) -> dict[str, dict[str, Any]]:
        programs = [f"{program(each)}:/programs/{each}:ro" for each in ("etcd", "kube-apiserver", "kubectl")]
        both = {"volumes": [*programs, f"{self._directory}:{self._directory}"], "stop_grace_period": "0s"}
        etcd = self._python("/programs/etcd", *etcd_flags(self._directory))
        api = self._python("/programs/kube-apiserver", *server_flags(self._directory, self._at["api"]))
        return {"etcd": {**etcd, **both, "network_mode": "service:api"}, "api": {**api, **both}}

    def _node(self) -> dict[str, Any]:
        return {
            **self._python("python3", "/kube_proxy.py", str(self.addresses)),
            "volumes": [f"{KUBE_PROXY}:/kube_proxy.py:ro"],
            "cap_add": ["NET_ADMIN"],
            "sysctls": {"net.ipv4.conf.all.arp_ignore": "1"},
        }

    def _python(self, *command: str) -> dict[str, Any]:
        """Anything else that needs an image: ours has Python."""
        return {"image": self._images["speaker"], "entrypoint": list(command), "user": "0:0", "stop_grace_period": "0s"}

    def _daemon(self, daemon: str, kind: str, where: str) -> dict[str, Any]:
        fields = {
            "metadata.namespace": NAMESPACE,
            "spec.nodeName": where,
            "status.hostIP": self._at[where],
            "status.podIP": self._at[where],
        }
        api = f"{self._at['api']}:{PORT}"
        return as_service(pod_of(kind), self._images[daemon], fields, api, self._directory / daemon)

    # -------------------------------------------------------------------- bringing it up

    def install(self) -> None:
        """Our manifests, two Nodes, a pool and a Service; and what kubelets would give the daemons."""
        wait_until(self._answers, START_S, "kube-apiserver is not ready")
        self.kubectl("apply", "-f", "-", stdin=MANIFEST.read_text())
        self.kubectl("wait", "--for=condition=Established", "--all", "crd", "--timeout=120s")
        for daemon in self._images:
            token = self.kubectl("create", "token", f"berthlb-{daemon}", f"--namespace={NAMESPACE}")
            (self._directory / daemon / "token").write_text(token.strip())
        self.apply(*self._nodes(), *self._configuration(), *self._service("web"))
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady"}
        for node in NODES:
            status = {"addresses": [{"type": "InternalIP", "address": self._at[node]}], "conditions": [ready]}
            patch = json.dumps({"status": status})
            self.kubectl("patch", "node", node, "--subresource=status", "--type=merge", f"--patch={patch}")

    def _answers(self) -> bool:
        return "ok" in docker("exec", self.container("api"), *self._kubectl("get", "--raw", "/readyz"), check=False)

    def _nodes(self) -> list[dict[str, Any]]:
        return [{"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}} for node in NODES]

    def _configuration(self) -> list[dict[str, Any]]:
        metadata = {"name": "lan", "namespace": NAMESPACE}
        pool = {"addresses": [str(self.addresses)]}
        return [
            {"apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool", "metadata": metadata, "spec": pool},
            {"apiVersion": "metallb.io/v1beta1", "kind": "L2Advertisement", "metadata": metadata},
        ]

    def _service(self, name: str) -> list[dict[str, Any]]:
        """With an endpoint on each node."""
        labels = {"kubernetes.io/service-name": name}
        return [
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": name, "namespace": "default"},
                "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]},
            },
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {"name": name, "namespace": "default", "labels": labels},
                "addressType": "IPv4",
                "ports": [{"name": "", "port": 80}],
                "endpoints": [
                    {"addresses": [self._at[node]], "nodeName": node, "conditions": {"ready": True}} for node in NODES
                ],
            },
        ]

    # -------------------------------------------------------------------- using it

    def container(self, name: str) -> str:
        return f"{self.project}-{name}"

    def kubectl(self, *arguments: str, stdin: str = "") -> str:
        """What kubectl prints; it must succeed."""
        done = subprocess.run(
            ["docker", "exec", "--interactive", self.container("api"), *self._kubectl(*arguments)],
            input=stdin, env=environment(), capture_output=True, text=True, check=False, timeout=PATIENCE_S,
        )  # fmt: skip
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def _kubectl(self, *arguments: str) -> tuple[str, ...]:
        authority = f"--certificate-authority={self._directory}/server.crt"
        return (
            "/programs/kubectl",
            f"--server=https://127.0.0.1:{PORT}",
            authority,
            f"--token={ADMIN_TOKEN}",
            *arguments,
        )

    def apply(self, *objects: dict[str, Any]) -> None:
        listed = {"apiVersion": "v1", "kind": "List", "items": objects}
        self.kubectl("apply", "-f", "-", stdin=json.dumps(listed))

    def add_service(self, name: str) -> None:
        self.apply(*self._service(name))

    def address(self, service: str) -> str:
        """Of a Service that has one, or is to get it now."""
        path = "jsonpath={.status.loadBalancer.ingress[0].ip}"
        return wait_until(lambda: self.kubectl("get", "service", service, "--output", path), START_S)

    def answer(self, address: str) -> str:
        """Which node answers the client at an address; empty: none."""
        return docker("exec", self.container("client"), "python3", "-c", GET, f"http://{address}/", check=False)

    def neighbour(self, address: str) -> str:
        """The node to which the client sends what is for an address, by its neighbour table; empty: none."""
        table = docker("exec", self.container("client"), "cat", "/proc/net/arp").splitlines()[1:]
        entries = {line.split()[0]: line.split()[3] for line in table}
        return next((node for node in NODES if self._hardware_address(node) == entries.get(address)), "")

    def announcers(self, address: str) -> list[str]:
        """The nodes whose speakers say that they announce an address."""
        series = re.compile(rf'^metallb_speaker_announced{{.*ip="{address}".*}} 1\.0$', re.MULTILINE)
        return [node for node, speaker in SPEAKERS.items() if series.search(self.status(speaker, "/metrics"))]

    def _hardware_address(self, node: str) -> str:
        path = "{{range .NetworkSettings.Networks}}{{.MacAddress}}{{end}}"
        return docker("inspect", "--format", path, self.container(node)).strip()

    def status(self, daemon: str, path: str) -> str:
        """What a daemon serves there; empty where it answers with an error, or not at all."""
        return docker("exec", self.container(daemon), "python", "-c", GET, self.url(daemon, path), check=False)

    def url(self, daemon: str, path: str) -> str:
        """Where a daemon serves something, for who shares its network."""
        kind, host = ("Deployment", self._at[daemon]) if daemon in self._at else ("DaemonSet", "127.0.0.1")
        (port,) = [p["containerPort"] for p in pod_of(kind)["containers"][0]["ports"] if p["name"] == "monitoring"]
        return f"http://{host}:{port}{path}"

    def beside(self, daemon: str) -> str:
        """A container that can ask a daemon, and is there while the daemon is not."""
        return next((node for node, speaker in SPEAKERS.items() if speaker == daemon), "client")

    def is_ready(self, daemon: str) -> bool:
        return self.status(daemon, "/readyz").startswith("ok")

    def cut_power(self, node: str) -> None:
        """Kill all that runs on a node; its end of the wire goes with it."""
        docker("kill", self.container(SPEAKERS[node]), self.container(node))

    def restore_power(self, node: str) -> None:
        for each in (node, SPEAKERS[node]):
            docker("start", self.container(each))

    def await_ready(self) -> None:
        for daemon in DAEMONS:
            wait_until(lambda daemon=daemon: self.is_ready(daemon), START_S, f"{daemon}: {self.log(daemon)[-5:]}")  # type: ignore[misc]

    def log(self, daemon: str) -> list[str]:
        """The lines that it has written, through all its starts."""
        return docker("logs", self.container(daemon), errors_too=True).splitlines()
