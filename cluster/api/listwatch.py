"""How to keep a true copy of one kind, decided without I/O: what to ask next, and what each answer means.

**Mechanism.**

1. One watch with ``sendInitialEvents`` brings all that exists, then a bookmark annotated
   ``k8s.io/initial-events-end``, then the changes. A server that refuses that is asked for pages of 500 and then for a
   watch.
2. When a watch ends, the next one starts at the last resourceVersion seen. Bookmarks keep that young.
3. Everything is listed anew when that version is gone (410, as HTTP status or as a watch event), when the server's
   history turns out to be another one, or when watching fails five times in a row.

**Guarantees.** A list, the first or a later one, takes effect as a whole and is compared with the copy: nothing is
reported that did not change, and what was deleted meanwhile is reported as deleted. An object that was deleted and made
again under the same name (another uid) is reported as deleted, then added. After every ending there is a wait that
doubles from 0.1 s to 30 s, with jitter, and starts over once a watch has lasted ten seconds: a server that closes at
once is not asked in a hot loop. Only a first 410 is followed within a second, however long the server was away. An
object that its view cannot read is skipped and counted; its last good version stays, if there was one.

**Not promised.** With a field or label selector "deleted" means only "left the selection": a Service that is no longer
of type LoadBalancer arrives as deleted. Ask (GET) before believing that an object is gone.

Times are monotonic seconds. Source: Kubernetes API concepts, "Efficient detection of changes" and "Streaming lists".
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Generic, Literal, TypeVar

import msgspec

from cluster.api.errors import (
    ApiError,
    Gone,
    Initializing,
    Invalid,
    NotFound,
    ServerError,
    Throttled,
    TimedOut,
    Unreachable,
    refusal,
)
from cluster.objects import Object, RawList, RawWatchEvent, decode, is_older
from cluster.times import LONG_AGO, doubled

PAGE_SIZE = 500  # client-go's own
INITIAL_EVENTS_END = "k8s.io/initial-events-end"
WATCH_S = (240, 480)  # the server ends a watch after a random time in this range: not all of them at once
SILENCE_S = 90.0  # a server sends a bookmark every 60 s; the one that does not is asked again, which costs nothing
BACKOFF_S = 0.1
BACKOFF_LIMIT_S = 30.0
LEAST_RETRY_AFTER_S = 1.0  # of a server that begins to serve a kind; it takes far less
RETRY_AFTER_LIMIT_S = 120.0  # longer than any server asks for; a wrong number must not switch us off
RELIST_S = 1.0  # a server that says that the history is gone is there again: lists begin within this time, spread out
HEALTHY_S = 10.0  # a watch that lasted this long was a success, however it ended
UNSERVED_S = (1.0, 60.0)  # until a kind that the server need not have is asked for again: as long as it was missing
RELIST_AFTER = 5  # answers that ended a watch at once, in a row: perhaps this version is what the server cannot serve

_CLOSED = "Closed"

T = TypeVar("T", bound=Object)


@dataclass(frozen=True, slots=True)
class Change(Generic[T]):
    """One difference in what is held. ``old`` is None for added, ``new`` is None for deleted."""

    kind: Literal["added", "modified", "deleted"]
    old: T | None
    new: T | None

    @property
    def key(self) -> str:
        """``namespace/name`` of the object."""
        one = self.new if self.new is not None else self.old
        return one.key if one is not None else ""


@dataclass(frozen=True, slots=True)
class Wait:
    """Ask nothing for this many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class ListPage:
    """Ask for a page. ``limit`` 0 is everything at once; ``continue_`` is empty for the first page."""

    limit: int
    continue_: str


@dataclass(frozen=True, slots=True)
class Watch:
    """Open a watch. With ``initial_events`` the ``resource_version`` is empty: as fresh as the server can."""

    resource_version: str
    initial_events: bool
    timeout_s: int
    silence_s: float = SILENCE_S


Step = Wait | ListPage | Watch


