"""Asks and writes the Lease, and is the gate that every write passes: the shell of ``leadership``.

1. A thread does the steps that ``leadership`` decides. A watch of the Lease tells a standby at once that it was
   released; looks now and then make up for a watch that lags.
2. ``writing`` stands around each write. It looks at the clock right before the request is sent, and gives it its time
   limit.
3. It keeps account of the writes that are under way, and of those that may still take effect. While there are any, the
   Lease is not released and no new term begins to read.
"""

from __future__ import annotations

import hashlib
import logging
import random
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Final

from cluster.api.client import ApiClient
from cluster.api.errors import AlreadyExists, ApiError, Conflict, NotFound, TimedOut
from cluster.api.reflector import Change, Reflector
from cluster.objects import Lease
from cluster.resources import LEASES
from cluster.times import LONG_AGO
from controller.daemon import place
from controller.leadership import Leadership, Look, Put

NAME_LIMIT = 40
"""Of a class's name that is repeated in the Lease's name, for people."""
RELEASE_S = 1.0
"""What the release of the Lease may take; one that does not succeed leaves the standby to wait the Lease out."""
FIRST_STEPS = 4
"""Requests that the first attempt makes at most: look, take; and once more if somebody else was faster."""

logger = logging.getLogger("controller")


def lease_name(load_balancer_class: str | None) -> str:
    """The Lease of the controllers that serve this class: they stand by for each other, and for no others."""
    if load_balancer_class is None:
        return "berthlb-controller"
    words = re.sub(r"[^a-z0-9]+", "-", load_balancer_class.lower()).strip("-")[-NAME_LIMIT:].strip("-")
    digest = hashlib.sha256(load_balancer_class.encode()).hexdigest()[:8]
    return "-".join(part for part in ("berthlb-controller", words, digest) if part)


class NotLeadingError(Exception):
    """The term is over: what was decided in it must not be written."""


