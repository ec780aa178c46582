"""What this node announces, carried to the API: ServiceL2Status objects, Events, ConfigurationState.

Status objects are brought to where they should be, from whatever they are, each time that something about them changed.
Two nodes that both believe to hold a Service (each on its side of a partition) each write once, when they gain it, and
then leave the other's word alone: they do not overwrite each other in turns.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import TypeVar

from cluster.client import (
    CONFIGURATION_STATES,
    EVENTS,
    SERVICE_L2_STATUSES,
    AlreadyExists,
    ApiClient,
    Invalid,
    NotFound,
)
from cluster.config import Problem
from cluster.objects import NodeName, Object, Service, ServiceL2Status
from cluster.reflector import Change
from cluster.resources import Resource
from speaker.announcements import Announced, Transition, Turn
from speaker.records import (
    Create,
    Patch,
    Wanted,
    Write,
    event,
    names,
    next_status_write,
    next_write,
    status_name,
    wanted_configuration_state,
    wanted_interfaces,
    wanted_status,
)
from speaker.writer import Writer

SUCCESSOR_S = 10.0  # in which the next holder overwrites our status object; what still names us then is removed
STEPS = 4  # writes that lead from any object to the wanted one: create, labels, status, and one to spare

T = TypeVar("T", bound=Object)
logger = logging.getLogger(__name__)


class Publisher:
    """Called from the watcher's loop; what it submits runs on the writer's thread."""

    def __init__(self, client: ApiClient, writer: Writer, node: NodeName, namespace: str) -> None:
        self._client = client
        self._writer = writer
        self._node = node
        self._namespace = namespace
        self._wanted: dict[str, Wanted[ServiceL2Status]] = {}
        self._recorded: dict[str, ServiceL2Status] = {}
        self._event_number = itertools.count(time.time_ns())

    # -------------------------------------------------------------------- status objects, Events

    def tell(self, transitions: list[Transition], service_of: Callable[[str], Service | None]) -> None:
        """Services that this node has begun or ceased to announce."""
        for turn, announced in transitions:
            extra = {"service": announced.service, "addresses": list(announced.addresses), "turn": turn.value}
            logger.info("announcement", extra=extra)
            name = status_name(announced.uid)
            if turn in {Turn.GAINED, Turn.CHANGED}:
                self._gained(name, announced, service_of(announced.service) if turn is Turn.GAINED else None)
            else:
                self._wanted.pop(name, None)
                self._submit_status(name, delay=SUCCESSOR_S if turn is Turn.LOST else 0.0)

    def _gained(self, name: str, announced: Announced, news_of: Service | None) -> None:
        self._wanted[name] = wanted_status(announced, self._node)
        self._submit_status(name)
        recorded = self._recorded.get(name)
        # A watcher that starts anew finds its node's announcements on record: they are no news.
        if news_of and not (recorded and names(recorded, self._node)):
            message = f'announcing from node "{self._node}" with protocol "layer2"'
            self.tell_event(news_of, "Normal", "nodeAssigned", message)

    def recorded(self, change: Change[ServiceL2Status]) -> None:
        """A status object that names this node, or did until now."""
        name = change.key.rpartition("/")[2]
        if change.new:
            self._recorded[name] = change.new
            if name not in self._wanted:
                self._submit_status(name, delay=SUCCESSOR_S)
        else:
            self._recorded.pop(name, None)
            if name in self._wanted:
                self._writer.submit(f"restore/{name}", lambda: self._restore(name), delay=SUCCESSOR_S)

    def _submit_status(self, name: str, *, delay: float = 0.0) -> None:
        self._writer.submit(f"status/{name}", lambda: self._write_status(name), delay=delay)

    def _write_status(self, name: str) -> None:
        self._lead(
            SERVICE_L2_STATUSES, name, lambda present: next_status_write(self._wanted.get(name), present, self._node)
        )

    def _restore(self, name: str) -> None:
        """Somebody deleted the object, or another node writes itself into it: only the former is mended."""
        if self._present(SERVICE_L2_STATUSES, name) is None:
            self._write_status(name)

    def tell_event(self, service: Service, type_: str, reason: str, message: str) -> None:
        """An Event on a Service."""
        suffix, now = f"{next(self._event_number):x}", _utc_now()

        def write() -> None:
            body = event(service, self._node, type_=type_, reason=reason, message=message, now=now, suffix=suffix)
            with suppress(AlreadyExists):  # made by an attempt whose answer was lost
                self._client.create(EVENTS, service.metadata.namespace, body)

        self._writer.submit(f"event/{suffix}", write, news=True)

    # -------------------------------------------------------------------- configuration

    def configuration(self, problems: tuple[Problem, ...]) -> None:
        """What is wrong with the configuration now; nothing is written where that is on record already."""
        wanted = wanted_configuration_state(self._node, problems, _utc_now())
        self._writer.submit(
            "configuration",
            lambda: self._lead(CONFIGURATION_STATES, wanted.name, lambda present: next_write(wanted, present)),
        )

    def interfaces(self, without: tuple[str, ...]) -> None:
        """The advertisements whose interfaces this node lacks."""
        wanted = wanted_interfaces(self._node, without)
        self._writer.submit(
            "interfaces",
            lambda: self._lead(CONFIGURATION_STATES, wanted.name, lambda present: next_write(wanted, present)),
        )

    # -------------------------------------------------------------------- on the writer's thread

    def _present(self, resource: Resource[T], name: str) -> T | None:
        try:
            return self._client.get(resource, self._namespace, name)
        except NotFound:
            return None

    def _lead(self, resource: Resource[T], name: str, next_step: Callable[[T | None], Write | None]) -> None:
        """Write until no step is left. Raises what the API says; whoever calls again begins with a fresh look."""
        present = self._present(resource, name)
        for _ in range(STEPS):
            step = next_step(present)
            if step is None:
                return
            before, present = present, self._carry_out(resource, name, step, present)
            if before and present and before.metadata.resource_version == present.metadata.resource_version:
                return  # a definition that is not ours knows no such field, and the server dropped it

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


def _utc_now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
