"""What the pools of node addresses give at present, kept up to date by what is observed of the cluster. Pure.

``NodePools`` is told of Nodes, Pods, EndpointSlices, speakers' Leases and Services, and gives a ``NodeView`` with all
that allocation and judgement need. ``take_affected`` and ``take_affected_services`` say whom a change concerns.

1. Nodes, Services and the ranges of ClusterIPs are always followed. Pods, slices and Leases are followed only while
   there are pools of nodes (``everything_read``, ``forget``). Until these have been read nothing is known.
2. A node whose address some Service shows when all has been read has joined before, so a restart takes nothing out of
   a status. It leaves by the rules that hold for all.
3. A pool is computed anew when a node that it selects, or selected, has changed, or when the addresses of any node
   have: they may be another's now. It concerns its Services only if something else comes of it.
4. A port that is taken on a node, or comes free, concerns the pool's Services only if one of all Services has it.
5. A node joins when its kube-proxy serves: by its speaker's report, else by the condition ``Ready`` of its kube-proxy
   Pod. Where neither exists the node's own pause is all (``damping``).
6. What carries traffic for Services is known by ``proxies``. Where nobody says any more, it counts for another
   ``PROXY_MEMORY_S``: the Pods of kube-proxy may all be replaced at once. After that the proxy is unknown.

A Node that was written without a change costs nothing. A change costs as much as the pools that it concerns have nodes;
renewals of Leases cost nothing until the first becomes stale.

Times are monotonic seconds, but for those that the API writes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from cluster.addresses import AddressError, Range, parse_prefix
from cluster.node_pools import NodePool
from cluster.node_report import NodeReport, read_report
from cluster.objects import Lease, Node, NodeName, PoolName, Service, ServiceCIDR
from cluster.pods import HostPod
from cluster.slices import EndpointSlice
from cluster.times import NEVER
from controller.changes import Moment
from controller.nodeip.choice import NodesOfPool, nodes_of_pool
from controller.nodeip.damping import Damping
from controller.nodeip.demand import Demand, canonical
from controller.nodeip.endpoints import Endpoints
from controller.nodeip.guards import ClusterRanges, PortKey, ServiceProxy
from controller.nodeip.liveness import FRESH_S, Hearing, next_stale_at, unheard_nodes
from controller.nodeip.nodes import NodeOffer, absence_of, read_node, ready_since
from controller.nodeip.pods import PodOnNode, read_pod
from controller.nodeip.proxies import service_proxy
from controller.nodeip.reasons import WAITING, LeftOut
from controller.nodeip.view import NodeView

SHOWN_FOR = NEVER
"""Seconds for which a node counts as Ready that some Service shows already."""
PROXY_MEMORY_S = 600.0


@dataclass(frozen=True, slots=True)
class NodePoolFigures:
    """What is said of a pool of nodes."""

    selected: int = 0
    """Nodes that it selects."""
    left_out: Mapping[NodeName, LeftOut] = field(default_factory=dict)
    """Those of them that give nothing."""
    services: int = 0
    """Services that show addresses from it."""

    @property
    def usable(self) -> int:
        return self.selected - len(self.left_out)


@dataclass(slots=True)
class _PoolState:
    pool: NodePool
    offers: dict[NodeName, NodeOffer]
    gives: NodesOfPool | None = None
    """None: not computed yet."""
    joining: NodesOfPool | None = None
    """What it will give when the nodes have joined that wait for it; None: none does, or nobody asks (``NodeView``)."""
    left_out: Mapping[NodeName, LeftOut] = field(default_factory=dict)
    selected: int = 0


class NodePools:
    """See the module's docstring. One thread only."""

    def __init__(self) -> None:
        self._pools: dict[PoolName, _PoolState] = {}
        self._given: Mapping[PoolName, NodePool] = {}
        self._stale: set[PoolName] = set()
        self._affected: set[PoolName] = set()
        self._affected_services: set[str] = set()
        self._nodes: dict[NodeName, Node] = {}
        self._service_ranges: dict[str, tuple[Range, ...]] = {}
        self._pod_ranges: dict[NodeName, tuple[Range, ...]] = {}
        self._demand = Demand()
        self._forget()

    def _forget(self) -> None:
        self._known = False
        self._pods: dict[str, PodOnNode] = {}
        self._pods_of: defaultdict[NodeName, dict[str, PodOnNode]] = defaultdict(dict)
        self._reports: dict[NodeName, NodeReport] = {}
        self._hearings: dict[NodeName, Hearing] = {}
        self._renew_times: dict[NodeName, str | None] = {}
        self._unheard: frozenset[NodeName] = frozenset()
        self._recount_at = NEVER
        self._endpoints = Endpoints()
        self._serving: dict[str, frozenset[NodeName]] = {}
        """Of Services with the policy Local."""
        self._listening: dict[NodeName, frozenset[PortKey]] = {}
        self._configured_mode = ""
        self._proxy = ServiceProxy.OTHER
        self._proxy_until = NEVER
        """How long that counts; NEVER: somebody says it."""
        self._damping = Damping()
        self._shown: frozenset[str] = frozenset()
        self._view = NodeView()
        self._outdated = False
        """Whether ``_view`` says something that is not so any more."""

    # -------------------------------------------------------------------- which kinds are followed

    def everything_read(self, now: Moment) -> None:
        """All Pods, slices and Leases have been told once."""
        if self._known:
            return
        self._known = self._outdated = True
        self._shown = self._demand.shown()
        self._unheard = self._count(now.monotonic)
        for name in self._nodes:
            self._observe(name, now)
        self._shown = frozenset()
        self._set_proxy(now)
        self._serving = {key: self._endpoints.nodes(key) for key in self._demand.local}
        self._stale |= self._pools.keys()
        self._affected |= self._pools.keys()

    def forget(self) -> None:
        """Pods, slices and Leases are not followed any more."""
        self._forget()
        self._stale |= self._pools.keys()

    # -------------------------------------------------------------------- what is always followed

    def set_pools(self, pools: Mapping[PoolName, NodePool]) -> None:
        """Those in force. The same mapping has the same pools."""
        if pools is self._given:
            return
        self._given = pools
        for name in self._pools.keys() - pools.keys():
            del self._pools[name]
            self._stale.discard(name)
            self._affected.add(name)
            self._outdated = True
        for name, pool in pools.items():
            state = self._pools.get(name)
            if state is None or state.pool != pool:
                offers = {each: read_node(node, pool.all_sources) for each, node in self._nodes.items()}
                self._pools[name] = _PoolState(pool, offers)
                self._stale.add(name)
                self._affected.add(name)

    def set_node(self, name: NodeName, node: Node | None, now: Moment) -> None:
        """A node as the API shows it; None: it is gone."""
        before = self._nodes.get(name)
        if node is not None and before is not None and _says_the_same(before, node):
            return
        if node is None:
            self._nodes.pop(name, None)
        else:
            self._nodes[name] = node
        for pool, state in self._pools.items():
            offered = state.offers.pop(name, None)
            offers = None if node is None else read_node(node, state.pool.all_sources)
            if offers is not None:
                state.offers[name] = offers
            if _matters(state.pool, offered, offers):
                self._stale.add(pool)
        ranges = tuple(_ranges(node.spec.pod_cidrs)) if node is not None else ()
        if self._pod_ranges.get(name, ()) != ranges:
            self._pod_ranges[name] = ranges
            self._stale |= self._pools.keys()
        if not ranges:
            self._pod_ranges.pop(name, None)
        if self._known:
            self._observe(name, now)
            if (node is None) != (before is None):  # who is no node has no vote
                self._recount(now)

    def set_service_cidr(self, name: str, view: ServiceCIDR | None) -> None:
        """A range of ClusterIPs; None: it is gone."""
        ranges = tuple(_ranges(view.spec.cidrs)) if view is not None else ()
        if self._service_ranges.get(name, ()) == ranges:
            return
        self._service_ranges[name] = ranges
        self._stale |= self._pools.keys()

    def set_service(self, key: str, view: Service | None) -> None:
        """A Service that the controller serves, by ``namespace/name``; None: it does so no more."""
        self._demand.set_service(key, view)
        if self._known and (key in self._serving) != (key in self._demand.local):
            self._outdated = True
            if key in self._demand.local:
                self._serving[key] = self._endpoints.nodes(key)
            else:
                del self._serving[key]

    # -------------------------------------------------------------------- what is followed while there are pools

    def set_pod(self, key: str, pod: HostPod | None, now: Moment) -> None:
        """A Pod as the API shows it; None: it is gone."""
        before, says = self._pods.pop(key, None), None if pod is None else read_pod(pod)
        if says is not None:
            self._pods[key] = says
        if says == before:
            return
        if before is not None:
            del self._pods_of[before.node][key]
        if says is not None:
            self._pods_of[says.node][key] = says
        proxies = {each.proxy for each in (before, says) if each is not None}
        for node in {each.node for each in (before, says) if each is not None}:
            self._set_listening(node)
            if proxies != {None}:
                self._proxy_changed(node, now)

    def set_lease(self, before: Lease | None, lease: Lease | None, now: Moment) -> None:
        """A speaker's Lease was made, renewed or deleted."""
        there = lease or before
        node = NodeName((there.spec.holder_identity if there is not None else None) or "")
        if not node:
            return
        reported = self._reports.pop(node, NodeReport())
        if lease is None:
            self._renew_times.pop(node, None)
            had = self._hearings.pop(node, None)
            report = NodeReport()
            votes_differ = had is not None
        else:
            report = self._reports[node] = read_report(lease.metadata.annotations)
            had = self._hearings.get(node)
            renewed = node not in self._renew_times or self._renew_times[node] != lease.spec.renew_time
            self._renew_times[node] = lease.spec.renew_time
            at = now.monotonic if renewed or had is None else had.renewed_at
            self._hearings[node] = Hearing(at, report.unheard)
            was_fresh = had is not None and now.monotonic < had.renewed_at + FRESH_S
            votes_differ = had is None or had.unheard != report.unheard or (renewed and not was_fresh)
        if votes_differ:
            self._recount(now)
        if report.listening != reported.listening:
            self._set_listening(node)
        if (report.proxy_mode, report.proxy_healthy) != (reported.proxy_mode, reported.proxy_healthy):
            self._proxy_changed(node, now)

    def set_slice(self, key: str, endpoint_slice: EndpointSlice | None) -> None:
        """A slice as the API shows it; None: it is gone."""
        for service in self._endpoints.set_slice(key, endpoint_slice):
            if service in self._serving:
                self._serving[service] = self._endpoints.nodes(service)
                self._affected_services.add(service)
                self._outdated = True

    def set_configured_mode(self, mode: str, now: Moment) -> None:
        """What kube-proxy's ConfigMap has; empty: nothing that can be read."""
        if mode != self._configured_mode:
            self._configured_mode = mode
            self._set_proxy(now)

    # -------------------------------------------------------------------- what comes of it

    @property
    def view(self) -> NodeView:
        """What is known now: the same object until something differs."""
        self._compute()
        if self._known and self._outdated:
            self._outdated = False
            self._view = NodeView(
                known=True,
                pools=MappingProxyType(
                    {name: state.gives for name, state in self._pools.items() if state.gives is not None}
                ),
                joining=MappingProxyType(
                    {name: state.joining for name, state in self._pools.items() if state.joining is not None}
                ),
                listeners=MappingProxyType(dict(self._listening)),
                proxy=self._proxy,
                serving=MappingProxyType(dict(self._serving)),
            )
        return self._view

    def take_affected(self) -> set[PoolName]:
        """The pools of which something has come to differ since the last call."""
        self._compute()
        taken, self._affected = self._affected, set()
        return taken

    def take_affected_services(self) -> set[str]:
        """The Services with the policy Local that are served elsewhere since the last call."""
        taken, self._affected_services = self._affected_services, set()
        return taken

    def figures(self, pool: PoolName) -> NodePoolFigures | None:
        """None: the pool is not in force, or nothing is known."""
        self._compute()
        state = self._pools.get(pool)
        if not self._known or state is None or state.gives is None:
            return None
        return NodePoolFigures(state.selected, state.left_out, self._demand.served_from(pool))

    def next_deadline(self) -> float | None:
        """When ``handle_timer`` is due; None: not before something is observed."""
        at = min(self._damping.next_deadline(), self._recount_at, self._proxy_until) if self._known else NEVER
        return None if at == NEVER else at

    def handle_timer(self, now: Moment) -> None:
        """Let nodes join whose pause is over, and Leases become stale."""
        if not self._known:
            return
        self._let_join(now)
        if self._recount_at <= now.monotonic:
            self._recount(now)
        if self._proxy_until <= now.monotonic:
            self._set_proxy(now)

    def _compute(self) -> None:
        """Have what the stale pools give."""
        if not self._stale or not self._known:
            return
        services = tuple(each for ranges in self._service_ranges.values() for each in ranges)
        pods = tuple(each for ranges in self._pod_ranges.values() for each in ranges)
        ranges = ClusterRanges(services, pods)
        absences = {name: why for name in self._nodes if (why := self._damping.absence(name)) is not None}
        for name in self._stale:
            state = self._pools[name]
            gives = nodes_of_pool(state.pool, state.offers.values(), absences, ranges)
            joining = _when_joined(state, absences, ranges)
            if gives != state.gives or joining != state.joining:
                state.gives, state.joining = gives, joining
                state.left_out = MappingProxyType(dict(_left_out(gives)))
                state.selected = len(gives.shown.keys() | gives.left_out.keys())
                self._affected.add(name)
                self._outdated = True
        self._stale.clear()

    # -------------------------------------------------------------------- who may be shown

    def _observe(self, name: NodeName, now: Moment) -> None:
        """Judge anew whether the node may be shown."""
        self._let_join(now)
        before = self._damping.absence(name)
        node = self._nodes.get(name)
        if node is None:
            self._damping.gone(name, now.monotonic)
        else:
            absence = absence_of(node) or (LeftOut.UNHEARD if name in self._unheard else None)
            shown = self._is_shown(node)
            ready_for = SHOWN_FOR if shown else now.wall - _since(node, now.wall)
            self._damping.observe(name, absence, now.monotonic, ready_for, serves=shown or self._serves(name))
        if self._damping.absence(name) != before:
            self._node_moved(name)

    def _let_join(self, now: Moment) -> None:
        for name in self._damping.handle_timer(now.monotonic):
            self._node_moved(name)

    def _node_moved(self, name: NodeName) -> None:
        """It may be shown now, or may not any more."""
        self._stale.update(self._selecting(name))

    def _selecting(self, name: NodeName) -> Iterator[PoolName]:
        for pool, state in self._pools.items():
            offer = state.offers.get(name)
            if offer is not None and state.pool.selects(offer.labels):
                yield pool

    def _is_shown(self, node: Node) -> bool:
        if not self._shown:
            return False
        meta = node.metadata
        written = (each for text in (*meta.labels.values(), *meta.annotations.values()) for each in text.split(","))
        return not self._shown.isdisjoint(
            canonical(text) for text in (*(each.address for each in node.status.addresses), *written)
        )

    def _serves(self, name: NodeName) -> bool:
        """Whether its kube-proxy does, as far as anybody says."""
        report = self._reports.get(name)
        if report is not None and report.proxy_healthy is not None:
            return report.proxy_healthy
        proxies = [each.proxy.ready for each in self._pods_of[name].values() if each.proxy is not None]
        return any(proxies) if proxies else True

    def _count(self, now: float) -> frozenset[NodeName]:
        """Which nodes a majority of the speakers does not hear."""
        hearings = {node: each for node, each in self._hearings.items() if node in self._nodes}
        self._recount_at = next_stale_at(hearings, now)
        return unheard_nodes(hearings, now)

    def _recount(self, now: Moment) -> None:
        if not self._known:
            return
        before, self._unheard = self._unheard, self._count(now.monotonic)
        for name in before ^ self._unheard:
            if name in self._nodes:
                self._observe(name, now)

    # -------------------------------------------------------------------- ports and proxies

    def _set_listening(self, node: NodeName) -> None:
        """Something else listens on the node."""
        ports = {port for each in self._pods_of[node].values() for port in each.ports}
        report = self._reports.get(node)
        listening = frozenset(ports.union(PortKey(*each) for each in report.listening) if report else ports)
        before = self._listening.pop(node, frozenset())
        if listening:
            self._listening[node] = listening
        if listening != before:
            self._outdated = True
            if self._demand.has_any(listening ^ before):
                self._affected.update(self._selecting(node))

    def _proxy_changed(self, node: NodeName, now: Moment) -> None:
        self._set_proxy(now)
        if self._known and node in self._nodes:
            self._observe(node, now)

    def _set_proxy(self, now: Moment) -> None:
        if not self._known:  # all that is said is looked through once, when it has been read
            return
        reported = (each.proxy_mode for each in self._reports.values())
        pods = [each.proxy for each in self._pods.values() if each.proxy is not None]
        said = service_proxy(reported, pods, self._configured_mode)
        if said is None and self._proxy is not ServiceProxy.OTHER and now.monotonic < self._proxy_until:
            if self._proxy_until == NEVER:
                self._proxy_until = now.monotonic + PROXY_MEMORY_S
            return
        self._proxy_until = NEVER
        proxy = said or ServiceProxy.OTHER
        if proxy is not self._proxy:
            self._proxy = proxy
            self._affected |= self._pools.keys()
            self._outdated = True


