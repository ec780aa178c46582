"""Keeps a watcher running beside the announcer, and talks to it without ever waiting for it.

A watcher that ends is replaced: at once, and again with a pause that doubles from half a second to thirty while
replacements do not last. The announcer goes on without one. A watcher that cannot work with its arguments, before any
has ever sent a message, is the end of the speaker: another would fare no better.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import Callable

from cluster.daemon.command_line import EXIT_USAGE
from speaker.channel import (
    AnnouncerEnd,
    Brisk,
    ChannelError,
    Credentials,
    ExcludedInterfaces,
    FormerHolders,
    ToWatcher,
    WholePlan,
    announcer_end,
)
from speaker.child import Child
from speaker.directory import DirectoryChange
from speaker.parts import Joiner
from speaker.plan import Plan, PlanChange
from speaker.protocol.effects import RecordAnswer

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
LASTING_S = 60.0
"""Seconds after which a watcher counts as working: the next pause is the first again."""

Said = Credentials | ExcludedInterfaces | Brisk | FormerHolders | Plan | PlanChange | DirectoryChange | RecordAnswer
"""What a watcher says, each whole."""

logger = logging.getLogger(__name__)


class WatcherKeeper:
    """The present watcher, if any, and when there will be another."""

    def __init__(self, first: Child, spawn: Callable[[], Child], now: float) -> None:
        self._spawn = spawn
        self._pause = FIRST_PAUSE_S
        self._retry_at: float | None = None
        self._ended: set[int] = set()
        """Processes without a channel, not reaped yet."""
        self._lost: list[AnnouncerEnd] = []
        self._heard = False
        self.plan_revision = 0
        """Of the Plan as it is by what was received."""
        self.restarts = 0
        self.unusable_arguments = False
        """No watcher can work with the command line: the speaker should end with `EXIT_USAGE`."""
        self._adopt(first, now)

    @property
    def channel(self) -> AnnouncerEnd | None:
        """The channel to the present watcher."""
        return self._channel

    def take_lost(self) -> list[AnnouncerEnd]:
        """Channels of watchers that have ended, to be closed once nobody waits for them."""
        lost, self._lost = self._lost, []
        return lost

    def receive(self, now: float) -> list[Said]:
        """What the watcher said, put together where it came in parts; nothing if it has ended."""
        if self._channel is None:
            return []
        try:
            messages = self._channel.receive()
        except ChannelError as error:
            self._lose(str(error), now)
            return []
        self._heard = self._heard or bool(messages)
        whole: list[Said] = []
        for message in messages:
            joined = self._joiner.take(message) if isinstance(message, WholePlan | PlanChange) else message
            if joined is not None:
                whole.append(joined)
            if isinstance(joined, Plan | PlanChange):
                self.plan_revision = joined.revision
        return whole

    def send(self, message: ToWatcher, now: float) -> None:
        """Tell the watcher, if there is one."""
        if self._channel is not None:
            try:
                self._channel.send(message)
            except ChannelError as error:
                self._lose(str(error), now)

    def has_read(self, *kinds: type) -> bool:
        """Whether there is a watcher, for which no message of these types waits any more."""
        return self._channel is not None and not self._channel.waits_for(*kinds)

    def flush(self, now: float) -> None:
        """Write what waits."""
        if self._channel is not None:
            try:
                self._channel.flush()
            except ChannelError as error:
                self._lose(str(error), now)

    def handle_timer(self, now: float) -> bool:
        """Reap what has ended and start another watcher when it is time; whether one was started."""
        self._reap()
        if self._retry_at is None or now < self._retry_at or self.unusable_arguments:
            return False
        self._retry_at = None
        self._kill()
        self.restarts += 1
        try:
            child = self._spawn()
        except OSError as error:  # no memory or no process to be had now
            self._retry_at = self._next_try(now)
            logger.warning("watcher not started", extra={"reason": str(error)})
            return False
        self._adopt(child, now)
        return True

    def next_deadline(self) -> float | None:
        return self._retry_at

    def end(self) -> None:
        """End the watcher, which has nothing to save."""
        if self._channel is not None:
            self._let_go()
        self._kill()

    def _adopt(self, child: Child, now: float) -> None:
        self._pid = child.pid
        self._channel: AnnouncerEnd | None = announcer_end(child.channel)
        self._joiner = Joiner()
        self._started = now

    def _lose(self, reason: str, now: float) -> None:
        logger.warning("watcher lost", extra={"reason": reason, "pid": self._pid})
        self._let_go()
        if now - self._started >= LASTING_S:
            self._pause = FIRST_PAUSE_S
            self._retry_at = now
        else:
            self._retry_at = self._next_try(now)

    def _next_try(self, now: float) -> float:
        at, self._pause = now + self._pause, min(2 * self._pause, LONGEST_PAUSE_S)
        return at

    def _let_go(self) -> None:
        if self._channel is not None:
            self._lost.append(self._channel)
        self._channel = None
        self._ended.add(self._pid)

    def _kill(self) -> None:
        """It may live on without its channel, and two watchers would write the same objects."""
        for pid in self._ended:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._reap()

    def _reap(self) -> None:
        for pid in tuple(self._ended):
            try:
                ended, status = os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                self._ended.discard(pid)
                continue
            if ended:
                self._ended.discard(pid)
                if not self._heard and os.waitstatus_to_exitcode(status) == EXIT_USAGE:
                    self.unusable_arguments = True
