"""Whose an address is that several Services claim, by the documented rules: the oracle for ``cluster.rightful`` and for
all that goes by it."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum

from tests.oracle.services import Address, Body, given, is_load_balancer, key_of, may_share, shown


class Right(IntEnum):
    """What a Service's own words make of its claim to an address, the best first."""

    GIVEN_AND_SHOWN = 1
    ANOTHER_CONTROLLER_S = 2
    """Shown by a Service of another class, which has no condition of ours."""
    GIVEN_BUT_NOT_SHOWN = 3
    SHOWN_WITHOUT_A_WORD = 4
    SHOWN_AGAINST_ITS_WORD = 5


def right_to(service: Body, address: Address, *, ours: bool = True) -> Right | None:
    """None: it does not claim the address."""
    shows, was_given = address in shown(service), given(service)
    if was_given is not None and address in was_given:
        return Right.GIVEN_AND_SHOWN if shows else Right.GIVEN_BUT_NOT_SHOWN
    if not shows:
        return None
    if was_given is not None:
        return Right.SHOWN_AGAINST_ITS_WORD
    return Right.SHOWN_WITHOUT_A_WORD if ours else Right.ANOTHER_CONTROLLER_S


def owners(services: Iterable[Body], address: Address, load_balancer_class: str | None = None) -> dict[str, Right]:
    """The Services that have the address, by ``namespace/name``. The best claim comes first, of equal ones the older,
    but of the best those that are being deleted. Each next one has it too if it may share it with all before. Services
    of another class are another controller's."""
    claims = []
    for service in services:
        right = right_to(service, address, ours=is_load_balancer(service, load_balancer_class))
        if right is not None:
            stays = right is Right.GIVEN_AND_SHOWN and service["metadata"].get("deletionTimestamp") is None
            claims.append((right, stays, service["metadata"]["creationTimestamp"], key_of(service), service))
    having: list[Body] = []
    rights: dict[str, Right] = {}
    for right, _, _, key, service in sorted(claims, key=lambda claim: claim[:4]):
        if all(may_share(service, other) for other in having):
            having.append(service)
            rights[key] = right
    return rights
