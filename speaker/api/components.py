"""The Services of our class, where their endpoints are, and which Services have addresses in common.

``Components`` takes each Service and EndpointSlice as it comes, and remembers which Services that touches:

1. A Service has the addresses in its status, and those that its condition says it was given.
2. Services that have an address in common, directly or through others, form a component. Only addresses count that can
   be announced at all (``in_play``): a thousand Services of node-IP mode show the same nodes' addresses, and have
   nothing to do with each other.
3. A change of a Service touches it and all that have an address with it, before or now. A change of an EndpointSlice
   touches its Service.

``groups`` divides one component into what is announced together: each address goes to the Services that may have it
(``cluster.rightful``), and those that still have addresses in common are one group.

Cost: a change costs as much as there are Services at its addresses. Addresses that nobody has are forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, KeysView
from typing import NamedTuple

from cluster.addresses import Address, AddressError, parse_address
from cluster.objects import AddressText, NodeName, Service, find_condition
from cluster.record import ADDRESS_ASSIGNED, recorded_texts
from cluster.rightful import Age, Contender, age_of, titles
from cluster.sharing import read_sharer
from cluster.slices import EndpointSlice
from speaker.api.kept import AS_SHOWN, one


class NamedAddress(NamedTuple):
    """An address, and its text ready-made."""

    address: Address
    text: AddressText


class OurService(NamedTuple):
    """A Service of our class that shows addresses, or was given some."""

    service: Service
    shown: tuple[NamedAddress, ...]
    """By its status …"""
    given: tuple[NamedAddress, ...] | None
    """… and by its condition; None: it has none."""

    @property
    def age(self) -> Age:
        return age_of(self.service)

    @property
    def contended(self) -> tuple[NamedAddress, ...]:
        """All of them."""
        if not self.given or self.given is self.shown:
            return self.shown
        return tuple(dict.fromkeys((*self.shown, *self.given)))


Places = frozenset[NodeName | None]
"""Where endpoints are; None stands for those on no node."""


class Serving(NamedTuple):
    """Where endpoints are that can serve."""

    staying: Places
    ending: Places
    """Where all that can serve are ending."""


class _OfSlice(NamedTuple):
    """What matters about an EndpointSlice."""

    service: str
    staying: Places
    ending: Places


class Components:
    """See the module's docstring."""

    def __init__(self, lb_class: str | None, in_play: Callable[[NamedAddress], bool] = lambda _: True) -> None:
        """``in_play`` says of an address whether anybody may announce it. When it says otherwise than before, every
        Service counts as touched."""
        self._lb_class = lb_class
        self._in_play = in_play
        self._services: dict[str, OurService] = {}
        self._contenders: dict[NamedAddress, tuple[str, ...]] = {}
        self._slices: dict[str, _OfSlice] = {}
        self._slices_of: dict[str, tuple[str, ...]] = {}
        self._touched: set[str] = set()

    # -------------------------------------------------------------------- inputs

    def set_service(self, key: str, service: Service | None) -> list[NamedAddress]:
        """A Service as it is now; None when it is gone, or no longer of type LoadBalancer. Returns the addresses that
        nobody has any more."""
        before = self._services.get(key)
        now = self._ours(service) if service else None
        if now == before:
            return []
        places_before = before.contended if before else ()
        places_now = now.contended if now else ()
        self._touched.add(key)
        forgotten = []
        for place in places_before:
            if self._in_play(place):
                self._touched.update(self._contenders[place])
            if place not in places_now:
                left = tuple(each for each in self._contenders[place] if each != key)
                if left:
                    self._contenders[place] = left
                else:
                    del self._contenders[place]
                    forgotten.append(place)
        for place in places_now:
            if place not in places_before:
                self._contenders[place] = (*self._contenders.get(place, ()), key)
        if now:
            self._services[key] = now
        else:
            self._services.pop(key, None)
        return forgotten

    def set_slice(self, key: str, endpoint_slice: EndpointSlice | None) -> None:
        """An EndpointSlice as it is now; None when it is gone."""
        before = self._slices.pop(key, None)
        now = _of_slice(endpoint_slice) if endpoint_slice else None
        if now:
            self._slices[key] = now
        if now == before:
            return
        if before:
            left = tuple(each for each in self._slices_of[before.service] if each != key)
            if left:
                self._slices_of[before.service] = left
            else:
                del self._slices_of[before.service]
            self._touched.add(before.service)
        if now:
            self._slices_of[now.service] = (*self._slices_of.get(now.service, ()), key)
            self._touched.add(now.service)

    # -------------------------------------------------------------------- outputs

    @property
    def touched(self) -> bool:
        """Whether there is something to take."""
        return bool(self._touched)

    def take_touched(self) -> set[str]:
        """The Services that were touched since the last call, whether or not they are there."""
        touched, self._touched = self._touched, set()
        return touched

    def services(self) -> KeysView[str]:
        return self._services.keys()

    def service(self, key: str) -> OurService | None:
        return self._services.get(key)

    def with_address(self, address: AddressText) -> tuple[str, ...]:
        """The Services whose status shows this address."""
        try:
            place = _place(parse_address(address))
        except AddressError:
            return ()
        return tuple(key for key in self._contenders.get(place, ()) if place in self._services[key].shown)

    def serving(self, service: str) -> Serving:
        """Where endpoints of a Service are that can serve."""
        slices = [self._slices[each] for each in self._slices_of.get(service, ())]
        staying = Places().union(*(each.staying for each in slices))
        return Serving(staying, Places().union(*(each.ending for each in slices)) - staying)

    def component(self, key: str) -> set[str]:
        """The Services that have an address in common with this one, directly or through others; and itself."""
        component = {key}
        ahead = [key]
        while ahead:
            ours = self._services.get(ahead.pop())
            for place in filter(self._in_play, ours.contended if ours else ()):
                for other in self._contenders[place]:
                    if other not in component:
                        component.add(other)
                        ahead.append(other)
        return component

    def groups(self, component: set[str]) -> list[list[OurService]]:
        """What of a component is announced together, the oldest Service first, each with those of the addresses in its
        status that are in play and that it may have. A Service that may have none is in no group."""
        members = sorted(
            (self._playing(self._services[each]) for each in component if each in self._services), key=_age
        )
        if len(members) == 1:
            return [members] if members[0].shown else []
        return _connected(_rightful(members))

    def _playing(self, ours: OurService) -> OurService:
        """The Service with those of its addresses that are in play."""
        if all(map(self._in_play, ours.contended)):
            return ours
        given = None if ours.given is None else tuple(filter(self._in_play, ours.given))
        return ours._replace(shown=tuple(filter(self._in_play, ours.shown)), given=given)

    def _ours(self, service: Service) -> OurService | None:
        if service.spec.type != "LoadBalancer" or service.spec.load_balancer_class != self._lb_class:
            return None
        status = service.status
        shown = _places(ingress.ip for ingress in status.load_balancer.ingress)
        said = find_condition(status.conditions, ADDRESS_ASSIGNED)
        given = None
        if said is not None:
            given = shown if status.conditions is AS_SHOWN else _places(recorded_texts(said))
        return OurService(service, shown, given) if shown or given else None