def _says_the_same(one: Node, other: Node) -> bool:
    before, after = one.metadata, other.metadata
    return (before.labels, before.annotations, before.deletion_timestamp, one.spec, one.status) == (
        after.labels,
        after.annotations,
        after.deletion_timestamp,
        other.spec,
        other.status,
    )


def _matters(pool: NodePool, before: NodeOffer | None, after: NodeOffer | None) -> bool:
    """Whether the pool may give something else for the difference."""
    selected = [offer is not None and pool.selects(offer.labels) for offer in (before, after)]
    if before is None or after is None:
        one = before or after
        return any(selected) or (one is not None and bool(one.own or one.found))
    if (before.own, before.found) != (after.own, after.found) or selected[0] != selected[1]:
        return True
    said = [(each.absence, each.unreadable, each.drained) for each in (before, after)]
    return selected[0] and said[0] != said[1]


def _when_joined(state: _PoolState, absences: Mapping[NodeName, LeftOut], ranges: ClusterRanges) -> NodesOfPool | None:
    rest = {name: why for name, why in absences.items() if why not in WAITING}
    waiting = (offer for name in absences.keys() - rest.keys() if (offer := state.offers.get(name)) is not None)
    if not state.pool.delivered or not any(state.pool.selects(offer.labels) for offer in waiting):
        return None
    return nodes_of_pool(state.pool, state.offers.values(), rest, ranges)


def _left_out(gives: NodesOfPool) -> Iterator[tuple[NodeName, LeftOut]]:
    """The nodes that give nothing, and why: by the first family that the pool gives out. Those that are drained give
    nothing where others do."""
    if gives.shown.keys() - gives.drained:
        yield from ((name, LeftOut.DRAINED) for name in sorted(gives.drained & gives.shown.keys()))
    for name in sorted(gives.left_out):
        if name not in gives.shown:
            reasons = gives.left_out[name]
            asked = [family for family in reasons if family in gives.pool.families]
            yield name, reasons[asked[0]] if asked else next(iter(reasons.values()))


def _since(node: Node, wall: float) -> float:
    since = ready_since(node)
    return wall if since is None else since


def _ranges(texts: Iterable[str]) -> Iterator[Range]:
    for text in texts:
        try:
            yield parse_prefix(text)
        except AddressError:
            continue
