"""Faults on purpose: rules that make chosen requests fail, wait or lag.

A rule is a JSON object. Three fields choose requests, and one that is left out means any: ``userAgent`` (contained in
the request's), ``path`` (prefix), ``verb`` (get, list, watch, create, update, patch, delete). Four say what happens:

- ``latency``: seconds, before anything else;
- ``drop``: the connection is cut without an answer;
- ``status``: 400 to 599, with ``retryAfter`` seconds where given;
- ``lag``: seconds by which a watch's events come late.

``count`` limits how many requests a rule hits (not for lag). Two more happen once, at once: ``closeWatches`` ends the
watches that match, and ``compact`` forgets the history.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import NamedTuple

import msgspec

_OWN_REASONS = {410: "Expired", 500: "InternalError", 504: "Timeout"}


def reason(status: int) -> str:
    """Kubernetes' reason for a status code; mostly HTTP's own, run together."""
    return _OWN_REASONS.get(status) or HTTPStatus(status).phrase.replace(" ", "")


class Asked(NamedTuple):
    """A request, as far as a rule looks at it."""

    user_agent: str
    path: str
    verb: str


class Rule(msgspec.Struct, rename="camel", forbid_unknown_fields=True, omit_defaults=True):
    user_agent: str = ""
    path: str = ""
    verb: str = ""
    status: int = 0
    retry_after: int = 0
    latency: float = 0.0
    drop: bool = False
    lag: float = 0.0
    close_watches: bool = False
    compact: bool = False
    count: int | None = None

    def matches(self, asked: Asked) -> bool:
        agent_and_path = self.user_agent in asked.user_agent and asked.path.startswith(self.path)
        return agent_and_path and self.verb in {"", asked.verb} and self.count != 0


class Faults(list[Rule]):
    """The rules in force."""

    def striking(self, asked: Asked) -> Rule | None:
        """The first rule that this request falls under, which is thereby used once."""
        rule = next((rule for rule in self if not rule.lag and rule.matches(asked)), None)
        if rule is not None and rule.count is not None:
            rule.count -= 1
        return rule

    def lag(self, asked: Asked) -> float:
        """Seconds by which this watch's events must come late, as of now."""
        return max((rule.lag for rule in self if rule.matches(asked)), default=0.0)
