"""Who held what before this speaker began, read once from the records of all nodes.

It is what the announcer goes by where a whole cluster starts (``speaker.protocol.former``). While the cluster works
nobody needs it.

1. When the watcher begins, all ServiceL2Status objects are read once. They are not followed.
2. The first Plan waits for that, ``WAIT_S`` at the longest from when all is known that a Plan is made of. What is read
   later is told later.
3. Who held a bundle is who the records of its Services name. Where they differ, the highest epoch counts.

Times are monotonic seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice

from cluster.l2status import status_name
from cluster.objects import ServiceL2Status
from speaker.api.planner import Planner
from speaker.api.records import former_holder
from speaker.channel import FormerHolders
from speaker.plan import Bundle, BundleId
from speaker.protocol.effects import FormerHolder

WAIT_S = 3.0
TOLD_AT_ONCE = 1000  # bundles in one message


class FormerRecords:
    """See the module's docstring."""

    def __init__(self) -> None:
        self._read: Mapping[str, FormerHolder] | None = None
        """By the record's name; until they are told."""
        self._known = False
        self._gives_up_at: float | None = None

    def tell(self, read: Mapping[str, FormerHolder]) -> None:
        """All records were read."""
        self._read, self._known = read, True

    def awaited(self, now: float, *, synced: bool) -> bool:
        """Whether the Plan has to wait. ``synced``: all is known that it is made of."""
        if synced and self._gives_up_at is None:
            self._gives_up_at = now + WAIT_S
        return not self._known and (self._gives_up_at is None or now < self._gives_up_at)

    def next_deadline(self) -> float | None:
        """When the Plan waits no longer; None: it does not wait."""
        return None if self._known else self._gives_up_at

    def take(self, planner: Planner) -> Iterator[FormerHolders]:
        """What to tell the announcer of the bundles in the Plan, once."""
        read, self._read = self._read, None
        if not read:
            return
        found = ((bundle.id, _holder_of(bundle, planner, read)) for bundle in planner.plan().bundles)
        held = ((id_, holder) for id_, holder in found if holder is not None)
        while batch := dict[BundleId, FormerHolder](islice(held, TOLD_AT_ONCE)):
            yield FormerHolders(batch)


def holders_by_name(records: Iterable[ServiceL2Status]) -> dict[str, FormerHolder]:
    """Whom each record names, by its name."""
    found = ((record.metadata.name, former_holder(record)) for record in records)
    return {name: holder for name, holder in found if holder is not None}


def _holder_of(bundle: Bundle, planner: Planner, read: Mapping[str, FormerHolder]) -> FormerHolder | None:
    services = (planner.service(key) for key in bundle.services)
    records = (read.get(status_name(service.metadata.uid)) for service in services if service is not None)
    return max((record for record in records if record is not None), key=lambda record: record.epoch, default=None)
