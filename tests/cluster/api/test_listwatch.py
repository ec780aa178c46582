"""List and watch against a model of the API server: whatever happens, the copy ends up with what the server has."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.api.errors import (
    ApiError,
    Gone,
    Invalid,
    Unreachable,
)
from cluster.api.listwatch import (
    Change,
    ListPage,
    Watch,
)
from cluster.objects import RawList, RawWatchEvent, Service
from tests.cluster.api.driver import Driver, Json, bookmark, event, page, refused, service


class Server:
    """What an API server keeps: objects, the history of changes, and how far back that reaches."""

    def __init__(self, *, streams: bool) -> None:
        self.streams = streams
        self.version = 100
        self.objects: dict[str, Json] = {}
        self.history: list[tuple[int, str, Json]] = []
        self.oldest = 100
        self.snapshots: dict[int, list[Json]] = {100: []}
        self._uid = 0

    def _write(self, kind: str, name: str, uid: str) -> None:
        self.version += 1
        body = service(name, self.version, uid)
        if kind == "DELETED":
            del self.objects[name]
        else:
            self.objects[name] = body
        self.history.append((self.version, kind, body))
        self.snapshots[self.version] = list(self.objects.values())

    def put(self, name: str) -> None:
        if name in self.objects:
            self._write("MODIFIED", name, self.objects[name]["metadata"]["uid"])
        else:
            self._uid += 1
            self._write("ADDED", name, f"uid-{self._uid}")

    def delete(self, name: str) -> None:
        if name in self.objects:
            self._write("DELETED", name, self.objects[name]["metadata"]["uid"])

    def compact(self) -> None:
        self.oldest = self.version

    def page(self, step: ListPage) -> RawList:
        version, start = map(int, step.continue_.split("/")) if step.continue_ else (self.version, 0)
        if version < self.oldest:
            raise Gone(410, "Expired", "token")
        items = self.snapshots[version]
        end = start + 2 if step.limit else len(items)
        return page(items[start:end], version, f"{version}/{end}" if end < len(items) else "")

    def watch(self, step: Watch) -> list[RawWatchEvent]:
        if step.initial_events:
            if not self.streams:
                raise Invalid(422, "Invalid", "sendInitialEvents")
            return [event("ADDED", body) for body in self.objects.values()] + [
                bookmark(self.version, ends_initial=True)
            ]
        if int(step.resource_version) < self.oldest:
            raise Gone(410, "Expired", "version")
        return self.events_since(int(step.resource_version))

    def events_since(self, version: int) -> list[RawWatchEvent]:
        return [event(kind, body) for at, kind, body in self.history if at > version]


class Believer:
    """A consumer that knows only what it is told, and insists that every change makes sense."""

    def __init__(self) -> None:
        self.known: dict[str, Service] = {}

    def hear(self, changes: list[Change[Service]]) -> None:
        for change in changes:
            if change.old is None:
                assert change.new is not None
                assert change.key not in self.known
            else:
                assert self.known.pop(change.key) is change.old
            if change.new is not None:
                assert change.old is None or change.old.metadata.uid == change.new.metadata.uid
                self.known[change.key] = change.new
            assert (
                change.kind
                == {(True, False): "added", (False, False): "modified", (False, True): "deleted"}[
                    (change.old is None, change.new is None)
                ]
            )


class Conversation:
    """A ListWatch, its consumer and a model server, one exchange at a time."""

    def __init__(self, *, streams: bool, seed: int) -> None:
        self.server = Server(streams=streams)
        self.driver = Driver(seed)
        self.believer = Believer()
        self.pending: list[RawWatchEvent] = []
        self.sent = 0

    def exchange(self) -> None:
        """Whatever comes next: a request and its answer, or one event of the open watch."""
        core, server = self.driver.core, self.server
        if core.watching:
            if not self.pending:
                self.pending = server.events_since(self.sent)
                self.sent = server.version
            if self.pending:
                self.believer.hear(core.receive_event(self.pending.pop(0), self.driver.now))
            return
        step = self.driver.step()
        try:
            if isinstance(step, ListPage):
                self.believer.hear(core.receive_page(server.page(step)))
            elif isinstance(step, Watch):
                self.pending = server.watch(step)
                self.sent = server.version
                core.watch_opened(self.driver.now)
        except ApiError as error:
            self.driver.fail(error)

    def act(self, action: str) -> None:
        core = self.driver.core
        match action.split():
            case ["put", name]:
                self.server.put(name)
            case ["delete", name]:
                self.server.delete(name)
            case ["compact"]:
                self.server.compact()
            case ["exchange"]:
                self.exchange()
            case ["bookmark"] if (
                core.watching and core.synced and not self.pending and self.sent == self.server.version
            ):
                self.believer.hear(core.receive_event(bookmark(self.server.version), self.driver.now))
            case ["cut"] if core.watching:
                self.driver.fail(Unreachable(0, "Cut", "x"))
            case ["gone"] if core.watching:
                self.believer.hear(core.receive_event(refused(410, "Expired"), self.driver.now))
            case ["error"] if core.watching:
                self.believer.hear(core.receive_event(refused(500, "InternalError"), self.driver.now))
            case ["hour"]:
                self.driver.now += 3600

    def settled(self) -> bool:
        core = self.driver.core
        return core.watching and core.synced and not self.pending and self.sent == self.server.version


ACTIONS = st.sampled_from(
    [f"put {name}" for name in "abcde"]
    + [f"delete {name}" for name in "abcde"]
    + ["compact", "bookmark", "cut", "gone", "error", "hour"]
    + ["exchange"] * 12
)


@settings(max_examples=200)
@given(actions=st.lists(ACTIONS, min_size=60, max_size=200), streams=st.booleans(), seed=st.integers(0, 1000))
def test_whatever_happens_the_copy_and_the_consumer_end_up_with_what_the_server_has(
    actions: list[str], streams: bool, seed: int
) -> None:
    talk = Conversation(streams=streams, seed=seed)
    for action in actions:
        talk.act(action)
        assert talk.believer.known == dict(talk.driver.core.held)
    for _ in range(400):
        if talk.settled():
            break
        talk.exchange()
    assert talk.settled(), "it comes to rest"
    truth = {f"dev/{name}": body["metadata"]["resourceVersion"] for name, body in talk.server.objects.items()}
    assert {key: one.metadata.resource_version for key, one in talk.believer.known.items()} == truth
    assert talk.believer.known == dict(talk.driver.core.held)
