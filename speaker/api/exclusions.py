"""Which interfaces are left out by their names, from the ConfigMap in which MetalLB's users say it.

1. The ConfigMap is ``metallb-excludel2`` in the speaker's namespace. Its key ``excludel2.yaml`` has YAML with
   ``announcedInterfacesToExclude``, a list of patterns (``speaker.exclusion``). An empty list excludes nothing.
2. A change takes effect as it comes. MetalLB reads the list when a speaker starts.
3. A list that cannot be honoured leaves the last good one in force, and is a ``Problem``. The announcer keeps that one
   also while another watcher begins; after a speaker's start it has the default.
4. Without the ConfigMap the default is in force. One that was deleted counts for ``GRACE_S`` more, since it may be made
   again at once (``kubectl replace --force``).

Times are monotonic seconds.
"""

from __future__ import annotations

import logging
from typing import Any

from cluster.config import GRACE_S, Problem
from cluster.objects import ConfigMap
from speaker.channel import ExcludedInterfaces
from speaker.exclusion import DEFAULT, Exclusion, PatternError

NAME = "metallb-excludel2"
KEY = "excludel2.yaml"
LIST = "announcedInterfacesToExclude"
LONGEST = 64 * 1024
"""Characters of the YAML, which takes a second to read at that length."""

logger = logging.getLogger(__name__)


class ExcludedByName:
    """See the module's docstring."""

    def __init__(self) -> None:
        self.problems: tuple[Problem, ...] = ()
        """Of the ConfigMap as it is."""
        self._patterns: tuple[str, ...] | None = None
        """The last good ones; None: none was ever seen."""
        self._is_there = False
        self._gone_at: float | None = None
        self._sent: tuple[str, ...] | None = None

    def set_config_map(self, config_map: ConfigMap | None, now: float) -> None:
        """The ConfigMap as it is now; None when it is gone."""
        self._is_there = config_map is not None
        if config_map is None:
            self._gone_at = now
            return
        self._gone_at = None
        try:
            self._patterns = _patterns_of(config_map)
        except _RefusedError as error:
            self.problems = (Problem("ConfigMap", NAME, error.field, error.reason),)
        else:
            self.problems = ()

    def next_deadline(self) -> float | None:
        """When `take` returns something though nothing came in; None: never."""
        return None if self._gone_at is None else self._gone_at + GRACE_S

    def take(self, now: float, *, known: bool) -> ExcludedInterfaces | None:
        """What the announcer has to be sent now; None: nothing. ``known``: whether there is a ConfigMap is known."""
        if self._gone_at is not None and now >= self._gone_at + GRACE_S:
            self._gone_at = None
            self._patterns, self.problems = DEFAULT.patterns, ()
        if known and self._patterns is None and not self._is_there:
            self._patterns = DEFAULT.patterns
        if not known or self._patterns in {None, self._sent}:
            return None
        self._sent = self._patterns
        logger.info("excluded interfaces", extra={"patterns": self._sent})
        return ExcludedInterfaces(self._sent)


class _RefusedError(Exception):
    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


def _patterns_of(config_map: ConfigMap) -> tuple[str, ...]:
    import yaml  # noqa: PLC0415  # two megabytes, which a speaker without such a ConfigMap need not have

    field = f"data[{KEY}]"
    text = config_map.data.get(KEY)
    if text is None:
        raise _RefusedError("data", f"it has no key {KEY}")
    if len(text) > LONGEST:
        raise _RefusedError(field, f"it has more than {LONGEST} characters")
    try:
        read: Any = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise _RefusedError(field, f"it is no YAML: {' '.join(str(error).split())}") from error
    listed = read.get(LIST, ...) if isinstance(read, dict) else ...
    if listed is ...:
        raise _RefusedError(field, f"it has no list {LIST}")
    field = f"{field}.{LIST}"
    if listed is None:
        return ()
    if not isinstance(listed, list):
        raise _RefusedError(field, "it is no list")
    for index, pattern in enumerate(listed):
        if not isinstance(pattern, str):
            raise _RefusedError(f"{field}[{index}]", f"{pattern!r:.64} is no text: put it in quotes")
    try:
        return Exclusion(listed).patterns
    except PatternError as error:
        raise _RefusedError(f"{field}[{error.index}]", str(error)) from error
