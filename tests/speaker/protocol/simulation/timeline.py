"""What happened in a schedule, in plain words: who did what, and when.

An entry of a world's trace is a fault, what a speaker decided, or who answers from now on. A timeline shows those that
matter for a broken promise: entries about other addresses, and that speakers hear each other for the first time, are
left out.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from speaker.protocol.effects import Decision

WORDS = {
    "Claimed": "claims {address} with epoch {epoch} ({why})",
    "Withdrawn": "withdraws its claim on {address}, since {to}'s is higher (epochs {epoch} and {their_epoch})",
    "Released": "releases {address} ({why})",
    "Offered": "offers {address} to {to} ({why})",
    "NotTaken": "has not heard {to} claim {address}, which it offered",
    "PeerAlive": "hears {node} on {link}",
    "PeerSuspected": "suspects {node}, silent on {link} for {silent_ms} ms",
    "PeerDead": "takes {node} for dead ({proof})",
    "Isolated": "takes itself for isolated on {link}",
    "Rejoined": "hears somebody on {link} again",
    "LoopLate": "was away for {late_ms} ms, and suspends its answers",
    "LinkUp": "has a link that came up, and suspends its answers there",
    "Resumed": "answers on {link} again",
    "DatagramsBlocked": "finds that {node} answers on {link}, and that its datagrams do not arrive",
    "DuplicateNode": "hears another machine that has the name {node}",
    "AddressConflict": "sees that another host, {mac}, uses {address}",
    "ConflictOver": "sees {address} used by nobody else any more",
    "AddressTaken": "does not claim {address}, which another host answers for",
    "CannotSend": "cannot send on {link}",
    "ReceiveOverflow": "loses frames on {link} for want of room",
    "MemberNonsense": "does not believe {node} any more: {what}",
    "RecordDecides": "asks the records on {link}, where {nodes} cannot be heard",
    "WireDecides": "hears everybody on {link} again",
}
ADDRESS = re.compile(r"\b(?:10\.[01]\.(?:9|1\d)|192\.0\.2)\.\d+\b|\b(?:fd1[01]|2001:db8)::9:[0-9a-f]+\b")
"""Of a Service, in these worlds."""
LOST = {"PeerSuspected", "PeerDead"}


class Entry(NamedTuple):
    at: float
    text: str
    decision: Decision | None = None
    node: str = ""
    """Whose decision it is."""

    def __str__(self) -> str:
        return f"{self.at:9.4f}  {self.text}"


def decided(at: float, node: str, decision: Decision) -> Entry:
    """The entry of a speaker's decision."""
    words = WORDS.get(
        decision.reason, f"{decision.reason} {dict(decision.fields)}".replace("{", "{{").replace("}", "}}")
    )
    text = words.format_map(defaultdict(lambda: "somebody", decision.fields))
    return Entry(at, f"{node} {text}", decision, node)


def told(trace: Iterable[Entry], broken: str) -> str:
    """The trace, as far as it matters for what is ``broken``, and that as its last line."""
    trace = list(trace)
    lines = [str(entry) for entry in _that_matter(trace, set(ADDRESS.findall(broken)))]
    at = trace[-1].at if trace else 0.0
    return "\n".join([*lines, f"{at:9.4f}  !!! {broken}"])


def _that_matter(trace: Iterable[Entry], addresses: set[str]) -> Iterator[Entry]:
    lost: set[tuple[str, object]] = set()
    for entry in trace:
        named = set(ADDRESS.findall(entry.text))
        if addresses and named and not named & addresses:
            continue
        if entry.decision is not None:
            pair = entry.node, entry.decision.fields.get("node")
            if entry.decision.reason in LOST:
                lost.add(pair)
            elif entry.decision.reason == "PeerAlive" and pair not in lost:
                continue
        yield entry
