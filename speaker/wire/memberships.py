"""Joins and leaves the groups of one interface, as ``groups`` plans it. I/O only.

The kernel does the rest: it has the network card receive the group, and says so with reports (MLD, RFC 3810; of IPv4's
groups IGMP, RFC 3376), at once, when the interface comes up, and whenever a querier asks. A membership belongs to the
interface by its index, lives through its going down and up and being renamed, and ends with the socket, however the
process ends.

What is to be done for thousands of addresses is done in pieces of some milliseconds. As long as many groups are not
joined, the network card passes what goes to any group, so that no question waits for its group's turn. While the
interface has no IPv6 (``disable_ipv6``, an MTU below 1,280), nothing can be joined; that is tried once a second. An
interface that was without IPv6 for a moment has lost its memberships, and the sockets do not know: `rejoin`.
"""

from __future__ import annotations

import errno
import logging
import socket
import struct
from contextlib import suppress
from typing import NamedTuple

from cluster.addresses import Family
from speaker.link import LinkName, Reception
from speaker.wire.groups import Groups, MembershipStep
from speaker.wire.reception import WiderReception

STEPS_AT_ONCE = 16
"""Joins take 0.1 to 0.4 ms each where there are thousands."""
MANY = 64
"""Groups that are not joined: the interface is to receive everything that goes to any group."""
TRY_AGAIN_S = 1.0


class _Calls(NamedTuple):
    """How the kernel is asked for memberships of one family."""

    domain: int
    level: int
    join: int
    leave: int
    membership: struct.Struct
    """Group and interface."""


_CALLS = {
    Family.IPV4: _Calls(
        socket.AF_INET,
        socket.IPPROTO_IP,
        socket.IP_ADD_MEMBERSHIP,
        socket.IP_DROP_MEMBERSHIP,
        struct.Struct("@4s4xi"),  # struct ip_mreqn
    ),
    Family.IPV6: _Calls(
        socket.AF_INET6,
        socket.IPPROTO_IPV6,
        socket.IPV6_JOIN_GROUP,
        socket.IPV6_LEAVE_GROUP,
        struct.Struct("@16si"),  # struct ipv6_mreq
    ),
}
_IS_SO_ALREADY = frozenset((errno.EADDRINUSE, errno.EADDRNOTAVAIL))
"""Joined, or left."""


logger = logging.getLogger(__name__)


class Memberships:
    """The sockets that hold the memberships of an interface, in groups of one family."""

    def __init__(self, link: LinkName, index: int, groups: Groups) -> None:
        self._link = link
        self._index = index
        self._groups = groups
        self._sockets: list[socket.socket] = []
        self._wider: WiderReception | None = None
        """While many groups are not joined."""
        self._due_at = 0.0
        """When the next step may be taken, at the earliest."""
        self.refused = ""
        """Why the kernel does not let us join, as far as is known."""
        self.rejoin()

    def next_deadline(self) -> float | None:
        """When `handle_timer` is due; ``None`` while nothing is to be done."""
        return self._due_at if self._groups.next_step() is not None else None

    def handle_timer(self, now: float) -> None:
        """Some steps more."""
        if now < self._due_at:
            return
        self._due_at = now
        self._widen()
        for _ in range(STEPS_AT_ONCE):
            step = self._groups.next_step() if now >= self._due_at else None
            if step is None:
                break
            self._take(step, now)
        self._widen()

    def rejoin(self) -> None:
        """Begin with none. The kernel lost the memberships, or another plan had them."""
        self.close()
        self._groups.forget()
        self._due_at = 0.0

    def close(self) -> None:
        """Leave all groups."""
        self._narrow()
        while self._sockets:
            self._sockets.pop().close()

    def _widen(self) -> None:
        """Have the interface receive what goes to any group, if many are not joined, and no longer when all are."""
        if not self._groups.missing:
            self._narrow()
        elif self._wider is None and self._groups.missing >= MANY:
            with suppress(OSError):  # the interface has gone
                self._wider = WiderReception(self._index, Reception.ALL_MULTICAST)

    def _narrow(self) -> None:
        if self._wider is not None:
            self._wider.close()
            self._wider = None

    def _take(self, step: MembershipStep, now: float) -> None:
        try:
            self._set(step)
        except OSError as error:
            if error.errno == errno.ENOMEM and self._groups.no_room(step):
                return
            if str(error) != self.refused:
                self.refused = str(error)
                logger.warning("group not joined", extra={"link": self._link, "reason": self.refused})
            self._due_at = now + TRY_AGAIN_S
            self._groups.failed(step)
        else:
            self.refused = ""
            self._groups.done(step)

    def _set(self, step: MembershipStep) -> None:
        calls = _CALLS[step.group.family]
        option = calls.join if step.joins else calls.leave
        new = step.socket == len(self._sockets)
        asked = socket.socket(calls.domain, socket.SOCK_DGRAM) if new else self._sockets[step.socket]
        try:
            asked.setsockopt(calls.level, option, calls.membership.pack(step.group, self._index))
        except OSError as error:
            if error.errno not in _IS_SO_ALREADY:
                if new:
                    asked.close()
                raise
        if new:
            self._sockets.append(asked)
