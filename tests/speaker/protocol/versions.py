"""Speakers of other releases: the last one, from this repository's history, and one that is still to come.

While an upgrade rolls through a cluster, both releases hear each other. The last release is ``LAST``; its tree comes
out of git, so a clone must have it. The release to come is this one's codec, but it says more in every way that is left
open for it.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import msgspec

from speaker.protocol.datagram import Authenticator, Drop, Envelope, HeartbeatError
from speaker.protocol.heartbeat import Heartbeat, Message, Offer, OnBehalf

ROOT = Path(__file__).parents[3]
LAST = "892d4a45ead606ffe67eef65f5978d44221d1afb"
"""The commit of the last release; before the first one, the last commit with another codec."""
MISSING = 1 << 40
"""A feature that no release has."""


def unpack_last(directory: Path) -> None:
    """Put the last release's tree into a directory."""
    packed = subprocess.run(["git", "archive", LAST], cwd=ROOT, check=True, capture_output=True).stdout
    subprocess.run(["tar", "-x"], cwd=directory, check=True, input=packed)


@cache
def last_codec() -> ModuleType:
    """The module ``speaker.heartbeat`` of the last release."""
    with TemporaryDirectory() as directory:
        unpack_last(Path(directory))
        spec = importlib.util.spec_from_file_location("last_heartbeat", Path(directory, "speaker", "heartbeat.py"))
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module


class LastAuthenticator(Authenticator):
    """Says and understands what the last release did. Messages go in and come out as this release's."""

    def __init__(self, cluster: str, keys: tuple[bytes, ...]) -> None:
        super().__init__(cluster, keys)
        self._last = last_codec().Authenticator(cluster, keys)

    def encode(self, session: int, sequence: int, message: Message) -> bytes:
        return bytes(self._last.encode(session, sequence, _to_last(message)))

    def parse(self, data: bytes) -> Envelope:
        last = last_codec()
        try:
            envelope = self._last.parse(data)
        except last.HeartbeatError as error:
            raise HeartbeatError(Drop(error.reason.value), str(error)) from error
        plain = [type(envelope.message).__struct_config__.tag, *msgspec.structs.astuple(envelope.message)]
        message = msgspec.convert(plain, Message)
        return Envelope(envelope.session, envelope.sequence, message)


def _to_last(message: Message) -> Any:
    last = last_codec()
    plain = msgspec.msgpack.encode(message)
    return msgspec.msgpack.decode(plain, type=last.Message)


class NextAuthenticator(Authenticator):
    """Says more than this release knows: elements behind those of each message and each claim, flags, messages of
    another kind."""

    def encode(self, session: int, sequence: int, message: Message) -> bytes:
        said = msgspec.msgpack.decode(msgspec.msgpack.encode(message))
        if isinstance(message, Heartbeat):
            said[3] |= 1 << 15
        elif not isinstance(message, Offer):
            of_claims = said[2] if isinstance(message, OnBehalf) else said
            claims = next(each for each in of_claims if isinstance(each, list))
            claims[:] = [[*claim, "until", {"seconds": 60}] for claim in claims]
        return self.seal(session, sequence, [*said, {"more": [1, 2]}, "and more"])

    def seal(self, session: int, sequence: int, anything: object) -> bytes:
        """A datagram with any payload."""
        return super().encode(session, sequence, anything)  # type: ignore[arg-type]  # that is the point
