"""What is observed of the cluster, put together: what pools of nodes give, whom a change concerns, and when."""

from __future__ import annotations

import sys
from typing import Any

import msgspec
import pytest

from cluster.node_pools import NodePool
from cluster.node_report import REPORT_ANNOTATION, NodeReport, write_report
from cluster.objects import LabelSelector, Lease, NodeName, PoolName, Service, ServiceCIDR
from cluster.pods import HostPod
from cluster.slices import EndpointSlice
from controller.changes import Moment
from controller.nodeip.cluster import PROXY_MEMORY_S, NodePoolFigures, NodePools
from controller.nodeip.damping import PAUSE_S
from controller.nodeip.guards import ServiceProxy
from controller.nodeip.liveness import FRESH_S
from controller.nodeip.reasons import LeftOut
from controller.nodeip.view import NodeView
from tests.controller.nodeip.bodies import INTERNAL, LABEL, node

POOL, EDGE = PoolName("nodes"), PoolName("edge")
ALL = NodePool(POOL)
ON_EDGE = NodePool(EDGE, node_selectors=(LabelSelector({"edge": "yes"}),))
READY_AT = "2026-01-01T00:00:00Z"
BEGAN = 1767225600.0  # that moment


CONDITIONS: dict[str, dict[str, bool]] = {
    "ready": {"ready": True, "serving": True, "terminating": False},
    "ending": {"ready": False, "serving": True, "terminating": True},
    "published": {"ready": True, "serving": False, "terminating": False},
    "leaving": {"ready": True, "serving": True, "terminating": True},
    "gone": {"ready": False, "serving": False, "terminating": True},
}
"""Of endpoints. Those published though not ready are of a Service with ``publishNotReadyAddresses``, and so are
those that are leaving."""


class Cluster:
    """What a controller is told of, with a clock."""

    def __init__(self, *pools: NodePool, read: bool = True) -> None:
        self.pools = NodePools()
        self.at = 0.0
        self._version = 0
        self.pools.set_pools({each.name: each for each in pools or (ALL,)})
        if read:
            self.read()

    @property
    def now(self) -> Moment:
        """The nodes were Ready for an hour at the beginning."""
        return Moment(self.at, BEGAN + 3600.0 + self.at)

    def read(self) -> None:
        self.pools.everything_read(self.now)

    def later(self, seconds: float) -> None:
        """Time passes; what is due on the way is done."""
        until = self.at + seconds
        while (due := self.pools.next_deadline()) is not None and due <= until:
            self.at = max(self.at, due)
            self.pools.handle_timer(self.now)
        self.at = until
        self.pools.handle_timer(self.now)

    def node(self, name: str, **fields: Any) -> None:
        self.pools.set_node(NodeName(name), node(name, **({"since": READY_AT} | fields)), self.now)

    def no_node(self, name: str) -> None:
        self.pools.set_node(NodeName(name), None, self.now)

    def speaker(self, name: str, **says: Any) -> None:
        """Its Lease is renewed."""
        self._version += 1
        report = write_report(NodeReport(**{key: _said(key, value) for key, value in says.items()}))
        body = {
            "metadata": {"name": f"berthlb-speaker-{name}", "annotations": {REPORT_ANNOTATION: report}},
            "spec": {"holderIdentity": name, "renewTime": str(self._version)},
        }
        self.pools.set_lease(None, msgspec.convert(body, Lease), self.now)

    def pod(self, name: str, on: str, **spec: Any) -> None:
        self.pools.set_pod(name, pod_of(name, on, **spec), self.now)

    def service(self, name: str, *shown: str, policy: str = "Cluster", port: int = 80, pool: str = "") -> None:
        body = {
            "metadata": {"name": name, "namespace": "default", "annotations": _from_pool(pool)},
            "spec": {"type": "LoadBalancer", "externalTrafficPolicy": policy, "ports": [{"port": port}]},
            "status": {"loadBalancer": {"ingress": [{"ip": each} for each in shown]}},
        }
        self.pools.set_service(f"default/{name}", msgspec.convert(body, Service))

    def slice(self, name: str, of: str, **nodes: str) -> None:
        body = {
            "metadata": {"name": name, "namespace": "default", "labels": {"kubernetes.io/service-name": of}},
            "endpoints": [
                {"nodeName": node, "conditions": CONDITIONS[kind]}
                for kind, names in nodes.items()
                for node in names.split()
            ],
        }
        self.pools.set_slice(name, msgspec.convert(body, EndpointSlice))

    def shown(self, pool: PoolName = POOL) -> set[str]:
        of_pool = self.pools.view.of(pool)
        return set(of_pool.shown) if of_pool is not None else set()

    def proxy(self) -> ServiceProxy:
        return self.pools.view.proxy

    def why_not(self, name: str, pool: PoolName = POOL) -> LeftOut | None:
        figures = self.pools.figures(pool)
        return figures.left_out.get(NodeName(name)) if figures is not None else None


