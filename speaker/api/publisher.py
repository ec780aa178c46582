"""What is written to the API about this node: ServiceL2Status objects, Events, its ConfigurationState and its Lease.

``Publisher`` decides and writes nothing: it places orders. The writer keeps them until their time comes, and the
``Scribe`` carries them out, asking here what is so by then.

Status objects are brought to where they should be, from whatever they are, each time that something about them changed.

1. A Service that is announced here gets an object that names this node; an Event tells of it, unless the object named
   this node before: a watcher that starts anew finds its announcements on record.
2. A Service that another node announces from now on keeps its object for ``SUCCESSOR_S``, in which the other overwrites
   it. What still names this node then is removed. The object of a Service that nobody announces is removed at once.
3. Two nodes that both hold a Service, each on its side of a partition, each write once, when they gain it, and then
   leave the other's word alone. The one that goes on holding it looks after ``LOOK_S`` whether its word is wanted
   again, and then ever more seldom: the one that gives it up removes the object that names it, and tells nobody.
4. What names this node from before it began is left alone until its announcer can claim, and as long as the Service has
   no endpoint that serves. After a power failure of the whole site that takes minutes, and the record tells whose the
   Service was (``speaker.protocol.former``). Then it is as with 2.

What is known of an object is taken from the cache, without asking for it; a write that is wrong by that finds out, and
is tried again. A Warning, what is wrong with the configuration, and the Lease are urgent. The Event of a Service that
was given up before it was written is not written; where too many wait, the rest becomes one Event on the Node.

Not promised: that what is written is so at every moment. It is read by people, and written as the API allows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

from msgspec import Struct

from cluster.api.listwatch import Change
from cluster.l2status import announced_service, status_name
from cluster.objects import NodeName, ServiceL2Status
from speaker.api.announcements import Announced, Transition, TransitionKind
from speaker.api.own_lease import WrittenLease
from speaker.api.records import About, Findings, WantedObject, names, wanted_status
from speaker.protocol.effects import AskRecord

SUCCESSOR_S = 10.0  # in which the next holder overwrites our status object; what still names us then is removed
LOOK_S = 1.5 * SUCCESSOR_S  # after which we look whether another's word stands in the place of ours
WIN_S = 4.0  # for a record to be won
LONGEST_LOOK_S = 600.0  # between two such looks, each of which comes after twice the time of the one before

logger = logging.getLogger(__name__)


# ------------------------------------------------------------------------ orders


class WriteStatus(Struct, frozen=True):
    """Bring a status object to where it should be."""

    name: str


class LookAtStatus(Struct, frozen=True):
    """See whether a status object that should be ours is free for us to write."""

    name: str
    waited_s: float


class WriteEvent(Struct, frozen=True):
    about: About
    type: str
    reason: str
    message: str
    at: float | None = None
    """Seconds since 1970, of what it tells of; None: of the order."""


class WriteMerged(Struct, frozen=True):
    """Make one Event of the Services that were announced without one of their own."""


class WriteConfigurationState(Struct, frozen=True):
    findings: Findings


class WriteLease(Struct, frozen=True):
    """Make or renew this speaker's Lease."""

    lease: WrittenLease


class WinRecord(Struct, frozen=True):
    """Write this node into the record of a bundle, unless that names another one that may hold it."""

    question: AskRecord
    service: str
    """``namespace/name`` of the Service whose UID the bundle has."""
    until: float
    """Monotonic seconds; later nobody waits for the answer."""


Work = WriteStatus | LookAtStatus | WriteEvent | WriteMerged | WriteConfigurationState | WriteLease | WinRecord


class Order(Struct, frozen=True):
    """Work for the writer. One under the same key that still waits is replaced."""

    key: str
    work: Work
    delay_s: float = 0.0
    """Before which it is not done."""
    news: bool = False
    """It is worth little later, and may be refused where too much of it waits."""
    urgent: bool = False


class OrderTaker(Protocol):
    """What takes orders."""

    def place(self, order: Order) -> bool:
        """Have it done. False: it is news, and too much of it waits."""

    def withdraw(self, key: str) -> None:
        """Have it done no more, if it still waits."""


