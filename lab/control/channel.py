"""Messages on a Unix SOCK_SEQPACKET socket: each is one datagram, with file descriptors beside it."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import TypeVar

import msgspec

from lab.control.messages import MAX_MESSAGE

T = TypeVar("T")
MAX_DESCRIPTORS = 4


class MessageError(Exception):
    """What arrived is no message of the expected kind."""


def send(connection: socket.socket, message: msgspec.Struct, descriptors: Sequence[int] = ()) -> None:
    """Send one message. Raises ``OSError`` where it cannot be sent whole."""
    socket.send_fds(connection, [msgspec.json.encode(message)], list(descriptors))


def receive(connection: socket.socket, decoder: msgspec.json.Decoder[T]) -> tuple[T, list[int]] | None:
    """The next message and the descriptors that came with it, which the caller closes; None at the end.

    Raises ``MessageError`` for anything that is no such message (its descriptors are closed), ``OSError`` as the socket
    gives it.
    """
    data, descriptors, flags, _ = socket.recv_fds(connection, MAX_MESSAGE + 1, MAX_DESCRIPTORS)
    if not data:
        return None
    try:
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC) or len(data) > MAX_MESSAGE:
            raise MessageError("a message is too long")
        return decoder.decode(data), descriptors
    except (MessageError, msgspec.DecodeError) as error:
        for fd in descriptors:
            os.close(fd)
        raise MessageError(str(error)) from error