def _said(key: str, value: Any) -> Any:
    return frozenset(value) if key in {"unheard", "listening"} else value


def _from_pool(pool: str) -> dict[str, str]:
    return {"metallb.io/ip-allocated-from-pool": pool} if pool else {}


def pod_of(
    name: str,
    on: str,
    *,
    ports: tuple[dict[str, Any], ...] = (),
    proxy: bool = False,
    ready: bool = True,
    args: tuple[str, ...] = (),
    phase: str = "Running",
) -> HostPod:
    body = {
        "metadata": {
            "name": name,
            "namespace": "kube-system" if proxy else "default",
            "labels": {"k8s-app": "kube-proxy"} if proxy else {},
        },
        "spec": {"nodeName": on, "containers": [{"ports": ports, "command": ["kube-proxy"], "args": args}]},
        "status": {"phase": phase, "conditions": [{"type": "Ready", "status": "True" if ready else "False"}]},
    }
    return msgspec.convert(body, HostPod)


def test_nothing_is_known_before_everything_was_read() -> None:
    cluster = Cluster(read=False)
    cluster.node("a", internal="10.0.0.1")
    assert not cluster.pools.view.known
    assert cluster.pools.view.of(POOL) is None
    assert cluster.pools.figures(POOL) is None
    assert cluster.pools.next_deadline() is None
    cluster.read()
    assert cluster.shown() == {"a"}
    assert cluster.pools.take_affected() == {POOL}
    cluster.pools.forget()
    assert cluster.pools.view == NodeView()


def test_a_node_that_a_service_shows_has_joined_whatever_its_age_and_its_proxy_say() -> None:
    """A restart takes nothing out of a status."""
    cluster = Cluster(read=False)
    for name, address in (("a", "10.0.0.1"), ("b", "10.0.0.2"), ("c", "10.0.0.3")):
        cluster.node(name, internal=address, since="2026-01-01T00:59:59Z")
        cluster.pod(f"proxy-{name}", name, proxy=True, ready=name == "c")
    cluster.node("d", internal="10.0.0.4", ready="Unknown")
    cluster.service("web", "10.0.0.1", "10.0.0.4")
    cluster.read()
    assert cluster.shown() == {"a"}
    assert cluster.why_not("d") is LeftOut.NOT_READY
    cluster.later(PAUSE_S - 1)
    assert cluster.shown() == {"a", "c"}
    cluster.later(PAUSE_S)
    assert cluster.why_not("b") is LeftOut.JOINING


def test_a_nodes_heartbeat_concerns_nobody() -> None:
    cluster = Cluster()
    cluster.node("a", internal="10.0.0.1")
    view = cluster.pools.view
    cluster.pools.take_affected()
    cluster.node("a", internal="10.0.0.1")
    cluster.node("a", internal="10.0.0.1", labels={"anything": "else"})
    assert cluster.pools.view is view
    assert cluster.pools.take_affected() == set()


def test_a_node_concerns_the_pools_that_select_it_before_or_after() -> None:
    cluster = Cluster(ALL, ON_EDGE)
    cluster.node("a", internal="10.0.0.1", labels={"edge": "yes"})
    cluster.node("b", internal="10.0.0.2")
    assert cluster.pools.take_affected() == {POOL, EDGE}
    edge = cluster.pools.view.of(EDGE)
    cluster.node("b", internal="10.0.0.2", ready="False")
    assert cluster.pools.take_affected() == {POOL}
    assert cluster.pools.view.of(EDGE) is edge
    cluster.node("a", internal="10.0.0.1")
    assert cluster.pools.take_affected() == {EDGE}
    assert cluster.pools.figures(EDGE) == NodePoolFigures()


