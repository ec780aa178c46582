"""What each Service holds and what it is leaving, in agreement with the ledger and with the memory of releases.

A Service is assigned addresses, and some that it had before may be retiring: the API can still show it at them. Both
are taken in the ledger. An address is given back when the API shows the Service without it, or does not know the
Service any more: a kill or a failed write can then never leave one address with two Services.

Service status is the database. What a status shows is entered into the ledger, in one of two ways:

- ``adopt``: where we know nothing better, at the start and for a Service that holds nothing. Of two Services of ours
  that show one address and cannot share it, the older has it and the newer loses it at once; the speakers see it so
  too. Against a Service that is not ours, whoever held the address first has it.
- ``occupy``: for a Service that we do not write to. It takes nothing from anybody.

What a Service had when it was released is remembered until it shows an address again. Which pools have something more
to give, or to share, is kept for whoever tries the waiting ones again.

Which addresses a Service shall have is decided elsewhere (``judgement``), and so is what is written (``reconcile``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cluster.addresses import Address
from cluster.objects import PoolName, Service
from controller.ledger import Ledger
from controller.releases import Releases
from controller.request import addresses_in_status, is_ours, read_holder

Age = tuple[str, str]
"""Orders Services from the oldest to the newest, as the speakers do. Within one second the uid decides: it is the same
for everybody and after every restart."""


@dataclass(slots=True)
class Holding:
    """A Service, and what it has."""

    view: Service
    """As the API showed it last."""
    assigned: tuple[Address, ...] = ()
    """What the Service shall have."""
    retiring: tuple[Address, ...] = ()
    """What it leaves and the API may still show."""
    cleared: str | None = None
    """Why it had to leave, until the write that says so is made."""

    @property
    def age(self) -> Age:
        meta = self.view.metadata
        return (meta.creation_timestamp or "", meta.uid)


class Holdings:
    """See the module's docstring. One thread only."""

    def __init__(self, ledger: Ledger, releases: Releases, load_balancer_class: str | None) -> None:
        self._ledger = ledger
        self._releases = releases
        self._class = load_balancer_class
        self._freed: set[PoolName] = set()

    def adopt(self, holding: Holding, known: Mapping[str, Holding]) -> list[Holding]:
        """Enter what the Service's status shows, except what somebody older has. ``known``: everybody who may hold
        something, by ``namespace/name``. Returns the newer ones who lose an address by it."""
        view = holding.view
        holder = read_holder(view)
        rivals = [
            (address, known[other.service])
            for address in addresses_in_status(view)
            for other in self._ledger.holders(address)
            if other.service != holder.service and holder.why_not_with(other) is not None
        ]
        refused = {
            address: rival
            for address, rival in rivals
            if not (is_ours(view, self._class) and is_ours(rival.view, self._class) and holding.age < rival.age)
        }
        for address, rival in refused.items():
            holding.cleared = _belongs_to(address, rival, holding)
        losers = [(address, rival) for address, rival in rivals if address not in refused]
        for address, rival in losers:
            self._evict(rival, address)
            rival.cleared = _belongs_to(address, holding, rival)
        self.assign(holding, tuple(each for each in addresses_in_status(view) if each not in refused))
        return [rival for _, rival in losers]

    def _evict(self, holding: Holding, address: Address) -> None:
        """The address is another's from now on, though this Service's status may show it for a moment yet."""
        self.assign(holding, tuple(each for each in holding.assigned if each != address))
        holding.retiring = tuple(each for each in holding.retiring if each != address)
        self._give_back(holding, (address,))

    def occupy(self, holding: Holding) -> bool:
        """Have the Service hold all that it shows and nobody else has. Whether that is everything."""
        shown = addresses_in_status(holding.view)
        free = tuple(each for each in shown if self._ledger.conflict(each, read_holder(holding.view)) is None)
        self.assign(holding, free)
        self.settled(holding)
        return free == shown

    def assign(self, holding: Holding, addresses: tuple[Address, ...]) -> None:
        """These from now on; what the Service had beside them is retiring."""
        left = (*holding.retiring, *holding.assigned)
        holding.retiring = tuple(dict.fromkeys(address for address in left if address not in addresses))
        holding.assigned = addresses
        holder = read_holder(holding.view)
        for address in addresses:
            if self._ledger.take(address, holder) and (pool := self._ledger.pool_around(address)) is not None:
                self._freed.add(pool)

    def settled(self, holding: Holding) -> None:
        """The API shows what was decided: nobody sees the Service at its former addresses any more."""
        holding.cleared = None
        if holding.assigned:
            self._releases.forget(holding.view.key)
        self._give_back(holding, holding.retiring)
        holding.retiring = ()

    def give_back_unseen(self, holding: Holding) -> None:
        """Of what the Service leaves, give back what the API does not show any more."""
        shown = addresses_in_status(holding.view)
        gone = tuple(address for address in holding.retiring if address not in shown)
        holding.retiring = tuple(address for address in holding.retiring if address not in gone)
        self._give_back(holding, gone)

    def release(self, holding: Holding) -> None:
        """The Service is gone, or is no LoadBalancer any more: give back all that it had, and remember that unless the
        Service is another class's."""
        view = holding.view
        had = holding.assigned or holding.retiring
        pool = self._ledger.pool_around(had[0]) if had else None
        foreign = view.spec.type == "LoadBalancer" and not is_ours(view, self._class)
        if pool is not None and not foreign:
            of_pool = tuple(each for each in had if self._ledger.pool_around(each) == pool)
            self._releases.remember(pool, view.key, of_pool)
        self._give_back(holding, (*holding.assigned, *holding.retiring))

    def take_freed(self) -> set[PoolName]:
        """The pools that have had something more to give, or to share, since the last call."""
        freed, self._freed = self._freed, set()
        return freed

    def _give_back(self, holding: Holding, addresses: tuple[Address, ...]) -> None:
        for address in addresses:
            if (pool := self._ledger.give_back(address, holding.view.key)) is not None:
                self._freed.add(pool)


def _belongs_to(address: Address, owner: Holding, loser: Holding) -> str:
    why = "is older" if owner.age < loser.age else "had it before"
    return f"{address.text} belongs to {owner.view.key}, which {why}"
