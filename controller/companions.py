"""The companions of Services behind 1:1 NAT, kept as they should be: what is observed goes in, requests come out. Pure.

``nodeip.companion`` says what a companion should be and gives the next request. This one knows the Services and the
companions that there are, and when a request may be sent.

1. A companion is looked at again when it, its Service, or what the Service's pool delivers has changed; and while a
   node waits to join, when anything has by which the node may be shown.
2. Of one companion at most one request is under way. After a failure, and after conflicts in a row, the next one waits.
3. A request that says what the last one said is a *repair*: somebody has changed or deleted the companion. Repairs have
   an allowance of their own (``REPAIRS``), all others that of a Service's addresses.
4. While the Service's pool is not in force, or nothing is known of the nodes, its companion stays as it is.
5. A Service that is gone, is no LoadBalancer any more, or shows no address that is delivered elsewhere has no
   companion. Who deletes it first, this or Kubernetes' garbage collector, does not matter.
6. What stands in the way becomes a condition of the Service (``take_troubles``) and an Event.

A Service of another type than LoadBalancer is not watched. One that has the companion's name is seen when the companion
is to be made, and read again every ``LOOK_AGAIN_S``. An address that another Service has is tried again as often.

Times are monotonic seconds.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from cluster.addresses import Address
from cluster.annotations import ALLOCATED_FROM_POOL, annotation
from cluster.config import Config
from cluster.objects import Condition, PoolName, Service, find_condition, is_older
from cluster.record import addresses_in_status, recorded_pool
from cluster.resources import COMPANIONS
from cluster.rightful import age_of
from cluster.sharing import ports_of
from cluster.times import LONG_AGO
from controller.changes import NOT_DELIVERED, Change, Deletion, EventNote, Moment, Read, Tell, Write
from controller.nodeip.companion import (
    DELIVERED_CLASS,
    Ahead,
    Companion,
    Holder,
    NotDelivered,
    Obstacle,
    companion_name,
    companion_of,
    followed,
    metadata_of,
    of_class,
    served_by_companion,
    step,
)
from controller.nodeip.view import NodeView
from controller.passes import Room
from controller.retry import CONFLICTS_AT_ONCE, retry_delay
from controller.services.alarms import Alarms
from controller.services.pace import ADDRESSES, Rate
from controller.services.reading import is_ours

REPAIRS: Final = Rate(10, 30.0)
"""Of one companion."""
LOOK_AGAIN_S: Final = 30.0


def is_companion(view: Service) -> bool:
    """Whether the Service is of the class of companions, which is nobody else's."""
    return view.spec.load_balancer_class == DELIVERED_CLASS


@dataclass(slots=True)
class _Pair:
    """A Service and the object that has its companion's name."""

    service: str
    """The Service's ``namespace/name``."""
    present: Service | None = None
    in_flight: bool = False
    attempts: int = 0
    """Requests in a row that failed, or met a conflict."""
    not_before: float = LONG_AGO
    """After a failure."""
    look_at: float = LONG_AGO
    """When an object that is somebody else's is read again."""
    sent: tuple[str, object] = ("", None)
    """What the request under way says: of which part, and what."""
    said: dict[str, object] = field(default_factory=dict)
    """What the last request said of each part."""
    repairs_whole_at: float = LONG_AGO
    writes_whole_at: float = LONG_AGO
    contested: bool = False
    """Whether repairs have been too many, and their allowance is not whole again."""
    refused: str = ""
    """Why the API server did not take the last request."""
    told: str = ""
    """The reason of which there was an Event."""


