"""Which Services are announced, what must move together, and by whom: Services, slices, nodes and Config -> Plan.

1. A Service is announced when it is of our class, has an address of a pool that an advertisement announces, some
   endpoint of it can serve, and some node may hold it. What serves is what kube-proxy sends traffic to: an endpoint
   that is ready, or one that is ending and serves. An address of no IPAddressPool, as in node-IP mode, is never
   announced; neither is one that a Node has in its status, whatever pool contains it: that node answers for it.
2. Where several Services show one address and may not share it, the address is announced for the one whose it is
   (``cluster.rightful``) and for no other, whatever the controller does about it; also where the status of that one
   shows it no more.
3. Services that are announced for an address in common, directly or through others, are one bundle (``components``),
   under the lowest of their UIDs. The UID of a Service whose endpoints come and go counts all the time, so that a
   bundle keeps its name, and with it its rank on every node.
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
from contextlib import suppress
from typing import NamedTuple

from cluster.addresses import AddressError, parse_address
from cluster.config import Config
from cluster.objects import AddressText, Node, NodeName, PoolName, Service
from cluster.selectors import matches_any
from cluster.slices import EndpointSlice
from cluster.taken import is_withheld
from speaker.api.components import Components, NamedAddress, OurService
from speaker.api.kept import SPREAD_ANNOTATION
from speaker.api.ranking import Advertisements, NodeFacts, Ranking, Requirement
from speaker.plan import Bundle, BundleId, Plan, PlanChange


class _Announced(NamedTuple):
    service: str
    addresses: tuple[NamedAddress, ...]
    requirement: Requirement
    serving: bool
    """Some endpoint can serve."""


class Planner:
    """The inputs as they are now, and the Plan that follows from them."""

    def __init__(
        self,
        node: NodeName,
        *,
        lb_class: str | None = None,
        ignore_exclude: bool = False,
        drain_cordoned: bool = False,
        failback: bool = False,
    ) -> None:
        """``failback``: addresses go back to the node that had them, where no advertisement says otherwise."""
        self.node = node
        """The one that this speaker runs on."""
        self._ignore_exclude = ignore_exclude
        self._drain_cordoned = drain_cordoned
        self._config = Config()
        self._ranking = Ranking(node, failback=failback)
        self._components = Components(lb_class, self._in_play)
        self._pools_of: dict[NamedAddress, PoolName | None] = {}
        self._addresses_of_nodes: dict[NodeName, frozenset[AddressText]] = {}
        self._of_nodes: frozenset[AddressText] = frozenset()
        self._bundles: dict[BundleId, Bundle] = {}
        self._bundles_of: dict[str, BundleId] = {}
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
        ignore, cordoned = self._ignore_exclude, self._drain_cordoned
        facts = NodeFacts.of(node, ignore_exclude=ignore, drain_cordoned=cordoned) if node else None
        if self._ranking.set_node(NodeName(key), facts):
            self._all_touched = True
        own = _addresses(node) if node else frozenset[AddressText]()
        if own != self._addresses_of_nodes.get(NodeName(key), frozenset()):
            self._addresses_of_nodes[NodeName(key)] = own
            self._of_nodes = frozenset[AddressText]().union(*self._addresses_of_nodes.values())
            self._all_touched = True
        if node is None:
            self._addresses_of_nodes.pop(NodeName(key), None)

    def set_service(self, key: str, service: Service | None) -> None:
        """A Service as it is now; None when it is gone, or no longer of type LoadBalancer."""
        for place in self._components.set_service(key, service):
            self._pools_of.pop(place, None)

    def set_slice(self, key: str, endpoint_slice: EndpointSlice | None) -> None:
        """An EndpointSlice as it is now; None when it is gone."""
        self._components.set_slice(key, endpoint_slice)

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
        return Plan(self._revision, self.node, tuple(self._bundles[each] for each in sorted(self._bundles)))

    def bundle_of(self, service: str) -> Bundle | None:
        """The bundle that announces a Service, as of the last change taken."""
        bundle_id = self._bundles_of.get(service)
        return None if bundle_id is None else self._bundles[bundle_id]

    def service(self, key: str) -> Service | None:
        """A Service of ours that has an address."""
        ours = self._components.service(key)
        return ours.service if ours and ours.shown else None

    def addresses_of(self, service: str) -> tuple[AddressText, ...]:
        """The addresses of a Service of ours, announced or not."""
        ours = self._components.service(service)
        return tuple(place.text for place in ours.shown) if ours else ()

    @property
    def pending(self) -> bool:
        """Some input came since the last change taken."""
        return self._all_touched or self._components.touched

    def services_with(self, address: AddressText) -> tuple[str, ...]:
        """The Services of ours whose status shows this address."""
        return self._components.with_address(address)

    def take_change(self) -> PlanChange | None:
        """What the inputs since the last call changed in the Plan; None when nothing."""
        touched = self._components.take_touched()
        if self._all_touched:
            touched |= self._components.services() | self._bundles_of.keys()
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
            component = self._components.component(key)
            seen |= component
            before.update(self._bundles_of.pop(each) for each in component if each in self._bundles_of)
            for bundle in self._bundles_from(component):
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

    def _bundles_from(self, component: set[str]) -> Iterator[Bundle]:
        for group in self._components.groups(component):
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
                services=tuple(sorted(each.service for each in announced)),
                candidates=self._ranking.rank(bundle_id, requirements, group[0].shown[0].text),
                interfaces=self._ranking.interfaces(requirements),
                serving=bool(serving),
                withheld=any(is_withheld(ours.service) for ours in group),
                unfit=self._ranking.unfit(requirements),
                local=any(each.requirement.local is not None for each in announced),
                failback=self._ranking.failback(requirements),
                spread=tuple(sorted({name for ours in group if (name := spread_group(ours.service))})),
            )

    def _announced(self, ours: OurService) -> _Announced | None:
        """What is announced of a Service, if anything; or would be, if some endpoint could serve."""
        advertisements: Advertisements = frozenset()
        addresses: list[NamedAddress] = []
        for address in ours.shown:
            if selecting := self._advertisements(address, ours.service):
                advertisements |= selecting
                addresses.append(address)
        if not addresses:
            return None
        staying, ending = self._components.serving(ours.service.key)
        requirement = Requirement(advertisements, None)
        if ours.service.spec.external_traffic_policy == "Local":
            local, leaving = (frozenset(filter(None, nodes)) for nodes in (staying | ending, ending))
            requirement = Requirement(advertisements, local, leaving)
        serving = bool(staying or ending)
        if not self._ranking.possible(requirement if serving else Requirement(advertisements, None)):
            return None
        return _Announced(ours.service.key, tuple(addresses), requirement, serving)

    def _advertisements(self, place: NamedAddress, service: Service) -> Advertisements:
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

    def _in_play(self, place: NamedAddress) -> bool:
        """Whether anybody may announce the address."""
        return self._pool_of(place) is not None and place.text not in self._of_nodes

    def _pool_of(self, place: NamedAddress) -> PoolName | None:
        if place not in self._pools_of:
            pool = self._config.pool_of(place.address)
            self._pools_of[place] = pool.name if pool else None
        return self._pools_of[place]


def spread_group(service: Service) -> str:
    """The group of Services of its namespace that are to be on different nodes; empty: none."""
    name = service.metadata.annotations.get(SPREAD_ANNOTATION, "")
    return f"{service.metadata.namespace}/{name}" if name else ""


def _addresses(node: Node) -> frozenset[AddressText]:
    """All in a Node's status. What is none is left out: a host name, or somebody else's text."""
    found = set()
    for each in node.status.addresses:
        with suppress(AddressError):
            found.add(parse_address(each.address).text)
    return frozenset(found)


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
