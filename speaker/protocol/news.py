"""What one part of the protocol found out, for the parts that have to do with it.

Each call that changes a table of the roster returns its news, and ``protocol`` combines them: it tells ``suspicion``
when to look, ``voice`` what to say, and ``ownership`` what to judge.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from cluster.objects import AddressText, NodeName
from cluster.times import LONG_AGO, NEVER
from speaker.link import LinkName, Mac
from speaker.protocol.datagram import HeartbeatError

Contact = tuple[AddressText, Mac]
"""Where a speaker is reached by unicast."""


@dataclass(slots=True)
class News:
    changed: bool = False
    """Somebody's standing or ability changed, or whether this node may claim."""
    networks: bool = False
    """Addresses may belong on other links than before."""
    claims: dict[AddressText, str] = field(default_factory=dict)
    """Claims on these, or the standing of those who made them, changed; and why."""
    look_at: float = NEVER
    """When suspicions are to be judged at the latest."""
    speak: bool = False
    """Somebody waits for a heartbeat of ours."""
    unicast: dict[tuple[LinkName, NodeName], tuple[Contact, ...]] = field(default_factory=dict)
    """Which peers are to get that heartbeat by unicast too, and where."""
    asked: dict[int, None] = field(default_factory=dict)
    """Versions after which peers want our claims."""
    asked_of: dict[int, int] = field(default_factory=dict)
    """Other sessions whose claims somebody wants, and the lowest version after which."""
    alarm_until: float = LONG_AGO
    """Until then peers look for somebody: heartbeats come quickly."""
    suspected: set[tuple[LinkName, int]] = field(default_factory=set)
    """Sessions that somebody suspects on a link, and this node nowhere."""
    offered: dict[AddressText, NodeName] = field(default_factory=dict)
    """Addresses for which a holder names this node as its successor, and that holder."""
    dropped: HeartbeatError | None = None
    """Why the datagram that brought this does not count."""

    def write_to(self, link: LinkName, node: NodeName, contacts: tuple[Contact, ...]) -> None:
        """A speaker is to get the next heartbeat by unicast too, wherever it is reached."""
        self.unicast[link, node] = contacts

    def add(self, other: News) -> None:
        """Take over what another part found out after this."""
        if other is NO_NEWS:
            return
        self.changed |= other.changed
        self.networks |= other.networks
        self.claims.update(other.claims)
        self.look_at = min(self.look_at, other.look_at)
        self.speak |= other.speak
        self.unicast.update(other.unicast)
        self.asked.update(other.asked)
        ask_of(self.asked_of, other.asked_of.items())
        self.alarm_until = max(self.alarm_until, other.alarm_until)
        self.suspected |= other.suspected
        self.offered.update(other.offered)
        self.dropped = other.dropped or self.dropped


def ask_of(asked_of: dict[int, int], asks: Iterable[tuple[int, int]]) -> None:
    """Of each session that is asked for, what comes after the lowest version has what comes after the others."""
    for session, version in asks:
        asked_of[session] = min(version, asked_of.get(session, version))


NO_NEWS = News()
"""Of a call that found out nothing, as most do. Nobody writes to it."""
