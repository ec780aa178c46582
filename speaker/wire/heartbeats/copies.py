"""Which datagrams of a link are copies: the same octets, said once in each family.

A speaker says the same on a link in every family that the link speaks, so that one is enough to be heard. What came
first counts; the copy by the other family is no news, and no replay either. It is ignored before anything is computed
for it.

- Only datagrams that were believed are remembered, 256 at most. So strangers can neither fill the memory nor have a
  heartbeat ignored that was not heard already.
- A datagram has one copy. Octets that come once more, or by the same family, are judged as any others: as a replay.

Not promised: that a copy is known after 256 others. It counts as a replay then, which changes nothing.
"""

from __future__ import annotations

from collections import OrderedDict

from cluster.addresses import Family

MOST = 256


class DatagramCopies:
    """Those of one link."""

    def __init__(self) -> None:
        self._believed: OrderedDict[bytes, Family] = OrderedDict()
        """By which family each datagram came whose copy is still to come."""

    def note(self, data: bytes, family: Family) -> None:
        """The datagram was believed."""
        self._believed[data] = family
        if len(self._believed) > MOST:
            self._believed.popitem(last=False)

    def take(self, data: bytes, family: Family) -> bool:
        """Whether this is the copy of a datagram that was believed."""
        if self._believed.get(data, family) is family:
            return False
        del self._believed[data]
        return True