@dataclass(slots=True)
class Counters:
    """What happened, for metrics and for people. All grow, except ``failures``."""

    lists: int = 0
    """Complete lists that took effect, the first one included."""
    relists: int = 0
    """Times that everything had to be listed anew, because the history was gone or could not be followed."""
    watches: int = 0
    """Watches opened."""
    events: int = 0
    """Watch events received, bookmarks included."""
    undecodable: int = 0
    """Objects skipped because their view could not read them, each time they were seen."""
    failures: int = 0
    """Requests in a row that failed or ended too soon; 0 when all is well."""
    last_error: str = ""
    """The latest failure, as one line."""


class _Phase(Enum):
    INITIAL = auto()  # a watch that begins with all that exists, until the annotated bookmark
    PAGES = auto()
    WATCH = auto()


class ListWatch(Generic[T]):
    """The copy of one kind and what to do about it. See the module's docstring.

    Drive it so: do what ``next_step`` says; hand each answer to ``receive_page``; tell ``watch_opened``, then hand
    each event to ``receive_event`` while ``watching``; tell ``failed`` or ``watch_ended`` when it is over. The
    ``receive_*`` methods return the changes in the order in which they are to be reported.
    """

    def __init__(
        self, view: type[T], rng: random.Random, *, optional: bool = False, keep: Callable[[T], T] = lambda read: read
    ) -> None:
        """``optional``: there are servers without this kind, and that is no fault. ``keep``: what of an object is held
        and told; its name, namespace, uid and resourceVersion must stay."""
        self.counters = Counters()
        self.synced = False
        """Whether a complete list has been received, ever."""
        self.unserved = False
        """Whether the server's latest answer was that it has no such kind."""
        self._optional = optional
        self._view = view
        self._keep = keep
        self._rng = rng
        self._cache: dict[str, T] = {}
        self._phase = _Phase.INITIAL
        self._streams_lists = True
        self._arriving: dict[str, T] = {}
        self._continue = ""
        self._page_size = PAGE_SIZE
        self._resource_version = ""
        self._opened_at: float | None = None
        self._not_before = LONG_AGO
        self._barren_watches = 0
        self._unserved_wait = UNSERVED_S[0]
        self._gone_again = False
        """The history was gone, and no watch has lasted since."""
        self._skipped: list[str] = []

    # -------------------------------------------------------------------- what to do

    def next_step(self, now: float) -> Step:
        """What to do at ``now``."""
        if now < self._not_before:
            return Wait(self._not_before - now)
        if self._phase is _Phase.PAGES:
            return ListPage(self._page_size, self._continue)
        initial = self._phase is _Phase.INITIAL
        return Watch("" if initial else self._resource_version, initial, self._rng.randint(*WATCH_S))

    @property
    def held(self) -> Mapping[str, T]:
        """The copy, by key. It changes under the reader's hands."""
        return self._cache

    @property
    def watching(self) -> bool:
        """Whether the open watch is still wanted. If not, close it and ask ``next_step``."""
        return self._opened_at is not None

    def take_skipped(self) -> list[str]:
        """What could not be decoded since the last call, a line for each."""
        skipped, self._skipped = self._skipped, []
        return skipped

    def refresh(self) -> None:
        """List everything anew, at once, whatever was under way: what comes then is no older than this call."""
        self._opened_at = None
        self._not_before = LONG_AGO
        self._list_anew()

    # -------------------------------------------------------------------- what came

    def receive_page(self, page: RawList) -> list[Change[T]]:
        """A page of the list. Changes come with the last one."""
        for item in page.items:
            self._arrive(item)
        self._continue = page.metadata.continue_
        if self._continue:
            return []
        return self._complete(page.metadata.resource_version)

    def watch_opened(self, now: float) -> None:
        """The server accepted the watch that was asked for; its events follow."""
        self.counters.watches += 1
        self._opened_at = now
        self._arriving = {}

    def receive_event(self, event: RawWatchEvent, now: float) -> list[Change[T]]:
        """One event of the open watch."""
        self.counters.events += 1
        self._take_note_of_health(now)
        match event.type:
            case "ADDED" | "MODIFIED" if self._phase is _Phase.INITIAL:
                self._arrive(event.object)
                return []
            case "ADDED" | "MODIFIED":
                return self._receive_written(event.object, now)
            case "DELETED":
                return self._receive_deleted(event.object)
            case "BOOKMARK":
                return self._receive_bookmark(event.object, now)
            case "ERROR":
                self.failed(refusal(0, event.object), now)
                return []
            case _:
                self._skip(f"unknown watch event {event.type!r}")
                return []

    def watch_ended(self, now: float) -> None:
        """The server closed the watch, as it does after the time asked for. Sooner than that, it is a failure."""
        if not self._is_healthy(now):
            self.failed(Unreachable(0, _CLOSED, "the server ended the watch at once"), now)
            return
        self._take_note_of_health(now)
        self._opened_at = None
        self._not_before = now + BACKOFF_S * self._rng.uniform(0.5, 1.0)  # not every client at the same moment

    def failed(self, error: ApiError, now: float) -> None:
        """A request was refused, or the watch broke. Decides what comes next and after which wait."""
        self._take_note_of_health(now)
        opened = self.watching
        self._opened_at = None
        self.counters.last_error = str(error)
        self.unserved = isinstance(error, NotFound) and self._phase is not _Phase.WATCH
        if self.unserved and self._optional:
            self._list_anew()
            self._not_before = now + self._unserved_wait * self._rng.uniform(0.5, 1.0)
            self._unserved_wait = min(2 * self._unserved_wait, UNSERVED_S[1])
            return
        match self._phase:
            case _Phase.INITIAL:
                if self._fall_back_to_pages(error, opened=opened):
                    return
            case _Phase.PAGES:
                self._give_up_paging(error)
            case _Phase.WATCH:
                # Neither a server that is away nor one with too much to do is helped by a question for everything.
                self._barren_watches += not isinstance(error, (Unreachable, Throttled)) or error.reason == _CLOSED
                if isinstance(error, (Gone, Invalid)) or self._barren_watches >= RELIST_AFTER:
                    self.counters.relists += 1
                    self._list_anew()
                if isinstance(error, Gone) and not self._gone_again:
                    self._gone_again = True
                    self._not_before = now + self._rng.uniform(0.0, RELIST_S)  # however long it was away before
                    return
        self._back_off(error, now)

    # -------------------------------------------------------------------- within

    def _fall_back_to_pages(self, error: ApiError, *, opened: bool) -> bool:
        """After a failure of the streamed list. True: ask for pages at once, since the server cannot stream lists."""
        unknown = isinstance(error, Invalid) or (opened and isinstance(error, TimedOut))
        if unknown:
            self._streams_lists = False
        if unknown or opened or isinstance(error, (NotFound, ServerError)):
            self._list_anew(streamed=False)  # perhaps pages make progress where the stream does not; else it is next
        return unknown or isinstance(error, NotFound)

    def _give_up_paging(self, error: ApiError) -> None:
        """After a page was refused: ask for the same page again if it is still to be had, else start the list anew."""
        if self._continue and isinstance(error, (Unreachable, Throttled, ServerError)):
            return
        if self._continue and isinstance(error, Gone):
            self._page_size = 0  # paging took longer than the server's history; the whole at once cannot expire
        self._list_anew()

    def _is_healthy(self, now: float) -> bool:
        """Whether the open watch brings changes, and has lasted."""
        return self._phase is _Phase.WATCH and self._opened_at is not None and now - self._opened_at >= HEALTHY_S

    def _take_note_of_health(self, now: float) -> None:
        if self._is_healthy(now):
            self.counters.failures = self._barren_watches = 0
            self._gone_again = False

    def _list_anew(self, *, streamed: bool = True) -> None:
        self._phase = _Phase.INITIAL if streamed and self._streams_lists else _Phase.PAGES
        self._arriving = {}
        self._continue = ""
        self._barren_watches = 0

    def _back_off(self, error: ApiError, now: float) -> None:
        self.counters.failures += 1
        wait = doubled(BACKOFF_S, self.counters.failures, BACKOFF_LIMIT_S) * self._rng.uniform(0.5, 1.0)
        begins = isinstance(error, Initializing) and error.retry_after <= LEAST_RETRY_AFTER_S
        if error.retry_after is not None and not begins:
            wait = max(wait, min(error.retry_after, RETRY_AFTER_LIMIT_S))
        self._not_before = now + wait

    def _receive_bookmark(self, raw: msgspec.Raw, now: float) -> list[Change[T]]:
        bookmark = self._metadata(raw)
        if bookmark is None:
            return []
        version = bookmark.metadata.resource_version
        if self._phase is _Phase.WATCH:
            self._follow(version, now)
            return []
        if bookmark.metadata.annotations.get(INITIAL_EVENTS_END) != "true":
            return []
        return self._complete(version)

    def _receive_written(self, raw: msgspec.Raw, now: float) -> list[Change[T]]:
        new = self._decode(raw)
        read = new if new is not None else self._metadata(raw)
        if read is None or not self._follow(read.metadata.resource_version, now) or new is None:
            return []
        changes = list(_difference(self._cache.get(new.key), new))
        if changes:
            self._cache[new.key] = new
        return changes

    def _receive_deleted(self, raw: msgspec.Raw) -> list[Change[T]]:
        deleted = self._metadata(raw)
        if deleted is None:
            return []
        key, version = deleted.key, deleted.metadata.resource_version
        if self._phase is _Phase.INITIAL:
            self._arriving.pop(key, None)
            return []
        # Its version is that of the deletion. A server that sends the object's last one instead does no harm.
        if not is_older(version, self._resource_version):
            self._resource_version = version or self._resource_version
        held = self._cache.get(key)
        if held is None or held.metadata.uid != deleted.metadata.uid:
            return []
        del self._cache[key]
        return [Change("deleted", held, None)]

    def _follow(self, version: str, now: float) -> bool:
        """Go on to the version that the watch says. False if that is older than what was seen: the server's history is
        another one (restored from a backup), and everything is listed anew."""
        if is_older(version, self._resource_version):
            self.failed(Gone(410, "HistoryWentBack", f"version {version} after {self._resource_version}"), now)
            return False
        self._resource_version = version or self._resource_version
        return True

    def _complete(self, resource_version: str) -> list[Change[T]]:
        """Take the list that has arrived for the truth."""
        before, after = self._cache, self._arriving
        self._cache, self._arriving = after, {}
        self._resource_version = resource_version
        self._phase = _Phase.WATCH
        self._page_size = PAGE_SIZE
        self.synced = True
        self.unserved, self._unserved_wait = False, UNSERVED_S[0]
        self.counters.lists += 1
        changes: list[Change[T]] = [Change("deleted", gone, None) for key, gone in before.items() if key not in after]
        for key, new in after.items():
            changes.extend(_difference(before.get(key), new))
        return changes

    def _arrive(self, raw: msgspec.Raw) -> None:
        """One object of a list. An unreadable one keeps its last good version, so that it does not look deleted."""
        new = self._decode(raw)
        if new is not None:
            held = self._cache.get(new.key)
            self._arriving[new.key] = held if held is not None and _same_version(held, new) else new
            return
        metadata = self._metadata(raw)
        held = self._cache.get(metadata.key) if metadata else None
        if metadata and held is not None and held.metadata.uid == metadata.metadata.uid:
            self._arriving[held.key] = held

    def _decode(self, raw: msgspec.Raw) -> T | None:
        try:
            return self._keep(decode(raw, self._view))
        except msgspec.DecodeError as error:
            metadata = self._metadata(raw)
            if metadata:
                self._skip(f"{metadata.key}: {error}")
            return None

    def _metadata(self, raw: msgspec.Raw) -> Object | None:
        try:
            return decode(raw, Object)
        except msgspec.DecodeError as error:
            self._skip(f"an object without readable metadata: {error}")
            return None

    def _skip(self, why: str) -> None:
        self.counters.undecodable += 1
        self._skipped.append(why)


def _same_version(one: Object, other: Object) -> bool:
    return (one.metadata.uid, one.metadata.resource_version) == (other.metadata.uid, other.metadata.resource_version)


def _difference(held: T | None, new: T) -> Iterator[Change[T]]:
    if held is None:
        yield Change("added", None, new)
    elif held.metadata.uid != new.metadata.uid:
        yield Change("deleted", held, None)
        yield Change("added", None, new)
    elif held.metadata.resource_version != new.metadata.resource_version:
        yield Change("modified", held, new)