def test_an_address_that_another_node_comes_to_have_is_taken_from_who_only_writes_it() -> None:
    labelled = NodePool(EDGE, node_selectors=ON_EDGE.node_selectors, sources=(LABEL,))
    cluster = Cluster(labelled)
    cluster.node("a", label="203.0.113.1", labels={"edge": "yes"})
    assert cluster.shown(EDGE) == {"a"}
    cluster.pools.take_affected()
    cluster.node("z", external="203.0.113.1")
    assert cluster.pools.take_affected() == {EDGE}
    assert cluster.why_not("a", EDGE) is LeftOut.ANOTHER_NODES
    cluster.no_node("z")
    assert cluster.shown(EDGE) == {"a"}


def test_ranges_of_services_and_pods_are_refused() -> None:
    cluster = Cluster(NodePool(POOL, sources=(INTERNAL,)))
    cluster.node("a", internal="10.96.0.9")
    body = {"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/16", "no range"]}}
    cluster.pools.set_service_cidr("kubernetes", msgspec.convert(body, ServiceCIDR))
    assert cluster.why_not("a") is LeftOut.SERVICE_RANGE
    cluster.pools.set_service_cidr("kubernetes", None)
    assert cluster.shown() == {"a"}
    other = msgspec.structs.replace
    pods = other(node("b", internal="10.0.0.2"), spec=other(node("b").spec, pod_cidrs=("10.96.0.0/24",)))
    cluster.pools.set_node(NodeName("b"), pods, cluster.now)
    assert cluster.why_not("a") is LeftOut.POD_RANGE
    cluster.no_node("b")
    assert cluster.shown() == {"a"}


def test_a_dead_node_leaves_when_most_speakers_say_so_and_returns_after_its_pause() -> None:
    cluster = Cluster()
    for each in "abc":
        cluster.node(each, internal=f"10.0.0.{ord(each)}")
        cluster.speaker(each)
    cluster.speaker("a", unheard={"c"})
    assert cluster.shown() == {"a", "b", "c"}
    cluster.speaker("b", unheard={"c"})
    assert cluster.why_not("c") is LeftOut.UNHEARD
    assert cluster.pools.take_affected() == {POOL}
    cluster.speaker("a")
    cluster.speaker("b")
    assert cluster.why_not("c") is LeftOut.JOINING
    cluster.later(PAUSE_S)
    assert cluster.shown() == {"a", "b", "c"}


def test_a_lease_that_is_not_renewed_has_no_vote() -> None:
    cluster = Cluster()
    for each in "abcde":
        cluster.node(each, internal=f"10.0.0.{ord(each)}")
        cluster.speaker(each)
    cluster.speaker("a", unheard={"e"})
    cluster.speaker("b", unheard={"e"})
    cluster.later(FRESH_S - 1)
    for each in "abc":
        cluster.speaker(each, unheard={"e"} if each != "c" else ())
    assert cluster.shown() == set("abcde")
    cluster.later(1)
    assert cluster.why_not("e") is LeftOut.UNHEARD


def test_a_deleted_node_has_no_vote() -> None:
    cluster = Cluster()
    for each in "abcd":
        cluster.node(each, internal=f"10.0.0.{ord(each)}")
        cluster.speaker(each)
    cluster.speaker("a", unheard={"d"})
    cluster.speaker("b", unheard={"d"})
    assert cluster.shown() == set("abcd")
    cluster.no_node("c")
    assert cluster.why_not("d") is LeftOut.UNHEARD


def test_renewals_that_say_nothing_new_concern_nobody() -> None:
    cluster = Cluster()
    cluster.node("a", internal="10.0.0.1")
    cluster.speaker("a", proxy_mode="nftables", proxy_healthy=True, listening={("TCP", 9100)})
    view = cluster.pools.view
    cluster.pools.take_affected()
    for _ in range(10):
        cluster.later(10)
        cluster.speaker("a", proxy_mode="nftables", proxy_healthy=True, listening={("TCP", 9100)})
    assert cluster.pools.view is view
    assert cluster.pools.take_affected() == set()


