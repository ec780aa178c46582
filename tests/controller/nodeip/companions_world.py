"""The API as far as companions are concerned: Services in a table, a garbage collector, a watch that may lag, and one
controller that is killed and started anew."""

from __future__ import annotations

import copy
import random
from dataclasses import replace
from typing import Any

import msgspec

from cluster.addresses import Address, parse_address
from cluster.node_pools import AddressSource, NodePool
from cluster.objects import Condition, NodeName, PoolName, Service, decode
from controller.changes import Change, Deletion, EventNote, Moment, Read, Tell, Write
from controller.companions import Companions
from controller.nodeip.choice import Delivery, NodesOfPool
from controller.nodeip.guards import ServiceProxy
from controller.nodeip.reasons import LeftOut
from controller.nodeip.view import NodeView
from controller.passes import Room
from tests.controller.world import config_of, merge

Body = dict[str, Any]

POOL = PoolName("nat")
EXTERNAL, INTERNAL = AddressSource("ExternalIP"), AddressSource("InternalIP")
LAN = config_of({"lan": "192.0.2.0/24"})
NAT = NodePool(POOL, sources=(EXTERNAL,), delivered=(INTERNAL,))


def deliveries(**given: str) -> dict[Address, Delivery]:
    """``node="203.0.113.1 10.0.0.1"``; behind the first address stands where it is delivered, or the reason why not."""
    found = {}
    for name, text in given.items():
        public, *rest = text.split()
        refused = LeftOut(rest[0]) if rest and rest[0].isalpha() else None
        to = () if refused else tuple(map(parse_address, rest))
        found[parse_address(public)] = Delivery(NodeName(name), to, refused)
    return found


def service_body(name: str = "web", *addresses: str, pool: str | None = POOL, **spec: Any) -> Body:
    return {
        "metadata": {
            "name": name,
            "namespace": "default",
            "annotations": {"metallb.io/ip-allocated-from-pool": pool} if pool else {},
        },
        "spec": {
            "type": "LoadBalancer",
            "selector": {"app": name},
            "ports": [{"port": 80, "protocol": "TCP", "targetPort": 8080, "nodePort": 30080}],
            "externalTrafficPolicy": "Cluster",
            "sessionAffinity": "None",
            "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack",
            **spec,
        },
        "status": {"loadBalancer": {"ingress": [{"ip": each} for each in addresses]}},
    }


