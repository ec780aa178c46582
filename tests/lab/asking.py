"""Requests of a lab's hosts to its workloads, each over a connection of its own."""

from __future__ import annotations

import http.client
import json
from typing import Any

from lab.client import Lab
from lab.machines.hosts import socket_family


def get(lab: Lab, host: str, address: str, port: int = 80, timeout: float = 2.0) -> dict[str, Any]:
    """A GET from a host, over a connection of its own. Raises ``OSError``."""
    connection = http.client.HTTPConnection(address, port)
    with lab.open_socket(host, socket_family(address)) as connection.sock:
        connection.sock.settimeout(timeout)
        connection.sock.connect((address, port))
        connection.request("GET", "/", headers={"Connection": "close"})
        answer: dict[str, Any] = json.loads(connection.getresponse().read())
    return answer


def can_get(lab: Lab, host: str, address: str, port: int = 80, timeout: float = 2.0) -> dict[str, Any] | None:
    try:
        return get(lab, host, address, port, timeout)
    except (OSError, http.client.HTTPException):
        return None