def _place(address: Address) -> NamedAddress:
    return NamedAddress(address, address.text)


def _places(texts: Iterable[str]) -> tuple[NamedAddress, ...]:
    """What is a host name, or somebody else's text, is no address that we gave."""
    places = []
    for text in texts:
        try:
            address = parse_address(text)
        except AddressError:
            continue
        places.append(_place(address))
    return tuple(dict.fromkeys(places))


def _age(ours: OurService) -> Age:
    return ours.age


def _of_slice(endpoint_slice: EndpointSlice) -> _OfSlice | None:
    service = endpoint_slice.service_key
    if service is None:
        return None
    endpoints = endpoint_slice.endpoints or ()
    staying = frozenset(each.node_name for each in endpoints if each.conditions.is_staying)
    ending = frozenset(each.node_name for each in endpoints if each.conditions.is_ending)
    return _OfSlice(service, one(staying), one(ending))


def _rightful(members: Iterable[OurService]) -> list[OurService]:
    """The members, each with those of its addresses that it may have; the order is kept."""
    contenders = [
        Contender(
            ours,
            ours.age,
            read_sharer(ours.service),
            tuple(place.address for place in ours.shown),
            None if ours.given is None else tuple(place.address for place in ours.given),
            leaving=ours.service.metadata.deletion_timestamp is not None,
        )
        for ours in members
    ]
    theirs: dict[str, set[Address]] = {}
    for title in titles(contenders):
        if title.barred_by is None:
            theirs.setdefault(title.who.service.key, set()).add(title.address)
    lawful = []
    for each in contenders:
        may_have = theirs.get(each.who.service.key, ())
        if places := tuple(place for place in each.who.shown if place.address in may_have):
            lawful.append(each.who._replace(shown=places))
    return lawful


def _connected(members: list[OurService]) -> list[list[OurService]]:
    """Services grouped by having addresses in common; the order within a group is kept. Union-find over addresses."""
    parents: dict[NamedAddress, NamedAddress] = {}

    def root(address: NamedAddress) -> NamedAddress:
        parents.setdefault(address, address)
        while (parent := parents[address]) != address:
            parents[address] = parents[parent]
            address = parent
        return address

    for ours in members:
        first = root(ours.shown[0])
        for address in ours.shown[1:]:
            parents[root(address)] = first
    groups: dict[NamedAddress, list[OurService]] = {}
    for ours in members:
        groups.setdefault(root(ours.shown[0]), []).append(ours)
    return list(groups.values())
