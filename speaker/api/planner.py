"""Which Services are announced, what must move together, and by whom: Services, slices, nodes and Config -> Plan.

1. A Service is announced when it is of our class, has an address of a pool that an advertisement announces, some
   endpoint of it can serve, and some node may hold it.
2. Where several Services show one address and may not share it, the address is announced for the one whose it is
   (``cluster.rightful``) and for no other, whatever the controller does about it; also where the status of that one
   shows it no more.
3. Services that have an address in common, directly or through others, by their statuses or by their conditions, form a
   component. What is announced of a component is one bundle, under the lowest Service UID in it. The UID of a Service
   whose endpoints come and go counts all the time, so that a bundle keeps its name, and with it its rank on every node.
4. Where endpoints are all that is missing, for every Service of a component, the bundle stays in the Plan and says that
   it does not serve: the endpoints may be back in a moment, and until then its holder keeps it (``unserved``).

Cost: an input marks the Services that it touches, and only their components are worked out anew. A change of nodes or
of the configuration touches everything.

The result is equal to a Plan made from scratch, and does not depend on the order in which things became known. Which of
the candidates holds a bundle is not decided here (``speaker.protocol``).

Example: ``web`` and ``secure`` share 192.0.2.1, and ``secure`` has 192.0.2.2 as well. One bundle has both addresses and
both Services. When ``secure`` is deleted, 192.0.2.2 leaves it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from cluster.addresses import Address, AddressError, Family, parse_address
from cluster.config import Config
from cluster.objects import AddressText, EndpointSlice, Node, NodeName, PoolName, Service, find_condition
from cluster.record import ADDRESS_ASSIGNED, recorded_texts
from cluster.rightful import Age, Contender, age_of, titles
from cluster.selectors import matches_any
from cluster.sharing import read_sharer
from speaker.api.kept import AS_SHOWN, can_serve, one
from speaker.api.ranking import Advertisements, NodeFacts, Ranking, Requirement
from speaker.plan import Bundle, BundleId, Plan, PlanChange

ANNOUNCED_FAMILIES = frozenset({Family.IPV4})
"""What the responder can answer for. An address of another family is in no bundle."""


class _Place(NamedTuple):
    """An address, and its text ready-made."""

    address: Address
    text: AddressText


class _Ours(NamedTuple):
    """A Service of our class that shows addresses, or was given some."""

    service: Service
    addresses: tuple[_Place, ...]
    """By its status …"""
    given: tuple[_Place, ...] | None
    """… and by its condition; None: it has none."""

    @property
    def age(self) -> Age:
        return age_of(self.service)

    @property
    def contended(self) -> tuple[_Place, ...]:
        if not self.given or self.given is self.addresses:
            return self.addresses
        return tuple(dict.fromkeys((*self.addresses, *self.given)))


class _Serving(NamedTuple):
    """What matters about an EndpointSlice."""

    service: str
    nodes: frozenset[NodeName | None]
    """Where its endpoints that can serve are; None stands for those on no node."""


class _Announced(NamedTuple):
    ours: _Ours
    addresses: tuple[_Place, ...]
    requirement: Requirement
    serving: bool
    """Some endpoint can serve."""


class Planner:
    """The inputs as they are now, and the Plan that follows from them."""

    def __init__(self, node: NodeName, *, lb_class: str | None = None, ignore_exclude: bool = False) -> None:
        self._node = node
        self._lb_class = lb_class
        self._ignore_exclude = ignore_exclude
        self._config = Config()
        self._ranking = Ranking(node)
        self._services: dict[str, _Ours] = {}
        self._contenders: dict[_Place, tuple[str, ...]] = {}
        self._pools_of: dict[_Place, PoolName | None] = {}
        self._slices: dict[str, _Serving] = {}
        self._slices_of: dict[str, tuple[str, ...]] = {}
        self._bundles: dict[BundleId, Bundle] = {}
        self._bundles_of: dict[str, BundleId] = {}
        self._touched: set[str] = set()
        self.reconsidered: frozenset[str] = frozenset()
        """The Services that the last change taken was worked out for, whatever came of it."""
        self._all_touched = False
        self._revision = 0

    # -------------------------------------------------------------------- inputs

    def set_config(self, config: Config) -> None:
        if config != self._config:
            self._config = config
            self._ranking.set_config(config)
            self._pools_of.clear()
            self._all_touched = True

    def set_node(self, key: str, node: Node | None) -> None:
        """A Node as it is now; None when it is gone. ``key`` is its name."""
        facts = NodeFacts.of(node, ignore_exclude=self._ignore_exclude) if node else None
        if self._ranking.set_node(NodeName(key), facts):
            self._all_touched = True

    def set_service(self, key: str, service: Service | None) -> None:
        """A Service as it is now; None when it is gone, or no longer of type LoadBalancer."""
        before = self._services.get(key)
        now = self._ours(service) if service else None
        if now == before:
            return
        before_places = before.contended if before else ()
        now_places = now.contended if now else ()
        self._touched.add(key)
        for place in before_places:
            self._touched.update(self._contenders[place])
            if place not in now_places:
                left = tuple(each for each in self._contenders[place] if each != key)
                if left:
                    self._contenders[place] = left
                else:
                    del self._contenders[place]
                    self._pools_of.pop(place, None)
        for place in now_places:
            if place not in before_places:
                self._contenders[place] = (*self._contenders.get(place, ()), key)
        if now:
            self._services[key] = now
        else:
            self._services.pop(key, None)

    def set_slice(self, key: str, endpoint_slice: EndpointSlice | None) -> None:
        """An EndpointSlice as it is now; None when it is gone."""
        before = self._slices.pop(key, None)
        now = _serving(endpoint_slice) if endpoint_slice else None
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
    def revision(self) -> int:
        """Counts the changes taken."""
        return self._revision

    @property
    def bundles(self) -> int:
        """How many bundles the Plan has."""
        return len(self._bundles)

    def plan(self) -> Plan:
        """The Plan as of the last change taken, whole."""
        return Plan(self._revision, self._node, tuple(self._bundles[each] for each in sorted(self._bundles)))

    def bundle_of(self, service: str) -> Bundle | None:
        """The bundle that announces a Service, as of the last change taken."""
        bundle_id = self._bundles_of.get(service)
        return None if bundle_id is None else self._bundles[bundle_id]

    def service(self, key: str) -> Service | None:
        """A Service of ours that has an address."""
        ours = self._services.get(key)
        return ours.service if ours and ours.addresses else None

    def addresses_of(self, service: str) -> tuple[AddressText, ...]:
        """The addresses of a Service of ours, announced or not."""
        ours = self._services.get(service)
        return tuple(place.text for place in ours.addresses) if ours else ()

    @property
    def pending(self) -> bool:
        """Some input came since the last change taken."""
        return self._all_touched or bool(self._touched)

    def services_with(self, address: AddressText) -> tuple[str, ...]:
        """The Services of ours whose status shows this address."""
        try:
            place = _place(parse_address(address))
        except AddressError:
            return ()
        return tuple(key for key in self._contenders.get(place, ()) if place in self._services[key].addresses)

    def take_change(self) -> PlanChange | None:
        """What the inputs since the last call changed in the Plan; None when nothing."""
        touched, self._touched = self._touched, set()
        if self._all_touched:
            touched |= self._services.keys() | self._bundles_of.keys()
        self._all_touched = False
        self.reconsidered = frozenset()
        if not touched:
            return None
        before: set[BundleId] = set()
        now: dict[BundleId, Bundle] = {}
        bundles_of: dict[str, BundleId] = {}
        seen: set[str] = set()
        for key in touched:
            if key in seen:
                continue
            component = self._component(key)
            seen |= component
            before.update(self._bundles_of.pop(each) for each in component if each in self._bundles_of)
            members = sorted((self._services[each] for each in component if each in self._services), key=_age)
            for bundle in self._bundles_from(members):
                now[bundle.id] = bundle
                bundles_of.update((each, bundle.id) for each in bundle.services)
        self.reconsidered = frozenset(seen)
        self._bundles_of.update(bundles_of)
        changed = tuple(now[each] for each in sorted(now) if self._bundles.get(each) != now[each])
        removed = tuple(sorted(before - now.keys()))
        if not changed and not removed:
            return None
        for bundle_id in removed:
            del self._bundles[bundle_id]
            self._ranking.forget(bundle_id)
        self._bundles.update((bundle.id, bundle) for bundle in changed)
        self._revision += 1
        return PlanChange(self._revision, changed, removed)

    # -------------------------------------------------------------------- one component

    def _component(self, key: str) -> set[str]:
        """The Services that claim an address that this one claims, through any number of others; and itself."""
        component = {key}
        ahead = [key]
        while ahead:
            ours = self._services.get(ahead.pop())
            for place in ours.contended if ours else ():
                for other in self._contenders[place]:
                    if other not in component:
                        component.add(other)
                        ahead.append(other)
        return component

    def _bundles_from(self, members: list[_Ours]) -> Iterator[Bundle]:
        """The bundles of one component, whose Services come from the oldest to the newest."""
        groups = [members] if len(members) == 1 else _connected(_rightful(members))
        for group in groups:
            announced = [each for ours in group if (each := self._announced(ours)) is not None]
            if not announced:
                continue
            serving = [each for each in announced if each.serving]
            announced = serving or announced
            bundle_id = BundleId(min(ours.service.metadata.uid for ours in group))
            requirements = tuple(dict.fromkeys(each.requirement for each in announced))
            yield Bundle(
                id=bundle_id,
                addresses=tuple(
                    place.text for place in sorted({place for each in announced for place in each.addresses})
                ),
                services=tuple(sorted(each.ours.service.key for each in announced)),
                candidates=self._ranking.rank(bundle_id, requirements),
                interfaces=self._ranking.interfaces(requirements),
                serving=bool(serving),
            )

    def _announced(self, ours: _Ours) -> _Announced | None:
        """What is announced of a Service, if anything; or would be, if some endpoint could serve."""
        advertisements: Advertisements = frozenset()
        addresses: list[_Place] = []
        for address in ours.addresses:
            if selecting := self._advertisements(address, ours.service):
                advertisements |= selecting
                addresses.append(address)
        if not addresses:
            return None
        nodes = frozenset[NodeName | None]().union(
            *(self._slices[each].nodes for each in self._slices_of.get(ours.service.key, ()))
        )
        local = None
        if ours.service.spec.external_traffic_policy == "Local":
            local = frozenset(node for node in nodes if node is not None)
        requirement = Requirement(advertisements, local)
        if not self._ranking.possible(requirement if nodes else Requirement(advertisements, None)):
            return None
        return _Announced(ours, tuple(addresses), requirement, bool(nodes))

    def _advertisements(self, place: _Place, service: Service) -> Advertisements:
        """The advertisements that select a Service and the pool of its address."""
        pool = self._pool_of(place)
        if pool is None:
            return frozenset()
        return frozenset(
            name
            for name, advertisement in self._config.advertisements.items()
            if advertisement.announces(pool)
            and (
                not advertisement.service_selectors
                or matches_any(advertisement.service_selectors, service.metadata.labels)
            )
        )

    def _pool_of(self, place: _Place) -> PoolName | None:
        if place not in self._pools_of:
            pool = self._config.pool_of(place.address)
            self._pools_of[place] = pool.name if pool else None
        return self._pools_of[place]

    def _ours(self, service: Service) -> _Ours | None:
        if service.spec.type != "LoadBalancer" or service.spec.load_balancer_class != self._lb_class:
            return None
        status = service.status
        addresses = _places(ingress.ip for ingress in status.load_balancer.ingress)
        said = find_condition(status.conditions, ADDRESS_ASSIGNED)
        given = None
        if said is not None:
            given = addresses if status.conditions is AS_SHOWN else _places(recorded_texts(said))
        return _Ours(service, addresses, given) if addresses or given else None


def plan(
    services: Iterable[Service],
    slices: Iterable[EndpointSlice],
    nodes: Iterable[Node],
    config: Config,
    *,
    node: NodeName,
    revision: int,
    lb_class: str | None = None,
    ignore_exclude: bool = False,
) -> Plan:
    """The Plan of the speaker on ``node``, from scratch. The order of the inputs does not matter."""
    planner = Planner(node, lb_class=lb_class, ignore_exclude=ignore_exclude)
    planner.set_config(config)
    for each_node in nodes:
        planner.set_node(each_node.key, each_node)
    for endpoint_slice in slices:
        planner.set_slice(endpoint_slice.key, endpoint_slice)
    for service in services:
        planner.set_service(service.key, service)
    planner.take_change()
    return Plan(revision, node, planner.plan().bundles)


def _place(address: Address) -> _Place:
    return _Place(address, address.text)


def _places(texts: Iterable[str]) -> tuple[_Place, ...]:
    """What is a host name, or somebody else's text, is no address that we gave."""
    places = []
    for text in texts:
        try:
            address = parse_address(text)
        except AddressError:
            continue
        if address.family in ANNOUNCED_FAMILIES:
            places.append(_place(address))
    return tuple(dict.fromkeys(places))


