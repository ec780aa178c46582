"""The versioned store: what exists now, and enough of the past to continue a list or a watch.

As in etcd, one counter numbers every change of anything. Each kind keeps its last changes, at most ``history`` of them.
To undo them rebuilds an earlier state, so that a paged list is consistent at one version; to replay them continues a
watch. A request for an older version is answered that it has expired. Stored bodies are never changed in place: a
change is a new body under a new version, encoded once however many watch it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec

from lab.apiserver.errors import too_old
from lab.apiserver.kinds import ServedKind
from lab.apiserver.selection import Selection

Body = dict[str, Any]
Key = str
"""``namespace/name`` or ``name``; lists are in the order of this text, as etcd's are."""


def key_of(namespace: str | None, name: str) -> Key:
    return f"{namespace}/{name}" if namespace else name


def owners(body: Body) -> set[str]:
    """The uids of an object's owners."""
    return {reference["uid"] for reference in body["metadata"].get("ownerReferences", ())}


def watch_line(kind: str, json: bytes) -> bytes:
    """One event as it stands in a watch's answer."""
    return b'{"type":"' + kind.encode() + b'","object":' + json + b"}\n"


class Stored:
    """One object at one version."""

    __slots__ = ("body", "json", "key", "uid")

    def __init__(self, key: Key, version: int, body: Body) -> None:
        self.key = key
        self.body: Body = {**body, "metadata": {**body["metadata"], "resourceVersion": str(version)}}
        self.json: bytes = msgspec.json.encode(self.body)
        self.uid: str = body["metadata"]["uid"]


@dataclass
class WatchEvent:
    """One change: ``old`` is None for a creation, ``new`` for a deletion."""

    version: int
    key: Key
    old: Stored | None
    new: Stored | None

    @cached_property
    def last(self) -> bytes:
        """What ended, as JSON, under the version of its end."""
        return Stored(self.key, self.version, self.old.body).json if self.old is not None else b""

    def line(self, selection: Selection) -> bytes | None:
        """What a watch of this selection is told: an object that leaves the selection is DELETED for it, as it was."""
        was = self.old is not None and selection.matches(self.old.body)
        if self.new is not None and selection.matches(self.new.body):
            return watch_line("MODIFIED" if was else "ADDED", self.new.json)
        return watch_line("DELETED", self.last) if was else None


class Collection:
    """All objects of one kind."""

    def __init__(self) -> None:
        self.items: dict[Key, Stored] = {}
        self.history: deque[WatchEvent] = deque()
        self.compacted = 0
        """The last version whose change is forgotten: watches can continue from here, but from nothing older."""
        self.watchers: set[Callable[[WatchEvent], None]] = set()


class Store:
    def __init__(self, history: int) -> None:
        self.version = 1
        self._history = history
        self._collections: dict[ServedKind, Collection] = {}
        self._uids: set[str] = set()
        self._dependents: dict[str, set[tuple[ServedKind, Key]]] = {}

    def collection(self, kind: ServedKind) -> Collection:
        return self._collections.setdefault(kind, Collection())

    def get(self, kind: ServedKind, key: Key) -> Stored | None:
        return self.collection(kind).items.get(key)

    def commit(self, kind: ServedKind, key: Key, body: Body) -> Stored:
        """Put an object as the next version, and tell the watchers."""
        items = self.collection(kind).items
        old, new = items.get(key), Stored(key, self.version + 1, body)
        items[key] = new
        self._record(kind, key, old, new)
        return new

    def remove(self, kind: ServedKind, key: Key) -> None:
        """Remove an object, which counts as a version too."""
        self._record(kind, key, self.collection(kind).items.pop(key), None)

    def compact(self) -> None:
        """Forget the past of every kind, as etcd's compaction does."""
        for collection in self._collections.values():
            collection.history.clear()
            collection.compacted = self.version

    def snapshot(self, kind: ServedKind, version: int) -> list[Stored]:
        """All objects of a kind as they were at ``version``, in order. Refuses a version that is forgotten."""
        items = dict(self.collection(kind).items)
        for event in reversed(self.events_after(kind, version)):
            if event.old is not None:
                items[event.key] = event.old
            else:
                del items[event.key]
        return [items[key] for key in sorted(items)]

    def events_after(self, kind: ServedKind, version: int) -> list[WatchEvent]:
        """The changes of a kind since ``version``, oldest first. Refuses a version that is forgotten."""
        collection, events = self.collection(kind), list[WatchEvent]()
        if version < collection.compacted:
            raise too_old(version, collection.compacted)
        for event in reversed(collection.history):
            if event.version <= version:
                break
            events.append(event)
        return events[::-1]

    def exists(self, uid: str) -> bool:
        return uid in self._uids

    def dependents(self, uid: str) -> list[tuple[ServedKind, Key]]:
        """Objects that name the uid among their owners."""
        return list(self._dependents.get(uid, ()))

    def _record(self, kind: ServedKind, key: Key, old: Stored | None, new: Stored | None) -> None:
        self.version += 1
        if old is not None:
            self._uids.discard(old.uid)
            for owner in owners(old.body):
                self._dependents[owner].discard((kind, key))
                if not self._dependents[owner]:
                    del self._dependents[owner]
        if new is not None:
            self._uids.add(new.uid)
            for owner in owners(new.body):
                self._dependents.setdefault(owner, set()).add((kind, key))
        collection, event = self.collection(kind), WatchEvent(self.version, key, old, new)
        collection.history.append(event)
        if len(collection.history) > self._history:
            collection.compacted = collection.history.popleft().version
        for offer in tuple(collection.watchers):
            offer(event)
