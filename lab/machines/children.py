"""The keeper's children: every process that it started, running or ended.

Each has a name, which is unique on its host, and a log file of that name in ``logs/HOST/`` of the lab's directory.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from lab.machines import processes
from lab.machines.hosts import Hosts
from lab.machines.processes import Process
from lab.shipped.rights import Rights


class Children:
    """What runs in a lab, what ran, and where each writes. ``directory`` is the lab's."""

    def __init__(self, directory: Path, hosts: Hosts) -> None:
        self.directory = directory
        self.kubeconfig = str(directory / "kubeconfig-inside")
        self.running: dict[int, Process] = {}
        self._hosts = hosts
        self._ended: dict[tuple[str, str], Process] = {}
        """The last process of each name on each host, once it has ended."""

    def log(self, host: str, name: str) -> int:
        """The log file of a process, open for appending."""
        path = self.directory / "logs" / host / f"{name}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def keep(self, host: str, name: str, pid: int, on_end: Callable[[int], None] | None = None) -> Process:
        """Remember a process that was started; ``on_end`` is told its code when it has ended."""
        process = Process(host, name, pid, on_end=on_end)
        self.running[pid] = process
        return process

    def forget(self, process: Process) -> None:
        """Drop a process whose end the caller has waited for."""
        del self.running[process.pid]

    def find(self, host: str, name: str) -> Process | None:
        """The running process of that name."""
        return next((p for p in self.running.values() if (p.host, p.name) == (host, name)), None)

    def known(self) -> list[Process]:
        """Those that run, and the last of every other name, by host and name."""
        known = [*self.running.values()]
        running = {(process.host, process.name) for process in known}
        known += [ended for key, ended in self._ended.items() if key not in running]
        return sorted(known, key=lambda process: (process.host, process.name))

    def reap(self) -> None:
        """Take note of those that have ended."""
        for pid, code in processes.reap().items():
            process = self.running.pop(pid, None)
            if process is None:
                continue
            process.code = code
            self._ended[process.host, process.name] = process
            if process.on_end is not None:
                process.on_end(code)

    def start_module(
        self,
        host: str,
        name: str,
        module: str,
        *arguments: str,
        keep: tuple[int, ...] = (),
        rights: Rights | None = None,
    ) -> Process:
        """Start one of our Python programs on a host, its output going to its log. ``rights``: as ``run_program``."""
        environment = {
            **os.environ,
            "PYTHONPATH": processes.python_path(),
            "PYTHONUNBUFFERED": "1",
            "KUBECONFIG": self.kubeconfig,
        }
        argv = (sys.executable, "-m", module, *arguments)
        return self.start_program(host, name, argv, environment, keep=keep, rights=rights)

    def start_program(
        self,
        host: str,
        name: str,
        argv: Sequence[str],
        environment: Mapping[str, str],
        *,
        keep: tuple[int, ...] = (),
        rights: Rights | None = None,
    ) -> Process:
        """Start a program on a host, its output going to its log. ``rights``: as ``run_program``."""
        log = self.log(host, name)
        try:
            streams = (self._hosts.null, log, log)
            namespace = self._hosts.namespace(host)
            pid = processes.run_program(host, namespace, argv, environment, streams=streams, keep=keep, rights=rights)
        finally:
            os.close(log)
        return self.keep(host, name, pid)
