"""Refusals, as the ``metav1.Status`` objects that Kubernetes answers with.

Clients decide by ``code``, ``reason`` and the fields that are named. These are Kubernetes' own, because tests written
against this server must pass against the real one. The ``message`` is for people, and mostly Kubernetes' too.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from lab.apiserver.kinds import ServedKind


class StatusError(Exception):
    """A request that is answered with a Status of ``code``."""

    def __init__(self, code: int, reason: str, message: str, details: Any = None, *, retry_after_s: int = 0) -> None:
        super().__init__(message)
        self.code = code
        self.headers = {"Retry-After": str(retry_after_s)} if retry_after_s else {}
        self.status: dict[str, Any] = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
        self.status |= {"message": message, "reason": reason, "code": code, **({"details": details} if details else {})}


class FieldProblem(NamedTuple):
    """One field that is not as it must be: a ``metav1.StatusCause``."""

    field: str
    reason: str
    """``FieldValueRequired``, ``FieldValueInvalid`` … (``metav1.CauseType``)."""
    message: str


def shown(value: object) -> str:
    return msgspec.json.encode(value).decode()


def required(field: str) -> FieldProblem:
    return FieldProblem(field, "FieldValueRequired", "Required value")


def wrong(field: str, value: object, why: str) -> FieldProblem:
    return FieldProblem(field, "FieldValueInvalid", f"Invalid value: {shown(value)}: {why}")


def unsupported(field: str, value: object, allowed: list[Any]) -> FieldProblem:
    choices = ", ".join(shown(choice) for choice in allowed)
    return FieldProblem(
        field, "FieldValueNotSupported", f"Unsupported value: {shown(value)}: supported values: {choices}"
    )


def forbidden(field: str, why: str) -> FieldProblem:
    return FieldProblem(field, "FieldValueForbidden", f"Forbidden: {why}")


def details(kind: ServedKind, name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, **({"group": kind.group} if kind.group else {}), "kind": kind.plural, **more}


def not_found(kind: ServedKind, name: str) -> StatusError:
    return StatusError(404, "NotFound", f'{kind.full_name} "{name}" not found', details(kind, name))


def already_exists(kind: ServedKind, name: str) -> StatusError:
    return StatusError(409, "AlreadyExists", f'{kind.full_name} "{name}" already exists', details(kind, name))


def conflict(kind: ServedKind, name: str, why: str) -> StatusError:
    message = f'Operation cannot be fulfilled on {kind.full_name} "{name}": {why}'
    return StatusError(409, "Conflict", message, details(kind, name))


def invalid(kind: ServedKind, name: str, problems: list[FieldProblem]) -> StatusError:
    described = [f"{problem.field}: {problem.message}" for problem in problems]
    what = described[0] if len(described) == 1 else f"[{', '.join(described)}]"
    qualified = f"{kind.kind}.{kind.group}" if kind.group else kind.kind
    about = details(kind, name, causes=[problem._asdict() for problem in problems]) | {"kind": kind.kind}
    return StatusError(422, "Invalid", f'{qualified} "{name}" is invalid: {what}', about)


def bad_request(message: str) -> StatusError:
    return StatusError(400, "BadRequest", message)


def unreadable(kind: ServedKind, why: object) -> StatusError:
    return bad_request(f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: {why}')


def too_old(asked: int, oldest: int) -> StatusError:
    return StatusError(410, "Expired", f"too old resource version: {asked} ({oldest})")
