"""Annotations of a Service that have no effect, or not for long.

The API accepts any annotation, so a misspelt one does nothing and nobody complains.

1. An annotation under our prefix or MetalLB's, or nearly so, that is none of the four that there are, is answered with
   the one that was meant: in an Event, and in the Service's condition for as long as it is there.
2. One under the prefix that MetalLB gave up works, and is answered in an Event.
3. Each is told once, and of one Service not more than ``TOLD`` in all.

Example: ``metallb.io/adress-pool`` is answered with ``metallb.io/address-pool``.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from functools import lru_cache
from typing import Final

from cluster.annotations import (
    ADDRESS_POOL,
    ALLOW_SHARED_IP,
    ASKED,
    DEPRECATED_PREFIX,
    KNOWN,
    LOAD_BALANCER_IPS,
    PREFIX,
)
from cluster.objects import Service
from controller.changes import EventNote, shortened

OUR_PREFIX = "berthlb.io/"
"""Of the condition; people look for annotations there, too."""
UNREAD = '; the annotation "'
"""Where in a condition's message it begins that annotations have no effect."""
TOLD = 20
NAMED = 3
"""How many the condition names."""
KEY_LIMIT = 100
"""Characters of a key that are shown."""
_PREFIXES: Final = (OUR_PREFIX, PREFIX, DEPRECATED_PREFIX)
_NEARLY: Final = re.compile(r"\A[^/]*(?:metal|berth)[^/]*/")
"""What may be meant for one of these prefixes."""
_TELLING: Final = {"pool": ADDRESS_POOL, "share": ALLOW_SHARED_IP, "ip": LOAD_BALANCER_IPS}
"""Parts of a name that tell what is meant."""
_NOTHING: Final[frozenset[str]] = frozenset()  # one for all: each would weigh 216 bytes


def unknown(view: Service) -> list[str]:
    """The annotations that mean nothing, by name."""
    suspects = [key for key in view.metadata.annotations if _NEARLY.match(key)]
    return sorted(key for key in suspects if not _is_known(key) and _is_for_us(key))


def _is_known(key: str) -> bool:
    return key.startswith((PREFIX, DEPRECATED_PREFIX)) and key.partition("/")[2] in KNOWN


def _is_for_us(key: str) -> bool:
    prefix, slash, name = key.partition("/")
    return prefix + slash in _PREFIXES or (
        name in KNOWN and bool(get_close_matches(prefix + slash, _PREFIXES, 1, cutoff=0.8))
    )


@lru_cache(maxsize=256)
def _meant(key: str) -> str | None:
    """The annotation that was meant; None: it cannot be told."""
    said = _plain(key.partition("/")[2][:KEY_LIMIT])
    plain = {_plain(name): name for name in ASKED}
    close = [plain[name] for name in get_close_matches(said, plain, 1, cutoff=0.5)]
    akin = [name for part, name in _TELLING.items() if part in said]
    return PREFIX + (close + akin)[0] if close or akin else None


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower()).removesuffix("s")


def remark(view: Service) -> str:
    """What the condition says of them; empty: there are none."""
    found = unknown(view)
    words = [f"the {_words(key)}" for key in found[:NAMED]]
    if len(found) > NAMED:
        words.append(f"so it is with {len(found) - NAMED} more")
    return "; ".join(words)


def _words(key: str) -> str:
    meant = _meant(key)
    advice = f'did you mean "{meant}"?' if meant is not None else f"there are {', '.join(ASKED)} under {PREFIX}"
    return f"annotation {_shown(key)} has no effect; {advice}"


def _shown(key: str) -> str:
    return f'"{key if len(key) <= KEY_LIMIT else key[: KEY_LIMIT - 1] + "…"}"'


def deprecated(view: Service) -> frozenset[str]:
    """The annotations under the prefix that MetalLB gave up."""
    return (
        frozenset(key for key in view.metadata.annotations if key.startswith(DEPRECATED_PREFIX) and _is_known(key))
        or _NOTHING
    )


def worth_telling(view: Service) -> frozenset[str]:
    """All of which the Service should be told."""
    return deprecated(view).union(unknown(view)) or _NOTHING


def news(view: Service, told: frozenset[str]) -> tuple[EventNote, ...]:
    """Events for those that the Service was not told yet."""
    fresh = sorted(worth_telling(view) - told)[: max(0, TOLD - len(told))]
    return tuple(_deprecated(key) if _is_known(key) else _unknown(key) for key in fresh)


def _unknown(key: str) -> EventNote:
    return EventNote("Warning", "unknownAnnotation", shortened(_words(key)))


def _deprecated(key: str) -> EventNote:
    use = PREFIX + key.removeprefix(DEPRECATED_PREFIX)
    return EventNote("Warning", "deprecatedAnnotation", f'annotation "{key}" is deprecated; use "{use}"')
