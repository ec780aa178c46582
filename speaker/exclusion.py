"""Which interfaces are not announced on because of their names.

A list of patterns decides, as in MetalLB: an interface is excluded if one of them, a regular expression as Go has them
(``expressions``), matches somewhere in its name. Without a list of the cluster's own, those of MetalLB hold: names that
container networks use.

Both processes of a speaker know this module. The watcher checks a list that it reads (``api.exclusions``), and the
announcer asks it of each interface.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from speaker.expressions import Expression, ExpressionError
from speaker.link import LinkName

MAX_PATTERNS = 128
NAMES_KNOWN = 1024
"""Names of which the answer is kept: a node has hundreds of interfaces, and each is looked at again and again."""


class PatternError(ValueError):
    """A pattern cannot be honoured: ``index`` is its place in the list, the text says why."""

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(reason)
        self.index = index


class Exclusion:
    """See the module's docstring."""

    def __init__(self, patterns: Iterable[str]) -> None:
        """Raises `PatternError`."""
        self.patterns = tuple(patterns)
        expressions: list[Expression] = []
        for index, pattern in enumerate(self.patterns):
            if index == MAX_PATTERNS:
                raise PatternError(index, f"there are more than {MAX_PATTERNS}")
            try:
                expressions.append(Expression(pattern))
            except ExpressionError as error:
                raise PatternError(index, f'"{pattern}" is no regular expression: {error}') from error
        self._expressions = tuple(expressions)
        self.by = lru_cache(maxsize=NAMES_KNOWN)(self._by)
        """The first pattern that excludes an interface of this name; None: it is not excluded."""

    def _by(self, name: LinkName) -> str | None:
        return next((each.text for each in self._expressions if each.matches(name)), None)


DEFAULT = Exclusion(
    (
        *("^docker.*", "^cbr.*", "^dummy.*", "^virbr.*", "^lxcbr.*", "^veth.*", "^lo$", "^cali.*", "^tunl.*"),
        *("^flannel.*", "^kube-ipvs.*", "^cni.*", "^nodelocaldns.*", "^lxc.*"),
    )
)
"""MetalLB's list."""
