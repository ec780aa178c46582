"""What the kubelets and the scheduler of a kind cluster do, for nodes on which neither runs.

A pod becomes a container in its node's network, where it wants the host's, or else in one with an address of the
cluster's network. It has the image, command, environment, rights and ServiceAccount of its spec. Whether it is ready is
asked as its probe says. An image that was not loaded into the node is not run: the pod waits.
"""

from __future__ import annotations

import contextlib
import ipaddress
import itertools
import json
import re
import subprocess
import threading
from pathlib import Path
from typing import Any

from tests.engine import docker, environment

ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
KUBECTL = ("kubectl", "--kubeconfig=/etc/kubernetes/admin.conf")
POLL_S = 0.3
GET = "import sys, urllib.request as r; r.urlopen(sys.argv[1], timeout=3)"
Object = dict[str, Any]


class ContainerKubelets:
    """Of one cluster, from ``start`` to ``stop``. ``directory``: for the pods' tokens; it has to last as long."""

    def __init__(self, cluster: str, network: str, directory: Path) -> None:
        self._cluster, self._network, self._directory = cluster, network, directory
        self._control_plane = f"{cluster}-control-plane"
        self._workers = itertools.cycle([f"{cluster}-worker", f"{cluster}-worker2"])
        self._containers: dict[str, str] = {}
        """Of each pod's uid."""
        self._serving: set[str] = set()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.trouble: str = ""
        """What went wrong last; much does, for a while, until a cluster is there."""

    def start(self) -> ContainerKubelets:
        self._thread.start()
        return self

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()
        for container in self._containers.values():
            self._remove(container)

    def kubectl(self, *arguments: str, given: str = "") -> str:
        done = subprocess.run(
            ["docker", "exec", "--interactive", self._control_plane, *KUBECTL, *arguments],
            input=given, env=environment(), capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def _run(self) -> None:
        while not self._ended.wait(POLL_S):
            try:
                self._look()
            except (AssertionError, subprocess.TimeoutExpired, KeyError, ValueError) as error:
                self.trouble = str(error)

    def _look(self) -> None:
        nodes = docker(
            "ps", "--filter", f"label=io.x-k8s.kind.cluster={self._cluster}", "--format", "{{.Names}}"
        ).split()
        if not nodes:
            return
        seen = json.loads(self.kubectl("get", "nodes,pods", "--all-namespaces", "--output=json"))["items"]
        known = {each["metadata"]["name"] for each in seen if each["kind"] == "Node"}
        for node in nodes:
            if node not in known:
                self._register(node)
        pods = [each for each in seen if each["kind"] == "Pod"]
        for gone in self._containers.keys() - {each["metadata"]["uid"] for each in pods}:
            self._remove(self._containers.pop(gone))
        for pod in pods:
            if "deletionTimestamp" in pod["metadata"]:
                self._end(pod)
            elif not pod["spec"].get("nodeName"):
                self._bind(pod)
            elif pod["metadata"]["uid"] not in self._containers:
                self._begin(pod)
            else:
                self._report(pod)

    def _remove(self, container: str) -> None:
        docker("rm", "--force", container, f"{container}-sandbox", check=False)

    # -------------------------------------------------------------------- nodes

    def _address(self, container: str) -> str:
        path = f'{{{{(index .NetworkSettings.Networks "{self._network}").IPAddress}}}}'
        return docker("inspect", "--format", path, container).strip()

    def _register(self, node: str) -> None:
        labels = {"kubernetes.io/hostname": node, "kubernetes.io/os": "linux"}
        if node == self._control_plane:
            labels |= {
                "node-role.kubernetes.io/control-plane": "",
                "node.kubernetes.io/exclude-from-external-load-balancers": "",
            }
        self.kubectl(
            "apply",
            "-f",
            "-",
            given=json.dumps({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node, "labels": labels}}),
        )
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady"}
        status = {"addresses": [{"type": "InternalIP", "address": self._address(node)}], "conditions": [ready]}
        self._patch("node", node, "", status)
        # Put there on creation; who would take it away is not among the controllers that run here.
        self.kubectl("taint", "node", node, "node.kubernetes.io/not-ready:NoSchedule-")
        if node not in self._serving:
            # The end of the network, where pools are: kube-proxy would know the addresses one by one.
            path = "{{range .IPAM.Config}}{{.Subnet}} {{end}}"
            subnets = docker("network", "inspect", "--format", path, self._network).split()
            subnet = next(ipaddress.IPv4Network(each) for each in subnets if ":" not in each)
            upper = f"{subnet.broadcast_address - 127}/25"
            docker("exec", "--detach", node, "node.py", "proxy", upper)
            self._serving.add(node)

    def _patch(self, kind: str, name: str, namespace: str, status: Object) -> None:
        where = [f"--namespace={namespace}"] if namespace else []
        patch = json.dumps({"status": status})
        self.kubectl("patch", kind, name, *where, "--subresource=status", "--type=merge", f"--patch={patch}")

    # -------------------------------------------------------------------- pods

    def _bind(self, pod: Object) -> None:
        metadata = pod["metadata"]
        wanted = re.findall(
            r'"key": "metadata.name", "operator": "In", "values": \["([^"]+)"\]', json.dumps(pod["spec"])
        )
        target = {"apiVersion": "v1", "kind": "Node", "name": wanted[0] if wanted else next(self._workers)}
        binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": metadata["name"]}, "target": target}
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}/binding"
        self.kubectl("create", "--raw", path, "-f", "-", given=json.dumps(binding))

    def _begin(self, pod: Object) -> None:
        metadata, spec = pod["metadata"], pod["spec"]
        (container,) = spec["containers"]
        node, image = spec["nodeName"], container["image"]
        loaded = docker("exec", node, "cat", "/var/loaded", check=False).split()
        if image.removeprefix("docker.io/") not in {each.removeprefix("docker.io/") for each in loaded}:
            self.trouble = f"{image} was not loaded into {node}"
            return
        name = f"pod-{metadata['uid']}"
        hosts_network = spec.get("hostNetwork", False)
        sandbox = node if hosts_network else self._sandbox(name)
        context = {**spec.get("securityContext", {}), **container.get("securityContext", {})}
        arguments = ["run", "--detach", "--name", name, "--security-opt", "no-new-privileges:true"]
        arguments += ["--network", f"container:{sandbox}"]
        for each in context.get("capabilities", {}).get("drop", []):
            arguments += ["--cap-drop", each]
        for each in context.get("capabilities", {}).get("add", []):
            arguments += ["--cap-add", each]
        if context.get("readOnlyRootFilesystem"):
            arguments += ["--read-only"]
        if "runAsUser" in context:
            arguments += ["--user", f"{context['runAsUser']}:{context.get('runAsGroup', 0)}"]
        given = {"KUBERNETES_SERVICE_HOST": self._control_plane, "KUBERNETES_SERVICE_PORT": "6443"}
        fields = {
            "metadata.namespace": metadata["namespace"],
            "metadata.name": metadata["name"],
            "spec.nodeName": node,
            "status.hostIP": self._address(node),
            "status.podIP": self._address(sandbox),
        }
        for each in container.get("env", []):
            source = each.get("valueFrom")
            given[each["name"]] = fields[source["fieldRef"]["fieldPath"]] if source else each["value"]
        for variable, value in given.items():
            arguments += ["--env", f"{variable}={value}"]
        arguments += ["--volume", f"{self._account(metadata['namespace'], spec['serviceAccountName'])}:{ACCOUNT}:ro"]
        command = [*container.get("command", []), *container.get("args", [])]
        command = [re.sub(r"\$\((\w+)\)", lambda found: given[found[1]], each) for each in command]
        if container.get("command"):
            arguments += ["--entrypoint", command.pop(0)]
        docker(*arguments, image, *command)
        self._containers[metadata["uid"]] = name

    def _sandbox(self, name: str) -> str:
        """A container that has the pod's address, also before the pod begins."""
        docker("rm", "--force", f"{name}-sandbox", check=False)
        image = docker("inspect", "--format", "{{.Image}}", self._control_plane).strip()
        docker(
            "run",
            "--detach",
            "--name",
            f"{name}-sandbox",
            "--network",
            self._network,
            "--entrypoint",
            "sleep",
            image,
            "infinity",
        )
        return f"{name}-sandbox"

    def _account(self, namespace: str, name: str) -> Path:
        directory = self._directory / f"{namespace}-{name}"
        if not directory.exists():
            token = self.kubectl("create", "token", name, f"--namespace={namespace}", "--duration=2h")
            authority = docker("exec", self._control_plane, "cat", "/credentials/server.crt")
            directory.mkdir()
            for file, content in (("token", token), ("ca.crt", authority), ("namespace", namespace)):
                (directory / file).write_text(content)
        return directory

    def _report(self, pod: Object) -> None:
        metadata, spec = pod["metadata"], pod["spec"]
        (container,) = spec["containers"]
        conditions = {each["type"]: each["status"] for each in pod.get("status", {}).get("conditions", [])}
        name = self._containers[metadata["uid"]]
        ready = self._is_ready(name, container, spec)
        if (conditions.get("Ready") == "True") == ready:
            return
        host = self._address(spec["nodeName"])
        ip = host if spec.get("hostNetwork") else self._address(f"{name}-sandbox")
        said = [
            {"type": each, "status": "True" if ready else "False"}
            for each in ("Ready", "ContainersReady", "PodScheduled")
        ]
        status = {"phase": "Running", "hostIP": host, "podIP": ip, "podIPs": [{"ip": ip}], "conditions": said}
        self._patch("pod", metadata["name"], metadata["namespace"], status)

    def _is_ready(self, name: str, container: Object, spec: Object) -> bool:
        probe = container["readinessProbe"]["httpGet"]
        ports = {each.get("name"): each["containerPort"] for each in container.get("ports", [])}
        ip = self._address(spec["nodeName"] if spec.get("hostNetwork") else f"{name}-sandbox")
        url = f"http://{probe.get('host', ip)}:{ports.get(probe['port'], probe['port'])}{probe['path']}"
        done = subprocess.run(
            ["docker", "exec", name, "python3", "-c", GET, url], env=environment(), capture_output=True, check=False
        )
        return done.returncode == 0

    def _end(self, pod: Object) -> None:
        uid, metadata = pod["metadata"]["uid"], pod["metadata"]
        if uid in self._containers:
            self._remove(self._containers.pop(uid))
        with contextlib.suppress(AssertionError):
            self.kubectl(
                "delete", "pod", metadata["name"], f"--namespace={metadata['namespace']}", "--force", "--grace-period=0"
            )
