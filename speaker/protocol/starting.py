"""Says when this speaker has started, so that it may claim.

Four things have to be so: heartbeats have been able to flow for a second and three intervals, there is a Plan, the
claims of all who were heard are known, and who is expected was heard or had time to answer. Besides, it must not yield
to another machine with its name, nor end.
"""

from __future__ import annotations

from speaker.protocol.crowd import ASKED_S
from speaker.protocol.expected import Expected
from speaker.protocol.fencing import DOUBT_S
from speaker.protocol.identity import Identity
from speaker.protocol.restarting import Restarting
from speaker.protocol.roster import Roster
from speaker.protocol.voice import Voice

STARTING_INTERVALS = 3


class Starting:
    def __init__(
        self, roster: Roster, voice: Voice, *, identity: Identity, expected: Expected, restarting: Restarting
    ) -> None:
        self._roster = roster
        self._voice = voice
        self._identity = identity
        self._expected = expected
        self._restarting = restarting
        self._speaking_since: float | None = None

    @property
    def speaks(self) -> bool:
        """Whether heartbeats could flow once."""
        return self._speaking_since is not None

    def begin(self, now: float) -> None:
        """Begin to speak, if heartbeats can flow now and could not before."""
        up = any(link.state.up for link in self._roster.links.values())
        if self._speaking_since is None and self._voice.authenticator is not None and up:
            self._speaking_since = now
            self._voice.begin(now)

    def may_claim(self, now: float) -> bool:
        """Whether this speaker has started, and may claim from now on."""
        roster, settings = self._roster, self._roster.settings
        wait = settings.start_wait_s + STARTING_INTERVALS * settings.interval_s
        patience = DOUBT_S + len(roster.peers) / ASKED_S
        return (
            not self._voice.leaving
            and not self._restarting.active
            and self._voice.planned
            and self._speaking_since is not None
            and now >= self._speaking_since + wait
            and not self._identity.yields(now)
            and any(link.open(now) for link in roster.links.values())
            and not any(roster.behind(link, now, patience) for link in roster.links)
            and not self._expected.awaited(now)
        )