class Companions:
    """See the module's docstring. One for each term. One thread only."""

    def __init__(self, load_balancer_class: str | None, rng: random.Random) -> None:
        self._class = load_balancer_class
        self._rng = rng
        self._config = Config()
        self._nodes = NodeView()
        self._services: dict[str, Service] = {}
        """Those that have addresses of a pool which is no IPAddressPool, by key."""
        self._of_pool: dict[PoolName, set[str]] = {}
        """Their keys."""
        self._delivering: dict[Address, set[PoolName]] = {}
        """The pools that deliver at an address …"""
        self._sent_to: dict[Address, set[Address]] = {}
        """… and what is sent where is delivered there."""
        self._pairs: dict[str, _Pair] = {}
        """Of each of these Services, and of each companion that there is; by the companion's key."""
        self._due: dict[str, None] = {}
        """Companions to be looked at, in order."""
        self._alarms = Alarms()
        self._troubles: dict[str, Condition | None] = {}
        self._tells: list[Tell] = []

    # -------------------------------------------------------------------- what is observed

    def observe(self, view: Service) -> None:
        """A Service of type LoadBalancer as the API shows it, of whatever class."""
        self._observe_as_companion(view)
        if is_companion(view):
            return
        before = self._services.get(view.key)
        if before is not None and is_older(view.metadata.resource_version, before.metadata.resource_version):
            return
        self._drop(view.key)
        if self._may_have_companion(view):
            self._services[view.key] = view
            self._of_pool.setdefault(_pool(view), set()).add(view.key)
            self._pairs.setdefault(_companion_key(view.key), _Pair(view.key))
        elif find_condition(view.status.conditions, NOT_DELIVERED) is not None:
            self._troubles[view.key] = None
        self._look_at(view.key)
        self._notice_rival(view)

    def vanished(self, view: Service) -> None:
        """It is gone, or is no LoadBalancer any more."""
        pair = self._pairs.get(view.key)
        if pair is not None and pair.present is not None and pair.present.metadata.uid == view.metadata.uid:
            pair.present = None
            self._due[view.key] = None
        before = self._services.get(view.key)
        if before is not None and before.metadata.uid == view.metadata.uid:
            self._drop(view.key)
            self._look_at(view.key)

    def _may_have_companion(self, view: Service) -> bool:
        pool, shows = _pool(view), bool(view.status.load_balancer.ingress)
        return is_ours(view, self._class) and shows and bool(pool) and pool not in self._config.pools

    def _observe_as_companion(self, view: Service) -> None:
        """Note it where it has the name of a companion."""
        name = served_by_companion(view)
        if name is not None and of_class(view) == self._class:
            self._pairs.setdefault(view.key, _Pair(f"{view.metadata.namespace}/{name}"))
        pair = self._pairs.get(view.key)
        if pair is not None and _note(pair, view):
            self._due[view.key] = None

    def _notice_rival(self, view: Service) -> None:
        """Companions that show an address of this Service, with one of its ports, are due."""
        if not self._delivering:
            return
        ports = frozenset(ports_of(view))
        for address in addresses_in_status(view):
            for pool in self._delivering.get(address, ()):
                for key in self._of_pool.get(pool, ()):
                    if not ports.isdisjoint(ports_of(self._services[key])):
                        self._look_at(key)

    def _drop(self, key: str) -> None:
        view = self._services.pop(key, None)
        if view is not None:
            keys = self._of_pool[_pool(view)]
            keys.discard(key)
            if not keys:
                del self._of_pool[_pool(view)]

    def _look_at(self, service: str) -> None:
        if (key := _companion_key(service)) in self._pairs:
            self._due[key] = None

    def _set_config(self, config: Config) -> None:
        if config is self._config:
            return
        self._config = config
        for key in [key for key, view in self._services.items() if _pool(view) in config.pools]:
            self._drop(key)
            self._look_at(key)

    def _set_nodes(self, nodes: NodeView) -> None:
        if nodes is self._nodes:
            return
        before, self._nodes = self._nodes, nodes
        changed = False
        for name in before.pools.keys() | nodes.pools.keys():
            was, now = before.of(name), nodes.of(name)
            if before.joining.get(name) != nodes.joining.get(name):
                self._look_at_all(name)
            if was is not now and (was is None or now is None or was.delivered != now.delivered):
                self._look_at_all(name)
                changed = True
        if changed:
            self._delivering, self._sent_to = {}, {}
            for name, of_pool in nodes.pools.items():
                for public, delivery in of_pool.delivered.items():
                    for address in delivery.addresses:
                        self._delivering.setdefault(address, set()).add(name)
                        self._sent_to.setdefault(address, set()).add(public)

    def nodes_changed(self, pools: Iterable[PoolName], services: Iterable[str]) -> None:
        """Of these pools, and of these Services, other nodes may come to be shown."""
        for pool in pools:
            self._look_at_all(pool)
        for key in services:
            self._look_at(key)

    def _look_at_all(self, pool: PoolName) -> None:
        for key in self._of_pool.get(pool, ()):
            self._look_at(key)

    # -------------------------------------------------------------------- what became of the requests

    def answered(self, change: Change, view: Service | None) -> None:
        """The request was carried out: the object as it is now, or None where it is gone."""
        pair = self._pairs.get(change.key)
        if pair is None:
            return
        pair.attempts = 0
        if isinstance(change, Write):
            part, what = pair.sent
            pair.said = {part: what} if change.create else pair.said | {part: what}
            pair.refused = ""
        elif isinstance(change, Deletion):
            pair.said = {}
        self._learn(pair, change, view)

    def superseded(self, change: Change, view: Service | None, now: Moment) -> None:
        """Somebody else wrote first; ``view`` is what the object has become."""
        pair = self._pairs.get(change.key)
        if pair is None:
            return
        pair.attempts += 1
        pair.look_at = now.monotonic + LOOK_AGAIN_S
        if pair.attempts > CONFLICTS_AT_ONCE:
            pair.not_before = now.monotonic + retry_delay(pair.attempts, 0.0, self._rng)
        self._learn(pair, change, view)

    def failed(self, change: Change, retry_after: float, now: Moment) -> None:
        """The request could not be carried out; another one comes in ``retry_after`` seconds at the earliest."""
        pair = self._pairs.get(change.key)
        if pair is None:
            return
        pair.attempts += 1
        pair.not_before = now.monotonic + retry_delay(pair.attempts, retry_after, self._rng)
        pair.in_flight = False
        self._due[change.key] = None

    def refused(self, change: Change, why: str) -> None:
        """The API server says that the request may not be. To be called before ``failed``."""
        if (pair := self._pairs.get(change.key)) is not None:
            pair.refused = why

    def _learn(self, pair: _Pair, change: Change, view: Service | None) -> None:
        pair.in_flight = False
        self._due[change.key] = None
        if view is not None:
            _note(pair, view)
        elif pair.present is not None and change.uid in {"", pair.present.metadata.uid}:
            pair.present = None

    # -------------------------------------------------------------------- deciding

    def next_deadline(self) -> float | None:
        """When ``decide`` wants to be called next though nothing was observed."""
        return LONG_AGO if self._due else self._alarms.next()

    def take_troubles(self) -> dict[str, Condition | None]:
        """What Services are to say of their companions since the last call, by key: the condition, or None."""
        troubles, self._troubles = self._troubles, {}
        return troubles

    def decide(
        self, config: Config, nodes: NodeView, now: Moment, room: Room, *, holder: Holder, ahead: Ahead
    ) -> list[Change | Tell]:
        """What is to be carried out, as far as there is ``room``; the rest stays due. ``config``, ``nodes``: what is in
        force; ``holder``: who has addresses beside companions; ``ahead``: what a Service is to show."""
        self._set_config(config)
        self._set_nodes(nodes)
        self._due.update(dict.fromkeys(self._alarms.due(now.monotonic)))
        made: list[Change | Tell] = []
        for key in list(islice(self._due, room.services)):
            if len(made) >= room.requests:
                break
            del self._due[key]
            pair = self._pairs.get(key)
            if pair is None or pair.in_flight:
                continue
            if (change := self._decide(key, pair, holder, ahead, now)) is not None:
                pair.in_flight = True
                made.append(change)
        tells, self._tells = self._tells, []
        return made + tells

    def _decide(self, key: str, pair: _Pair, holder: Holder, ahead: Ahead, now: Moment) -> Change | None:
        """The next request about one companion."""
        self._alarms.set(key, None)
        service = self._services.get(pair.service)
        wanted: Companion | None = None
        trouble: NotDelivered | None = None
        if service is not None:
            of_pool = self._nodes.of(_pool(service))
            if of_pool is None:
                return None  # nothing is known of it
            wanted, trouble = companion_of(
                service, ahead(service), of_pool, lambda *asked: holder(*asked) or self._older(*asked)
            )
            if wanted is not None and pair.present is None and pair.look_at == LONG_AGO and _says_taken(service):
                return self._look_again(key, pair, now)  # after a restart: it may be so still
        mine = pair.present is not None and served_by_companion(pair.present) == _name(pair.service)
        change: Change | None = None
        if pair.present is not None and not mine:
            if wanted is not None:
                trouble = _taken(pair.present)
                change = self._look_again(key, pair, now)
        elif wanted is not None or (pair.present is not None and of_class(pair.present) == self._class):
            change = self._paced(key, pair, wanted, step(wanted, pair.present, now), now)
        trouble = self._trouble(key, pair, wanted, now) or trouble
        if trouble is not None and trouble.obstacle is Obstacle.IN_USE:
            self._wake(key, now.monotonic + LOOK_AGAIN_S)
        self._tell(pair, service, trouble)
        if service is None and not mine and change is None:
            del self._pairs[key]
            self._alarms.set(key, None)
        return change

    def _older(self, address: Address, service: Service) -> str | None:
        """An older Service to whose companion the address goes, with a port of this one."""
        publics = self._sent_to.get(address, set())
        if len(publics) < 2:
            return None  # two Services that show one address have no port in common
        ports = frozenset(ports_of(service))
        for pool in self._delivering[address]:
            for key in self._of_pool.get(pool, ()):
                other = self._services[key]
                if (
                    age_of(other) < age_of(service)
                    and not ports.isdisjoint(ports_of(other))
                    and publics & set(addresses_in_status(other))
                ):
                    return key
        return None

    def _trouble(self, key: str, pair: _Pair, wanted: Companion | None, now: Moment) -> NotDelivered | None:
        """What others do to the companion."""
        pair.contested = pair.contested and now.monotonic < pair.repairs_whole_at
        if wanted is None:
            pair.refused = ""
        if pair.contested:
            self._wake(key, pair.repairs_whole_at)
        if pair.refused:
            return NotDelivered(Obstacle.REFUSED, f"the API server does not take the companion {key}: {pair.refused}")
        return _contested(key) if pair.contested and wanted is not None else None

    def _look_again(self, key: str, pair: _Pair, now: Moment) -> Read | None:
        if now.monotonic < pair.look_at:
            self._wake(key, pair.look_at)
            return None
        pair.look_at = now.monotonic + LOOK_AGAIN_S
        namespace, _, name = key.partition("/")
        return Read(COMPANIONS, namespace, name)

    def _paced(
        self, key: str, pair: _Pair, wanted: Companion | None, change: Write | Deletion | None, now: Moment
    ) -> Write | Deletion | None:
        """The request, if it may be sent now."""
        if change is None:
            return None
        if now.monotonic < pair.not_before:
            self._wake(key, pair.not_before)
            return None
        sent = _what_it_says(wanted, change)
        repair = wanted is not None and pair.said.get(sent[0]) == sent[1]
        rate, whole_at = (REPAIRS, pair.repairs_whole_at) if repair else (ADDRESSES, pair.writes_whole_at)
        if now.monotonic < (opens := rate.opens(whole_at)):
            pair.contested = pair.contested or repair
            self._wake(key, opens)
            return None
        spent = rate.spent(whole_at, now.monotonic)
        if repair:
            pair.repairs_whole_at = spent
        else:
            pair.writes_whole_at = spent
        pair.sent = sent
        return change

    def _wake(self, key: str, at: float) -> None:
        """Look at it then, if not earlier."""
        first = self._alarms.at(key)
        self._alarms.set(key, at if first is None else min(at, first))

    def _tell(self, pair: _Pair, service: Service | None, trouble: NotDelivered | None) -> None:
        """Have the Service say what stands in the way, where it does not say so yet."""
        if service is None:
            self._troubles[pair.service] = None
            return
        said = find_condition(service.status.conditions, NOT_DELIVERED)
        condition = trouble.condition if trouble is not None else None
        if _words(said) != _words(condition):
            self._troubles[pair.service] = condition
        before = {pair.told, said.reason if said is not None else ""}
        if trouble is not None and condition is not None and condition.reason not in before:
            note = EventNote("Warning", trouble.obstacle.value, condition.message)
            self._tells.append(Tell((note,), service.metadata))
        pair.told = condition.reason if condition is not None else ""


