"""The announcer's settings, times in seconds, and why they are what they are."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from speaker.link import Reception

LEAST_GRATUITOUS_LIMIT = 3
"""Frames a second: a Request and a Reply together, and something to gather for the next."""


class RestartMode(enum.Enum):
    """What becomes of the addresses of a speaker that is told to end."""

    STAND_IN = "stand-in"
    """They stay this node's: another speaker answers for them with this node's MAC, until this node's next speaker
    does, for 60 s at most."""
    RELEASE = "release"
    """They are released, and other nodes claim them: for networks on which no host may name another one's MAC."""


@dataclass(frozen=True, slots=True)
class Settings:
    interval_s: float = 0.1
    """Between heartbeats of who holds something or is suspicious."""
    idle_interval_s: float = 1.0
    """Between heartbeats of the rest."""
    brisk_interval_s: float = 0.2
    """Between theirs while nodes' lives matter: a node is dead to the others 0.6 s after its last heartbeat."""
    detection_floor_s: float = 0.35
    """D is never less: three lost heartbeats."""
    detection_ceiling_s: float = 3.0
    """D is never more, however late a peer's heartbeats are."""
    start_wait_s: float = 1.0
    """Listening before the first claim; three intervals are added."""
    listening_s: float = 1.3
    """On a link that is new, or came up, before the first claim there: as at a start."""
    rank_delay_s: float = 0.1
    """Each better candidate's time to claim first."""
    plan_lag_s: float = 0.4
    """More time for it where nobody has held the address yet: its Plan may come later."""
    question_gap_s: float = 0.05
    """Between the two questions to a suspect."""
    early_gap_s: float = 0.02
    """Between heartbeats at the least, however many ask for one."""
    provisional_s: float = 120.0
    """A claim made at a cold start is given on to a candidate that arrives within this."""
    cold_start_s: float = 30.0
    """Claims made this soon after one's own start, where nobody held before, are provisional. A start is over when
    no speaker has arrived for as long."""
    former_s: float = 5.0
    """Of ability, in which a node leaves a bundle to its former holder, where a whole cluster starts. Speakers that are
    started together come within that."""
    alone_s: float = 3.5
    """Without a frame of anybody, although others were known: then whoever has carrier takes over."""
    take_back_s: float = 60.0
    """Health of a node of higher preference before the holder steps aside for it; doubles each time."""
    failback_s: float = 10.0
    """Health of a node before an address that is to go back goes back to it; doubles each time."""
    rebalance: bool = False
    """Whether nodes that announce much give to nodes that announce little."""
    link_silence_s: float = 40.0
    """After a link came up and nobody is heard: a switch may block a new port for 30 s."""
    defence_gap_s: float = 10.0
    """Between defences of one address against strangers. RFC 5227 §2.4."""
    probes: bool = True
    """Whether it is asked if anybody has a newly assigned address, before that is claimed."""
    third_party_s: float = 300.0
    """A gateway or neighbour not heard for longer is no third party any more."""
    gratuitous_limit: int | None = None
    """Gratuitous frames that go out on a link in a second at most; ``None``: as many as there are reasons for."""
    restart_mode: RestartMode = RestartMode.STAND_IN
    reception: Reception = Reception.FILTERED
    """What the interfaces receive while they are announced on."""
