"""Has this speaker claim again what its node's former session claimed, at the same epochs.

Another speaker stands in for the former session (``absences``). This one hears so and gets the claims from it while it
starts. When it is able it claims those whose addresses its Plan still has, 50 each 20 ms, and answers for them from
then on. Nothing is in a hurry, since the stand-in answers for the others, and questions must not wait. As long as some
are left it says that it restarts. When it does so no more, its stand-in ends. What the Plan has no more is nobody's
then.

What another node owns stays with it: the address has moved meanwhile, by a higher claim, or where the former session
counts no more. Where the claims do not come, the stand-in ends after a minute, and nothing is resumed.
"""

from __future__ import annotations

from itertools import islice

from cluster.times import LONG_AGO, NEVER
from speaker.protocol.ownership import Ownership
from speaker.protocol.peers import Peer
from speaker.protocol.roster import Roster

AT_ONCE = 50  # claims in one call
REST_S = 0.02  # between such calls


class Resuming:
    """Sans-IO."""

    def __init__(self, roster: Roster, ownership: Ownership) -> None:
        self._roster = roster
        self._ownership = ownership
        self._of: Peer | None = None
        """The former session that is resumed, or was."""
        self._version = -1
        """Of its claims, up to which all are resumed."""
        self._begun = -1
        """Of its claims, of which some are resumed: the first ``_done``."""
        self._done = 0
        self._more_at = LONG_AGO
        """When the next are due."""

    @property
    def restarting(self) -> bool:
        """Whether a former session of this node holds what this one does not hold yet."""
        former = self._former()
        return former is not None and (former is not self._of or self._version != former.mirror.version)

    def next_deadline(self) -> float:
        """When there is something to do."""
        former = self._former()
        ready = former is not None and former.mirror.in_step and self._roster.able and self.restarting
        return self._more_at if ready else NEVER

    def review(self, now: float) -> bool:
        """Claim some, if it is time to. Returns whether this was the last of it."""
        former = self._former()
        if former is None or now < self.next_deadline():
            return False
        if former is not self._of or self._begun != former.mirror.version:
            self._of, self._version, self._begun, self._done = former, -1, former.mirror.version, 0
        claims = former.mirror.claims
        some = {address: claims[address] for address in islice(claims, self._done, self._done + AT_ONCE)}
        self._ownership.resume(some, now)
        self._done += AT_ONCE
        if self._done < len(claims):
            self._more_at = now + REST_S
            return False
        self._version, self._more_at = self._begun, LONG_AGO
        return True

    def _former(self) -> Peer | None:
        absence = self._roster.absences.get(self._roster.node)
        return absence.peer if absence is not None else None
