"""The versioned store: what exists now, and enough of the past to continue a list or a watch.

As in etcd, one counter numbers every change of anything. Each kind keeps its last changes, at most ``history`` of them;
undoing them rebuilds an earlier state (so a paged list is consistent at one version), replaying them continues a watch.
Whoever asks for something older is told that it has expired. Nothing is ever waited for here, and stored bodies are
never changed in place: a change is a new body under a new version, encoded once however many watch it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from lab.apiserver.errors import too_new, too_old
from lab.apiserver.kinds import Kind
from lab.apiserver.selection import Selection

Body = dict[str, Any]
Key = str
"""``namespace/name`` or ``name``; lists are in the order of this text, as etcd's are."""

_encode = msgspec.json.Encoder().encode


def key_of(namespace: str | None, name: str) -> Key:
    return f"{namespace}/{name}" if namespace else name


class Stored:
    """One object at one version."""

    __slots__ = ("body", "json", "key", "version")

    def __init__(self, key: Key, version: int, body: Body) -> None:
        self.key = key
        self.version = version
        self.body: Body = {**body, "metadata": {**body["metadata"], "resourceVersion": str(version)}}
        self.json: bytes = _encode(self.body)

    @property
    def uid(self) -> str:
        uid: str = self.body["metadata"]["uid"]
        return uid


def watch_line(kind: str, json: bytes) -> bytes:
    """One event as it stands in a watch's answer."""
    return b'{"type":"' + kind.encode() + b'","object":' + json + b"}\n"


class Event:
    """One change: ``old`` is None for a creation, ``new`` for a deletion."""

    __slots__ = ("_lines", "key", "new", "old", "version")

    def __init__(self, version: int, key: Key, old: Stored | None, new: Stored | None) -> None:
        self.version = version
        self.key = key
        self.old = old
        self.new = new
        self._lines: dict[str, bytes] = {}

    def line(self, selection: Selection) -> bytes | None:
        """What a watch of this selection is told: an object that leaves the selection is DELETED for it, as it was."""
        was = self.old is not None and selection.matches(self.old.body)
        if self.new is not None and selection.matches(self.new.body):
            return self._encoded("MODIFIED" if was else "ADDED", self.new)
        return self._encoded("DELETED", self.old) if was and self.old is not None else None

    def _encoded(self, kind: str, stored: Stored) -> bytes:
        line = self._lines.get(kind)
        if line is None:
            if kind == "DELETED":  # the last state, under the version of its end
                stored = Stored(stored.key, self.version, stored.body)
            line = self._lines[kind] = watch_line(kind, stored.json)
        return line


class Collection:
    """All objects of one kind."""

    def __init__(self) -> None:
        self.items: dict[Key, Stored] = {}
        self.history: deque[Event] = deque()
        self.compacted = 0
        """The last version whose change is forgotten: watches can continue from here, but from nothing older."""
        self.watchers: set[Callable[[Event], None]] = set()


class Store:
    def __init__(self, history: int) -> None:
        self.version = 1
        self._history = history
        self._collections: dict[Kind, Collection] = {}
        self._by_uid: dict[str, tuple[Kind, Key]] = {}
        self._dependents: dict[str, set[tuple[Kind, Key]]] = {}

    def collection(self, kind: Kind) -> Collection:
        return self._collections.setdefault(kind, Collection())

    def get(self, kind: Kind, key: Key) -> Stored | None:
        return self.collection(kind).items.get(key)

    def commit(self, kind: Kind, key: Key, body: Body) -> Stored:
        """Put an object as the next version, and tell the watchers."""
        self.version += 1
        collection = self.collection(kind)
        old, new = collection.items.get(key), Stored(key, self.version, body)
        collection.items[key] = new
        self._record(kind, Event(self.version, key, old, new))
        return new

    def remove(self, kind: Kind, key: Key) -> Stored:
        """Remove an object, which counts as a version too. Returns its last state under that version."""
        self.version += 1
        old = self.collection(kind).items.pop(key)
        self._record(kind, Event(self.version, key, old, None))
        return Stored(key, self.version, old.body)

    def _record(self, kind: Kind, event: Event) -> None:
        self._index(kind, event)
        collection = self.collection(kind)
        collection.history.append(event)
        if len(collection.history) > self._history:
            collection.compacted = collection.history.popleft().version
        for offer in tuple(collection.watchers):
            offer(event)

    def compact(self) -> None:
        """Forget the past of every kind, as etcd's compaction does."""
        for collection in self._collections.values():
            collection.history.clear()
            collection.compacted = self.version

    def snapshot(self, kind: Kind, version: int) -> list[Stored]:
        """All objects of a kind as they were at ``version``, in order. Refuses versions forgotten or yet to come."""
        self._check(kind, version)
        collection = self.collection(kind)
        items = dict(collection.items)
        for event in reversed(collection.history):
            if event.version <= version:
                break
            if event.old is not None:
                items[event.key] = event.old
            else:
                del items[event.key]
        return [items[key] for key in sorted(items)]

    def events_after(self, kind: Kind, version: int) -> list[Event]:
        """The changes of a kind since ``version``, oldest first. Refuses a version that is forgotten."""
        collection = self.collection(kind)
        if version < collection.compacted:
            raise too_old(version, collection.compacted)
        return [event for event in collection.history if event.version > version]

    def _check(self, kind: Kind, version: int) -> None:
        if version > self.version:
            raise too_new(version, self.version)
        if version < (compacted := self.collection(kind).compacted):
            raise too_old(version, compacted)

    # -------------------------------------------------------------- owners

    def exists(self, uid: str) -> bool:
        return uid in self._by_uid

    def dependents(self, uid: str) -> list[tuple[Kind, Key]]:
        """Objects that name the uid among their owners."""
        return list(self._dependents.get(uid, ()))

    def _index(self, kind: Kind, event: Event) -> None:
        key, old, new = event.key, event.old, event.new
        if old is not None:
            self._by_uid.pop(old.uid, None)
            for owner in owners(old.body):
                self._dependents[owner].discard((kind, key))
                if not self._dependents[owner]:
                    del self._dependents[owner]
        if new is not None:
            self._by_uid[new.uid] = (kind, key)
            for owner in owners(new.body):
                self._dependents.setdefault(owner, set()).add((kind, key))


def owners(body: Body) -> set[str]:
    """The uids of an object's owners."""
    return {reference["uid"] for reference in body["metadata"].get("ownerReferences") or ()}
