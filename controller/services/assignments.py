"""What each Service is assigned and what it leaves, in agreement with the ledger and with the memory of releases.

A Service is *assigned* addresses. Some that it had before may be *retiring*: the API can still show it at them. Both
are taken in the ledger. An address is given back when the API shows the Service without it, or has no such Service any
more. So a kill or a failed write never leaves one address with two Services.

An address that a Service had to leave to another is *yielded*, until the API shows the Service without it. One whose
deletion begins before that has it again, since it gets nothing else; the other moves, unless it is being deleted too.

**At the start** the API is the database (``restore``). Where several Services show or were given one address,
``cluster.rightful`` says whose it is. A Service whose condition says that it has something else, or nothing, was not
given what its status shows.

**From then on** the ledger knows better than any status: a Service that has an address keeps it, whatever others come
to show.

1. What a Service shows beside what it has is a *stray*. While it is shown, no other Service is given it. Some rivals
   put the address of a node into every status; that was given to nobody, and may stand there.
2. A stray is *usurped*, and must go, where it was given to another Service, or where another one shows it already and
   it is of our pools. So is an address that the Service leaves since it cannot share it any more.
3. A Service to which this controller does not write, of another class for instance, *occupies* what it shows and what
   its condition says that it was given. Nothing of that is given out.
4. Where one of ours has such an address already, another controller gave it at the same moment. If that one is like
   this, both see both Services, and see them alike: of two whose conditions say that the address was given them the
   newer one gives way, but none that is being deleted. If it is of another kind, ours gives way where its status does
   not show the address yet. In all other cases ours keeps it, and says in its condition which other Service shows it.

What a Service had when it was released is remembered until it shows an address again. Which pools have something more
to give, or to share, is noted for the Services that wait; and so are the addresses of nodes on which ports came free.

On which terms a Service shares an address depends on whether it is a node's and whether a pool contains it
(``cluster.sharing``). Where pools or nodes come to be others, what the Services have of it is entered anew
(``reenter``).

Not decided here: which addresses a Service shall have (``judgement``), and what is written (``decisions``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cluster.addresses import Address
from cluster.objects import PoolName, Service
from cluster.record import addresses_in_status, recorded
from cluster.rightful import Age, Contender, Grade, Title, age_of, titles
from cluster.sharing import ON_A_NODE, Sharer, read_node_sharer, read_sharer
from controller.allocation.ledger import Ledger
from controller.allocation.releases import Releases
from controller.services.reading import is_ours


@dataclass(slots=True)
class Assignment:
    """A Service, and the addresses that it has."""

    view: Service
    """As the API showed it last."""
    assigned: tuple[Address, ...] = ()
    """What the Service shall have."""
    retiring: tuple[Address, ...] = ()
    """What it leaves and the API may still show."""
    yielded: tuple[Address, ...] = ()
    """What it was given and another Service has now, while the API may still say that it was given it."""
    strays: tuple[Address, ...] = ()
    """What its status shows beside these, and no other Service has."""
    confirmed: tuple[Address, ...] = ()
    """What it was assigned when the API last showed just that, or at the start."""
    cleared: str | None = None
    """Why it had to leave, until the write that says so is made."""
    pool: PoolName | None = None
    """Where what it was assigned is from, as it was judged last; None: it was not judged yet, or has nothing."""

    @property
    def age(self) -> Age:
        return age_of(self.view)


class Assignments:
    """See the module's docstring. One thread only."""

    def __init__(self, ledger: Ledger, releases: Releases, load_balancer_class: str | None) -> None:
        self._ledger = ledger
        self._releases = releases
        self._class = load_balancer_class
        self._freed: set[PoolName] = set()
        self._freed_on_nodes: set[tuple[Address, str]] = set()
        self._refused: dict[str, tuple[Address, ...]] = {}
        """What Services show that another one has …"""
        self._showing: dict[Address, dict[str, tuple[bool, Sharer]]] = {}
        """… and who they are, by address: whether we do not write to them, and on which terms they would share it."""
        self._disputed: dict[Address, set[Sharer]] = {}
        """Addresses of which that has changed, and for whom: those that cannot share with any of these."""
        self._vacated: set[Address] = set()
        """Those of them that somebody has given back."""

    def restore(self, everybody: Mapping[str, Assignment]) -> None:
        """Enter all Services, by what the API shows of them. ``everybody`` by ``namespace/name``."""
        contenders, unclear = [], []
        for one in everybody.values():
            shown, given = addresses_in_status(one.view), recorded(one.view)
            sharer, on_nodes = read_sharer(one.view), read_node_sharer(one.view)
            elsewhere, leaving = not self._is_ours(one), _is_leaving(one)
            contenders.append(Contender(one, one.age, sharer, shown, given, elsewhere, leaving, on_nodes))
            if shown != given:
                unclear.append(one)
        granted: dict[str, list[Address]] = {}
        barred: dict[str, list[Address]] = {}
        for title in titles(contenders, self._ledger.is_of_nodes):
            if title.grade is Grade.USURPED:
                continue
            key = title.who.view.key
            if title.barred_by is None:
                granted.setdefault(key, []).append(title.address)
                continue
            self._refuse_title(title, title.barred_by)
            if title.address in addresses_in_status(title.who.view):
                barred.setdefault(key, []).append(title.address)
        for key, addresses in granted.items():
            one = everybody[key]
            self.assign(one, tuple(addresses))
            one.confirmed = one.assigned
        for key, refused in barred.items():
            self._refuse(everybody[key], tuple(refused))  # it has the address as soon as the other has left
        for one in sorted(unclear, key=lambda each: each.age):
            self.note_strays(one, everybody)

    def _refuse_title(self, title: Title[Assignment], barred_by: Assignment) -> None:
        one, address = title.who, title.address
        one.cleared = _belongs_to(address, barred_by, one)
        if title.grade in {Grade.GIVEN_AND_SHOWN, Grade.GIVEN}:
            one.yielded = (*one.yielded, address)

    def note_strays(self, one: Assignment, known: Mapping[str, Assignment]) -> bool:
        """Note what the Service shows beside what it has; says whether it usurps any of what it shows. ``known``: every
        Service that may have something, by ``namespace/name``."""
        shown = addresses_in_status(one.view)
        overstays = self._overstays(one, shown)
        has = {*one.assigned, *one.retiring}
        beside = [each for each in shown if each not in has]
        if not beside and not one.strays and one.view.key not in self._refused:
            return overstays
        strays = tuple(each for each in beside if self._conflict(each, one) is None)
        for address in strays:
            self._take(address, one)
        kept = {*strays, *one.assigned, *one.retiring}
        gone = tuple(each for each in one.strays if each not in kept)
        one.strays = strays
        self._give_back(one, gone)
        refused = tuple(each for each in beside if each not in strays)
        self._refuse(one, refused)
        usurped = [(each, owner) for each in refused if (owner := self._rightful(each, one, known)) is not None]
        if usurped and one.cleared is None:
            one.cleared = f"{usurped[0][0].text} belongs to {usurped[0][1].view.key}, which had it before"
        return overstays or bool(usurped)

    def _overstays(self, one: Assignment, shown: tuple[Address, ...]) -> bool:
        """Whether the Service shows an address that it leaves since it cannot share it any more."""
        if not one.retiring:
            return False
        return any(address in shown and self._conflict(address, one) is not None for address in one.retiring)

    def _rightful(self, address: Address, one: Assignment, known: Mapping[str, Assignment]) -> Assignment | None:
        """A Service that was given the address, or has it of our pools, and cannot share it with this one."""
        sharer = self._sharer(address, one)
        for other in self._ledger.having(address):
            if other.service == sharer.service or sharer.why_not_with(other) is None:
                continue
            owner = known[other.service]
            given = owner.assigned + owner.retiring if self._is_ours(owner) else recorded(owner.view) or ()
            if address in given or self._ledger.pool_around(address) is not None:
                return owner
        return None

    def occupy(self, one: Assignment, known: Mapping[str, Assignment]) -> list[Assignment]:
        """Note that a Service to which we do not write has what it shows and was given. Returns the Services that give
        way to it."""
        shown, given = addresses_in_status(one.view), recorded(one.view)
        yielding, taken, refused = [], [], []
        kept = tuple(each for each in given or () if shown or each in one.assigned)  # whoever emptied it
        for address in dict.fromkeys((*shown, *kept)):
            while (owner := self._conflict(address, one)) is not None:
                rival = known[owner.service]
                if address not in shown or not self._gives_way(rival, address, one, given):
                    break
                self._evict(rival, address)
                rival.cleared = _belongs_to(address, one, rival)
                yielding.append(rival)
            if owner is None:
                taken.append(address)
            elif address in shown:
                refused.append(address)
        self.assign(one, tuple(taken))
        self.confirm(one)
        self._refuse(one, tuple(refused))
        return yielding

    def _gives_way(
        self, rival: Assignment, address: Address, to: Assignment, given: tuple[Address, ...] | None
    ) -> bool:
        """Whether ``rival`` has to give up what ``to`` shows. ``given``: what the condition of ``to`` says that it was
        given."""
        if not self._is_ours(rival):
            return False
        if address in rival.strays:
            return True
        if given is None:
            return address not in addresses_in_status(rival.view)
        return address in given and not _is_leaving(rival) and (_is_leaving(to) or to.age < rival.age)

    def _is_ours(self, one: Assignment) -> bool:
        return is_ours(one.view, self._class)

    def _evict(self, one: Assignment, address: Address) -> None:
        """Take the address from the Service. Its status may show it for a moment yet."""
        if address in one.assigned or address in one.retiring:
            one.yielded = (*one.yielded, address)
        self.assign(one, tuple(each for each in one.assigned if each != address))
        one.retiring = tuple(each for each in one.retiring if each != address)
        one.strays = tuple(each for each in one.strays if each != address)
        self._give_back(one, (address,))

    def _refuse(self, one: Assignment, refused: tuple[Address, ...]) -> None:
        """Note that the Service shows these, which another one has."""
        key, elsewhere = one.view.key, not self._is_ours(one)
        for address in set(self._refused.pop(key, ())) - set(refused):
            self._disputed.setdefault(address, set()).add(self._showing[address].pop(key)[1])
            if not self._showing[address]:
                del self._showing[address]
        for address in refused:
            showing = self._showing.setdefault(address, {})
            now = (elsewhere, self._sharer(address, one))
            if showing.get(key) != now:
                self._disputed.setdefault(address, set()).update(each[1] for each in (showing.get(key), now) if each)
                showing[key] = now
        if refused:
            self._refused[key] = refused

    def shown_by(self, address: Address, one: Assignment) -> str | None:
        """A Service to which we do not write that shows this address, which ``one`` has, and cannot share it; None:
        there is none."""
        for key, (elsewhere, sharer) in self._showing.get(address, {}).items():
            if elsewhere and self._sharer(address, one).why_not_with(sharer) is not None:
                return key
        return None

    def take_disputed(self) -> set[str]:
        """Services of which ``shown_by`` may have something else to tell since the last call, or that have an address
        of a Service that is being deleted and shares it on other terms than before."""
        disputed, self._disputed = self._disputed, {}
        return {
            each.service
            for address, others in disputed.items()
            for each in self._ledger.having(address)
            if any(each.why_not_with(other) is not None for other in others)
        }

    def take_reclaimers(self) -> set[str]:
        """Services that show an address that has been given back since the last call. They come first."""
        vacated, self._vacated = self._vacated, set()
        return {key for address in vacated for key in self._showing.get(address, ())}

    def assign(self, one: Assignment, addresses: tuple[Address, ...]) -> None:
        """Assign these addresses. What the Service had beside them is retiring."""
        now = set(addresses)
        left = (*one.retiring, *one.assigned)
        one.retiring = tuple(dict.fromkeys(address for address in left if address not in now))
        one.assigned = addresses
        one.yielded = tuple(address for address in one.yielded if address not in now)
        one.strays = tuple(address for address in one.strays if address not in now)
        terms = _Terms(self._ledger, one.view)
        for address in addresses:
            sharer = terms.on(address)
            if _is_leaving(one) and sharer not in self._ledger.having(address):
                # it stays, and those that cannot share with it any more move
                self._disputed.setdefault(address, set()).add(sharer)
            if self._ledger.take(address, sharer):
                self._note_freed(address, one, self._ledger.pool_around(address))

    def confirm(self, one: Assignment) -> None:
        """The API shows the Service with what it is assigned: give back all that it has left."""
        one.cleared, one.confirmed = None, one.assigned
        if one.assigned:
            self._releases.forget(one.view.key)
        self._give_back(one, (*one.retiring, *one.strays))
        one.retiring = one.yielded = one.strays = ()

    def give_back_unseen(self, one: Assignment) -> None:
        """Give back what the Service leaves, where the API neither shows it any more nor says that it was given it."""
        visible = {*addresses_in_status(one.view), *(recorded(one.view) or ())}
        gone = tuple(address for address in one.retiring if address not in visible)
        one.retiring = tuple(address for address in one.retiring if address not in gone)
        self._give_back(one, gone)

    def vacate(self, one: Assignment) -> None:
        """The Service has nothing any more, and what the API shows of it is not ours."""
        self.assign(one, ())
        self.confirm(one)

    def release(self, one: Assignment) -> None:
        """The Service is gone, or is no LoadBalancer any more: give back all that it had, and remember that unless the
        Service is another class's."""
        view = one.view
        had = one.assigned or one.retiring
        pool = self._ledger.pool_around(had[0]) if had else None
        foreign = view.spec.type == "LoadBalancer" and not self._is_ours(one)
        if pool is not None and not foreign:
            of_pool = tuple(each for each in had if self._ledger.pool_around(each) == pool)
            self._releases.remember(pool, view.key, of_pool)
        self._refuse(one, ())
        self._give_back(one, (*one.assigned, *one.retiring, *one.strays))

    def take_freed(self) -> set[PoolName]:
        """The pools that have had something more to give, or to share, since the last call."""
        freed, self._freed = self._freed, set()
        return freed

    def take_freed_on_nodes(self) -> set[tuple[Address, str]]:
        """The addresses of nodes on which ports may have come free since the last call, and the Services that had
        them."""
        freed, self._freed_on_nodes = self._freed_on_nodes, set()
        return freed

    def _note_freed(self, address: Address, by: Assignment, pool: PoolName | None) -> None:
        if pool is None:
            self._freed_on_nodes.add((address, by.view.key))
        else:
            self._freed.add(pool)

    # -------------------------------------------------------------------- on which terms

    def reenter(self, everybody: Mapping[str, Assignment], affected: Iterable[str]) -> set[str]:
        """Enter anew what the ``affected`` Services share on other terms than they did. Returns the Services that have
        or show some of it; what they show is to be noted again."""
        changed: dict[str, set[Address]] = {}
        for key in affected:
            one = everybody[key]
            for address in (*one.assigned, *one.retiring, *one.strays):
                sharer = self._ledger.sharer(address, key)
                if sharer is not None and (sharer.company == ON_A_NODE) is not self._ledger.is_of_nodes(address):
                    changed.setdefault(key, set()).add(address)
        for key, addresses in changed.items():
            for address in addresses:
                self._ledger.give_back(address, key)
        for key in sorted(changed, key=lambda each: everybody[each].age):
            one, moved = everybody[key], changed[key]
            one.strays = tuple(each for each in one.strays if each not in moved)
            if not self._is_ours(one):  # it occupies anew what it shows
                one.assigned = tuple(each for each in one.assigned if each not in moved)
            for address in moved.intersection((*one.assigned, *one.retiring)):
                self._take(address, one)
        everything = {address for addresses in changed.values() for address in addresses}
        return changed.keys() | {key for address in everything for key in self._showing.get(address, ())}

    def _sharer(self, address: Address, one: Assignment) -> Sharer:
        return _Terms(self._ledger, one.view).on(address)

    def _conflict(self, address: Address, one: Assignment) -> Sharer | None:
        return self._ledger.conflict(address, self._sharer(address, one))

    def _take(self, address: Address, one: Assignment) -> bool:
        return self._ledger.take(address, self._sharer(address, one))

    # -------------------------------------------------------------------- giving back

    def _give_back(self, one: Assignment, addresses: tuple[Address, ...]) -> None:
        for address in addresses:
            self._note_freed(address, one, self._ledger.give_back(address, one.view.key))
            if address in self._showing:
                self._vacated.add(address)


class _Terms:
    """On which terms one Service shares addresses. What is the same for many is read once."""

    def __init__(self, ledger: Ledger, view: Service) -> None:
        self._ledger = ledger
        self._view = view
        self._of_pools: Sharer | None = None
        self._of_nodes: Sharer | None = None

    def on(self, address: Address) -> Sharer:
        if self._ledger.is_of_nodes(address):
            self._of_nodes = self._of_nodes or read_node_sharer(self._view)
            return self._of_nodes
        self._of_pools = self._of_pools or read_sharer(self._view)
        return self._of_pools


def _is_leaving(one: Assignment) -> bool:
    return one.view.metadata.deletion_timestamp is not None


def _belongs_to(address: Address, owner: Assignment, loser: Assignment) -> str:
    why = "is older" if owner.age < loser.age else "had it before"
    return f"{address.text} belongs to {owner.view.key}, which {why}"
