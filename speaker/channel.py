"""What the speaker's two processes say to each other, and how it is framed on the socketpair between them.

Each message is a msgpack value behind a 4-byte big-endian length. The announcer never blocks on the channel: it reads
what is there and drops statistics when the watcher does not read.
"""

from __future__ import annotations

from msgspec import Struct

from cluster.objects import AddressText, NodeName
from speaker.plan import Bundle, BundleId, LinkName, Plan

# ------------------------------------------------------------------------------------------------ watcher -> announcer


class Credentials(Struct, frozen=True, tag=True):
    """Who we are among clusters that share a LAN, and what authenticates heartbeats. Sent before the first Plan."""

    cluster: str
    """UID of the namespace ``kube-system``."""
    keys: tuple[bytes, ...]
    """Heartbeat keys: the first signs, all verify (current, then previous)."""


class WholePlan(Struct, frozen=True, tag=True):
    plan: Plan


class PlanChange(Struct, frozen=True, tag=True):
    """The difference to the Plan sent before; applied atomically."""

    revision: int
    changed: tuple[Bundle, ...] = ()
    removed: tuple[BundleId, ...] = ()


# ------------------------------------------------------------------------------------------------ announcer -> watcher


class Claims(Struct, frozen=True, tag=True):
    """The addresses that this node holds now, whole, after every change, with each claim's epoch."""

    plan_revision: int
    held: dict[AddressText, int]
    links: dict[AddressText, tuple[LinkName, ...]] = {}


class PeerView(Struct, frozen=True, array_like=True, gc=False):
    node: NodeName
    alive: bool
    detection_s: float
    """D of this peer now: silence longer than this is a death."""
    lateness_s: float
    claims: int


class Stats(Struct, frozen=True, tag=True):
    """Counters since the announcer's start, each second; the watcher serves them as metrics."""

    loop_at: float
    """CLOCK_BOOTTIME of the announcer's last loop, seconds."""
    ready: bool
    """Heartbeats flow and the start-up wait is over."""
    counters: dict[str, int]
    """By metric name, bounded: see ``metrics``."""
    requests: dict[AddressText, int] = {}
    responses: dict[AddressText, int] = {}
    gratuitous: dict[AddressText, int] = {}
    peers: tuple[PeerView, ...] = ()


class Notice(Struct, frozen=True, tag=True):
    """A ``Report`` of the announcer, for the watcher to turn into an Event."""

    reason: str
    fields: dict[str, str | int | float] = {}


ToAnnouncer = Credentials | WholePlan | PlanChange
ToWatcher = Claims | Stats | Notice
