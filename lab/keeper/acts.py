"""What clients do to the processes of a lab: start, stop, kill, pause, resume."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable

from lab.control.messages import Act, AnyAnswer, Declined, Done
from lab.keeper.starter import Starter
from lab.machines import processes
from lab.machines.children import Children
from lab.machines.processes import Process

STOP_S = 5.0  # for a process to end after SIGTERM, before it is said that it did not
SIGNALS = {"kill": signal.SIGKILL, "pause": signal.SIGSTOP, "resume": signal.SIGCONT}

GiveAnswer = Callable[[AnyAnswer], None]
After = Callable[[float, Callable[[], None]], None]
"""Make a call in so many seconds."""


class RefusedError(Exception):
    """The request cannot be carried out; the message says why."""


class Acts:
    """Carries out ``Act`` on hosts that have power."""

    def __init__(self, children: Children, starter: Starter, after: After) -> None:
        self._children = children
        self._starter = starter
        self._after = after

    def carry_out(self, act: Act, answer: GiveAnswer) -> None:
        """Act on a process, and call ``answer`` when that is done, now or later. Raises ``RefusedError``."""
        process = self._children.find(act.host, act.process)
        if act.action == "start":
            if process is not None:
                raise RefusedError(f"{act.host}: its {act.process} runs already")
            if not self._starter.start_again(act.host, act.process):
                raise RefusedError(f"{act.host}: the lab runs no {act.process} there")
            answer(Done())
            return
        if process is None:
            raise RefusedError(f"{act.host}: no {act.process} runs there")
        if act.action == "stop":
            self._stop(process, answer)
            return
        watchers = processes.children_of(process.pid)
        chosen = {"announcer": [process.pid], "watcher": watchers, "both": [*watchers, process.pid]}[act.part]
        if not chosen:
            raise RefusedError(f"{act.host}: its {act.process} has no watcher at the moment")
        _send_all(chosen, SIGNALS[act.action])
        if act.action == "pause" and act.seconds is not None:
            self._after(act.seconds, lambda: _send_all(chosen, signal.SIGCONT))
        if act.action == "kill" and process.pid in chosen:
            process.on_end = lambda _: answer(Done())
        else:
            answer(Done())

    def _stop(self, process: Process, answer: GiveAnswer) -> None:
        """SIGTERM, as Kubernetes ends a pod; answered when it has ended, or with a refusal if it does not."""
        process.on_end = lambda _: answer(Done())

        def give_up() -> None:
            if process.running:
                process.on_end = None
                answer(Declined(f"{process.host}: its {process.name} did not end within {STOP_S:.0f} s"))

        process.signal(signal.SIGTERM)
        self._after(STOP_S, give_up)


def _send_all(pids: list[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
