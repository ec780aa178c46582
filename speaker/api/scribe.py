"""The shell of ``publisher``: carries its orders out, with requests to the API, on the writer's thread.

An object is brought to where it should be one step after the other (``records``), beginning with what is known of it.
Where a step fails because somebody was faster, or what was known is old, the object is asked for, and the next step
begins there. What else the API refuses is raised, and the writer repeats the order later, from the beginning.

An Event has its name and its time from when it was ordered, so that it is made once however often it is tried.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from cluster.api.client import (
    CONFIGURATION_STATES,
    EVENTS,
    LEASES,
    SERVICE_L2_STATUSES,
    AlreadyExists,
    ApiClient,
    ApiError,
    Conflict,
    Invalid,
    NotFound,
)
from cluster.l2status import status_name
from cluster.objects import NodeName, Object
from cluster.resources import Resource
from cluster.timestamps import micro_timestamp, timestamp
from speaker.api.own_lease import WrittenLease, lease_body, lease_name
from speaker.api.publisher import (
    LookAtStatus,
    Order,
    Publisher,
    WinRecord,
    Work,
    WriteConfigurationState,
    WriteEvent,
    WriteLease,
    WriteMerged,
    WriteStatus,
)
from speaker.api.records import (
    Body,
    Create,
    Patch,
    Write,
    event,
    next_record_write,
    next_status_write,
    next_write,
    wanted_configuration_state,
)
from speaker.api.writer import Writer
from speaker.protocol.effects import RecordAnswer

STEPS = 6  # writes that lead from any object to the wanted one (create, labels, status), and some that come too late

T = TypeVar("T", bound=Object)


class Scribe:
    """See the module's docstring."""

    def __init__(
        self,
        client: ApiClient,
        writer: Writer,
        node: NodeName,
        namespace: str,
        answer: Callable[[RecordAnswer], object] = lambda _: None,
    ) -> None:
        """``answer`` is called on the writer's thread, with whose a record is that was to be won."""
        self.publisher = Publisher(self, node)
        self._client = client
        self._writer = writer
        self._node = node
        self._namespace = namespace
        self._answer = answer
        self._event_number = itertools.count(time.time_ns())

    def place(self, order: Order) -> bool:
        """Have an order carried out. Returns at once. False: it is news, and too much of it waits."""
        return self._writer.submit(
            order.key, self._prepared(order.work), delay=order.delay_s, news=order.news, urgent=order.urgent
        )

    def withdraw(self, key: str) -> None:
        """Carry an order out no more, if it still waits."""
        self._writer.withdraw(key)

    def _prepared(self, work: Work) -> Callable[[], None]:
        match work:
            case WriteStatus(name):
                return lambda: self._write_status(name)
            case LookAtStatus():
                return lambda: self._look(work)
            case WriteEvent():
                body = self._event(work)
                return lambda: self._create_event(body)
            case WriteMerged():
                return self._write_merged
            case WinRecord():
                return lambda: self._win(work)
            case WriteLease(lease):
                return lambda: self._renew(lease)
            case WriteConfigurationState(findings):
                wanted = wanted_configuration_state(self._node, findings, timestamp(time.time()))
                return lambda: self._bring(
                    CONFIGURATION_STATES,
                    wanted.name,
                    self._present(CONFIGURATION_STATES, wanted.name),
                    lambda present: next_write(wanted, present),
                )

    def _event(self, work: WriteEvent) -> Body:
        suffix = f"{next(self._event_number):x}"
        return event(
            work.about,
            self._node,
            type_=work.type,
            reason=work.reason,
            message=work.message,
            now=timestamp(time.time() if work.at is None else work.at),
            suffix=suffix,
        )

    # -------------------------------------------------------------------- on the writer's thread

    def _write_status(self, name: str) -> None:
        wanted, present, look_first = self.publisher.status_target(name)
        if look_first:
            present = self._present(SERVICE_L2_STATUSES, name)
            self.publisher.found(there=present is not None)
        self._bring(SERVICE_L2_STATUSES, name, present, lambda now: next_status_write(wanted, now, self._node))

    def _look(self, look: LookAtStatus) -> None:
        if self.publisher.wants(look.name) and self.publisher.looked(
            look, self._present(SERVICE_L2_STATUSES, look.name)
        ):
            self._write_status(look.name)

    def _write_merged(self) -> None:
        if merged := self.publisher.merged_event():
            work, count = merged
            self._create_event(self._event(work))
            self.publisher.merged_written(count)

    def _create_event(self, body: Body) -> None:
        with suppress(AlreadyExists):  # made by an attempt whose answer was lost
            self._client.create(EVENTS, body["metadata"]["namespace"], body)

    def _win(self, work: WinRecord) -> None:
        """Win the record, or find whose it is. Nothing is known of it beforehand: others write it, too."""
        name = status_name(work.question.bundle)
        present = self._present(SERVICE_L2_STATUSES, name)
        for _ in range(STEPS):
            if time.monotonic() >= work.until:
                return  # nobody waits for it any more
            step = next_record_write(work.question, work.service, present, self._node)
            if isinstance(step, RecordAnswer):
                self._answer(step)
                return
            try:
                present = self._carry_out(SERVICE_L2_STATUSES, name, step, present)
            except (AlreadyExists, Conflict, NotFound):  # somebody was faster
                present = self._present(SERVICE_L2_STATUSES, name)

    def _renew(self, lease: WrittenLease) -> None:
        body = lease_body(self._node, lease, micro_timestamp(time.time()))
        try:
            self._client.patch(LEASES, self._namespace, lease_name(self._node), body)
        except NotFound:
            self._client.create(LEASES, self._namespace, body)

    def _present(self, resource: Resource[T], name: str) -> T | None:
        try:
            return self._client.get(resource, self._namespace, name)
        except NotFound:
            return None

    def _bring(
        self, resource: Resource[T], name: str, present: T | None, next_step: Callable[[T | None], Write | None]
    ) -> None:
        """Write until no step is left, beginning with what is known of the object. Raises what the API says; a
        repetition begins anew."""
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
                if before is None and resource is SERVICE_L2_STATUSES:
                    self.publisher.found(there=True)
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
