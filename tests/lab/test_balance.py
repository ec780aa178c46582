"""Where addresses go in the long run, as a client on the LAN sees it: back to the node that had them, apart, evenly.

What is asked of failback is what those specs of MetalLB's end-to-end suite ask (``e2etest/l2tests``) that wait for the
former node:

1. its network was unavailable (``l2.go``);
2. it was excluded from load balancers (``l2.go``);
3. another one was preferred by its label (``preferred_node.go``);
4. it was preferred, and was excluded meanwhile (``preferred_node.go``);
5. others were preferred by the advertisement (``preferred_node.go``);
6. its speaker was away, and the node was not (``speaker_failover.go``).
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256

import pytest

from cluster.api.client import L2_ADVERTISEMENTS, NODES, SERVICES, ApiClient
from cluster.api.errors import Conflict
from cluster.config import FAILBACK_ANNOTATION
from cluster.nodes import EXCLUDE_LABEL
from lab import launch
from lab.client import Lab
from lab.layout import lay_out
from lab.measuring import measure
from lab.objects import tutorial
from lab.objects.manifests import api_of
from speaker.api.kept import SPREAD_ANNOTATION
from tests.lab.test_faults import serving
from tests.waiting import wait_until

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("balance"), pytest.mark.timeout(300)]

PREFERRED = "example.com/preferred"
ACTS_S = 2.0
RETURNS_S = 25.0  # ten seconds of health, and a speaker's start
AWAY_S = 65.0  # a speaker that is away is stood in for, for 60 s
POOL = [f"172.18.255.{last}" for last in range(200, 251)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Lab]:
    recipe = launch.Recipe(
        f"balance-test-{os.getpid()}", lay_out(3), node_grace=2.0, speaker_args=("--failback", "--rebalance")
    )
    with serving(recipe) as lab:
        yield lab


@pytest.fixture(scope="module")
def services(cluster: Lab) -> list[str]:
    """The addresses of five: the tutorial's, two that MetalLB would put on one node, and two more."""
    (first,) = tutorial.first_addresses(cluster)
    free = [address for address in POOL if address != first]
    one = free[0]
    other = next(each for each in free[1:] if elected(cluster, each) == elected(cluster, one))
    rest = [each for each in free if each not in {one, other}][:2]
    for name, address in zip(("dns-1", "dns-2", "web-1", "web-2"), (one, other, *rest), strict=True):
        tutorial.apply_service(cluster, name, **{"metallb.io/loadBalancerIPs": address})
    return [first, one, other, *rest]


class Seen:
    """Who answers for which address, as a client sees it."""

    def __init__(self, lab: Lab, watch: measure.ClientWatch) -> None:
        self._nodes = {node.mac: node.name for node in lab.status().layout.nodes}
        self._watch = watch

    def holders(self, since: float = 0.0) -> dict[str, str]:
        """The node of the last answer for each address that was answered since then."""
        return {each.address: self._nodes[each.mac] for each in self._watch.answers() if each.at > since}

    def await_holder(self, node: str, seconds: float, what: str, *, there: bool = True) -> None:
        """Until the node answers for the first address, or another one does."""
        (address, *_) = self._watch.addresses
        since = time.monotonic()
        wait_until(
            lambda: (holder := self.holders(since).get(address)) is not None and (holder == node) is there,
            seconds,
            f"{what}: {address} is not {'at' if there else 'away from'} {node}",
        )


def elected(lab: Lab, address: str, *without: str) -> str:
    """The node that MetalLB would choose."""
    nodes = [node.name for node in lab.status().layout.nodes if node.name not in without]
    return min(nodes, key=lambda node: sha256(f"{node}#{address}".encode()).digest())


def label(api: ApiClient, node: str, name: str, value: str | None) -> None:
    api.patch(NODES, "", node, {"metadata": {"labels": {name: value}}})


def say(api: ApiClient, **spec: object) -> None:
    api.patch(L2_ADVERTISEMENTS, "metallb-system", "empty", {"spec": spec})


def prefer(value: str) -> list[dict[str, object]]:
    return [{"weight": 100, "preference": {"matchLabels": {PREFERRED: value}}}]


def go_back(api: ApiClient, said: str | None) -> None:
    body = {"metadata": {"annotations": {FAILBACK_ANNOTATION: said}}}
    api.patch(L2_ADVERTISEMENTS, "metallb-system", "empty", body)


def set_network(api: ApiClient, node: str, *, available: bool) -> None:
    condition = {"type": "NetworkUnavailable", "status": "False" if available else "True", "reason": "Tested"}

    def done() -> bool:
        found = api.get(NODES, "", node)
        others = [
            {"type": each.type, "status": each.status}
            for each in found.status.conditions
            if each.type != condition["type"]
        ]
        version = {"resourceVersion": found.metadata.resource_version}
        with suppress(Conflict):
            body = {"metadata": version, "status": {"conditions": [*others, condition]}}
            api.patch(NODES, "", node, body, subresource="status")
            return True
        return False

    wait_until(done, 10.0, "the condition was not written")


