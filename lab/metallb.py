"""MetalLB itself in a lab with a real control plane: to move from it and back to it, and to measure against it.

The objects are those of the manifest that its users apply, on MetalLB's own definitions. As in any cluster,
kube-controller-manager makes the Pods of the DaemonSet. The lab stands in for scheduler and kubelet: it gives each Pod
its node's address (they are in the host's network) and runs MetalLB's program on the node, with the rights and the
ServiceAccount of the manifest. The Pods therefore stay ``Pending``. All else is as in a cluster: speakers find each
other by the Pods' addresses, and status objects belong to the Pods and go with them.

The webhook is left out. The API server would have to reach it from ``cp``, where there is no kube-proxy.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import yaml

from lab.assets.metallb_release import MetalLBRelease
from lab.client import Command, Lab
from lab.control.messages import SPEC, Spec
from lab.controlplane.credentials import write_kubeconfig
from lab.errors import LabError
from lab.layout import CONTROL_PLANE, Host
from lab.machines.container import confined
from lab.measuring.measure import wait_for
from lab.shipped import ROOT
from lab.shipped.rights import Rights

NAMESPACE = "metallb-system"
SPEAKERS = "app=metallb,component=speaker"
START_S = 60.0  # for the Pods of a DaemonSet, and for the controller to make the key of the speakers' gossip
KUBECTL_S = 60.0
GRACE_S = 2.0
"""Its manifest's ``terminationGracePeriodSeconds`` for speakers; a kubelet kills what has not ended by then."""
END_S = 10.0
CONTROLLER_RIGHTS = Rights(user=65534, group=0, capabilities=())
SPEAKER_RIGHTS = Rights(user=0, group=0, capabilities=("NET_RAW",))
PORT = 7472
WEBHOOK = "ValidatingWebhookConfiguration"


