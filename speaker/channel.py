"""What the speaker's two processes say to each other, and how it is framed on the socketpair between them.

The watcher sends `Credentials` and `ExcludedInterfaces`, who held what by the records (`FormerHolders`), then the Plan
(`WholePlan`) and changes of it (`PlanChange`), and beside it where other speakers are (`DirectoryChange`) and whether
nodes' lives matter (`Brisk`). The announcer says what it holds (`Claims`) and changes of that (`ClaimsChange`), which
nodes are silent (`Unheard`), its decisions (`Decision`), and each second its statistics (`Stats`). Where the record in
the API decides it asks for that (`AskRecord`), and is answered (`RecordAnswer`), or not.

1. A message is a msgpack value behind a 4-byte big-endian length.
2. Neither side ever waits for the other. Each reads what is there, and what cannot be written now is queued.
3. A side that does not read costs the other a bounded queue. The announcer makes no further claims or statistics before
   the last have gone out: what changes meanwhile is told then, as it is then. The watcher makes no further Plan. Of
   decisions the oldest are dropped.
4. What may be large goes out in parts (``parts``), so that neither process is busy with one message for long.

Both processes are forks of one program. The format is therefore always that of the same build, and has no version.
"""

from __future__ import annotations

import socket
import struct
from collections import deque
from typing import Generic, TypeVar

import msgspec
from msgspec import Struct

from cluster.addresses import Family
from cluster.objects import AddressText, NodeName
from speaker.directory import DirectoryChange, ListedLink
from speaker.durations import Durations
from speaker.link import LinkName
from speaker.passes import NO_PASSES
from speaker.plan import BundleId, Plan, PlanChange
from speaker.protocol.effects import AskRecord, ConflictView, Decision, FormerHolder, PeerView, RecordAnswer

# ------------------------------------------------------------------------------------------------ watcher -> announcer


class Credentials(Struct, frozen=True, tag=True):
    """This cluster among clusters that share a LAN, and what authenticates heartbeats. Sent as soon as both are known,
    which may be before the first Plan or after it; again when the keys change."""

    cluster: str
    """UID of the namespace ``kube-system``."""
    keys: tuple[bytes, ...]
    """Heartbeat keys: the first signs, all verify (current, then previous)."""


class ExcludedInterfaces(Struct, frozen=True, tag=True):
    """Which interfaces are not to be announced on, by name. Sent once that is known, and whenever it changes. Until
    then the announcer goes on with what it knows, at first the default."""

    patterns: tuple[str, ...]
    """That were checked (``exclusion``)."""


class Brisk(Struct, frozen=True, tag=True):
    """Whether nodes' lives matter, whatever they hold: everybody speaks often enough then that a dead node is known
    within a second. Sent when that changes; at first they do not."""

    wanted: bool


class FormerHolders(Struct, frozen=True, tag=True):
    """Who held bundles by their records, as far as was read when the watcher began: some or all. Sent before the first
    Plan, or when it is known."""

    holders: dict[BundleId, FormerHolder]


class WholePlan(Struct, frozen=True, tag=True):
    """A watcher's first Plan, with some of its bundles or all."""

    plan: Plan
    more: bool = False
    """Others follow, in another message like this; the Plan takes effect when all have come."""


# ------------------------------------------------------------------------------------------------ announcer -> watcher


class Holding(Struct, frozen=True, array_like=True, gc=False):
    """An address that this node holds."""

    epoch: int
    """Of the claim."""
    links: tuple[LinkName, ...] = ()
    """Where it is answered, except where that is suspended."""


class Claims(Struct, frozen=True, tag=True):
    """The addresses that this node holds, for a watcher that knows of none; the rest of them follows as changes."""

    plan_revision: int
    held: dict[AddressText, Holding]
    suspended: tuple[LinkName, ...] = ()
    """As in `ClaimsChange`."""


class ClaimsChange(Struct, frozen=True, tag=True):
    """What changed in the addresses that this node holds, since they were told last."""

    plan_revision: int
    held: dict[AddressText, Holding | None]
    """None: held no more."""
    suspended: tuple[LinkName, ...] = ()
    """All links on which nothing is answered now, whatever is held there. A link that is suspended is one word, however
    many addresses it has."""


