"""How often the same is tried with other luck.

What a test says of a fault must hold whatever frames are lost and whoever is early, and a seed is one such case.
``make test`` shows each fault, and tries some seeds. ``make test-long`` tries all that a test names; it sets
``BERTHLB_ALL_SEEDS``.
"""

from __future__ import annotations

import os


def tries(some: int, all_of_them: int) -> int:
    """So many, or all of them in the long run."""
    return all_of_them if os.environ.get("BERTHLB_ALL_SEEDS") else some
