"""What can go wrong with a request to the Kubernetes API, as types: whose fault it is, and whether to try again.

The API answers a refusal with an HTTP status and a ``metav1.Status`` object. Its ``reason`` is the machine's word
("AlreadyExists", "Expired"), its ``message`` the person's. Both are kept.

Nothing here retries. The caller decides, since only the caller knows whether the question is still the right one.
"""
# ruff: noqa: N818 -- the names are the API's own words for its answers; "ConflictError" says no more than "Conflict"

from __future__ import annotations

import msgspec

from cluster.objects import View, prepare


class ClientConfigError(Exception):
    """The kubeconfig, or the service account's files, cannot be used.

    The user's fault; trying again without a change of the file does not help. The text names the file and the reason.
    """


class ApiError(Exception):
    """A request that the API did not carry out. Of this very type: an answer that is none of the cases below.

    ``status`` is the HTTP status, 0 where none arrived. ``retry_after`` is the seconds after which the server wants
    to be asked again, where it said so (header ``Retry-After`` or ``Status.details.retryAfterSeconds``).
    """

    def __init__(self, status: int, reason: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(status, reason, message, retry_after)
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"{self.status or 'no answer'} {self.reason}: {self.message}"


class NotFound(ApiError):
    """404: no such object, or no such kind (its CRD is not installed). Nobody's fault; do not retry unchanged."""


class Conflict(ApiError):
    """409: the object is no longer the one that was read (its resourceVersion or uid moved on).

    Somebody else wrote first: read again, decide again, then write.
    """


class AlreadyExists(ApiError):
    """409 with reason AlreadyExists: an object of that name exists. Read it; do not retry."""


class Gone(ApiError):
    """410: the history that was asked for (a resourceVersion, a continue token) is compacted. List anew."""


class Invalid(ApiError):
    """400 and 422: the API does not accept what was sent; the message names the field. Ours or the user's fault; do
    not retry unchanged."""


class Unauthorized(ApiError):
    """401, or no credentials to send: who we are was not believed. Tokens rotate, so retry, slowly."""


class Forbidden(ApiError):
    """403: not allowed to us (RBAC), or refused by admission (a namespace that is terminating). The administrator's to
    change; retry slowly."""


class Throttled(ApiError):
    """429: the server has too much to do. Retry after ``retry_after`` seconds."""

    retry_after: float

    def __init__(self, status: int, reason: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(status, reason, message, 1.0 if retry_after is None else retry_after)


class Initializing(Throttled):
    """429: the server has just begun to serve this kind, or has lost its copy of it, and is filling it. That takes some
    ten milliseconds; the second of which it speaks is the least that the header can say."""


class ServerError(ApiError):
    """5xx: the server's fault. Retry with backoff; a write may have taken effect (504)."""


class Unreachable(ApiError):
    """No answer, or not the whole of one: connection refused, reset, cut, or TLS failed.

    Retry with backoff. A write may have taken effect: read before writing again.
    """


class TimedOut(Unreachable):
    """The server was silent for longer than the request's timeout. As ``Unreachable``."""


class Undecodable(ApiError):
    """An answer that is not what the API documents. The server's (or our view's) fault; a retry rarely helps."""


class _StatusDetails(View, frozen=True):
    retry_after_seconds: int = 0


class Status(View, frozen=True):
    """``metav1.Status``: what the API says when it refuses."""

    code: int = 0
    reason: str = ""
    message: str = ""
    details: _StatusDetails | None = None


prepare(Status)

_INITIALIZING = "storage is (re)initializing"
_BY_STATUS: dict[int, type[ApiError]] = {
    400: Invalid,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    422: Invalid,
    429: Throttled,
}


def refusal(code: int, body: bytes | msgspec.Raw, retry_after_header: str | None = None) -> ApiError:
    """The error for an answer of HTTP status ``code`` whose body is a ``Status``, or whatever a proxy in between wrote.

    ``code`` 0 takes the code from the body: a watch brings its refusals as events.
    """
    try:
        status = msgspec.json.decode(body, type=Status)
    except msgspec.DecodeError:  # and ValidationError, its subclass
        status = Status(message=bytes(body)[:200].decode(errors="replace").strip())
    code = code or status.code
    retry_after: float | None = None
    if retry_after_header and retry_after_header.strip().isdecimal():  # the other form, a date, the API never sends
        retry_after = float(retry_after_header)
    elif status.details and status.details.retry_after_seconds > 0:
        retry_after = float(status.details.retry_after_seconds)
    error = ServerError if code >= 500 else _BY_STATUS.get(code, ApiError)
    if error is Throttled and status.message.startswith(_INITIALIZING):
        error = Initializing
    if error is Conflict and status.reason == "AlreadyExists":
        error = AlreadyExists
    return error(code, status.reason or "Unknown", status.message or "the server gave no message", retry_after)