def _clock() -> float:
    """Seconds of a clock that goes on while the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Elector:
    """See the module's docstring. ``attempt`` once, ``start`` once, then ``close`` and ``stop``."""

    def __init__(
        self, client: ApiClient, namespace: str, lease: str, name: str, *, lease_s: int, on_change: Callable[[], object]
    ) -> None:
        """``lease`` is the Lease's name, ``name`` how people recognize this process; ``on_change`` is called when it
        begins or ceases to lead."""
        self.lease: Final = lease
        self._client = client
        self._namespace = namespace
        self._on_change = on_change
        self._taken = place.take(f"{client.server} {namespace} {lease}", _clock)
        here = self._taken.place if self._taken else None
        self._core = Leadership(f"{name}-{secrets.token_hex(4)}", lease_s, random.Random(), here)
        self._lock = threading.Lock()
        self._woken = threading.Event()
        self._stopping = threading.Event()
        self._closed = False
        self._under_way = 0
        self._unsure_until = LONG_AGO
        self._error = ""
        """The latest failure, while it is not known who leads; empty: that is known."""
        self._said: tuple[int | None, str] = (None, "")
        self._watch = Reflector(
            client, LEASES, namespace=namespace, field_selector=f"metadata.name={lease}", on_change=self._hear
        )
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)

    # -------------------------------------------------------------------- for the deciding and the writing threads

    @property
    def term(self) -> int | None:
        """The term in which this process leads; None: it does not."""
        with self._lock:
            return None if self._closed else self._core.term(_clock())

    @property
    def quiet(self) -> bool:
        """Whether every write of the past has ended."""
        with self._lock:
            return self._is_quiet()

    @contextmanager
    def writing(self, term: int) -> Iterator[float]:
        """Around a write that was decided in ``term``: the seconds that it may take. Raises ``NotLeadingError``."""
        with self._lock:
            now = _clock()
            limit = None if self._closed else self._core.write_limit(term, now)
            if limit is None:
                raise NotLeadingError
            self._under_way += 1
        known = took_too_long = False
        try:
            yield limit
            known = True
        except ApiError as error:
            known = 0 < error.status < 500
            took_too_long = isinstance(error, TimedOut) or error.status == HTTPStatus.GATEWAY_TIMEOUT
            raise
        finally:
            with self._lock:
                self._under_way -= 1
                if not known:
                    self._unsure_until = max(self._unsure_until, now + limit)
                if took_too_long:
                    self._core.write_took_too_long(_clock())
                    self._woken.set()

    @property
    def transitions(self) -> int:
        """How often the Lease has changed hands."""
        with self._lock:
            return self._core.transitions

    @property
    def trouble(self) -> str:
        """Why it is not even known who leads, at present; empty: it is."""
        return self._error

    # -------------------------------------------------------------------- beginning and end

    def attempt(self) -> None:
        """Take the Lease now if it is free. Returns when it is known who has it, or after the first failure."""
        for _ in range(FIRST_STEPS):
            if self._stopping.is_set() or not self._do_next() or self._error:
                break

    def start(self) -> None:
        self._watch.start()
        self._thread.start()

    def close(self) -> None:
        """From now on no write begins."""
        with self._lock:
            self._closed = True

    def stop(self) -> None:
        """Release the Lease, if no write is under way, and end."""
        self.close()
        self._stopping.set()
        self._woken.set()
        if self._thread.is_alive():
            self._thread.join(2 * RELEASE_S if self.quiet else 0.0)

    def end_watch(self) -> None:
        """End the watch's thread too and leave the place to others, where the process goes on."""
        self._watch.stop()
        if self._taken is not None:
            self._taken.held_by.close()

    # -------------------------------------------------------------------- the thread

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                busy = self._do_next()
            except Exception as error:  # a defect of ours must not end the asking; it is said aloud
                logger.exception("election failed")
                busy = False
                self._failed(ApiError(0, type(error).__name__, str(error)))
            if not busy:
                with self._lock:
                    wait = self._core.next_deadline() - _clock()
                self._woken.wait(max(0.0, wait))
                self._woken.clear()
        self._release()

    def _hear(self, change: Change[Lease]) -> None:
        with self._lock:
            self._core.heard(change.new, _clock())
        if change.new is not None:
            self._error = ""
        self._woken.set()

    def _do_next(self) -> bool:
        """Do the next step, if one is due; says whether there was one."""
        with self._lock:
            step = self._core.next_step(_clock(), time.time())
        self._say()
        if step is None:
            return False
        self._do(step, self._core.timing.request_s)
        self._say()
        return True

    def _do(self, step: Look | Put, limit_s: float) -> None:
        try:
            if isinstance(step, Look):
                self._look(limit_s)
            else:
                self._put(step, limit_s)
        except ApiError as error:
            self._failed(error)
        else:
            with self._lock:
                there = self._core.exists
            if there:  # of a Lease that cannot be made either nothing is known
                self._error = ""

    def _look(self, limit_s: float) -> None:
        lease: Lease | None
        try:
            lease = self._client.get(LEASES, self._namespace, self.lease, limit_s=limit_s)
        except NotFound:
            lease = None
        with self._lock:
            self._core.observed(lease, _clock())

    def _put(self, put: Put, limit_s: float) -> None:
        sent = _clock()
        try:
            if put.create:
                body = {**put.body, "metadata": {**put.body["metadata"], "name": self.lease}}
                lease = self._client.create(LEASES, self._namespace, body, limit_s=limit_s)
            else:
                lease = self._client.patch(LEASES, self._namespace, self.lease, put.body, limit_s=limit_s)
        except (Conflict, AlreadyExists, NotFound) as error:
            if put.create and isinstance(error, NotFound):  # there is no such namespace
                raise
            with self._lock:
                self._core.put_refused(_clock())
        else:
            with self._lock:
                self._core.put_made(lease, sent, _clock())

    def _failed(self, error: ApiError) -> None:
        with self._lock:
            self._core.failed(_clock(), error.retry_after or 0.0)
        if str(error) != self._error:
            self._error = str(error)
            logger.warning("the Lease cannot be had", extra={"error": self._error})

    def _release(self) -> None:
        for _ in range(2):  # once more if the Lease is another one than the last that was seen
            with self._lock:
                put = self._core.release(_clock(), time.time()) if self._is_quiet() else None
            if put is None:
                return
            try:
                self._client.patch(LEASES, self._namespace, self.lease, put.body, limit_s=RELEASE_S)
            except Conflict:
                self._do(Look(), RELEASE_S)
            except ApiError as error:
                logger.warning("the Lease was not released", extra={"error": str(error)})
                return
            else:
                logger.info("released the Lease")
                return

    def _is_quiet(self) -> bool:
        return not self._under_way and _clock() >= self._unsure_until

    def _say(self) -> None:
        """Log who leads, when that has changed."""
        with self._lock:
            term, holder = self._core.term(_clock()), self._core.holder
            lost, transitions = self._core.lost, self._core.transitions
        before, self._said = self._said, (term, holder)
        if term != before[0]:
            if before[0] is not None:
                logger.warning("lost the lead", extra={"why": lost})
            if term is not None:
                logger.info("leading", extra={"identity": self._core.identity, "transitions": transitions})
            self._on_change()
        elif term is None and holder not in {"", before[1]}:
            logger.info("standby", extra={"identity": self._core.identity, "holder": holder})
