"""How long deaths, take-overs, hand-overs and stand-ins took, as the decisions tell: histograms, each by cause.

- *A detection*: from the last sign of life of a peer, or of a node for which this one stood in, until it was declared
  dead.
- *A take-over*: from when an address had no holder until this node claimed it. After a death it counts from the last
  sign of life, as for a client.
- *A hand-over*: from when this node first offered an address until it heard another node's claim.
- *A stand-in*: for how long this node stood in for another one's speaker.

What a speaker resumes after its own restart was not taken over, and does not count.

Causes are of fixed sets. What a cause is not known for is ``other``.

**Bounds:** what is remembered of peers is of as many as can be known (``crowd``), of stand-ins of those that there are,
and of offers of the addresses that this node holds.

Example: a peer's last heartbeat came at 10.0 s. It is declared dead at 10.36, and this node claims its address 0.01 s
later. That is a detection of 0.36 s, and a take-over of 0.37 s by ``death``.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from speaker.durations import Durations
from speaker.protocol.crowd import MAX_PEERS
from speaker.protocol.effects import Decision

OTHER = "other"

DETECTION, TAKEOVER, HANDOVER, STAND_IN = "detection", "takeover", "handover", "stand_in"
SILENCE = "death"
DEATHS: Mapping[str, str] = MappingProxyType(
    {"left": "left", "new session": "restart", "lost its link": "link", "nobody stands in for it": "ended"}
)
"""Why a peer is dead, by the ``proof`` of the decision; any other proves its silence."""
STAND_INS: Mapping[str, str] = MappingProxyType(
    {
        "it is back": "back",
        "it goes on by itself": "back",
        "it did not come back": "gone",
        "another one stands in": "another",
    }
)
"""How stand-ins ended, by ``why`` of the decision ``StandsInNoMore``, those apart whose node died."""
TAKEOVERS: Mapping[str, str] = MappingProxyType(
    {
        "released": "released",
        "handed over": "handed_over",
        "joined bundle": "joined",
        "loss of link": "own_link",
        "unowned": "unowned",
    }
)
"""Causes of take-overs, by how ``why`` of the decision ``Claimed`` begins, deaths apart."""
HANDOVERS: Mapping[str, str] = MappingProxyType(
    {
        "drained": "drained",
        "no candidate any more": "no_candidate",
        "its endpoints are ending": "endpoints",
        "preference": "preference",
        "decision": "decision",
        "failback": "failback",
        "apart from its group": "apart",
        "balance": "balance",
        "provisional": "start",
        "its former holder is back": "returned",
    }
)
"""Causes of hand-overs, by ``why`` of the decision ``Offered``."""


class _Death(NamedTuple):
    cause: str
    silent_s: float


class _Offered(NamedTuple):
    at: float
    cause: str


class Timings:
    """Pure. ``taken`` has the histograms, by ``what:cause``."""

    def __init__(self) -> None:
        self.taken: dict[str, Durations] = {}
        self._deaths: dict[str, _Death] = {}
        """How each peer was lost last."""
        self._offered: dict[str, _Offered] = {}
        """Addresses that are being handed over."""
        self._stands_in: dict[str, float] = {}
        """For which nodes this one stands in, and since when."""

    def note(self, decision: Decision, now: float) -> None:
        """A decision that was taken now, in seconds of any clock that goes on."""
        fields = decision.fields
        address, node, why = (str(fields.get(name, "")) for name in ("address", "node", "why"))
        match decision.reason:
            case "PeerDead":
                self._note_death(node, str(fields.get("proof", "")), _seconds(fields.get("silent_ms", 0)))
            case "NodeDead":
                self._note_death(node, SILENCE, _seconds(fields.get("silent_ms", 0)))
                self._note_end(node, SILENCE, now)
            case "StandsIn":
                self._stands_in.setdefault(node, now)
            case "StandsInNoMore":
                self._note_end(node, STAND_INS.get(why, OTHER), now)
            case "Claimed" if "after_ms" in fields:
                self._offered.pop(address, None)
                self._note_claim(why, _seconds(fields["after_ms"]))
            case "Offered":
                self._offered.setdefault(address, _Offered(now, HANDOVERS.get(why, OTHER)))
            case "Withdrawn" if address in self._offered:
                offered = self._offered.pop(address)
                self._count(HANDOVER, offered.cause, now - offered.at)
            case "Released":
                self._offered.pop(address, None)

    def _note_death(self, node: str, proof: str, silent_s: float) -> None:
        cause = DEATHS.get(proof, SILENCE)
        self._deaths.pop(node, None)
        self._deaths[node] = _Death(cause, silent_s if cause == SILENCE else 0.0)
        if len(self._deaths) > MAX_PEERS:
            del self._deaths[next(iter(self._deaths))]
        if cause == SILENCE:
            self._count(DETECTION, cause, silent_s)

    def _note_end(self, node: str, cause: str, now: float) -> None:
        since = self._stands_in.pop(node, None)
        if since is not None:
            self._count(STAND_IN, cause, now - since)

    def _note_claim(self, why: str, after_s: float) -> None:
        kind, _, node = why.partition(" of ")
        if kind == "death":
            death = self._deaths.get(node, _Death(SILENCE, 0.0))
            self._count(TAKEOVER, death.cause, after_s + death.silent_s)
        else:
            cause = next((word for begins, word in TAKEOVERS.items() if why.startswith(begins)), OTHER)
            self._count(TAKEOVER, cause, after_s)

    def _count(self, what: str, cause: str, seconds: float) -> None:
        key = f"{what}:{cause}"
        self.taken[key] = self.taken.get(key, Durations()).with_one(max(seconds, 0.0))


def _seconds(milliseconds: str | float) -> float:
    return float(milliseconds) / 1000
