"""What stands for a node's SSH server: it says the node's name to everybody who connects, and hangs up."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

from lab.client import Lab
from lab.machines.hosts import socket_family

SSH = 22


@contextlib.contextmanager
def serving(lab: Lab, node: str, port: int = SSH, family: socket.AddressFamily = socket.AF_INET) -> Iterator[None]:
    """The server listens at every address of the node in the family. It goes with the node's power."""
    with lab.open_socket(node, family) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("", port))
        listening.listen()
        answering = threading.Thread(target=_answer, args=(listening, node), daemon=True)
        answering.start()
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # a node without power has closed it
                listening.shutdown(socket.SHUT_RDWR)
            answering.join()


def _answer(listening: socket.socket, node: str) -> None:
    while True:
        try:
            accepted, _ = listening.accept()
        except OSError:
            return
        with accepted:
            accepted.sendall(f"SSH-2.0-{node}\n".encode())


def greeting(lab: Lab, host: str, address: str, port: int = SSH, timeout: float = 5.0) -> str:
    """The name that the server at an address says to a host. Raises ``OSError`` where none answers."""
    with lab.open_socket(host, socket_family(address)) as connecting:
        connecting.settimeout(timeout)
        connecting.connect((address, port))
        return connecting.recv(100).decode().strip().removeprefix("SSH-2.0-")
