"""Which multicast groups an interface has to be a member of, and on which socket: what ``memberships`` carries out.

Neighbour Discovery asks a group of nodes who has an address (``nd``), so a node that answers for the address has to be
a member of that group: a network card drops what goes to other groups, and a switch that listens to the members'
reports (MLD snooping, RFC 4541 §3) does not forward it.

1. Several addresses may have one group. It is left when the last of them goes.
2. The kernel charges a membership to the socket that asks for it, and refuses more than some 2,300 (some 360 where
   ``net.core.optmem_max`` is 20 KiB). What a socket refuses is asked of the next one. A socket that refused is not
   asked again until one of its groups is left.
3. The kernel walks through all memberships for each new one (0.1 to 0.4 ms with thousands), so they are taken one step
   at a time, in the order in which they were wanted. What is wanted and not wanted any more before its turn costs
   nothing.
4. Until thousands are joined, seconds pass. ``missing`` says how many are not.
5. A step that fails for another reason (the interface has no IPv6 at the moment) is put at the end of the queue.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass

from speaker.wire.addresses import WireAddress


@dataclass(frozen=True, slots=True)
class MembershipStep:
    """Join a group, or leave it, by the socket of this number. The first is number 0; a number that is one higher than
    all before means a new socket."""

    joins: bool
    socket: int
    group: WireAddress


class Groups:
    """The memberships of one interface."""

    def __init__(self) -> None:
        self._wanted: Counter[WireAddress] = Counter()
        """How many times each group is wanted."""
        self._member: dict[WireAddress, int] = {}
        """On which socket each group is joined."""
        self._queue: OrderedDict[WireAddress, None] = OrderedDict()
        """Groups that are wanted and not joined, or joined and not wanted; others may be among them."""
        self._sizes: list[int] = []
        """How many groups each socket has."""
        self._full: set[int] = set()
        """Sockets that refused one more."""
        self.missing = 0
        """Groups that are wanted and not joined."""

    def want(self, group: WireAddress) -> None:
        """Be a member, for one reason more."""
        self._wanted[group] += 1
        self._queue[group] = None
        self.missing += self._wanted[group] == 1 and group not in self._member

    def want_no_more(self, group: WireAddress) -> None:
        """One of the reasons to be a member is gone."""
        self._wanted[group] -= 1
        if not self._wanted[group]:
            del self._wanted[group]
            self.missing -= group not in self._member
        self._queue[group] = None

    def forget(self) -> None:
        """All sockets were closed: every group has to be joined anew."""
        self._member.clear()
        self._sizes.clear()
        self._full.clear()
        self._queue = OrderedDict.fromkeys(self._wanted)
        self.missing = len(self._wanted)

    def next_step(self) -> MembershipStep | None:
        """What is to be done first; ``None`` if every group is as it should be. The same again until its outcome is
        told."""
        while self._queue:
            group = next(iter(self._queue))
            socket = self._member.get(group)
            if (socket is None) != (group in self._wanted):
                del self._queue[group]
            elif socket is None:
                return MembershipStep(True, self._with_room(), group)
            else:
                return MembershipStep(False, socket, group)
        return None

    def done(self, step: MembershipStep) -> None:
        """The kernel did it."""
        del self._queue[step.group]
        if step.joins:
            if step.socket == len(self._sizes):
                self._sizes.append(0)
            self._sizes[step.socket] += 1
            self._member[step.group] = step.socket
            self.missing -= 1
        else:
            self._sizes[step.socket] -= 1
            self._full.discard(step.socket)
            del self._member[step.group]

    def no_room(self, step: MembershipStep) -> bool:
        """The socket has no memory for one more; whether another one may have. A new one that has none is a failure."""
        full = step.joins and step.socket < len(self._sizes)
        if full:
            self._full.add(step.socket)
        return full

    def failed(self, step: MembershipStep) -> None:
        """The kernel did not do it."""
        self._queue.move_to_end(step.group)

    def _with_room(self) -> int:
        return next((number for number in range(len(self._sizes)) if number not in self._full), len(self._sizes))
