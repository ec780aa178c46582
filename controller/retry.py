"""How long to wait before a request is tried again.

1. After a failure the wait doubles each time, from ``FIRST_RETRY_S`` to ``LAST_RETRY_S``. It is never less than the
   server asks for, and is spread at random, so that not everybody returns at the same moment.
2. A conflict is no failure: somebody else has written, and the object is judged anew. The first ``CONFLICTS_AT_ONCE``
   in a row are followed at once; after that a conflict waits like a failure.

Example: failures in a row wait some 0.3, 0.6, 1.2, 2.5, 5, 10, 19 and then always 19 seconds.
"""

from __future__ import annotations

import random

from cluster.times import doubled

FIRST_RETRY_S = 0.25
LAST_RETRY_S = 15.0
CONFLICTS_AT_ONCE = 2
"""Conflicts in a row that are answered without a pause."""


def retry_delay(attempts: int, retry_after: float, rng: random.Random) -> float:
    """Seconds to wait after the ``attempts``-th failure in a row: doubling, jittered, not before the server asks."""
    backoff = doubled(FIRST_RETRY_S, attempts - 1, LAST_RETRY_S)
    return max(retry_after, backoff) * rng.uniform(1.0, 1.5)
