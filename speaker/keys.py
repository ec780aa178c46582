"""The heartbeat key: in which Secret it is, and what it must be like.

The controller makes the Secret and rotates the key in it. There are two, so that nobody is shut out while speakers
learn of a new one: *current* signs, and both verify.
"""

from __future__ import annotations

import base64
import binascii

from cluster.objects import Secret

KEY_SECRET = "berthlb-heartbeat"  # noqa: S105  # the name of a Secret, not a secret
"""In our namespace; made and rotated by the controller."""
CURRENT = "current"
PREVIOUS = "previous"

MIN_KEY = 16  # bytes; 128 bits are out of reach for guessing
MAX_KEY = 64  # bytes that keyed BLAKE2b takes. RFC 7693 §2.1


class BadKeyError(ValueError):
    """A key that cannot be used; the message completes the sentence that names it."""


def checked_key(key: bytes) -> bytes:
    """The key itself; raises ``BadKeyError`` when it is too short or too long."""
    if not MIN_KEY <= len(key) <= MAX_KEY:
        raise BadKeyError(f"has {len(key)} bytes; a key has {MIN_KEY} to {MAX_KEY}")
    return key


def keys_of(secret: Secret) -> tuple[bytes, ...]:
    """The keys in the Secret, the one to sign with first; raises ``BadKeyError``."""
    if not secret.data.get(CURRENT):
        raise BadKeyError(f"has no {CURRENT}")
    keys: list[bytes] = []
    for name in (CURRENT, PREVIOUS):
        if text := secret.data.get(name):
            try:
                keys.append(checked_key(base64.b64decode(text, validate=True)))
            except binascii.Error as error:
                raise BadKeyError(f"has a {name} that is no base64") from error
            except BadKeyError as error:
                raise BadKeyError(f"has a {name} that {error}") from error
    return tuple(dict.fromkeys(keys))
