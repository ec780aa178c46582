"""What an Event tells about a Service, in MetalLB's words: each at the transition, and not again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from cluster.objects import Service
from controller.allocator import Reason
from controller.changes import ADDRESS_ASSIGNED, EventNote, find_condition, shortened
from controller.judgement import Verdict, condition, why_lacking
from controller.record import recorded
from controller.request import DEPRECATED_PREFIX, PREFIX

_NONE: Final[frozenset[str]] = frozenset()  # one for all: each would weigh 216 bytes


def of_verdict(view: Service, verdict: Verdict, cleared: str | None) -> tuple[EventNote, ...]:
    """What changes for the Service, which is still as ``view``. ``cleared``: why it may not keep what it had."""
    before = {ingress.ip for ingress in view.status.load_balancer.ingress}
    after = [address.text for address in verdict.addresses]
    events = []
    if cleared is not None and before - set(after):
        message = f'current IP for "{view.key}" not allowed by config, will attempt for new IP assignment: {cleared}'
        events.append(EventNote("Normal", "ClearAssignment", shortened(message)))
    added = [text for text in after if text not in before]
    if recorded(view) == verdict.addresses:
        pass  # somebody replaced it; to put it right is no news
    elif before and added and before < set(after):
        events += [EventNote("Normal", "IPAllocated", f'Assigned additional IP "{text}"') for text in added]
    elif after and before != set(after):
        quoted = " ".join(f'"{text}"' for text in after)
        events.append(EventNote("Normal", "IPAllocated", f"Assigned IP [{quoted}]"))
    said = find_condition(view.status.conditions, ADDRESS_ASSIGNED)
    said_before = said.message if said is not None else ""
    if verdict.lacking is not None and why_lacking(verdict, verdict.lacking) not in said_before:
        message = f"cannot assign additional IP in PreferDualStack: {verdict.lacking.message}"
        events.append(EventNote("Normal", "AdditionalAssignFailed", shortened(message)))
    if verdict.refusal is not None and said_before != condition(verdict).message:
        if after and verdict.refusal.reason is Reason.INVALID_REQUEST:
            message = f"invalid requested loadbalancer IPs: {verdict.refusal.message}"
            events.append(EventNote("Warning", "LoadBalancerFailed", shortened(message)))
        else:
            message = f'Failed to allocate IP for "{view.key}": {verdict.refusal.message}'
            events.append(EventNote("Warning", "AllocationFailed", shortened(message)))
    return tuple(events)


def deprecated_annotations(view: Service) -> frozenset[str]:
    """The Service's annotations under the prefix that MetalLB gave up."""
    return frozenset([key for key in view.metadata.annotations if key.startswith(DEPRECATED_PREFIX)]) or _NONE


def of_deprecated(keys: Iterable[str]) -> tuple[EventNote, ...]:
    """One Event for each of these annotations."""
    return tuple(
        EventNote(
            "Warning",
            "deprecatedAnnotation",
            f'annotation "{key}" is deprecated; use "{PREFIX}{key.removeprefix(DEPRECATED_PREFIX)}"',
        )
        for key in sorted(keys)
    )