def _says_taken(service: Service) -> bool:
    said = find_condition(service.status.conditions, NOT_DELIVERED)
    return said is not None and said.reason == Obstacle.NAME_TAKEN.value


def _words(said: Condition | None) -> tuple[str, str] | None:
    return None if said is None else (said.reason, said.message)


def _pool(view: Service) -> PoolName:
    """That the Service's addresses are from. Its condition says so; tools take the annotation away."""
    return recorded_pool(view) or PoolName(annotation(view, ALLOCATED_FROM_POOL))


def _name(key: str) -> str:
    return key.partition("/")[2]


def _companion_key(service: str) -> str:
    namespace, _, name = service.partition("/")
    return f"{namespace}/{companion_name(name)}"


def _note(pair: _Pair, view: Service) -> bool:
    """Whether that is news."""
    before = pair.present
    if before is not None:
        version = before.metadata.resource_version
        if view.metadata.resource_version == version or is_older(view.metadata.resource_version, version):
            return False
    pair.present = view
    return True


def _taken(present: Service) -> NotDelivered:
    why = (
        f"a Service {present.key} exists that BerthLB did not make, so the companion for 1:1 NAT cannot be made; "
        "what is sent to the addresses reaches the nodes, and no Service there. Rename one of the two Services"
    )
    return NotDelivered(Obstacle.NAME_TAKEN, why)


def _contested(key: str) -> NotDelivered:
    why = (
        f"somebody keeps changing or deleting {key}, the companion for 1:1 NAT; it is put right every "
        f"{REPAIRS.every_s:.0f} s only"
    )
    return NotDelivered(Obstacle.CONTESTED, why)


def _what_it_says(wanted: Companion | None, change: Write | Deletion) -> tuple[str, object]:
    """Of which part of the companion, and what."""
    if isinstance(change, Deletion) or wanted is None:
        return "", None
    if change.subresource is not None:
        return change.subresource, (change.body["status"].get("loadBalancer"), wanted.message)
    return "specification", (followed(wanted.service), metadata_of(wanted.service))
