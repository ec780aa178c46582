"""The pods of a lab: the processes that its kubelets' stand-ins ask the keeper to start and stop.

A pod's process is a fork of the keeper in its node's network namespace, and listens at the pod's addresses, which the
node has meanwhile (``lab.standins.workload`` is what it runs).
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence

from lab.control.messages import PodEnded, StartPod, StopPod
from lab.machines import processes
from lab.machines.children import Children
from lab.machines.hosts import Hosts
from lab.standins import workload


class Pods:
    """``on_ended`` is told of a pod's process that has ended by itself."""

    def __init__(self, hosts: Hosts, children: Children, on_ended: Callable[[PodEnded], None]) -> None:
        self._hosts = hosts
        self._children = children
        self._on_ended = on_ended

    def start(self, wanted: StartPod) -> str | None:
        """Run a pod's server, unless it runs; the reason if that is not possible."""
        if not self._hosts.has_power(wanted.node):
            return f"{wanted.node} has no power"
        name = process_name(wanted.pod)
        if self._children.find(wanted.node, name) is not None:
            return None
        try:
            listeners = self._hosts.listen_as_pod(wanted.node, wanted.addresses, wanted.ports)
        except OSError as error:
            return f"cannot listen at {' and '.join(wanted.addresses)}: {error.strerror}"
        short = wanted.pod.partition("/")[2]

        def serve(descriptors: Sequence[int]) -> None:
            workload.serve(wanted.node, short, descriptors)

        log = self._children.log(wanted.node, name)
        try:
            pid = processes.run_function(
                wanted.node,
                self._hosts.namespace(wanted.node),
                streams=(self._hosts.null, log, log),
                keep=[listener.fileno() for listener in listeners],
                main=serve,
            )
        finally:
            os.close(log)
            for listener in listeners:
                listener.close()
        self._children.keep(wanted.node, name, pid, on_end=lambda code: self._on_ended(PodEnded(wanted.pod, code)))
        return None

    def stop(self, unwanted: StopPod) -> None:
        """End a pod's server and take its addresses away. On return all are gone."""
        process = self._children.find(unwanted.node, process_name(unwanted.pod))
        if process is not None:
            process.on_end = None
            process.signal(signal.SIGKILL)
            os.waitpid(process.pid, 0)  # at once: its addresses may be wanted again
            self._children.forget(process)
        if self._hosts.has_power(unwanted.node):
            self._hosts.take_pod_addresses(unwanted.node, unwanted.addresses)


def process_name(pod: str) -> str:
    """The name of a pod's process: in the log directory it must be one path component."""
    return "pod " + pod.replace("/", ".")