def _age(ours: _Ours) -> tuple[str, str]:
    return ours.age


def _serving(endpoint_slice: EndpointSlice) -> _Serving | None:
    service = endpoint_slice.service_key
    if service is None:
        return None
    nodes = frozenset(each.node_name for each in endpoint_slice.endpoints or () if can_serve(each))
    return _Serving(service, one(nodes))


def _rightful(members: Iterable[_Ours]) -> list[_Ours]:
    """The members, each with those of its addresses that it may have; the order is kept."""
    contenders = [
        Contender(
            ours,
            ours.age,
            read_sharer(ours.service),
            tuple(place.address for place in ours.addresses),
            None if ours.given is None else tuple(place.address for place in ours.given),
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
        if places := tuple(place for place in each.who.addresses if place.address in may_have):
            lawful.append(each.who._replace(addresses=places))
    return lawful


def _connected(members: list[_Ours]) -> list[list[_Ours]]:
    """Services grouped by having addresses in common; the order within a group is kept. Union-find over addresses."""
    parents: dict[_Place, _Place] = {}

    def root(address: _Place) -> _Place:
        parents.setdefault(address, address)
        while (parent := parents[address]) != address:
            parents[address] = parents[parent]
            address = parent
        return address

    for ours in members:
        first = root(ours.addresses[0])
        for address in ours.addresses[1:]:
            parents[root(address)] = first
    groups: dict[_Place, list[_Ours]] = {}
    for ours in members:
        groups.setdefault(root(ours.addresses[0]), []).append(ours)
    return list(groups.values())
