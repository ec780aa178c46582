"""Whether this node has an interface to announce on at all, and why its other interfaces are none.

The answer is worked out when something may have changed, and kept for each time that it is asked for.
"""

from __future__ import annotations

import logging

from speaker.link import LinkName
from speaker.wire.links import LinkTable
from speaker.wire.open_links import OpenLinks

logger = logging.getLogger(__name__)


class Usability:
    """See the module's docstring."""

    def __init__(self) -> None:
        self.reasons: dict[LinkName, str] = {}
        """Interfaces that cannot be announced on, and why."""
        self._usable = True
        """Benefit of the doubt until the interfaces are known."""
        self._looked = False

    def changed(self) -> None:
        """Something about the interfaces is not what it was."""
        self._looked = False

    def look(self, table: LinkTable, links: OpenLinks) -> None:
        """Look again, if need be. One log line where the last usable interface is gone, or the first one is there."""
        if self._looked or not table.complete:
            return
        self._looked = True
        self.reasons = table.unusable()
        usable = any(state.up for state in links.announced)
        if usable != self._usable:
            self._usable = usable
            if usable:
                logger.info("interface usable again")
            else:
                logger.warning("no usable interface", extra={"interfaces": {**self.reasons, **links.refused}})
