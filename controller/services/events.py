"""The Events about a Service, in MetalLB's words: one at each transition, and a reminder where it waits long."""

from __future__ import annotations

from dataclasses import replace

from cluster.objects import Service, find_condition
from cluster.record import ADDRESS_ASSIGNED, recorded, recorded_pool
from controller.allocation.outcomes import Reason, Refusal
from controller.changes import EventNote, shortened
from controller.services.judgement import Judgement, as_said_before, why_lacking
from controller.services.vocabulary import UNREAD


def of_judgement(view: Service, judgement: Judgement, cleared: str | None) -> tuple[EventNote, ...]:
    """The Events of a judgement about a Service that still is as ``view``. ``cleared``: why it may not keep what it
    had."""
    before = {ingress.ip for ingress in view.status.load_balancer.ingress}
    after = [address.text for address in judgement.addresses]
    events = []
    if cleared is not None and before - set(after):
        message = f'current IP for "{view.key}" not allowed by config, will attempt for new IP assignment: {cleared}'
        events.append(EventNote("Normal", "ClearAssignment", shortened(message)))
    added = [text for text in after if text not in before]
    if recorded(view) == judgement.addresses:
        pass  # somebody replaced it; to put it right is no news
    elif judgement.of_nodes and after and before and recorded_pool(view) == judgement.pool:
        pass  # a node came or went: its own Events tell of that, and thousands of Services may show it
    elif before and added and before < set(after):
        events += [EventNote("Normal", "IPAllocated", f'Assigned additional IP "{text}"') for text in added]
    elif after and before != set(after):
        quoted = " ".join(f'"{text}"' for text in after)
        events.append(EventNote("Normal", "IPAllocated", f"Assigned IP [{quoted}]"))
    said = find_condition(view.status.conditions, ADDRESS_ASSIGNED)
    said_before = said.message if said is not None else ""
    if judgement.lacking is not None and why_lacking(judgement, judgement.lacking) not in said_before:
        message = f"cannot assign additional IP in PreferDualStack: {judgement.lacking.message}"
        events.append(EventNote("Normal", "AdditionalAssignFailed", shortened(message)))
    if not _says_so(said_before, judgement):
        events += of_refusal(view, judgement)
    return tuple(events)


def of_refusal(view: Service, judgement: Judgement) -> tuple[EventNote, ...]:
    """The Event that says why a Service has no address, or not the one that it asks for."""
    refusal = judgement.refusal
    if refusal is None:
        return ()
    if judgement.addresses and refusal.reason is Reason.INVALID_REQUEST:
        message = f"invalid requested loadbalancer IPs: {refusal.message}"
        return (EventNote("Warning", "LoadBalancerFailed", shortened(message)),)
    message = f'Failed to allocate IP for "{view.key}": {refusal.message}'
    return (EventNote("Warning", "AllocationFailed", shortened(message)),)


def of_contest(refusal: Refusal | None) -> tuple[EventNote, ...]:
    """The Event that names who keeps writing the status."""
    if refusal is None:
        return ()
    return (EventNote("Warning", refusal.reason.value, shortened(refusal.message)),)


def _says_so(said_before: str, judgement: Judgement) -> bool:
    """Whether the condition says this already, whatever it may add of annotations."""
    plain = replace(judgement, unread="")
    return as_said_before(judgement, said_before) or as_said_before(plain, said_before.partition(UNREAD)[0])
