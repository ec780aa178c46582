"""What this node announces, carried to the API: ServiceL2Status objects, Events, ConfigurationState.

Status objects are brought to where they should be, from whatever they are, each time that something about them changed.
Two nodes that both believe to hold a Service (each on its side of a partition) each write once, when they gain it, and
then leave the other's word alone: they do not overwrite each other in turns. The one that goes on holding it looks now
and then whether its word is wanted again: whoever gives up a Service removes the object that names it, and the other is
not told of that.

All of this is read by people, and much of it comes at once: it goes out as the writer's pace allows. Only Warnings and
what is wrong with the configuration are urgent. What is known of an object is taken from the cache, without asking for
it; who is wrong by that looks, and tries again. News of a Service that was announced and given up before it was told is
not told, and of too much news at once the rest becomes one Event on the Node.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import TypeVar

from cluster.api.client import (
    CONFIGURATION_STATES,
    EVENTS,
    SERVICE_L2_STATUSES,
    AlreadyExists,
    ApiClient,
    ApiError,
    Conflict,
    Invalid,
    NotFound,
)
from cluster.api.reflector import Change
from cluster.l2status import status_name
from cluster.objects import NodeName, Object, ServiceL2Status
from cluster.resources import Resource
from speaker.api.announcements import Announced, Transition, Turn
from speaker.api.records import (
    About,
    Body,
    Create,
    Patch,
    Verdict,
    Write,
    event,
    names,
    next_status_write,
    next_write,
    wanted_configuration_state,
    wanted_status,
)
from speaker.api.writer import Writer

SUCCESSOR_S = 10.0  # in which the next holder overwrites our status object; what still names us then is removed
LOOK_S = 1.5 * SUCCESSOR_S  # after which we look whether another's word stands in the place of ours
LONGEST_LOOK_S = 600.0  # between two such looks, each of which comes after twice the time of the one before
STEPS = 6  # writes that lead from any object to the wanted one (create, labels, status), and some that come too late

T = TypeVar("T", bound=Object)
logger = logging.getLogger(__name__)


class Publisher:
    """Called from the watcher's loop; what it submits runs on the writer's thread."""

    def __init__(self, client: ApiClient, writer: Writer, node: NodeName, namespace: str) -> None:
        self._client = client
        self._writer = writer
        self._node = node
        self._namespace = namespace
        self._own_node: About | None = None
        self._wanted: dict[str, Announced] = {}
        self._recorded: dict[str, ServiceL2Status] = {}
        self._often_there = False
        """Whether the last status object that was not on record with us was another node's: the next one probably is,
        too, for a take-over concerns many at a time, and new Services come in numbers as well."""
        self._merged = 0
        """Services that were announced without an Event of their own, so far."""
        self._merged_told = 0
        self._event_number = itertools.count(time.time_ns())

    # -------------------------------------------------------------------- status objects

    def tell(self, transitions: list[Transition]) -> None:
        """Services that this node has begun or ceased to announce."""
        for turn, announced in transitions:
            extra = {"service": announced.service, "addresses": list(announced.addresses), "turn": turn.value}
            logger.info("announcement", extra=extra)
            name = status_name(announced.uid)
            if turn in {Turn.GAINED, Turn.CHANGED}:
                self._wanted[name] = announced
                self._submit_status(name)
                recorded = self._recorded.get(name)
                # A watcher that starts anew finds its node's announcements on record: they are no news.
                if turn is Turn.GAINED and not (recorded and names(recorded, self._node)):
                    self._tell_assigned(announced)
            else:
                self._wanted.pop(name, None)
                self._writer.withdraw(f"assigned/{announced.uid}")
                self._submit_status(name, delay=SUCCESSOR_S if turn is Turn.LOST else 0.0)

    def recorded(self, change: Change[ServiceL2Status]) -> None:
        """A status object that names this node, or did until now."""
        name = change.key.rpartition("/")[2]
        if change.new:
            self._recorded[name] = change.new
            if name not in self._wanted:
                self._submit_status(name, delay=SUCCESSOR_S)
        else:
            self._recorded.pop(name, None)
            if name in self._wanted:  # somebody deleted it, or another node writes itself into it
                self._look_again(name, LOOK_S)

    def _submit_status(self, name: str, *, delay: float = 0.0) -> None:
        self._writer.submit(f"status/{name}", lambda: self._write_status(name), delay=delay)

    def _write_status(self, name: str) -> None:
        announced, present = self._wanted.get(name), self._recorded.get(name)
        wanted = wanted_status(announced, self._node) if announced else None
        if wanted and present is None and self._often_there:
            present = self._present(SERVICE_L2_STATUSES, name)
            self._often_there = present is not None
        self._lead(SERVICE_L2_STATUSES, name, present, lambda now: next_status_write(wanted, now, self._node))

    def _look_again(self, name: str, delay: float) -> None:
        self._writer.submit(f"look/{name}", lambda: self._look(name, delay), delay=delay)

    def _look(self, name: str, waited: float) -> None:
        """Whether the object of a Service that we announce is free for us to write."""
        if name not in self._wanted:
            return
        present = self._present(SERVICE_L2_STATUSES, name)
        if present is None:
            self._write_status(name)
        elif not names(present, self._node):
            self._look_again(name, min(2 * waited, LONGEST_LOOK_S))

    # -------------------------------------------------------------------- Events

    def set_own_node(self, uid: str) -> None:
        """The Node that this speaker runs on is known."""
        self._own_node = About("Node", "", self._node, uid)

    @property
    def knows_own_node(self) -> bool:
        """Whether there is anything that an Event on our Node could be on."""
        return self._own_node is not None

    def warn(self, about: About, reason: str, message: str, at: float | None = None) -> None:
        """A Warning on an object, of something that was decided at that time (seconds since 1970; None: now)."""
        body = self._event(about, "Warning", reason, message, at)
        key = f"{reason}/{about.uid}/{message}"
        self._writer.submit(key, lambda: self._create_event(body), news=True, urgent=True)

    def warn_of_node(self, reason: str, message: str, at: float | None = None) -> None:
        """A Warning on our own Node, once that is known; as ``warn``."""
        if self._own_node is not None:
            self.warn(self._own_node, reason, message, at)

    def _tell_assigned(self, announced: Announced) -> None:
        namespace, _, name = announced.service.partition("/")
        about = About("Service", namespace, name, announced.uid)
        message = f'announcing from node "{self._node}" with protocol "layer2"'
        body = self._event(about, "Normal", "nodeAssigned", message)
        if not self._writer.submit(f"assigned/{announced.uid}", lambda: self._create_event(body), news=True):
            self._merged += 1
            self._writer.submit("merged", self._tell_merged)

    def _tell_merged(self) -> None:
        count = self._merged - self._merged_told
        if self._own_node is None or not count:
            return
        message = f'announcing {count} more Services from node "{self._node}": their ServiceL2Status objects say which'
        self._create_event(self._event(self._own_node, "Normal", "nodeAssigned", message))
        self._merged_told += count

    def _event(self, about: About, type_: str, reason: str, message: str, at: float | None = None) -> Body:
        suffix = f"{next(self._event_number):x}"
        return event(about, self._node, type_=type_, reason=reason, message=message, now=_utc(at), suffix=suffix)

    def _create_event(self, body: Body) -> None:
        with suppress(AlreadyExists):  # made by an attempt whose answer was lost
            self._client.create(EVENTS, body["metadata"]["namespace"], body)

    # -------------------------------------------------------------------- configuration

    def configuration(self, verdict: Verdict) -> None:
        """What this speaker makes of the configuration and of itself; nothing is written where that is on record."""
        wanted = wanted_configuration_state(self._node, verdict, _utc())

        def write() -> None:
            present = self._present(CONFIGURATION_STATES, wanted.name)
            self._lead(CONFIGURATION_STATES, wanted.name, present, lambda now: next_write(wanted, now))

        self._writer.submit("configuration", write, urgent=True)

    # -------------------------------------------------------------------- on the writer's thread

    def _present(self, resource: Resource[T], name: str) -> T | None:
        try:
            return self._client.get(resource, self._namespace, name)
        except NotFound:
            return None

    def _lead(
        self, resource: Resource[T], name: str, present: T | None, next_step: Callable[[T | None], Write | None]
    ) -> None:
        """Write until no step is left, beginning with what is known of the object. Raises what the API says; whoever
        calls again begins anew."""
        refusal: ApiError | None = None
        for _ in range(STEPS):
            step = next_step(present)
            if step is None:
                return
            before, refusal = present, None
            try:
                present = self._carry_out(resource, name, step, present)
            except (AlreadyExists, Conflict, NotFound) as error:  # somebody was faster, or what we know is old
                refusal = error
                present = self._present(resource, name)
                self._often_there = self._often_there or (resource is SERVICE_L2_STATUSES and before is None)
                continue
            if before and present and before.metadata.resource_version == present.metadata.resource_version:
                return  # a definition that is not ours knows no such field, and the server dropped it
        if refusal is not None:
            raise refusal

    def _carry_out(self, resource: Resource[T], name: str, step: Write, present: T | None) -> T | None:
        client, namespace = self._client, self._namespace
        if isinstance(step, Create):
            return client.create(resource, namespace, step.body)
        if isinstance(step, Patch):
            try:
                return client.patch(resource, namespace, name, step.body, subresource=step.subresource)
            except Invalid:
                if resource is not SERVICE_L2_STATUSES or step.subresource is None or present is None:
                    raise
                # MetalLB's own CRD makes the node immutable: there the object is made anew.
                client.delete(resource, namespace, name, uid=present.metadata.uid)
                return None
        with suppress(NotFound):
            client.delete(resource, namespace, name, uid=step.uid, resource_version=step.resource_version)
        return None


def _utc(at: float | None = None) -> str:
    """RFC 3339, of a time in seconds since 1970; None: of now."""
    return datetime.fromtimestamp(time.time() if at is None else at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
