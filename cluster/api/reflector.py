"""A live copy of one kind: the thread that asks what ``cluster.api.listwatch`` decides.

1. ``Reflector(client, SERVICES, on_change=queue.put)`` keeps a copy of every Service from ``start`` to ``stop``, and
   reports each difference, in order, from its own thread.
2. The initial state is reported as "added". After that ``synced`` is true and stays so: while the API cannot be reached
   the last known state remains.
3. A watch brings its events as they come, and a burst is handled one by one. ``on_change`` should only note the change
   (put it in a queue) and return.

Not promised, with a selector: that "deleted" means gone. A Service whose type changed from LoadBalancer to ClusterIP
leaves ``fieldSelector=spec.type=LoadBalancer`` as deleted and goes on existing. Ask (``client.get``) before believing
that it is gone.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Generic, TypeVar

from cluster.api.client import ApiClient, WatchStream
from cluster.api.errors import ApiError
from cluster.api.listwatch import Change, Counters, ListPage, ListWatch, Wait, Watch
from cluster.objects import Object
from cluster.resources import OUR_GROUPS, Resource

__all__ = ["Change", "Counters", "Reflector"]

STOP_S = 2.0  # what stop() waits for an on_change that is under way
LINGER_S = 0.2  # and then for its thread: one that waits for an answer's first byte ends by itself, later and silently
SKIPPED_LINES = 10  # per answer; a list of 10,000 unreadable objects must not become 10,000 lines
INSTALL = "apply its definition, which deploy/berthlb.yaml and the chart have; nothing has to be restarted"

T = TypeVar("T", bound=Object)
logger = logging.getLogger(__name__)


class Reflector(Generic[T]):
    """See the module's docstring. ``start`` once, ``stop`` once.

    ``on_change`` is called from the reflector's thread. What it raises is logged and counted, and the next change
    follows. ``items`` already contains the change when ``on_change`` is told of it.
    """

    def __init__(
        self,
        client: ApiClient,
        resource: Resource[T],
        *,
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
        optional: bool = False,
        keep: Callable[[T], T] = lambda read: read,
        on_change: Callable[[Change[T]], object],
    ) -> None:
        """``optional``: a server that does not have this kind has none of it; it is asked again now and then."""
        self.resource = resource
        self.callback_errors = 0
        """Times that ``on_change`` raised."""
        self._client = client
        self._namespace = namespace
        self._label_selector = label_selector
        self._field_selector = field_selector
        self._on_change = on_change
        self._core = ListWatch(resource.view, random.Random(), optional=optional, keep=keep)
        self._synced = threading.Event()
        self._lists_said = 0
        self._refresh_asked = 0
        self._refresh_begun = 0
        self._refreshed = 0
        self._optional = optional
        self._unserved_said = False
        self._stopping = threading.Event()
        self._woken = threading.Event()  # during a wait
        self._stream: WatchStream | None = None
        self._stream_lock = threading.Lock()
        self._reporting = threading.RLock()  # held during on_change, so that stop() can wait for its end
        self._thread = threading.Thread(target=self._run, name=f"reflect-{resource.plural}", daemon=True)

    def start(self) -> None:
        """Begin. Returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """End, at once. Once this has returned ``on_change`` is not called any more (a call that takes longer than two
        seconds is not waited for). May be called from within ``on_change``."""
        self._stopping.set()
        self._interrupt()
        if self._reporting.acquire(timeout=STOP_S):
            self._reporting.release()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(LINGER_S)

    @property
    def synced(self) -> bool:
        """Whether the whole initial state has been received and reported to ``on_change``, or the kind is optional and
        the server does not have it. Never false again."""
        return self._synced.is_set()

    @property
    def unserved(self) -> bool:
        """Whether the server has no such kind, as it said last: of a custom one the definition is not installed."""
        return self._core.unserved

    @property
    def trouble(self) -> str:
        """Why nothing is heard of changes at present, as the latest request failed; empty: they are heard, or the kind
        is optional and the server does not have it."""
        fine = self._core.watching or (self._core.unserved and self._optional) or not self.counters.failures
        return "" if fine else self.counters.last_error

    @property
    def with_trouble(self) -> str:
        """The kind, and in brackets the ``trouble`` with it: for people."""
        if not self.trouble:
            return self.resource.plural
        if self.unserved:
            name = self.resource.full_name
            return f"{self.resource.plural} (the server has no such kind: the definition {name} is not installed)"
        return f"{self.resource.plural} ({self.trouble})"

    def wait_synced(self, timeout: float | None = None) -> bool:
        """Wait until ``synced``, at most ``timeout`` seconds; says whether it is."""
        return self._synced.wait(timeout)

    def refresh(self) -> int:
        """Have everything listed anew, at once, and get the number of this request. From any thread.

        Once ``refreshed`` has reached that number, what is held and was reported is no older than this call, however
        far the watch lagged behind: a list is a consistent read, begun afterwards."""
        with self._stream_lock:
            self._refresh_asked += 1
            asked = self._refresh_asked
        self._interrupt()
        return asked

    @property
    def refreshed(self) -> int:
        """The latest request of ``refresh`` that is fulfilled."""
        return self._refreshed

    def _interrupt(self) -> None:
        self._woken.set()
        with self._stream_lock:
            if self._stream:
                self._stream.interrupt()

    @property
    def _refresh_due(self) -> bool:
        return self._refresh_asked != self._refresh_begun

    def items(self) -> Mapping[str, T]:
        """What is held now, by key (``namespace/name``): a copy that does not change. From any thread."""
        held = self._core.held
        return MappingProxyType(dict(held))  # one step of the interpreter: str keys run no code of ours meanwhile

    @property
    def counters(self) -> Counters:
        """For metrics; read only."""
        return self._core.counters

    # -------------------------------------------------------------------- the thread

    def _run(self) -> None:
        while not self._stopping.is_set():
            if self._refresh_due:
                self._refresh_begun = self._refresh_asked
                self._core.refresh()
            try:
                self._do(self._core.next_step(time.monotonic()))
            except ApiError as error:
                if not self._stopping.is_set() and not self._refresh_due:
                    self._core.failed(error, time.monotonic())
                    self._note_failure(error)
            except Exception as error:  # a defect of ours must not end the copying; it is said aloud
                logger.exception("reflector failed", extra={"resource": self.resource.plural})
                self._core.failed(ApiError(0, type(error).__name__, str(error)), time.monotonic())

    def _do(self, step: Wait | ListPage | Watch) -> None:
        match step:
            case Wait(seconds):
                self._woken.wait(seconds)
                self._woken.clear()
            case ListPage(limit, continue_):
                page = self._client.list_page(
                    self.resource,
                    namespace=self._namespace,
                    label_selector=self._label_selector,
                    field_selector=self._field_selector,
                    limit=limit,
                    continue_=continue_,
                )
                self._report(self._core.receive_page(page))
            case Watch():
                with self._open(step) as stream:
                    self._follow(stream)

    def _open(self, step: Watch) -> WatchStream:
        stream = self._client.watch(
            self.resource,
            namespace=self._namespace,
            label_selector=self._label_selector,
            field_selector=self._field_selector,
            resource_version=step.resource_version,
            initial_events=step.initial_events,
            timeout_s=step.timeout_s,
            silence_s=step.silence_s,
        )
        self._core.watch_opened(time.monotonic())
        self._client.note_working(self)
        return stream

    def _follow(self, stream: WatchStream) -> None:
        with self._stream_lock:
            if self._stopping.is_set() or self._refresh_due:  # they came before there was a stream to interrupt
                return
            self._stream = stream
        try:
            for event in stream:
                self._report(self._core.receive_event(event, time.monotonic()))
                if self._stopping.is_set() or self._refresh_due:
                    return
                if not self._core.watching:
                    self._note_failure(self.counters.last_error)
                    return
            if not self._refresh_due:
                self._core.watch_ended(time.monotonic())
        finally:
            with self._stream_lock:
                self._stream = None

    def _report(self, changes: Iterable[Change[T]]) -> None:
        skipped = self._core.take_skipped()
        for line in skipped[:SKIPPED_LINES]:
            logger.warning("object skipped", extra={"resource": self.resource.plural, "problem": line})
        if len(skipped) > SKIPPED_LINES:
            logger.warning("objects skipped", extra={"resource": self.resource.plural, "more": len(skipped)})
        for change in changes:
            with self._reporting:
                if self._stopping.is_set():
                    return
                try:
                    self._on_change(change)
                except Exception:  # the consumer's defect; the copy goes on
                    self.callback_errors += 1
                    logger.exception("on_change failed", extra={"resource": self.resource.plural, "object": change.key})
        if self.counters.lists != self._lists_said:
            self._lists_said = self.counters.lists
            self._unserved_said = False
            logger.info("listed", extra={"resource": self.resource.plural, "objects": len(self._core.held)})
            self._refreshed = self._refresh_begun
            self._synced.set()

    def _note_failure(self, error: ApiError | str) -> None:
        if not self._core.unserved:
            self._client.note_failure(self, self.resource.plural, error)
            return
        if not self._unserved_said:
            self._unserved_said = True
            said = {"resource": self.resource.full_name}
            advice = {"advice": INSTALL} if self.resource.group in OUR_GROUPS else {}
            logger.warning("the server has no such kind", extra=said | advice)
        self._client.note_working(self)
        if self._optional:
            self._refreshed = self._refresh_begun
            self._synced.set()
