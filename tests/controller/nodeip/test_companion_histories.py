"""Services, nodes, pools, other people and the garbage collector in any order, a controller that is killed between any
two requests, and a watch that lags: in the end each Service has the companion that an oracle says, and nobody else's
Service was touched."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from controller.changes import Read, Write
from tests.controller.nodeip.companions_world import POOL, Body, CompanionsWorld, service_body, shown

NAMES = st.sampled_from(["web", "api", "long" * 15])
PUBLIC = ["203.0.113.1", "203.0.113.2", "203.0.113.3", "2001:db8::1"]
MAPS = {
    "plain": {"a": "203.0.113.1 10.0.0.1", "b": "203.0.113.2 10.0.0.2", "c": "2001:db8::1 fd00::1"},
    "less": {"a": "203.0.113.1 10.0.0.1"},
    "moved": {"a": "203.0.113.1 10.0.0.9", "b": "203.0.113.2 10.0.0.2"},
    "refused": {"a": "203.0.113.1 AddressNotAllowed", "b": "203.0.113.2 10.0.0.2"},
    "two to one": {"a": "203.0.113.1 10.0.0.1", "b": "203.0.113.2 10.0.0.1"},
    "none": {},
}
EDITS: list[Body] = [
    {"metadata": {"labels": None}},
    {"metadata": {"ownerReferences": None}},
    {"metadata": {"annotations": None}},
    {"spec": {"type": "ClusterIP"}},
    {"spec": {"ports": [{"port": 81, "nodePort": 30001}]}},
    {"status": {"loadBalancer": {"ingress": [{"ip": "10.0.0.2"}]}}},
    {"status": {"loadBalancer": None, "conditions": None}},
    {"metadata": {"finalizers": ["example.com/wait"]}},
    {"metadata": {"finalizers": None}},
]
SPECS: list[Body] = [
    {"ports": [{"port": 80, "protocol": "TCP"}]},
    {"ports": [{"port": 443, "protocol": "TCP"}, {"port": 80, "protocol": "UDP"}]},
    {"selector": {"app": "x"}},
    {"selector": None},
    {"externalTrafficPolicy": "Local"},
    {"loadBalancerSourceRanges": ["192.0.2.0/24"]},
]
FOLLOWED = ["selector", "externalTrafficPolicy", "loadBalancerSourceRanges", "sessionAffinity", "ipFamilies"]


def companion_of(name: str) -> str:
    """As the documentation says; the third name is cut and has a hash, which is asked of the code in a test of its
    own."""
    if len(name) < 46:
        return f"{name}-berthlb-delivered"
    return f"{name[:36]}-{HASHES[name]}-berthlb-delivered"


HASHES = {"long" * 15: "b3fa276a"}


class Histories(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.world = CompanionsWorld()
        self.map = dict[str, str]()
        self.in_force = True
        self.own: dict[str, Body] = {}
        """Services that people made under a companion's name."""
        self.nodes_change("plain")

    def has(self, name: str) -> bool:
        return f"default/{name}" in self.world.services

    # -------------------------------------------------------------------- what people do

    @rule(name=NAMES, addresses=st.lists(st.sampled_from(PUBLIC), unique=True), spec=st.sampled_from(SPECS))
    def service_comes(self, name: str, addresses: list[str], spec: Body) -> None:
        if not self.has(name):
            self.world.create(service_body(name, *addresses, **spec))

    @rule(name=NAMES, addresses=st.lists(st.sampled_from(PUBLIC), unique=True))
    def addresses_change(self, name: str, addresses: list[str]) -> None:
        if self.has(name) and self.world.services[f"default/{name}"]["spec"]["type"] == "LoadBalancer":
            self.world.show(name, *addresses)

    @rule(name=NAMES, addresses=st.lists(st.sampled_from(PUBLIC), unique=True))
    def nodes_wait(self, name: str, addresses: list[str]) -> None:
        """What the Service is to show when these nodes have joined."""
        self.world.coming[name] = " ".join(addresses)
        self.world.controller.nodes_changed((), [f"default/{name}"])

    @rule(name=NAMES, spec=st.sampled_from(SPECS))
    def service_changes(self, name: str, spec: Body) -> None:
        if self.has(name):
            self.world.edit(name, {"spec": spec})

    @rule(name=NAMES, type_=st.sampled_from(["ClusterIP", "LoadBalancer"]), class_=st.sampled_from([None, "e.com/b"]))
    def type_changes(self, name: str, type_: str, class_: str | None) -> None:
        if self.has(name) and self.world.services[f"default/{name}"]["spec"]["type"] != type_:
            self.world.edit(name, {"spec": {"type": type_, "loadBalancerClass": class_}})

    @rule(name=NAMES, pool=st.sampled_from([None, "lan", POOL, POOL]))
    def pool_changes(self, name: str, pool: str | None) -> None:
        if self.has(name):
            self.world.edit(name, {"metadata": {"annotations": {"metallb.io/ip-allocated-from-pool": pool}}})

    @rule(name=NAMES, slowly=st.booleans())
    def service_goes(self, name: str, slowly: bool) -> None:
        if self.has(name):
            if slowly:
                self.world.edit(name, {"metadata": {"finalizers": ["example.com/wait"]}})
            self.world.delete(name)

    @rule(name=NAMES)
    def finalizers_go(self, name: str) -> None:
        for each in (name, companion_of(name)):
            if self.has(each) and (meta := self.world.services[f"default/{each}"]["metadata"]).get("deletionTimestamp"):
                meta["finalizers"] = []
                self.world.delete(each)

    @rule(name=NAMES, type_=st.sampled_from(["LoadBalancer", "ClusterIP"]))
    def somebody_takes_the_name(self, name: str, type_: str) -> None:
        made = companion_of(name)
        if not self.has(made):
            body = service_body(made, pool=None, type=type_)
            self.own[made] = self.world.create(body)

    @rule(name=NAMES)
    def somebody_leaves_the_name(self, name: str) -> None:
        made = companion_of(name)
        if self.own.pop(made, None) is not None:
            self.world.delete(made)

    @rule(name=NAMES, edit=st.sampled_from(EDITS))
    def somebody_edits_the_companion(self, name: str, edit: Body) -> None:
        made = companion_of(name)
        if self.has(made) and made not in self.own:
            meta = self.world.services[f"default/{made}"]["metadata"]
            marks = 1 + bool(meta.get("labels")) + bool(meta.get("ownerReferences"))
            takes = len({"labels", "ownerReferences"} & edit.get("metadata", {}).keys()) + (
                "type" in edit.get("spec", {})
            )
            if marks - takes >= 2:  # else it is nobody's any more
                self.world.edit(made, edit)

    @rule(name=NAMES)
    def somebody_deletes_the_companion(self, name: str) -> None:
        made = companion_of(name)
        if self.has(made) and made not in self.own:
            self.world.delete(made)

    @rule(which=st.sampled_from(sorted(MAPS)))
    def nodes_change(self, which: str) -> None:
        self.map = MAPS[which]
        if self.in_force:
            self.world.deliver_at(**self.map)

    @rule()
    def pool_goes(self) -> None:
        """With its definition, or only out of force."""
        self.in_force = False
        self.world.forget_pools()

    @rule()
    def pool_comes(self) -> None:
        self.in_force = True
        self.world.set_pools()
        self.world.deliver_at(**self.map)

    @rule()
    def garbage_is_collected(self) -> None:
        self.world.collect_garbage()

    # -------------------------------------------------------------------- what happens to the controller

    @rule()
    def killed(self) -> None:
        self.world.start()

    @rule(count=st.integers(1, 3))
    def watch_says(self, count: int) -> None:
        self.world.see(count)

    @rule(requests=st.integers(1, 3), services=st.integers(1, 3))
    def decides(self, requests: int, services: int) -> None:
        self.world.decide(requests, services)

    @precondition(lambda self: self.world.pending)
    @rule(data=st.data(), end=st.sampled_from(["done", "done", "done", "unheard", "fails"]))
    def request_ends(self, data: Any, end: str) -> None:
        change = data.draw(st.sampled_from(self.world.pending))
        if end == "fails":
            self.world.fail(change)
        elif end == "done":
            self.world.carry_out(change)
        else:
            self.world.carry_out(change, tell=False)
            self.world.start()

    @rule(seconds=st.sampled_from([1.0, 40.0, 400.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.time += seconds

    # -------------------------------------------------------------------- what is always so

    @invariant()
    def what_is_somebody_s_own_is_never_touched(self) -> None:
        for name, body in getattr(self, "own", {}).items():
            assert self.world.services[f"default/{name}"] == body

    @invariant()
    def only_companions_are_written(self) -> None:
        world = getattr(self, "world", None)
        assert world is None or all(each.name.endswith("-berthlb-delivered") for each in world.requests)

    @rule()
    def comes_to_rest(self) -> None:
        world = self.world
        world.wait(400.0)
        before = len(world.requests)
        for name in ("web", "api", "long" * 15):
            self.is_right(name)
        world.start()
        world.rest()
        again = [each for each in world.requests[before:] if not isinstance(each, Read)]
        names = [each.name for each in again if not (isinstance(each, Write) and each.create)]
        assert not names, "a controller that begins finds nothing to do"

    def is_right(self, name: str) -> None:
        world, made = self.world, companion_of(name)
        service, present = world.services.get(f"default/{name}"), world.services.get(f"default/{made}")
        if made in self.own:
            if (
                self.in_force
                and service
                and self.addresses(service)
                and service["spec"].get("selector")
                and not service["metadata"].get("deletionTimestamp")
            ):
                assert world.trouble(name) == "CompanionNameTaken"
            return
        if service is not None and self.is_ours(service) and not self.in_force:
            return  # nothing is known, and nothing is changed
        if present is not None and present["metadata"].get("deletionTimestamp"):
            return
        expected = self.addresses(service)
        leaving = service is not None and service["metadata"].get("deletionTimestamp")
        if service is None or not expected or not service["spec"].get("selector"):
            assert present is None
            return
        if leaving:
            assert present is None or shown(present).split(",") == expected or shown(present) == ""
            return
        assert present is not None
        assert shown(present).split(",") == expected
        assert present["metadata"]["ownerReferences"][-1]["uid"] == service["metadata"]["uid"]
        assert present["metadata"]["labels"] == {"berthlb.io/companion-of": name}
        for field in FOLLOWED:
            assert present["spec"].get(field) == service["spec"].get(field), field
        ports = [{key: each.get(key) for key in ("port", "protocol")} for each in present["spec"]["ports"]]
        assert ports == [{key: each.get(key) for key in ("port", "protocol")} for each in service["spec"]["ports"]]
        assert not any(each.get("nodePort") for each in present["spec"]["ports"])
        assert present["spec"]["loadBalancerClass"] == "berthlb.io/delivered"

    def is_ours(self, service: Body) -> bool:
        spec = service["spec"]
        pool = service["metadata"].get("annotations", {}).get("metallb.io/ip-allocated-from-pool")
        ours = spec["type"] == "LoadBalancer" and not spec.get("loadBalancerClass")
        return ours and pool == POOL and bool(shown(service))

    def addresses(self, service: Body | None) -> list[str]:
        """What the companion is to show, in order."""
        if service is None or not self.is_ours(service):
            return []
        name = service["metadata"]["name"]
        public = [*shown(service).split(","), *self.world.coming.get(name, "").split()]
        found = set()
        for line in self.map.values():
            address, to = line.split()
            rivals = (self.is_before(other, service, to) for other in self.world.services.values())
            if address in public and not to.startswith("Address") and not any(rivals):
                found.add(to)
        return sorted(found, key=lambda each: ((":" in each) != (":" in public[0]), each))

    def is_before(self, other: Body, service: Body, to: str) -> bool:
        """Whether another, older Service has one of its ports where two addresses go."""
        rivals = {each.split()[0] for each in self.map.values() if each.split()[1] == to}
        if len(rivals) < 2 or other is service or not self.is_ours(other):
            return False
        ports = [{(each["protocol"], each["port"]) for each in one["spec"]["ports"]} for one in (other, service)]
        age = [one["metadata"]["creationTimestamp"] for one in (other, service)]
        return age[0] < age[1] and bool(ports[0] & ports[1]) and bool(rivals & set(shown(other).split(",")))


Histories.TestCase.settings = settings(max_examples=60, stateful_step_count=30)
TestHistories = Histories.TestCase
