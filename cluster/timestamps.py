"""Times as the API writes them: RFC 3339, in UTC. Given in seconds since 1970."""

from __future__ import annotations

from datetime import UTC, datetime


def timestamp(wall: float) -> str:
    """With whole seconds: ``metav1.Time``."""
    return datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def micro_timestamp(wall: float) -> str:
    """With microseconds: ``metav1.MicroTime``."""
    return datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