class CompanionsWorld:
    def __init__(self, load_balancer_class: str | None = None) -> None:
        self.services: dict[str, Body] = {}
        self.version = 0
        self.time = 1000.0
        self.load_balancer_class = load_balancer_class
        self.set_pools()
        self.nodes = NodeView(known=True)
        self.unseen: list[tuple[bool, Service]] = []
        self.pending: list[Change] = []
        self.requests: list[Change] = []
        """All that were decided."""
        self.events: list[tuple[str, EventNote]] = []
        self.troubles: dict[str, Condition] = {}
        """What Services are to say."""
        self.coming: dict[str, str] = {}
        """What Services are to show, by name."""
        self.forbidden = ""
        """Why the API makes no Service at present."""
        self.deliver_at(node="203.0.113.1 10.0.0.1")
        self.start()

    # -------------------------------------------------------------------- what people do

    def deliver_at(self, **given: str) -> None:
        of_pool = NodesOfPool(NAT, {}, {}, {}, deliveries(**given))
        self.nodes = NodeView(known=True, pools={POOL: of_pool}, proxy=ServiceProxy.NFTABLES)

    def set_pools(self, *node_pools: NodePool) -> None:
        """These are in force, and an IPAddressPool; without any the one that knows of NAT is."""
        self.config = replace(LAN, node_pools={each.name: each for each in node_pools or (NAT,)})

    def forget_pools(self) -> None:
        """No NodeIPPool is in force any more: it is unreadable, or even its definition is gone."""
        self.config, self.nodes = LAN, NodeView(known=True)

    def create(self, body: Body) -> Body:
        key = f"{body['metadata']['namespace']}/{body['metadata']['name']}"
        assert key not in self.services
        made = {"uid": f"uid-{self.version + 1}", "creationTimestamp": f"2026-01-01T00:{self.version:06d}"}
        return self._store(key, merge(body, {"metadata": made}))

    def edit(self, name: str, patch: Body) -> None:
        """Merge it into the Service, the status too."""
        key = f"default/{name}"
        self._store(key, merge(self.services[key], patch))

    def show(self, name: str, *addresses: str) -> None:
        self.edit(name, {"status": {"loadBalancer": {"ingress": [{"ip": each} for each in addresses]}}})

    def delete(self, name: str) -> None:
        key = f"default/{name}"
        if self.services[key]["metadata"].get("finalizers"):
            self.edit(name, {"metadata": {"deletionTimestamp": "2026-01-02T00:00:00Z"}})
            return
        view = self.look(key)
        del self.services[key]
        if view.spec.type == "LoadBalancer":
            self.unseen.append((True, view))

    def collect_garbage(self) -> None:
        uids = {each["metadata"]["uid"] for each in self.services.values()}
        for each in list(self.services.values()):
            owners = each["metadata"].get("ownerReferences") or ()
            if owners and not any(owner["uid"] in uids for owner in owners):
                self.delete(each["metadata"]["name"])

    # -------------------------------------------------------------------- what the controller does

    def start(self) -> None:
        """A new controller, which knows nothing but the API."""
        self.controller = Companions(self.load_balancer_class, random.Random(1))
        self.pending, self.unseen = [], []
        for key in self.services:
            if (view := self.look(key)).spec.type == "LoadBalancer":
                self.controller.observe(view)

    def see(self, count: int | None = None) -> None:
        """What the watch has to say, or the first ``count`` news of it."""
        said, self.unseen = self.unseen[:count], self.unseen[count:] if count is not None else []
        for gone, view in said:
            self.controller.vanished(view) if gone else self.controller.observe(view)

    def decide(self, requests: int = 1000, services: int = 1000) -> None:
        self.time += 0.001
        room = Room(requests, services)
        for each in self.controller.decide(
            self.config, self.nodes, self.now, room, holder=self.holder, ahead=self.ahead
        ):
            if isinstance(each, Tell):
                self.events += [(each.about.key, note) for note in each.events]
                continue
            assert each.key not in {other.key for other in self.pending}, "one request at a time"
            self.pending.append(each)
            self.requests.append(each)
        for key, condition in self.controller.take_troubles().items():
            self.troubles.pop(key, None)
            if key in self.services:
                body, said = self.services[key], [] if condition is None else [msgspec.to_builtins(condition)]
                if condition is not None:
                    self.troubles[key] = condition
                if body["status"].get("conditions", []) != said:
                    self._store(key, merge(body, {"status": {"conditions": said}}))

    def carry_out(self, change: Change, *, tell: bool = True) -> None:
        """``tell`` False: the controller never hears what became of it."""
        self.pending.remove(change)
        body = self.services.get(change.key)
        why, superseded = self._apply(change, body)
        if not tell:
            return
        if why:
            self.controller.refused(change, why)
            self.controller.failed(change, 10.0, self.now)
            return
        view = self.look(change.key) if change.key in self.services and not isinstance(change, Deletion) else None
        if superseded:
            view = self.look(change.key) if change.key in self.services else None
            self.controller.superseded(change, view, self.now)
        else:
            self.controller.answered(change, view)

    def _apply(self, change: Change, body: Body | None) -> tuple[str, bool]:
        """Why it is refused, and whether somebody was faster."""
        if isinstance(change, Read):
            return "", False
        if isinstance(change, Write) and change.create:
            if body is None and not self.forbidden:
                self.create(merge({"status": {}}, change.body))
                self.events += [(change.about.key, note) for note in change.events if change.about]
            return self.forbidden if body is None else "", body is not None
        if body is None:
            return "", False
        if isinstance(change, Deletion):
            if (change.uid, change.resource_version) != (body["metadata"]["uid"], body["metadata"]["resourceVersion"]):
                return "", True
            self.delete(change.name)
            return "", False
        if change.body["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"]:
            return "", True
        patch = {key: part for key, part in change.body.items() if (key == "status") == bool(change.subresource)}
        self._store(change.key, merge(body, patch))
        return "", False

    def fail(self, change: Change) -> None:
        self.pending.remove(change)
        self.controller.failed(change, 0.0, self.now)

    def rest(self, *, until: float = 0.0) -> None:
        """Turn until nothing is left to do but wait; ``until`` the time is ``until``, wait as well."""
        for _ in range(1000):
            self.see()
            self.decide()
            for change in list(self.pending):
                self.carry_out(change)
            deadline = self.controller.next_deadline()
            if not self.pending and not self.unseen and (deadline is None or deadline > self.time):
                if deadline is None or deadline > until:
                    return
                self.time = max(self.time, deadline)
        raise AssertionError(f"it never comes to rest: {self.pending}")

    def wait(self, seconds: float) -> None:
        self.rest(until=self.time + seconds)

    # -------------------------------------------------------------------- what one sees

    @property
    def now(self) -> Moment:
        return Moment(self.time, 1_767_225_600.0 + self.time)

    def look(self, key: str) -> Service:
        return decode(msgspec.json.encode(self.services[key]), Service)

    def companion(self, name: str = "web") -> Body | None:
        return self.services.get(f"default/{name}-berthlb-delivered")

    def companion_ip(self, name: str = "web") -> str | None:
        """Its addresses, joined by commas; None: there is none."""
        return None if (body := self.companion(name)) is None else shown(body)

    def trouble(self, name: str = "web") -> str | None:
        said = self.troubles.get(f"default/{name}")
        return None if said is None else said.reason

    def ahead(self, asking: Service) -> set[Address]:
        return {parse_address(each) for each in self.coming.get(asking.metadata.name, "").split()}

    def holder(self, address: Address, asking: Service) -> str | None:
        ports = {(port.protocol, port.port) for port in asking.spec.ports}
        for key, body in self.services.items():
            view = self.look(key)
            if key == asking.key or view.spec.load_balancer_class == "berthlb.io/delivered":
                continue
            if address.text in shown(body).split(",") and ports & {
                (port.protocol, port.port) for port in view.spec.ports
            }:
                return key
        return None

    def _store(self, key: str, body: Body) -> Body:
        self.version += 1
        if body["spec"].get("type") != "LoadBalancer":
            spec = {"loadBalancerClass": None, "allocateLoadBalancerNodePorts": None}
            body = merge(body, {"spec": spec, "status": {"loadBalancer": None}})
        was = self.services.get(key)
        watched = was is not None and was["spec"].get("type") == "LoadBalancer"
        self.services[key] = merge(copy.deepcopy(body), {"metadata": {"resourceVersion": str(self.version)}})
        view = self.look(key)
        if view.spec.type == "LoadBalancer" or watched:
            self.unseen.append((view.spec.type != "LoadBalancer", view))
        return self.services[key]


def shown(body: Body) -> str:
    return ",".join(each["ip"] for each in (body["status"].get("loadBalancer") or {}).get("ingress", ()))
