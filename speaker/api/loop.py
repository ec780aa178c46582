"""A watcher's loop: what wakes it up, and how it listens and speaks to the announcer.

1. ``run`` makes one pass after another, until ``stop``, or until the announcer has gone.
2. In a pass ``wait`` sleeps until something is in the inbox, the announcer says something, or the next of the deadlines
   comes. What the announcer could not take at once is sent on.
3. What is in the inbox is left there: a watcher may have to look at something before it takes it.

Deadlines are monotonic seconds.
"""

from __future__ import annotations

import logging
import selectors
import time
from collections.abc import Callable

from speaker.api.inbox import Inbox
from speaker.channel import ChannelClosedError, ToWatcher, WatcherEnd

logger = logging.getLogger(__name__)


class Loop:
    """See the module's docstring."""

    def __init__(self, inbox: Inbox, channel: WatcherEnd) -> None:
        self._inbox = inbox
        self._channel = channel
        self._stopping = False
        self._selector = selectors.DefaultSelector()

    @property
    def reads(self) -> bool:
        """Whether the announcer has read all that it was sent."""
        return not self._channel.waiting

    def run(self, one_pass: Callable[[], object]) -> None:
        """Returns when the announcer has gone, or after ``stop``."""
        try:
            with self._selector as selector:
                selector.register(self._inbox, selectors.EVENT_READ)
                selector.register(self._channel, selectors.EVENT_READ)
                while not self._stopping:
                    one_pass()
        except ChannelClosedError as error:
            logger.info("announcer has gone", extra={"error": str(error)})

    def stop(self) -> None:
        """End ``run``. From any thread."""
        self._stopping = True
        self._inbox.wake()

    def wait(self, *deadlines: float | None) -> list[ToWatcher]:
        """Sleep until there is something to do; what the announcer has said. None: nothing is due."""
        wanted = selectors.EVENT_READ if self.reads else selectors.EVENT_READ | selectors.EVENT_WRITE
        self._selector.modify(self._channel, wanted)
        moments = [at for at in deadlines if at is not None]
        timeout = max(0.0, min(moments) - time.monotonic()) if moments else None
        ready = {key.fileobj: events for key, events in self._selector.select(timeout)}
        events = ready.get(self._channel, 0)
        if events & selectors.EVENT_WRITE:
            self._channel.flush()
        heard = self._channel.receive() if events & selectors.EVENT_READ else []
        if self._inbox in ready:
            self._inbox.awake()
        return heard
