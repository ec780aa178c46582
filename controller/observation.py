"""What a controller that began to lead at this moment would write, compared with what is there (``--observe``). Pure.

It answers the question of somebody who has another controller and thinks of changing to this one. All addresses that
Services have are restored, by whichever controller they were given, and then each Service is judged once, as at a
start. The core is new each time. A controller that writes keeps to its own word; this one has to follow the other's.

A difference is: an address that would change, be taken, or be given; a pool that would be named differently; a pool or
advertisement that would not be in force as it stands. Words for people (conditions, Events, counters) are none, since
the other controller has its own or has none.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cluster.annotations import ALLOCATED_FROM_POOL, PREFIX
from cluster.differences import Difference
from cluster.objects import Object, Service
from cluster.record import ADDRESS_ASSIGNED
from cluster.resources import SERVICES
from controller.changes import Moment, Write
from controller.core import Core
from controller.figures import Snapshot
from controller.passes import Room
from controller.services.contest import shown

ADDRESS_CHANGES = "address_changes"
ADDRESS_TAKEN = "address_taken"
ADDRESS_GIVEN = "address_given"
POOL_CHANGES = "pool_changes"
NOT_IN_FORCE = "not_in_force"
KINDS = (ADDRESS_CHANGES, ADDRESS_TAKEN, ADDRESS_GIVEN, POOL_CHANGES, NOT_IN_FORCE)


EVERYTHING = Room(sys.maxsize, sys.maxsize)


@dataclass(frozen=True)
class Observation:
    """Of one moment."""

    figures: Snapshot
    """As they are after the first decisions."""
    differences: Mapping[str, Difference]
    """By object."""


def observe(
    seen: Iterable[Object],
    namespace: str,
    load_balancer_class: str | None,
    remember_releases: int,
    now: Moment,
    *,
    nodes_read: bool = False,
) -> Observation:
    """Judge everything that there is, as of now. ``seen``: all objects of all kinds that a controller reads.
    ``nodes_read``: whether these are all that node-IP mode needs; if not, nobody gets or loses a node's address."""
    everything = list(seen)
    services = {view.key: view for view in everything if isinstance(view, Service)}
    core = Core(namespace, load_balancer_class, remember_releases, random.Random(0))  # for pauses that nobody makes
    core.restore(everything, now)
    if nodes_read:
        core.nodes_read(now)
    orders = core.decide(EVERYTHING, now, states_served=False)
    found: dict[str, Difference] = {}
    for change in orders.changes:
        if isinstance(change, Write) and change.resource is SERVICES:
            difference = _difference(services[change.key], change)
            if difference is not None:
                found[change.key] = difference
    for problem in orders.problems:
        found[f"{problem.kind} {problem.name}"] = Difference(
            NOT_IN_FORCE, f"{problem.kind} {problem.name}", "as it stands", "not in force", problem.text
        )
    return Observation(core.figures(), found)


def _difference(service: Service, write: Write) -> Difference | None:
    """Between what a Service shows and what would be written to it; None: people see none."""
    status = write.body.get("status", {})
    if "loadBalancer" in status:
        there, decided = shown(service), tuple(each["ip"] for each in status["loadBalancer"]["ingress"] or ())
        kind = ADDRESS_GIVEN if not there else ADDRESS_CHANGES if decided else ADDRESS_TAKEN
        why = next((each["message"] for each in status.get("conditions", ()) if each["type"] == ADDRESS_ASSIGNED), "")
        return Difference(kind, service.key, ", ".join(there), ", ".join(decided), why)
    named = service.metadata.annotations.get(PREFIX + ALLOCATED_FROM_POOL)
    decided_pool = write.body["metadata"].get("annotations", {}).get(PREFIX + ALLOCATED_FROM_POOL)
    if named and decided_pool and named != decided_pool:
        return Difference(POOL_CHANGES, service.key, named, decided_pool, "the address is in this pool")
    return None
