"""Two times that no clock shows, in seconds of whatever clock they are compared with."""

from __future__ import annotations

NEVER = float("inf")
"""A time that will not come."""
LONG_AGO = float("-inf")
"""A time before all times."""