class StatusTarget(NamedTuple):
    """Where to bring a status object."""

    wanted: WantedObject[ServiceL2Status] | None
    """None: nothing of ours is to be there."""
    known: ServiceL2Status | None
    """The object, as the cache has it."""
    look_first: bool
    """Whether to ask for it first: it is not known here, and probably there."""


# ------------------------------------------------------------------------ decisions


class Publisher:
    """See the module's docstring. The watcher's loop calls it, and the writer's thread where that is said."""

    def __init__(self, orders: OrderTaker, node: NodeName) -> None:
        self._orders = orders
        self._node = node
        self._own_node: About | None = None
        self._wanted: dict[str, Announced] = {}
        self._recorded: dict[str, ServiceL2Status] = {}
        self._left: dict[str, set[str]] = {}
        """Those of them that are from before, and left alone: their names, by Service."""
        self._start_over = False
        """What is from before was reviewed."""
        self._often_there = False
        """Whether the last status object that was not on record with us was another node's: the next one probably is,
        too, for a take-over concerns many at a time, and new Services come in numbers as well."""
        self._merged = 0
        """Services that were announced without an Event of their own, so far."""
        self._merged_told = 0

    # -------------------------------------------------------------------- status objects

    def tell(self, transitions: list[Transition]) -> None:
        """Services that this node has begun or ceased to announce."""
        for kind, announced in transitions:
            extra = {"service": announced.service, "addresses": list(announced.addresses), "turn": kind.value}
            logger.info("announcement", extra=extra)
            name = status_name(announced.uid)
            self._left.pop(announced.service, None)
            if kind in {TransitionKind.GAINED, TransitionKind.CHANGED}:
                before = self._wanted.get(name)
                self._wanted[name] = announced
                self._place_status(name)
                if announced.kept and not (before and before.kept):
                    self._tell_kept(announced)
                recorded = self._recorded.get(name)
                if kind is TransitionKind.GAINED and not (recorded and names(recorded, self._node)):
                    self._tell_assigned(announced)
            else:
                before = self._wanted.pop(name, None)
                self._orders.withdraw(f"assigned/{announced.uid}")
                if before and before.kept:
                    self._orders.withdraw(f"kept/{announced.uid}")
                self._place_status(name, delay_s=SUCCESSOR_S if kind is TransitionKind.LOST else 0.0)

    def recorded(self, change: Change[ServiceL2Status]) -> None:
        """A status object that names this node, or did until now."""
        name = change.key.rpartition("/")[2]
        if change.new:
            self._recorded[name] = change.new
            if name in self._wanted:
                return
            if self._start_over:
                self._place_status(name, delay_s=SUCCESSOR_S)
            else:
                self._left.setdefault(announced_service(change.new), set()).add(name)
        else:
            former = self._recorded.pop(name, None)
            if former is not None:
                self._left.get(announced_service(former), set()).discard(name)
            if name in self._wanted:  # somebody deleted it, or another node writes itself into it
                self._place_look(name, LOOK_S)

    def review_left(self, services: Iterable[str] | None, may_serve_later: Callable[[str], bool]) -> None:
        """Have the status objects from before removed that still name this node, and whose Services do not merely lack
        an endpoint that serves: those of these ``services``, ``namespace/name``; None: all, the announcer can claim."""
        self._start_over = True
        for service in tuple(self._left) if services is None else services:
            if service in self._left and not may_serve_later(service):
                for name in sorted(self._left.pop(service)):
                    self._place_status(name, delay_s=SUCCESSOR_S)

    def _place_status(self, name: str, *, delay_s: float = 0.0) -> None:
        self._orders.place(Order(f"status/{name}", WriteStatus(name), delay_s))

    def _place_look(self, name: str, delay_s: float) -> None:
        self._orders.place(Order(f"look/{name}", LookAtStatus(name, delay_s), delay_s))

    # -------------------------------------------------------------------- on the writer's thread

    def status_target(self, name: str) -> StatusTarget:
        """Where a status object is to be brought now."""
        announced, known = self._wanted.get(name), self._recorded.get(name)
        wanted = wanted_status(announced, self._node) if announced else None
        return StatusTarget(wanted, known, wanted is not None and known is None and self._often_there)

    def found(self, *, there: bool) -> None:
        """Whether an object was there of which the cache knew nothing."""
        self._often_there = there

    def wants(self, name: str) -> bool:
        """Whether this node announces the Service of a status object."""
        return name in self._wanted

    def looked(self, look: LookAtStatus, present: ServiceL2Status | None) -> bool:
        """Whether a status object that was looked at is free to be written; where another node's word is in it, it is
        looked at again after twice the time."""
        if present is not None and not names(present, self._node):
            self._place_look(look.name, min(2 * look.waited_s, LONGEST_LOOK_S))
        return present is None

    def merged_event(self) -> tuple[WriteEvent, int] | None:
        """The Event of the Services that got none of their own, and how many they are; None: there is none to write."""
        count = self._merged - self._merged_told
        if self._own_node is None or not count:
            return None
        message = f'announcing {count} more Services from node "{self._node}": their ServiceL2Status objects say which'
        return WriteEvent(self._own_node, "Normal", "nodeAssigned", message), count

    def merged_written(self, count: int) -> None:
        """The Event of so many Services is written."""
        self._merged_told += count

    # -------------------------------------------------------------------- Events

    def set_own_node(self, uid: str) -> None:
        """The Node that this speaker runs on is known."""
        self._own_node = About("Node", "", self._node, uid)

    @property
    def knows_own_node(self) -> bool:
        """Whether there is anything that an Event on our Node could be on."""
        return self._own_node is not None

    def warn(self, about: About, reason: str, message: str, at: float | None = None) -> None:
        """A Warning on an object, of something that was decided at that time (seconds since 1970; None: now)."""
        work = WriteEvent(about, "Warning", reason, message, at)
        self._orders.place(Order(f"{reason}/{about.uid}/{message}", work, news=True, urgent=True))

    def warn_of_node(self, reason: str, message: str, at: float | None = None) -> None:
        """A Warning on our own Node, once that is known; as ``warn``."""
        if self._own_node is not None:
            self.warn(self._own_node, reason, message, at)

    def tell_of_node(self, reason: str, message: str) -> None:
        """A Normal Event on our own Node, once that is known."""
        if (node := self._own_node) is not None:
            work = WriteEvent(node, "Normal", reason, message)
            self._orders.place(Order(f"{reason}/{node.uid}/{message}", work, news=True, urgent=True))

    def _tell_assigned(self, announced: Announced) -> None:
        namespace, _, name = announced.service.partition("/")
        about = About("Service", namespace, name, announced.uid)
        message = f'announcing from node "{self._node}" with protocol "layer2"'
        work = WriteEvent(about, "Normal", "nodeAssigned", message)
        if not self._orders.place(Order(f"assigned/{announced.uid}", work, news=True)):
            self._merged += 1
            self._orders.place(Order("merged", WriteMerged()))

    def _tell_kept(self, announced: Announced) -> None:
        namespace, _, name = announced.service.partition("/")
        message = f'announcing from node "{self._node}", which people have drained: {announced.kept}'
        work = WriteEvent(About("Service", namespace, name, announced.uid), "Warning", "KeptByDrainedNode", message)
        self._orders.place(Order(f"kept/{announced.uid}", work, news=True))

    # -------------------------------------------------------------------- configuration

    def find(self, findings: Findings) -> None:
        """What this speaker finds wrong with the configuration and with itself has changed."""
        self._orders.place(Order("configuration", WriteConfigurationState(findings), urgent=True))

    # -------------------------------------------------------------------- where records decide

    def win(self, question: AskRecord, service: str, now: float) -> None:
        """The announcer wants to hold a bundle, or to know that it does."""
        work = WinRecord(question, service, now + WIN_S)
        self._orders.place(Order(f"record/{question.bundle}", work, news=True, urgent=True))

    # -------------------------------------------------------------------- where this speaker is

    def renew(self, lease: WrittenLease) -> None:
        """This speaker's Lease is to be renewed, and to say this."""
        self._orders.place(Order("lease", WriteLease(lease), urgent=True))
