"""The clients of a lab's control socket: their connections, requests and answers.

A connection carries one request at a time. A connection that started a command belongs to that command: when the client
closes it, the command is killed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import traceback
from collections.abc import Callable
from dataclasses import dataclass

from lab.control import channel
from lab.control.messages import REQUESTS, AnyAnswer, AnyRequest, Declined
from lab.keeper.acts import RefusedError
from lab.keeper.loop import KeeperLoop
from lab.machines.processes import Process


@dataclass(eq=False)
class Connection:
    """One client of the control socket."""

    socket: socket.socket
    command: Process | None = None
    """What it started; it dies with the connection."""

    def answer(self, message: AnyAnswer, descriptors: tuple[int, ...] = ()) -> None:
        with contextlib.suppress(OSError):  # it is gone; its end is noticed by reading
            channel.send(self.socket, message, descriptors)


CarryOut = Callable[[AnyRequest, list[int], Connection], None]
"""Carry out a request that came with these descriptors, and answer on the connection, now or later. Raises
``RefusedError`` where it cannot be carried out."""


class Clients:
    """Accepts connections at ``listener`` and has their requests carried out."""

    def __init__(self, loop: KeeperLoop, listener: socket.socket, carry_out: CarryOut) -> None:
        self._loop = loop
        self._listener = listener
        self._carry_out = carry_out
        loop.when_readable(listener, self._accept)

    def _accept(self) -> None:
        accepted, _ = self._listener.accept()
        connection = Connection(accepted)
        self._loop.when_readable(accepted, lambda: self._serve(connection))

    def _serve(self, connection: Connection) -> None:
        """One request of one client, or its end."""
        try:
            received = channel.receive(connection.socket, REQUESTS)
        except channel.MessageError as error:
            connection.answer(Declined(f"not understood: {error}"))
            return
        except OSError:
            received = None
        if received is None:
            self._close(connection)
            return
        request, descriptors = received
        try:
            self._carry_out(request, descriptors, connection)
        except RefusedError as refused:
            connection.answer(Declined(str(refused)))
        except Exception as error:  # noqa: BLE001 (one request that fails must not end the lab)
            traceback.print_exc()
            connection.answer(Declined(f"{type(request).__name__.lower()}: {error}"))
        finally:
            for fd in descriptors:
                os.close(fd)

    def _close(self, connection: Connection) -> None:
        self._loop.forget(connection.socket)
        connection.socket.close()
        if connection.command is not None:
            connection.command.signal_group(signal.SIGKILL)
