"""Whether a peer lives on a link, and what changes that.

A peer has a standing on each link on which it was ever heard; its standings on two links are independent. Five signs
change a standing. Each cell of the table names the standing afterwards, and what is done:

| standing  | life          | silence          | proof                   | loss                    | excuse        |
|-----------|---------------|------------------|-------------------------|-------------------------|---------------|
| alive     | alive         | suspected; opens | alive                   | dead; weighs            | alive         |
| suspected | alive; closes | suspected        | dead; closes and weighs | dead; closes and weighs | alive; closes |
| dead      | alive; weighs | dead             | dead                    | dead                    | dead          |

- *Life* is a heartbeat of a peer that can hear (``membership``).
- *Silence* has lasted for 2.5 of the peer's intervals, or the peer has ignored two questions (``suspicion``).
- *Proof* is all that a death needs (``suspicion``). Only a suspect can be proved dead.
- *Loss*: the peer says on another link that it has lost its own link to this one (``membership``).
- *Excuse*: this node could not have heard the peer, since it was away or could not speak itself (``links``).

*Opens* begins a ``Suspicion``, which gathers the questions and what they brought; *closes* ends it. *Weighs* means that
the peer's claims count for something else than before: who owns their addresses is found out anew.

A peer that leaves, or whose node has a new session, is removed with all its standings (``identity``). A standing ends
with its link, too (``links``).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType


class Standing(enum.Enum):
    ALIVE = "alive"
    SUSPECTED = "suspected"
    DEAD = "dead"
    """Also that of a peer which never was alive here."""


class Sign(enum.Enum):
    """What was found out about a peer on a link."""

    LIFE = "life"
    SILENCE = "silence"
    PROOF = "proof"
    LOSS = "loss"
    EXCUSE = "excuse"


class Upshot(enum.Flag):
    """What is done, beside the change of the standing."""

    NOTHING = 0
    OPENS = enum.auto()
    CLOSES = enum.auto()
    WEIGHS = enum.auto()


ALIVE, SUSPECTED, DEAD = Standing
NOTHING, OPENS, CLOSES, WEIGHS = Upshot.NOTHING, Upshot.OPENS, Upshot.CLOSES, Upshot.WEIGHS

TRANSITIONS: Mapping[tuple[Standing, Sign], tuple[Standing, Upshot]] = MappingProxyType(
    {
        (ALIVE, Sign.LIFE): (ALIVE, NOTHING),
        (ALIVE, Sign.SILENCE): (SUSPECTED, OPENS),
        (ALIVE, Sign.PROOF): (ALIVE, NOTHING),
        (ALIVE, Sign.LOSS): (DEAD, WEIGHS),
        (ALIVE, Sign.EXCUSE): (ALIVE, NOTHING),
        (SUSPECTED, Sign.LIFE): (ALIVE, CLOSES),
        (SUSPECTED, Sign.SILENCE): (SUSPECTED, NOTHING),
        (SUSPECTED, Sign.PROOF): (DEAD, CLOSES | WEIGHS),
        (SUSPECTED, Sign.LOSS): (DEAD, CLOSES | WEIGHS),
        (SUSPECTED, Sign.EXCUSE): (ALIVE, CLOSES),
        (DEAD, Sign.LIFE): (ALIVE, WEIGHS),
        (DEAD, Sign.SILENCE): (DEAD, NOTHING),
        (DEAD, Sign.PROOF): (DEAD, NOTHING),
        (DEAD, Sign.LOSS): (DEAD, NOTHING),
        (DEAD, Sign.EXCUSE): (DEAD, NOTHING),
    }
)