def test_an_address_goes_back_to_the_node_that_metallb_would_choose(cluster: Lab) -> None:
    api = api_of(cluster)
    (address,) = tutorial.first_addresses(cluster)
    home = elected(cluster, address)
    first, second = (node.name for node in cluster.status().layout.nodes if node.name != home)
    with measure.watching(cluster, address) as watch:
        seen = Seen(cluster, watch)
        seen.await_holder(home, RETURNS_S, "at first")

        set_network(api, home, available=False)
        seen.await_holder(elected(cluster, address, home), ACTS_S, "its network is unavailable")
        set_network(api, home, available=True)
        seen.await_holder(home, RETURNS_S, "its network is available again")

        label(api, home, EXCLUDE_LABEL, "")
        seen.await_holder(home, ACTS_S, "excluded", there=False)
        label(api, home, EXCLUDE_LABEL, None)
        seen.await_holder(home, ACTS_S, "included again")

        label(api, first, PREFERRED, "a")
        label(api, second, PREFERRED, "b")
        say(api, preferredNodeSelectors=prefer("a"))
        seen.await_holder(first, ACTS_S, "preferred")
        say(api, preferredNodeSelectors=prefer("b"))
        seen.await_holder(second, ACTS_S, "another one is preferred")
        say(api, preferredNodeSelectors=prefer("a"))
        seen.await_holder(first, ACTS_S, "preferred again")
        label(api, first, EXCLUDE_LABEL, "")
        seen.await_holder(home, ACTS_S, "what is preferred is excluded")
        label(api, first, EXCLUDE_LABEL, None)
        seen.await_holder(first, ACTS_S, "what is preferred is included again")
        label(api, first, PREFERRED, None)
        seen.await_holder(home, ACTS_S, "nobody is preferred any more, by its label")
        label(api, first, PREFERRED, "a")
        seen.await_holder(first, ACTS_S, "preferred by its label")
        say(api, preferredNodeSelectors=None)
        seen.await_holder(home, ACTS_S, "nobody is preferred any more, by the advertisement")

        cluster.stop_node(home)
        seen.await_holder(home, ACTS_S, "it has no power", there=False)
        cluster.start_node(home)
        seen.await_holder(home, 2 * RETURNS_S, "it is back")

        go_back(api, "false")
        label(api, home, EXCLUDE_LABEL, "")
        seen.await_holder(home, ACTS_S, "excluded", there=False)
        label(api, home, EXCLUDE_LABEL, None)
        included = time.monotonic()
        wait_until(lambda: seen.holders(included + ACTS_S), 3 * ACTS_S, "nobody answers any more")
        assert seen.holders()[address] != home, "the advertisement says that it stays"
        go_back(api, None)
        seen.await_holder(home, ACTS_S, "it goes back, as the command line says")


def test_an_address_goes_back_when_the_speaker_of_its_node_is_back(cluster: Lab, services: list[str]) -> None:
    *_, address = services
    home = elected(cluster, address)
    with measure.watching(cluster, address) as watch:
        seen = Seen(cluster, watch)
        seen.await_holder(home, RETURNS_S, "at first")
        cluster.speaker(home, "stop")
        seen.await_holder(home, AWAY_S, "its speaker stays away", there=False)
        cluster.speaker(home, "start")
        seen.await_holder(home, RETURNS_S, "its speaker is back")


def test_two_of_a_group_are_on_two_nodes(cluster: Lab, services: list[str]) -> None:
    api = api_of(cluster)
    _, one, other, *_ = services
    home = elected(cluster, one)
    assert elected(cluster, other) == home

    def put(name: str, group: str | None) -> None:
        api.patch(SERVICES, "dev", name, {"metadata": {"annotations": {SPREAD_ANNOTATION: group}}})

    with measure.watching(cluster, one, other) as watch:
        seen = Seen(cluster, watch)

        def await_nodes(count: int, seconds: float, what: str, without: str = "") -> None:
            since = time.monotonic()

            def there() -> bool:
                found = seen.holders(since)
                return len(found) == 2 and len(set(found.values()) - {without}) == count == len(set(found.values()))

            wait_until(there, seconds, f"{what}: the two are not at {count} nodes")

        await_nodes(1, RETURNS_S, "at first")
        put("dns-1", "dns")
        put("dns-2", "dns")
        await_nodes(2, ACTS_S, "put into a group")
        failed = seen.holders()[other]
        cluster.stop_node(failed)
        await_nodes(2, ACTS_S, "a node has no power", without=failed)
        cluster.start_node(failed)
        put("dns-1", None)
        put("dns-2", None)
        await_nodes(1, 2 * RETURNS_S, "in no group any more")


def test_a_node_that_is_taken_into_use_again_is_given_its_share(cluster: Lab, services: list[str]) -> None:
    api = api_of(cluster)
    node = cluster.status().layout.nodes[0].name
    with measure.watching(cluster, *services) as watch:
        seen = Seen(cluster, watch)

        def shares(since: float) -> Counter[str] | None:
            found = seen.holders(since)
            return Counter(found.values()) if len(found) == len(services) else None

        go_back(api, "false")
        try:
            label(api, node, EXCLUDE_LABEL, "")
            excluded = time.monotonic()
            wait_until(
                lambda: (found := shares(excluded + ACTS_S)) is not None and node not in found,
                5 * ACTS_S,
                "an excluded node has addresses",
            )
            label(api, node, EXCLUDE_LABEL, None)
            wait_until(
                lambda: (found := shares(time.monotonic() - 1.0)) is not None and max(found.values()) <= 2,
                60.0,
                "the shares are not even",
            )
        finally:
            label(api, node, EXCLUDE_LABEL, None)
            go_back(api, None)
