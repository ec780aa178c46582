"""What is decided about one Service at a time: its judgement, and what is written and told of it.

A Service is in one of these cases.

1. It left the watched selection: it is read before anything else is decided.
2. It is ours: it is assigned what it should have (``judgement``), and its status, condition and annotation are made to
   say so. While somebody else keeps replacing the status (``contest``), that is named, and the status left alone.
3. It is ours and being deleted: it keeps what it has been given until its finalizers are gone, and gets nothing more.
4. It is no LoadBalancer any more: what it was given and told is taken back.
5. It is a LoadBalancer of another class: nothing is written.

At most one request comes of a decision. One that may not be sent now is not kept: the Service is judged again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

from cluster.addresses import Address
from cluster.annotations import ALLOCATED_FROM_POOL, PREFIX, annotation
from cluster.config import Config
from cluster.objects import Condition, NodeName, PoolName, Service, find_condition
from cluster.record import ADDRESS_ASSIGNED, RECORD_LIMIT, addresses_in_status, recorded, recorded_pool, recorded_texts
from cluster.resources import SERVICE_OWNERS, SERVICES
from cluster.sharing import Port, ports_of
from controller.allocation.allocator import NOTHING_KNOWN
from controller.allocation.ledger import Ledger
from controller.allocation.node_allocation import from_nodes
from controller.allocation.outcomes import Allocation, Reason, Refusal
from controller.allocation.releases import Releases
from controller.changes import MESSAGE_LIMIT, EventNote, Moment, Patch, service_patch, shortened
from controller.services import events, vocabulary
from controller.services.address_conflicts import AddressConflicts
from controller.services.api_requests import ApiRequests
from controller.services.assignments import Assignments
from controller.services.contest import Contest, Shown, shown, shown_of_nodes
from controller.services.interests import Interests
from controller.services.judgement import Judgement, as_said_before, condition, either_family, judge, may_be_believed
from controller.services.reading import bears_our_mark, is_ours, read_request
from controller.services.reminders import Reminders
from controller.services.tracked import Decided, Tracked


class ServiceDecisions:
    """See the module's docstring. One thread only."""

    def __init__(
        self,
        load_balancer_class: str | None,
        tracked: Mapping[str, Tracked],
        *,
        ledger: Ledger,
        releases: Releases,
        assignments: Assignments,
        requests: ApiRequests,
        reminders: Reminders,
    ) -> None:
        """``tracked``: all Services, by key; the caller adds and removes them."""
        self.config = Config()
        """What is in force; set by the caller …"""
        self.namespaces: dict[str, Mapping[str, str]] = {}
        """… and so are the namespaces' labels."""
        self.nodes = self.joined = NOTHING_KNOWN
        """What nodes give, and what they will give when those have joined that wait for it; set by the caller."""
        self.concerned: Interests[PoolName] = Interests()
        """Services that have, or wait for, something of a NodeIPPool."""
        self._ports: Interests[Port] = Interests()
        """The ports of these Services."""
        self.denied: Interests[Address] = Interests()
        """Services that would have addresses of nodes, if other Services had other ports."""
        self.conflicts = AddressConflicts()
        """Who else has addresses; the caller tells it what speakers say."""
        self.waiting: set[str] = set()
        """Services without an address, or without one that they would rather have."""
        self.contested: set[str] = set()
        """Services whose status somebody else keeps replacing."""
        self.refusals: Counter[Reason] = Counter()
        """Refusals reported so far."""
        self._class = load_balancer_class
        self._ledger = ledger
        self._releases = releases
        self._assignments = assignments
        self._requests = requests
        self._reminders = reminders
        self._tracked = tracked

    def forget(self, key: str) -> None:
        """It is gone, or not ours."""
        self._reminders.forget(key)
        self.waiting.discard(key)
        self.contested.discard(key)
        self.concerned.note(key, ())
        self._ports.note(key, ())
        self.denied.note(key, ())

    def decide(self, tracked: Tracked, now: Moment) -> bool:
        """Judge it, and ask for what is to be written; says whether there is still anything to keep track of."""
        view = tracked.view
        if not self._requests.may_ask(tracked):
            tracked.overtaken = tracked.in_flight
            return True
        self._requests.wake(tracked, None)
        if tracked.doubtful:
            self._requests.read(tracked, SERVICES)
        elif not is_ours(view, self._class):
            self._not_ours(tracked)
            if view.spec.type != "LoadBalancer":
                return self._decide_leftover(tracked, now)
        elif view.metadata.deletion_timestamp is None:
            self._decide_ours(tracked, now)
        else:
            self._decide_leaving(tracked, now)
        return True

    def _decide_ours(self, tracked: Tracked, now: Moment) -> None:
        view = tracked.view
        self._notice_others(tracked, now)
        judgement = self._with_remarks(self._judge(tracked), tracked)
        tracked.refusal = judgement.refusal
        if judgement.refusal is None and judgement.lacking is None:
            self.waiting.discard(view.key)
        else:
            self.waiting.add(view.key)
        tracked.cleared = judgement.cleared or tracked.cleared
        self._assignments.assign(tracked, judgement.addresses)
        tracked.pool = judgement.pool if judgement.addresses else None
        self._note_interests(tracked, judgement)
        self._tell_of_annotations(tracked)
        if self._stands_back(tracked, now):
            self._explain(tracked, events.of_contest(tracked.refusal), (), now)
            return
        said = self._condition(view, judgement)
        conflict = self.conflicts.of(tracked.assigned)
        shows, beside = texts(tracked.assigned), (conflict, tracked.not_delivered)
        decided = Decided(view, shows, judgement.pool, said, *beside, now, judgement.of_nodes)
        patch = decided.patch(view)
        notes = events.of_judgement(view, judgement, tracked.cleared) if patch is not None else ()
        refused = {"AllocationFailed", "LoadBalancerFailed"} & {note.reason for note in notes}
        written = self._write(tracked, patch, said.message, notes, now)
        tracked.decided = decided if written else None
        if written and refused and judgement.refusal is not None:
            self.refusals[judgement.refusal.reason] += 1
        self._explain(tracked, events.of_refusal(view, judgement), notes if written else (), now)

    def _condition(self, view: Service, judgement: Judgement) -> Condition:
        """What the Service's condition shall say. The one that it has stays, where it differs in nothing but the nodes
        that it says are left out: they come and go, and that alone is no reason to write."""
        said, before = condition(judgement), find_condition(view.status.conditions, ADDRESS_ASSIGNED)
        if before is None or not as_said_before(judgement, before.message):
            return said
        return Condition(said.type, said.status, said.reason, before.message)

    def _note_interests(self, tracked: Tracked, judgement: Judgement) -> None:
        """What may change for the Service when a node changes, or when a port comes free on one."""
        node_pools = self.config.node_pools
        pools = {tracked.pool} if tracked.pool is not None else set()
        denied = judgement.denied
        for refusal in (judgement.refusal, judgement.lacking):
            if refusal is not None and node_pools:
                pools.update(each.pool for each in refusal.pools)
                denied |= refusal.denied
        concerned = pools & node_pools.keys()
        self.concerned.note(tracked.view.key, concerned)
        self._ports.note(tracked.view.key, ports_of(tracked.view) if concerned else ())
        self.denied.note(tracked.view.key, denied)

    def _explain(self, tracked: Tracked, why: tuple[EventNote, ...], told: tuple[EventNote, ...], now: Moment) -> None:
        """Have an Event say why the Service waits (``why``), if it is time for that. ``told``: Events that are recorded
        now anyway."""
        if tracked.remind and why and not set(why) & set(told):
            self._requests.tell(tracked, why)
            told = why
        tracked.remind = False
        if why:
            self._reminders.waits(tracked.view.key, now.monotonic, told=bool(set(why) & set(told)))
        else:
            self._reminders.forget(tracked.view.key)

    def _decide_leaving(self, tracked: Tracked, now: Moment) -> None:
        """It is being deleted: it keeps what it has been given until its finalizers are gone, and gets nothing more,
        not even what was decided and is not written yet. What it has been given its condition tells; without one its
        status does, as far as that can be true; and what it was seen to have, where somebody has emptied both. It keeps
        that also where it should have left it to another and no write says so yet: the other can move."""
        view = tracked.view
        self.waiting.discard(view.key)
        self._reminders.forget(view.key)
        self._notice_others(tracked, now)
        had = (*tracked.assigned, *tracked.retiring, *tracked.yielded) or tracked.strays
        given = recorded(view)
        if given is None:
            shown = addresses_in_status(view)
            given = shown if shown and set(shown) <= set(had) else tracked.confirmed
        self._assignments.assign(tracked, tuple(each for each in given if each in had))
        if not self._stands_back(tracked, now):
            said = find_condition(view.status.conditions, ADDRESS_ASSIGNED)
            patch = self._patch(tracked, texts(tracked.assigned), said, now)
            self._write(tracked, patch, "put right: the Service is being deleted", (), now)

    def _judge(self, tracked: Tracked) -> Judgement:
        view = tracked.view
        reading = read_request(view, self.namespaces.get(view.metadata.namespace, {}))
        if former := self._releases.former(view.key):
            reading = replace(reading, request=replace(reading.request, former=former))
        said_pool = recorded_pool(view) or annotation(view, ALLOCATED_FROM_POOL)
        pool = tracked.pool or said_pool
        on_display = addresses_in_status(view)
        if tracked.retiring and set(on_display) <= {*tracked.assigned, *tracked.retiring}:
            # A move that nobody has seen yet: if its reason is gone, so is the move.
            still = judge(self.config, self._ledger, reading, on_display, said_pool, nodes=self.nodes)
            if still.refusal is None and still.addresses == on_display:
                return still
        present = tracked.assigned
        if not present and on_display and may_be_believed(self.config, self._ledger, reading, on_display):
            present = on_display
        return judge(self.config, self._ledger, reading, present, pool, nodes=self.nodes)

    def ahead(self, tracked: Tracked) -> set[Address]:
        """The addresses that the Service has, whether its status shows them yet or not; of a NodeIPPool behind 1:1 NAT
        also those that it will have when the nodes have joined that wait for it. A node that another Service of a
        NodeIPPool may have then for one of the ports is left out until it has joined."""
        addresses, view = set(tracked.assigned), tracked.view
        pool = self.config.node_pools.get(tracked.pool) if tracked.pool is not None else None
        if pool is None or pool.name not in self.nodes.view.joining or view.metadata.deletion_timestamp is not None:
            return addresses
        want = read_request(view, self.namespaces.get(view.metadata.namespace, {})).request
        found = from_nodes(self.joined, self._ledger, pool, want.node_need, either_family(want))
        gives = self.joined.of(pool.name)
        if isinstance(found, Allocation) and gives is not None:
            contested = self._contested_nodes(view)
            of_nodes = (shown for node, shown in gives.shown.items() if node not in contested)
            free = {address for shown in of_nodes for given in shown.values() for address in given}
            addresses |= free & set(found.addresses)
        return addresses

    def _contested_nodes(self, view: Service) -> set[NodeName]:
        """Those of the NodeIPPools of others that have or wait for a port of this Service."""
        rivals = self._ports.of(ports_of(view)) - {view.key}
        pools = {pool for rival in rivals for pool in self.concerned.noted(rival)}
        return {node for pool in pools if (gives := self.joined.of(pool)) is not None for node in gives.shown}

    def _with_remarks(self, judgement: Judgement, tracked: Tracked) -> Judgement:
        if unread := vocabulary.remark(tracked.view):
            judgement = replace(judgement, unread=unread)
        for address in judgement.addresses:
            if judgement.remark is None and (key := self._assignments.shown_by(address, tracked)) is not None:
                served = self._tracked[key].view.spec.load_balancer_class
                who = f'{key}, of the class "{served}",' if served else f"{key}, which has no class,"
                judgement = replace(judgement, remark=Refusal(Reason.ADDRESS_IN_USE, f"{who} shows {address.text} too"))
        return judgement

    def _tell_of_annotations(self, tracked: Tracked) -> None:
        if notes := vocabulary.news(tracked.view, tracked.told):
            self._requests.tell(tracked, notes)
            tracked.told |= vocabulary.worth_telling(tracked.view)

    def _notice_others(self, tracked: Tracked, now: Moment) -> None:
        """Whether the Service still shows what we wrote."""
        present = self.as_stated(tracked, tracked.view)
        if tracked.stated is None:
            tracked.contest = tracked.contest or Contest.remembered(tracked.view, now.monotonic)
        elif present != tracked.stated:
            tracked.contest = tracked.contest or Contest()
            tracked.contest.rewritten(tracked.view, now.monotonic)
        tracked.stated = present

    def as_stated(self, tracked: Tracked, view: Service) -> Shown:
        """What it shows, as far as that is ours."""
        return shown_of_nodes(view) if tracked.pool in self.config.node_pools else shown(view)

    def _stands_back(self, tracked: Tracked, now: Moment) -> bool:
        """Whether somebody else keeps writing the status. If so, find out who and say so once, and leave the status
        alone; but take out of it what the Service usurps, each time."""
        view, contest = tracked.view, tracked.contest
        usurps = self._assignments.note_strays(tracked, self._tracked)
        if contest is None or not contest.lasts(view, now.monotonic):
            self.contested.discard(view.key)
            return False
        self.contested.add(view.key)
        self._requests.wake(tracked, contest.next_try(view))
        self._assignments.give_back_unseen(tracked)
        present, own = shown(view), texts(tracked.assigned)
        displayed = own if usurps else present
        status = "True" if own and (usurps or self.as_stated(tracked, view) == own) else "False"
        said = find_condition(view.status.conditions, ADDRESS_ASSIGNED)
        told = said is not None and (said.reason, said.status) == (Reason.CONTESTED.value, status)
        if said is not None and told and set(recorded_texts(said)) == set(own):
            tracked.refusal = Refusal(Reason.CONTESTED, said.message)
            self._write(tracked, self._patch(tracked, displayed, said, now), said.message, (), now)
            return True
        if not contest.asked and not (usurps and tracked.attempts):
            self._requests.read(tracked, SERVICE_OWNERS)
            return True
        refusal = tracked.refusal = contest.refusal(tracked.assigned, written=status == "True")
        notes = () if contest.told else events.of_contest(refusal)
        say = Condition(
            ADDRESS_ASSIGNED, status, refusal.reason.value, shortened(refusal.message, RECORD_LIMIT + MESSAGE_LIMIT)
        )
        patch = self._patch(tracked, displayed, say, now)
        if self._write(tracked, patch, refusal.message, notes, now) and notes:
            self.refusals[refusal.reason] += 1
        return True

    def _decide_leftover(self, tracked: Tracked, now: Moment) -> bool:
        """No LoadBalancer any more: take back what we gave and wrote. Whether there was anything to take back."""
        view = tracked.view
        self._assignments.assign(tracked, ())
        patch = service_patch(view, (), None, None, now) if bears_our_mark(view) or tracked.retiring else None
        if patch is None:
            return False
        self._requests.write(tracked, patch, f"released: the Service's type is {view.spec.type}", (), now)
        return True

    def _not_ours(self, tracked: Tracked) -> None:
        self.forget(tracked.view.key)
        tracked.contest, tracked.stated, tracked.refusal, tracked.not_delivered = None, None, None, None

    def _patch(self, tracked: Tracked, addresses: Shown, condition: Condition | None, now: Moment) -> Patch | None:
        """What makes the Service show these addresses, from the pool that it names already."""
        view, conflict = tracked.view, self.conflicts.of(tracked.assigned)
        said = tracked.not_delivered
        return service_patch(view, addresses, pool_named(view), condition, now, conflict=conflict, not_delivered=said)

    def _write(
        self, tracked: Tracked, patch: Patch | None, decision: str, notes: tuple[EventNote, ...], now: Moment
    ) -> bool:
        """Write the patch, if the Service may be written now; says whether it is written. None: the Service is as it
        should be."""
        self.confirm(tracked)
        return patch is not None and self._requests.write(tracked, patch, decision, notes, now)

    def confirm(self, tracked: Tracked) -> None:
        """Give back what the Service has left, if the API shows it with what it is assigned."""
        if shown(tracked.view) == texts(tracked.assigned):
            self._assignments.confirm(tracked)


def texts(addresses: Iterable[Address]) -> Shown:
    """The addresses as a status shows them."""
    return tuple(address.text for address in addresses)


def pool_named(view: Service) -> str | None:
    """The pool that our annotation names now."""
    return view.metadata.annotations.get(PREFIX + ALLOCATED_FROM_POOL)
