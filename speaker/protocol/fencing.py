"""Whether this node answers on one of its links, or may not know who has taken over there.

A node that was away does not know what others hold by now: its loop stalled, or the link came up or is new. The link is
*fenced*: nothing is answered there until somebody was heard, and the claims of all who are heard are known. A fence has
four states, and five events change them. Each cell of the table names the state afterwards, and what is done:

| state   | up            | down | stall             | heard         | unheard        |
|---------|---------------|------|-------------------|---------------|----------------|
| open    | new; suspends | open | stalled; suspends | open          | open           |
| quiet   | new; suspends | open | stalled; suspends | open; speaks  | quiet          |
| stalled | new; suspends | open | stalled; suspends | open; resumes | quiet; resumes |
| new     | new; suspends | open | new; suspends     | open; resumes | quiet; resumes |

- *Open*: what is held is answered for. *Quiet*: it is, but no gratuitous frame is sent, since nobody was heard and this
  node may be the one that is cut off. *Stalled* and *new*: nothing is answered.
- *Up*: the link is new, or has come up. *Down*: it has no carrier. *Stall*: the loop was away for long.
- *Heard*: somebody was heard since the state began, and after a fence an interval has passed and the claims of all who
  are heard are known. *Unheard*: nobody was heard for the detection floor after a stall, or for 40 s on a link that is
  new, since a switch may still block the port.

*Suspends*: peers are asked for their claims, and nobody's silence from before counts. *Resumes*: what is held is
answered for again, and said by gratuitous frames where the state is open then. *Speaks*: gratuitous frames may be sent
again. An event that suspends again begins the wait anew. Claims stay, and are said, all the while.

Two more things keep a node from answering or claiming on a link. While a peer is *doubted*, which was silent for longer
than D and is back, nothing is answered, for a second at most. While the link is *listened on*, which is for as long as
at a start, nothing new is claimed.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from cluster.times import LONG_AGO, NEVER

DOUBT_S = 1.0  # for claims that are known to exist and do not come


class Fence(enum.Enum):
    OPEN = "open"
    QUIET = "quiet"
    STALLED = "stalled"
    NEW = "new"


class FenceEvent(enum.Enum):
    """What happens to a link, or is found out by the time."""

    UP = "up"
    DOWN = "down"
    STALL = "stall"
    HEARD = "heard"
    UNHEARD = "unheard"


class FenceOutcome(enum.Enum):
    """What is done, beside the change of the fence."""

    NOTHING = "nothing"
    SUSPENDS = "suspends"
    RESUMES = "resumes"
    SPEAKS = "speaks"


OPEN, QUIET, STALLED, NEW = Fence
UP, DOWN, STALL, HEARD, UNHEARD = FenceEvent
NOTHING, SUSPENDS, RESUMES, SPEAKS = FenceOutcome

TRANSITIONS: Mapping[tuple[Fence, FenceEvent], tuple[Fence, FenceOutcome]] = MappingProxyType(
    {
        (OPEN, UP): (NEW, SUSPENDS),
        (OPEN, DOWN): (OPEN, NOTHING),
        (OPEN, STALL): (STALLED, SUSPENDS),
        (OPEN, HEARD): (OPEN, NOTHING),
        (OPEN, UNHEARD): (OPEN, NOTHING),
        (QUIET, UP): (NEW, SUSPENDS),
        (QUIET, DOWN): (OPEN, NOTHING),
        (QUIET, STALL): (STALLED, SUSPENDS),
        (QUIET, HEARD): (OPEN, SPEAKS),
        (QUIET, UNHEARD): (QUIET, NOTHING),
        (STALLED, UP): (NEW, SUSPENDS),
        (STALLED, DOWN): (OPEN, NOTHING),
        (STALLED, STALL): (STALLED, SUSPENDS),
        (STALLED, HEARD): (OPEN, RESUMES),
        (STALLED, UNHEARD): (QUIET, RESUMES),
        (NEW, UP): (NEW, SUSPENDS),
        (NEW, DOWN): (OPEN, NOTHING),
        (NEW, STALL): (NEW, SUSPENDS),
        (NEW, HEARD): (OPEN, RESUMES),
        (NEW, UNHEARD): (QUIET, RESUMES),
    }
)


@dataclass(slots=True)
class Fencing:
    """Of one link."""

    state: Fence = OPEN
    since: float = LONG_AGO
    """When the state began, or was begun anew."""
    listening_until: float = LONG_AGO
    """Nothing is claimed here before: who holds what on the link may not have been heard yet."""
    doubted: dict[int, float] = field(default_factory=dict)
    """Sessions that are back after a long silence, with claims that were not heard: they may have what this node holds.
    And since when."""

    @property
    def suspended(self) -> bool:
        """Whether nothing is answered until somebody is heard."""
        return self.state is STALLED or self.state is NEW

    @property
    def answering(self) -> bool:
        """Whether what is held may be answered for."""
        return not self.suspended and not self.doubted

    @property
    def waits(self) -> bool:
        """Whether the time, or what is heard, may change anything."""
        return self.state is not OPEN or bool(self.doubted) or self.listening_until > LONG_AGO

    def change(self, event: FenceEvent, now: float) -> FenceOutcome:
        """What is to be done for it."""
        before = self.state
        self.state, outcome = TRANSITIONS[before, event]
        if self.state is not before or outcome is SUSPENDS:
            self.since = now
        return outcome

    def may_be_heard(self, interval_s: float, now: float) -> bool:
        """Whether it matters by now if somebody was heard since the state began."""
        return self.state is QUIET or (self.suspended and now >= self.since + interval_s)

    def is_unheard(self, floor_s: float, link_silence_s: float, now: float) -> bool:
        """Whether the time is over in which somebody should have been heard."""
        return now >= self.since + (link_silence_s if self.state is NEW else floor_s)

    def doubt(self, session: int, now: float) -> None:
        self.doubted[session] = now

    def trust(self, session: int) -> bool:
        """Whether the session was doubted, which it is no more."""
        return self.doubted.pop(session, None) is not None

    def end_waits(self, now: float) -> tuple[bool, bool]:
        """End what the time ends. Returns whether anybody was doubted for long enough, and whether the link was
        listened on for long enough."""
        expired = [session for session, at in self.doubted.items() if now >= at + DOUBT_S]
        for session in expired:
            del self.doubted[session]
        listened = self.listening_until > LONG_AGO and now >= self.listening_until
        if listened:
            self.listening_until = LONG_AGO
        return bool(expired), listened

    def next_deadline(self, interval_s: float, looked_at: float) -> float:
        """When to look next, where that was done last at ``looked_at``. What comes later than an interval after a fence
        is looked at with the heartbeats."""
        resumes_at = self.since + interval_s if self.suspended else NEVER
        return min(
            min(self.doubted.values(), default=NEVER) + DOUBT_S,
            resumes_at if resumes_at > looked_at else NEVER,
            self.listening_until if self.listening_until > LONG_AGO else NEVER,
        )
