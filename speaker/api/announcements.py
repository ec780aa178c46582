"""Which Services this node announces, and when that changes.

``Announcements`` takes the announcer's claims, which name addresses, and reads the Plan, which says which Services have
them. It returns transitions, from which Events, status objects and log lines follow:

1. A Service is announced here when the Plan has it and this node holds at least one of its addresses.
2. A change of claims concerns the Services that have these addresses; a change of the Plan, those that it was worked
   out for; a change of links, those that are announced.
3. A Service whose announcement is the same as before makes no transition, however often its state is said. Endpoints
   that are away for a moment change nothing. An address that is claimed with another epoch does: the epoch is recorded.

What is announced may not be answered: an address whose cable is out is held, and ``answered`` leaves it out.

Example: ``web`` and ``secure`` share 192.0.2.1. A claim to it makes two transitions, and the same claim said again
makes none.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from enum import Enum
from typing import NamedTuple

from cluster.listing import first_few
from cluster.objects import AddressText
from speaker.api.planner import Planner
from speaker.channel import Holding
from speaker.link import LinkName
from speaker.plan import Bundle


class Announced(NamedTuple):
    """A Service that this node announces."""

    service: str
    """``namespace/name``."""
    uid: str
    addresses: tuple[AddressText, ...]
    """Those that this node holds."""
    interfaces: tuple[LinkName, ...]
    """Where an advertisement names interfaces, those of them that can be announced on; empty otherwise."""
    epoch: int
    """The highest of this node's claims on these addresses."""
    kept: str = ""
    """Where this node is drained and announces the Service all the same: why it is drained, and why no other node takes
    the Service; empty otherwise."""


class TransitionKind(Enum):
    GAINED = "gained"
    CHANGED = "changed"
    """Announced before and now, with other addresses, interfaces or epoch, or kept by a drained node."""
    LOST = "lost"
    """The Service is still to be announced, by another node."""
    ENDED = "ended"
    """The Service is not to be announced any more."""


class Transition(NamedTuple):
    kind: TransitionKind
    announced: Announced
    """As it is now; where it is lost, as it was."""


class Announcements:
    def __init__(self, planner: Planner) -> None:
        self._planner = planner
        self._claims: dict[AddressText, Holding] = {}
        self.suspended: frozenset[LinkName] = frozenset()
        """Links on which nothing is answered now, whatever is held there."""
        self._links: frozenset[LinkName] | None = None
        self._drain = ""
        self.announced: dict[str, Announced] = {}
        """The Services announced here, by key."""

    def change_claims(self, changes: Mapping[AddressText, Holding | None]) -> list[Transition]:
        """What changed with these claims of the announcer; ``None`` for an address that it holds no more."""
        altered: list[AddressText] = []
        for address, holding in changes.items():
            former = self._claims.get(address)
            if (holding and holding.epoch) != (former and former.epoch):
                altered.append(address)
            if holding is None:
                self._claims.pop(address, None)
            else:
                self._claims[address] = holding
        return self._consider(key for each in altered for key in self._planner.services_with(each))

    def claimed(self) -> Collection[AddressText]:
        """The addresses that the announcer holds, as far as it was told here."""
        return self._claims.keys()

    def set_links(self, links: frozenset[LinkName]) -> list[Transition]:
        """What changed with these links, which are those that can be announced on."""
        self._links = links
        return self._consider(tuple(self.announced))

    def set_drain(self, why: str) -> list[Transition]:
        """What changed with this: why people drained this node, long enough ago for what another node can hold to be
        gone; empty where they did not."""
        self._drain = why
        return self._consider(tuple(self.announced))

    def answered(self) -> Iterator[tuple[str, AddressText]]:
        """Each Service announced here with each of its addresses that is answered on some link now. Held, and not
        answered, is for example an address whose cable is out. From any thread."""
        for announced in dict(self.announced).values():
            for address in announced.addresses:
                holding = self._claims.get(address)
                if holding and not self.suspended.issuperset(holding.links):
                    yield announced.service, address

    def plan_changed(self) -> list[Transition]:
        """What changed with the change that was last taken from the planner."""
        return self._consider(self._planner.reconsidered)

    def _consider(self, services: Iterable[str]) -> list[Transition]:
        transitions: list[Transition] = []
        for key in sorted(set(services)):
            before, now = self.announced.get(key), self._announced(key)
            if now == before:
                continue
            if now:
                self.announced[key] = now
                transitions.append(Transition(TransitionKind.CHANGED if before else TransitionKind.GAINED, now))
            elif before:
                del self.announced[key]
                bundle = self._planner.bundle_of(key)
                transitions.append(
                    Transition(TransitionKind.LOST if bundle and bundle.serving else TransitionKind.ENDED, before)
                )
        return transitions

    def _announced(self, key: str) -> Announced | None:
        bundle = self._planner.bundle_of(key)
        service = self._planner.service(key)
        if bundle is None or service is None:
            return None
        addresses = tuple(each for each in self._planner.addresses_of(key) if each in self._claims)
        if not addresses:
            return None
        kept = self._why_kept(bundle) if self._drain else ""
        epoch = max(self._claims[each].epoch for each in addresses)
        return Announced(key, service.metadata.uid, addresses, self._usable(bundle), epoch, kept)

    def _why_kept(self, bundle: Bundle) -> str:
        others = [each.node for each in bundle.candidates if each.node != self._planner.node]
        why = "no other node may announce it"
        if others:
            why = f"none of the others that may announce it takes it: {first_few(sorted(others))}"
        return f"{self._drain}; {why}"

    def _usable(self, bundle: Bundle) -> tuple[LinkName, ...]:
        """Of the interfaces that are named for the bundle those that there are. Where none is, nobody answers here, and
        the announcer will say so in a moment."""
        links = self._links
        there = tuple(each for each in bundle.interfaces if links is None or each in links)
        return there or bundle.interfaces
