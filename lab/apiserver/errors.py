"""Refusals, as the ``metav1.Status`` objects that Kubernetes answers with.

Clients decide by ``code`` and ``reason``, people read ``message``; all three have Kubernetes' own wording, because
tests written against this server must pass against the real one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lab.apiserver.kinds import Kind


class StatusError(Exception):
    """A request that is answered with a Status of ``code``; ``headers`` go with it."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        details: dict[str, Any] | None = None,
        *,
        continue_: str = "",
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.headers = headers or {}
        self.status: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {"continue": continue_} if continue_ else {},
            "status": "Failure",
            "message": message,
        }
        if reason:
            self.status["reason"] = reason
        if details:
            self.status["details"] = details
        self.status["code"] = code


@dataclass(frozen=True)
class Problem:
    """One field that is not as it must be: a ``metav1.StatusCause``."""

    field: str
    reason: str
    """``FieldValueRequired``, ``FieldValueInvalid`` … (``metav1.CauseType``)."""
    message: str


def required(field: str, hint: str = "") -> Problem:
    return Problem(field, "FieldValueRequired", f"Required value: {hint}" if hint else "Required value")


def wrong(field: str, value: object, why: str) -> Problem:
    return Problem(field, "FieldValueInvalid", f"Invalid value: {_shown(value)}: {why}")


def unsupported(field: str, value: object, allowed: list[Any]) -> Problem:
    choices = ", ".join(_shown(choice) for choice in allowed)
    return Problem(field, "FieldValueNotSupported", f"Unsupported value: {_shown(value)}: supported values: {choices}")


def forbidden_field(field: str, why: str) -> Problem:
    return Problem(field, "FieldValueForbidden", f"Forbidden: {why}")


def duplicate(field: str, value: object) -> Problem:
    return Problem(field, "FieldValueDuplicate", f"Duplicate value: {_shown(value)}")


def _shown(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, str):
        return f'"{value}"'
    return str(value)


def _details(kind: Kind, name: str, **more: Any) -> dict[str, Any]:
    details: dict[str, Any] = {"name": name}
    if kind.group:
        details["group"] = kind.group
    return {**details, "kind": kind.plural, **more}


def not_found(kind: Kind, name: str) -> StatusError:
    return StatusError(404, "NotFound", f'{kind.resource} "{name}" not found', _details(kind, name))


def already_exists(kind: Kind, name: str) -> StatusError:
    return StatusError(409, "AlreadyExists", f'{kind.resource} "{name}" already exists', _details(kind, name))


def conflict(kind: Kind, name: str, why: str) -> StatusError:
    message = f'Operation cannot be fulfilled on {kind.resource} "{name}": {why}'
    return StatusError(409, "Conflict", message, _details(kind, name))


def modified(kind: Kind, name: str) -> StatusError:
    why = "the object has been modified; please apply your changes to the latest version and try again"
    return conflict(kind, name, why)


def invalid(kind: Kind, name: str, problems: list[Problem]) -> StatusError:
    described = [f"{problem.field}: {problem.message}" for problem in problems]
    what = described[0] if len(described) == 1 else f"[{', '.join(described)}]"
    qualified = f"{kind.kind}.{kind.group}" if kind.group else kind.kind
    causes = [{"reason": p.reason, "message": p.message, "field": p.field} for p in problems]
    details = {**_details(kind, name, causes=causes), "kind": kind.kind}
    return StatusError(422, "Invalid", f'{qualified} "{name}" is invalid: {what}', details)


def bad_request(message: str) -> StatusError:
    return StatusError(400, "BadRequest", message)


def forbidden(kind: Kind, name: str, why: str) -> StatusError:
    return StatusError(403, "Forbidden", f'{kind.resource} "{name}" is forbidden: {why}', _details(kind, name))


def not_served() -> StatusError:
    return StatusError(404, "NotFound", "the server could not find the requested resource")


def method_not_allowed() -> StatusError:
    return StatusError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")


def expired(message: str, continue_: str = "") -> StatusError:
    return StatusError(410, "Expired", message, continue_=continue_)


def too_old(asked: int, oldest: int) -> StatusError:
    return expired(f"too old resource version: {asked} ({oldest})")


def too_new(asked: int, current: int) -> StatusError:
    message = f"Too large resource version: {asked}, current: {current}"
    cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    return StatusError(
        504, "Timeout", f"Timeout: {message}", {"causes": [cause], "retryAfterSeconds": 1}, headers={"Retry-After": "1"}
    )


def unsupported_media_type(accepted: tuple[str, ...]) -> StatusError:
    message = "the body of the request was in an unknown format - accepted media types include: " + ", ".join(accepted)
    return StatusError(415, "UnsupportedMediaType", message)


def too_large(limit: int) -> StatusError:
    return StatusError(413, "RequestEntityTooLarge", f"Request entity too large: limit is {limit}")