class Unheard(Struct, frozen=True, tag=True):
    """All nodes that are unheard now (``protocol.lives``). Sent to a new watcher, and when it changes."""

    nodes: tuple[NodeName, ...]
    """Sorted."""


class Stats(Struct, frozen=True, tag=True):
    """Each second: the announcer's counters since its start, and those by address since it told them last, so that an
    address without traffic costs nothing. The watcher serves them as metrics."""

    loop_at: float
    """CLOCK_BOOTTIME of the announcer's last loop, seconds."""
    ready: bool
    """Heartbeats flow and the start-up wait is over."""
    counters: dict[str, int]
    """A bounded set of names: ``conflicts``, or ``frames_dropped:not_held`` where one label tells the reason. They
    become ``berthlb_speaker_conflicts_total`` and ``berthlb_speaker_frames_dropped_total{reason="not_held"}``."""
    answered: dict[AddressText, int] = {}
    """Requests that were answered, lately."""
    gratuitous: dict[AddressText, int] = {}
    """Gratuitous frames sent, lately."""
    peers: tuple[PeerView, ...] = ()
    conflicts: tuple[ConflictView, ...] = ()
    """Who else has addresses of the Plan now: `MAX_CONFLICTS`, if there are more."""
    kernel: tuple[AddressText, ...] = ()
    """Addresses of the Plan for which this node's kernel answers by itself: some, if there are many."""
    links: tuple[LinkName, ...] | None = None
    """The links that can be announced on, with or without carrier; None: not known yet."""
    families: dict[LinkName, tuple[Family, ...]] = {}
    """Of ``links``, the families that the kernel speaks there."""
    refused: dict[LinkName, str] = {}
    """Links that could be, but that their sockets cannot be had, and why."""
    unusable: dict[LinkName, str] = {}
    """Interfaces that cannot be announced on at this moment, and why, as a predicate (``has no carrier``): some, if
    there are many."""
    passes: tuple[int, ...] = NO_PASSES
    """Passes of the loop by their length: up to each of ``passes.BOUNDS_S``, and beyond the last."""
    passes_s: float = 0.0
    """Seconds that all of them took together."""
    lag_s: float = 0.0
    """By how much the loop has come back late lately."""
    took: dict[str, Durations] = {}
    """A bounded set of names, as of the counters: ``takeover:death``."""
    own: tuple[ListedLink, ...] = ()
    """The links with carrier, as other speakers are told of them: some, if there are many."""
    blocked: dict[LinkName, tuple[NodeName, ...]] = {}
    """By link, speakers that live by their Leases and are not heard."""


MAX_CONFLICTS = 32
"""Told each second, and by the ConfigurationState."""

ToAnnouncer = (
    Credentials | ExcludedInterfaces | Brisk | FormerHolders | WholePlan | PlanChange | DirectoryChange | RecordAnswer
)
ToWatcher = Claims | ClaimsChange | Unheard | Stats | Decision | AskRecord

Sends = TypeVar("Sends", bound=ToAnnouncer | ToWatcher)
Receives = TypeVar("Receives", bound=ToAnnouncer | ToWatcher)

# ------------------------------------------------------------------------------------------------ framing

MAX_MESSAGE = 64 * 1024 * 1024
"""Bytes of one message. A whole Plan of 10,000 bundles and 50 nodes takes about 11 MB."""
READ_AT_ONCE = 256 * 1024  # bytes taken from the socket in one pass of a loop, so that its other sockets are read too
MAX_QUEUED = 256  # messages that wait for a reader; beyond it the oldest that may be lost is dropped

_LENGTH = struct.Struct(">I")


class ChannelError(Exception):
    """The other process sent what is not a message, or has gone. Its fault; the channel cannot be used any more."""


class ChannelClosedError(ChannelError):
    """The other process has ended, or closed its side."""


def encode(message: ToAnnouncer | ToWatcher) -> bytes:
    """One message as it goes over the socketpair."""
    body = _encoder.encode(message)
    return _LENGTH.pack(len(body)) + body


