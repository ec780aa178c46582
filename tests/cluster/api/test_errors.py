"""A refusal of the API, read into an error: whose fault it is, and when to ask again."""

from __future__ import annotations

import json

import pytest

from cluster.api.errors import (
    AlreadyExists,
    ApiError,
    Conflict,
    Forbidden,
    Gone,
    Initializing,
    Invalid,
    NotFound,
    ServerError,
    Throttled,
    Unauthorized,
    refusal,
)


def said(code: int, reason: str = "", message: str = "", seconds: int | None = None) -> bytes:
    """A ``metav1.Status``."""
    details = {} if seconds is None else {"details": {"retryAfterSeconds": seconds}}
    return json.dumps({"kind": "Status", "code": code, "reason": reason, "message": message, **details}).encode()


@pytest.mark.parametrize(
    ("code", "reason", "message", "error"),
    [
        (400, "BadRequest", "", Invalid),
        (401, "Unauthorized", "", Unauthorized),
        (403, "Forbidden", "", Forbidden),
        (404, "NotFound", "", NotFound),
        (409, "Conflict", "", Conflict),
        (409, "AlreadyExists", "", AlreadyExists),
        (410, "Expired", "", Gone),
        (422, "Invalid", "", Invalid),
        (429, "TooManyRequests", "too many", Throttled),
        (429, "TooManyRequests", "storage is (re)initializing", Initializing),
        (500, "InternalError", "", ServerError),
        (504, "Timeout", "", ServerError),
        (418, "", "", ApiError),
    ],
)
def test_the_status_tells_whose_fault_it_is(code: int, reason: str, message: str, error: type[ApiError]) -> None:
    for read in (refusal(code, said(code, reason, message)), refusal(0, said(code, reason, message))):
        assert type(read) is error
        assert read.status == code


@pytest.mark.parametrize(
    ("header", "seconds", "after"),
    [("7", None, 7.0), (None, 5, 5.0), ("7", 5, 7.0), (None, None, None), ("Wed, 21 Oct 2026 07:28:00 GMT", 5, 5.0)],
)
def test_the_server_says_when_it_wants_to_be_asked_again(
    header: str | None, seconds: int | None, after: float | None
) -> None:
    assert refusal(500, said(500, seconds=seconds), header).retry_after == after
    assert refusal(429, said(429, seconds=seconds), header).retry_after == (1.0 if after is None else after)


@pytest.mark.parametrize(("body", "told"), [(b"<html>bad gateway</html>", "<html>bad gateway</html>"), (b"", "")])
def test_what_a_proxy_wrote_is_told_as_it_is(body: bytes, told: str) -> None:
    error = refusal(502, body)
    assert isinstance(error, ServerError)
    assert str(error) == f"502 Unknown: {told or 'the server gave no message'}"