@pytest.mark.parametrize("by", ["speaker", "pod"])
def test_a_new_node_joins_once_its_proxy_serves_and_a_restarted_proxy_takes_nothing_out(by: str) -> None:
    cluster = Cluster()

    def proxy(*, serves: bool) -> None:
        if by == "speaker":
            cluster.speaker("a", proxy_healthy=serves)
        else:
            cluster.pod("proxy", "a", proxy=True, ready=serves)

    proxy(serves=False)
    cluster.node("a", internal="10.0.0.1", ready="False")
    cluster.node("a", internal="10.0.0.1")
    cluster.later(10 * PAUSE_S)
    assert cluster.why_not("a") is LeftOut.JOINING
    proxy(serves=True)
    assert cluster.shown() == {"a"}
    assert cluster.pools.take_affected() == {POOL}
    proxy(serves=False)
    assert cluster.shown() == {"a"}


def test_a_speakers_word_on_its_proxy_counts_before_the_pods() -> None:
    cluster = Cluster()
    cluster.pod("proxy", "a", proxy=True, ready=True)
    cluster.speaker("a", proxy_healthy=False)
    cluster.node("a", internal="10.0.0.1")
    assert cluster.why_not("a") is LeftOut.JOINING


def test_taken_ports_concern_the_services_only_if_one_of_them_has_the_port() -> None:
    cluster = Cluster(ALL, ON_EDGE)
    cluster.node("a", internal="10.0.0.1")
    cluster.service("web", port=80)
    cluster.pools.take_affected()
    cluster.pod("exporter", "a", ports=({"hostPort": 9100},))
    cluster.speaker("a", listening={("UDP", 41234)})
    assert cluster.pools.take_affected() == set()
    assert cluster.pools.view.listeners == {"a": {("TCP", 9100), ("UDP", 41234)}}
    cluster.pod("ingress", "a", ports=({"hostPort": 80}, {"hostPort": 81, "hostIP": "127.0.0.1"}))
    assert cluster.pools.take_affected() == {POOL}
    assert ("TCP", 81) not in cluster.pools.view.listeners[NodeName("a")]
    cluster.pod("ingress", "a", ports=({"hostPort": 80},), phase="Succeeded")
    assert cluster.pools.take_affected() == {POOL}
    cluster.pools.set_pod("exporter", None, cluster.now)
    cluster.speaker("a")
    assert cluster.pools.view.listeners == {}


def test_local_services_are_told_where_they_are_served() -> None:
    cluster = Cluster()
    cluster.slice("local-1", "local", ready="a")
    cluster.slice("wide-1", "wide", ready="a b")
    cluster.service("local", policy="Local")
    cluster.service("wide")
    assert cluster.pools.view.local_nodes("default/local") == {"a"}
    assert dict(cluster.pools.view.serving) == {"default/local": {"a"}}
    cluster.pools.take_affected_services()
    cluster.slice("local-2", "local", ready="b", ending="c")
    cluster.slice("wide-1", "wide", ready="c")
    assert cluster.pools.take_affected_services() == {"default/local"}
    assert cluster.pools.view.local_nodes("default/local") == {"a", "b"}
    cluster.slice("local-1", "local", ending="a")
    cluster.slice("local-2", "local", ending="b")
    assert cluster.pools.view.local_nodes("default/local") == {"a", "b"}
    view = cluster.pools.view
    cluster.slice("local-2", "local", ending="b")
    assert cluster.pools.view is view
    cluster.pools.set_slice("local-1", None)
    assert cluster.pools.view.local_nodes("default/local") == {"b"}
    cluster.slice("local-2", "local", ending="b", published="c d")
    assert cluster.pools.view.local_nodes("default/local") == {"c", "d"}
    cluster.slice("local-2", "local", ready="d", leaving="c")
    assert cluster.pools.view.local_nodes("default/local") == {"d"}, "of what is published, what ends is left"
    cluster.slice("local-2", "local", leaving="c", gone="d")
    assert cluster.pools.view.local_nodes("default/local") == {"c"}
    cluster.pools.set_service("default/local", None)
    assert dict(cluster.pools.view.serving) == {}