_encoder = msgspec.msgpack.Encoder()


class Decoder(Generic[Receives]):
    """Bytes in, in pieces of any size; messages out. ``ChannelError`` when they are no messages."""

    def __init__(self, messages: type[Receives]) -> None:
        self._decoder = msgspec.msgpack.Decoder(messages)
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Receives]:
        """The messages that ``data`` completes, in order."""
        buffer = self._buffer
        buffer += data
        messages: list[Receives] = []
        start = 0
        while len(buffer) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(buffer, start)
            if length > MAX_MESSAGE:
                raise ChannelError(f"a message of {length} bytes")
            end = start + _LENGTH.size + length
            if len(buffer) < end:
                break
            with memoryview(buffer) as view:
                messages.append(self._decode(view[start + _LENGTH.size : end]))
            start = end
        del buffer[:start]
        return messages

    def _decode(self, body: memoryview) -> Receives:
        with body:
            try:
                return self._decoder.decode(body)
            except msgspec.DecodeError as error:
                raise ChannelError(f"not a message: {error}") from error


class Channel(Generic[Sends, Receives]):
    """One end of the socketpair. Nothing here waits: what cannot be written now is written by a later ``flush``.

    The queue stays bounded if its users do their part: a state is sent when ``waits_for`` its like is false, and a Plan
    when ``waiting`` is false. Of Decisions the oldest are dropped.
    """

    def __init__(self, sock: socket.socket, receives: type[Receives]) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._decoder = Decoder(receives)
        self._queue: deque[tuple[type, bytes]] = deque()
        self._sent = 0  # bytes of the queue's first message that are written
        self.dropped = 0
        """Messages given up because the other side did not read."""

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    @property
    def waiting(self) -> bool:
        """Something is still to be written: call ``flush`` when the socket is writable."""
        return bool(self._queue)

    def waits_for(self, *kinds: type) -> bool:
        """Whether a message of one of these types is still to be written."""
        return any(kind in kinds for kind, _ in self._queue)

    def send(self, message: Sends) -> None:
        """Write a message, or queue it. ``ChannelClosedError`` when nobody will ever read it."""
        if len(self._queue) >= MAX_QUEUED:
            self._drop_decision()
        self._queue.append((type(message), encode(message)))
        self.flush()

    def _drop_decision(self) -> None:
        for at in range(1, len(self._queue)):  # the first message may be half written: it stays
            if self._queue[at][0] is Decision:
                del self._queue[at]
                self.dropped += 1
                return

    def flush(self) -> None:
        """Write as much as the socket takes. ``ChannelClosedError`` when nobody will ever read it."""
        while self._queue:
            data = self._queue[0][1]
            try:
                self._sent += self._socket.send(memoryview(data)[self._sent :])
            except BlockingIOError:
                return
            except OSError as error:
                raise ChannelClosedError(str(error)) from error
            if self._sent == len(data):
                self._queue.popleft()
                self._sent = 0

    def receive(self) -> list[Receives]:
        """The messages that have arrived. ``ChannelClosedError`` when the other side has ended and all is read."""
        messages: list[Receives] = []
        taken = 0
        while taken < READ_AT_ONCE:
            try:
                data = self._socket.recv(READ_AT_ONCE // 4)
            except BlockingIOError:
                break
            except OSError as error:
                raise ChannelClosedError(str(error)) from error
            if not data:
                if messages:
                    break  # the end is told by the next call
                raise ChannelClosedError("the other process has closed the channel")
            taken += len(data)
            messages += self._decoder.feed(data)
        return messages


AnnouncerEnd = Channel[ToWatcher, ToAnnouncer]
WatcherEnd = Channel[ToAnnouncer, ToWatcher]


def announcer_end(sock: socket.socket) -> AnnouncerEnd:
    """The announcer's side of a connected stream socket."""
    return Channel(sock, ToAnnouncer)  # type: ignore[arg-type]  # a union is a type to msgspec, but not to mypy


def watcher_end(sock: socket.socket) -> WatcherEnd:
    """The watcher's side of a connected stream socket."""
    return Channel(sock, ToWatcher)  # type: ignore[arg-type]  # as above
