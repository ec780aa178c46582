"""What a speaker says among many, so that each of them takes in no more than among fifty.

- *Heartbeats.* A speaker takes in 500 a second: those of fifty holders. Where more hold something, they speak less
  often in proportion, and their silence means something later. Where there are more than 500 speakers, the idle ones
  speak less often than each second, too.
- *Whom a heartbeat lists.* Some hundred fit. Where more are heard, those are listed whose session somebody waits to
  see: who has just come, is suspected by anybody, or was taken for dead until now. The others follow in turn, so that
  each finds itself listed after some heartbeats.
- *Whose claims are asked for.* Eight peers fit. Those who were asked longest ago are asked first, and while some were
  never asked, the next heartbeat goes out soon.
- *Who is known.* A speaker knows 1,024 peers. Where more are heard, one that is dead makes room (``identity``).

Not promised: that a death among a thousand holders is noticed as fast as among fifty. It takes twenty times as long.
"""

from __future__ import annotations

from collections.abc import Container, Sequence

from speaker.protocol.heartbeat import RETURNED, SUSPECTED, Heard
from speaker.protocol.settings import Settings

MAX_PEERS = 1024
BUSY_HOLDERS = 50  # intervals and the floor of D grow beyond
HEARTBEATS_S = 500  # that a speaker takes in each second: those of so many holders
LISTED = 64
"""Peers in one heartbeat at least, however long the names in it are."""
ASKED_S = 400  # peers whose claims are asked for in a second: eight with each heartbeat, which follow each 20 ms


def scale_of(holders: int) -> float:
    """By how much intervals and the floor of D are longer than usual."""
    return max(1.0, holders / BUSY_HOLDERS)


def idle_interval(usual_s: float, settings: Settings, scale: float, speakers: int) -> float:
    """Seconds between the heartbeats of a speaker that holds nothing, which are ``usual_s`` among few."""
    return max(usual_s, settings.interval_s * scale, speakers / HEARTBEATS_S)


def rounds(speakers: int) -> int:
    """After how many of its heartbeats a peer has listed everybody whom it hears."""
    return 1 + speakers // LISTED


class Turns:
    """Whom the heartbeats of a link list next, where not all fit."""

    def __init__(self) -> None:
        self._next = 0

    def choose(self, heard: Sequence[Heard], awaited: Container[int], room: int) -> list[Heard]:
        """``awaited``: sessions that somebody waits to see listed. ``heard`` has the others in an order that lasts."""
        urgent = [each for each in heard if each[0] in awaited or each[1] & (SUSPECTED | RETURNED)][:room]
        first = {session for session, _ in urgent}
        others = [each for each in heard if each[0] not in first]
        left = min(room - len(urgent), len(others))
        start = self._next % len(others) if others else 0
        self._next = start + left
        return urgent + (others[start:] + others[:start])[:left]