@pytest.mark.parametrize(
    ("reported", "pods", "configured", "expected"),
    [
        ([], [], "", ServiceProxy.OTHER),
        ([], [], "nftables", ServiceProxy.OTHER),  # a ConfigMap that nobody reads any more
        ([], [("", True)], "nftables", ServiceProxy.NFTABLES),
        ([], [("", True)], "", ServiceProxy.OTHER),
        ([], [("ipvs", True), ("", True)], "nftables", ServiceProxy.IPVS),
        (["nftables", "nftables"], [("ipvs", True)], "ipvs", ServiceProxy.NFTABLES),
        (["nftables", "iptables"], [], "", ServiceProxy.IPTABLES),
        (["nftables", "ipvs"], [], "", ServiceProxy.IPVS),
        (["nftables", "ebpf"], [], "", ServiceProxy.OTHER),
        ([None], [("iptables", True)], "", ServiceProxy.IPTABLES),
    ],
)
def test_which_proxy_carries_the_traffic(
    reported: list[str | None], pods: list[tuple[str, bool]], configured: str, expected: ServiceProxy
) -> None:
    cluster = Cluster()
    cluster.pools.set_configured_mode(configured, cluster.now)
    for number, mode in enumerate(reported):
        cluster.speaker(f"s{number}", proxy_mode=mode)
    for number, (mode, ready) in enumerate(pods):
        args = (f"--proxy-mode={mode}",) if mode else ()
        cluster.pod(f"p{number}", f"n{number}", proxy=True, ready=ready, args=args)
    assert cluster.pools.view.proxy is expected


def test_a_proxy_of_which_nothing_is_said_any_more_counts_for_a_while() -> None:
    """A single node whose kube-proxy is replaced keeps what its Services have."""
    cluster = Cluster()
    cluster.pod("old", "a", proxy=True, args=("--proxy-mode", "nftables"))
    cluster.pools.take_affected()
    cluster.pools.set_pod("old", None, cluster.now)
    cluster.later(PROXY_MEMORY_S - 1)
    assert cluster.proxy() is ServiceProxy.NFTABLES
    cluster.pod("new", "a", proxy=True, args=("--proxy-mode", "nftables"))
    cluster.later(2 * PROXY_MEMORY_S)
    assert cluster.proxy() is ServiceProxy.NFTABLES
    assert cluster.pools.take_affected() == set()
    cluster.pools.set_pod("new", None, cluster.now)
    cluster.later(PROXY_MEMORY_S)
    assert cluster.proxy() is ServiceProxy.OTHER
    assert cluster.pools.take_affected() == {POOL}


def test_figures_name_what_is_left_out_and_count_the_services() -> None:
    cluster = Cluster(NodePool(POOL, sources=(INTERNAL,)))
    cluster.node("a", internal="10.0.0.1")
    cluster.node("b", external="203.0.113.2")
    cluster.service("web", "10.0.0.1", pool="nodes")
    cluster.service("waits", pool="nodes")
    figures = cluster.pools.figures(POOL)
    assert figures is not None
    assert (figures.selected, figures.usable, figures.services) == (2, 1, 1)
    assert figures.left_out == {"b": LeftOut.NO_ADDRESS}
    cluster.service("web")
    assert cluster.pools.figures(POOL) == NodePoolFigures(2, figures.left_out, 0)


def test_a_change_costs_no_more_in_a_large_cluster() -> None:
    """A Node's heartbeat, a Lease's renewal, a slice and a Pod: with a thousand nodes as with ten."""
    small, large = (_calls_for_changes(nodes) for nodes in (10, 1000))
    assert large <= small


def _calls_for_changes(nodes: int) -> int:
    """How many functions are called for the same changes, after a first time."""
    cluster = Cluster()
    names = [f"n{number}" for number in range(nodes)]
    for number, name in enumerate(names):
        cluster.node(name, internal=f"10.{number >> 8}.{number & 255}.1")
        cluster.speaker(name, proxy_mode="nftables", proxy_healthy=True)
        cluster.slice(f"slice-{name}", f"service-{name}", ready=name)
    assert len(cluster.shown()) == nodes
    cluster.pools.take_affected()

    def changes() -> None:
        for name in names[:10]:
            cluster.node(name, internal=f"10.0.{int(name[1:])}.1")
            cluster.speaker(name, proxy_mode="nftables", proxy_healthy=True)
            cluster.slice(f"slice-{name}", f"service-{name}", ready=name)
            cluster.pod("any", name)
            assert cluster.pools.view.known
            assert not cluster.pools.take_affected()

    changes()
    calls = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in {"call", "c_call"}

    sys.setprofile(count)
    try:
        changes()
    finally:
        sys.setprofile(None)
    return calls
