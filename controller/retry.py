"""How long to wait before a change is tried again.

After a failure: twice as long each time, up to a limit, never less than the server asks for, and not everybody at the
same moment. A conflict is no failure, since somebody else has written and the object is judged anew: the first ones in
a row are answered at once, and whoever is always faster is not chased without a pause.
"""

from __future__ import annotations

import random

FIRST_RETRY_S = 0.25
LAST_RETRY_S = 15.0
CONFLICTS_AT_ONCE = 2
"""Conflicts in a row that are answered without a pause."""


def retry_delay(attempts: int, retry_after: float, rng: random.Random) -> float:
    """Seconds to wait after the ``attempts``-th failure in a row: doubling, jittered, not before the server asks."""
    backoff = min(LAST_RETRY_S, FIRST_RETRY_S * 2.0 ** min(attempts - 1, 10))
    return max(retry_after, backoff) * rng.uniform(1.0, 1.5)