class MetalLB:
    """``install`` once; ``start`` and ``stop`` as often as wanted, all or the speaker of one node."""

    def __init__(self, lab: Lab, release: MetalLBRelease) -> None:
        self._lab = lab
        self._release = release
        self._spec = msgspec.json.decode((lab.directory / SPEC).read_bytes(), type=Spec)
        self._directory = lab.directory / "metallb"
        self._running: dict[str, Command] = {}
        """By host. On ``cp`` the controller, on a node its speaker."""

    # -------------------------------------------------------------------- objects

    def install(self) -> None:
        """Have MetalLB's definitions in the place of ours, and all of its objects."""
        there = self.kubectl("get", "crd", "--output=name").split()
        ours = [name for name in there if name.endswith(".metallb.io")]
        if ours:
            self.kubectl("delete", "--wait", *ours)
        self.kubectl("apply", "--filename=-", given=yaml.safe_dump_all(self.objects()))
        self.kubectl("wait", "--for=condition=Established", "--all", "crd", "--timeout=30s")

    def objects(self) -> list[dict[str, Any]]:
        """Those of the manifest, without the webhook."""
        return [each for each in yaml.safe_load_all(self._release.manifest.read_text()) if each["kind"] != WEBHOOK]

    def webhook(self) -> dict[str, Any]:
        """What the manifest has the API server ask, where nobody answers in a lab."""
        every = yaml.safe_load_all(self._release.manifest.read_text())
        found: dict[str, Any] = next(each for each in every if each["kind"] == WEBHOOK)
        return found

    # -------------------------------------------------------------------- processes

    def start(self) -> None:
        """The controller and a speaker on every node. Returns when they run, not when they are done."""
        self._directory.mkdir(mode=0o700, exist_ok=True)
        self._start(
            CONTROL_PLANE,
            CONTROLLER_RIGHTS,
            self._release.controller,
            f"--kubeconfig={self._kubeconfig('controller')}",
            f"--namespace={NAMESPACE}",
            f"--port={PORT}",
            "--ml-secret-name=memberlist",
            "--deployment=controller",
            "--webhook-mode=disabled",
        )
        secret = wait_for(self._gossip_key, START_S, "MetalLB's controller makes no key", every=0.2)
        (self._directory / "secretkey").write_bytes(secret)
        pods = wait_for(self._pods, START_S, "the DaemonSet has no Pod for every node", every=0.2)
        for node, pod in pods.items():
            self._give_address(node, pod)
        for node, pod in pods.items():
            self.start_speaker(node, pod)

    def start_speaker(self, node: str, pod: str | None = None) -> None:
        """On a node that has power."""
        host = self._host(node)
        self._start(
            node,
            SPEAKER_RIGHTS,
            self._release.speaker,
            f"--kubeconfig={self._kubeconfig('speaker')}",
            f"--namespace={NAMESPACE}",
            f"--node-name={node}",
            f"--pod-name={pod or self._pods()[node]}",
            f"--host={host.address}",
            f"--port={PORT}",
            f"--ml-bindaddr={host.address}",
            f"--ml-labels={SPEAKERS}",
            f"--ml-secret-key-path={self._directory}",
        )

    def stop(self, *hosts: str) -> None:
        """End what runs on these hosts, or everything, as a kubelet does. Returns when it has ended."""
        ending = [self._running.pop(host) for host in hosts or tuple(self._running)]
        for command in ending:  # all at once, as the Pods of a DaemonSet
            if command.poll() is None:
                command.terminate()
        for command in ending:
            with command:
                try:
                    command.wait(GRACE_S)
                except TimeoutError:
                    command.send_signal(signal.SIGKILL)
                    command.wait(END_S)

    def log(self, host: str) -> Path:
        """What the process of a host says."""
        return self._lab.log(host, "metallb")

    def _start(self, host: str, rights: Rights, program: Path, *arguments: str) -> None:
        log = self.log(host)
        log.parent.mkdir(parents=True, exist_ok=True)
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
        with log.open("ab") as writing:
            argv = [*confined(rights), str(program), *arguments]
            self._running[host] = self._lab.start(host, argv, stdout=writing, stderr=writing, environment=environment)

    # -------------------------------------------------------------------- what a cluster would see to

    def _pods(self) -> dict[str, str]:
        """The Pod of each node's speaker; empty while a node has none."""
        listed = self.kubectl("get", "pods", f"--namespace={NAMESPACE}", f"--selector={SPEAKERS}", "--output=json")
        pods = {}
        for pod in json.loads(listed)["items"]:
            affinity = pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
            (field,) = affinity["nodeSelectorTerms"][0]["matchFields"]
            pods[field["values"][0]] = pod["metadata"]["name"]
        return pods if len(pods) == len(self._spec.layout.nodes) else {}

    def _give_address(self, node: str, pod: str) -> None:
        address = self._host(node).address
        status = {"hostIP": address, "hostIPs": [{"ip": address}], "podIP": address, "podIPs": [{"ip": address}]}
        patch = json.dumps({"status": status})
        where = (f"--namespace={NAMESPACE}", "--subresource=status", "--type=merge")
        self.kubectl("patch", "pod", pod, *where, f"--patch={patch}")

    def _gossip_key(self) -> bytes | None:
        if self._running[CONTROL_PLANE].poll() is not None:
            raise LabError(f"MetalLB's controller has ended: {self.log(CONTROL_PLANE).read_text()[-2000:]}")
        output = ("--ignore-not-found", "--output=jsonpath={.data.secretkey}")
        found = self.kubectl("get", "secret", "memberlist", f"--namespace={NAMESPACE}", *output)
        return base64.b64decode(found) if found else None

    def _kubeconfig(self, account: str) -> Path:
        """With a token of MetalLB's own ServiceAccount."""
        path = self._directory / f"{account}.kubeconfig"
        token = self.kubectl("create", "token", account, f"--namespace={NAMESPACE}", "--duration=24h").strip()
        cluster = json.loads(Path(self._lab.status().kubeconfig_inside).read_text())["clusters"][0]["cluster"]
        write_kubeconfig(path, self._lab.name, cluster, {"token": token})
        return path

    def _host(self, node: str) -> Host:
        return next(host for host in self._spec.layout.nodes if host.name == node)

    def kubectl(self, *arguments: str, given: str = "") -> str:
        """What kubectl prints, as the lab's administrator. Raises ``LabError``."""
        argv = [self._spec.programs["kubectl"], f"--kubeconfig={self._lab.kubeconfig}", *arguments]
        home = {"HOME": str(self._lab.directory), "PATH": os.environ["PATH"]}
        done = subprocess.run(
            argv, input=given, capture_output=True, text=True, timeout=KUBECTL_S, check=False, env=home
        )
        if done.returncode != 0:
            raise LabError(f"kubectl {arguments[0]}: {done.stderr.strip()}")
        return done.stdout
