"""Where a daemon listens, as text: apart from the server, so that reading an argument imports no server."""

from __future__ import annotations


def parse_listen(text: str) -> tuple[str, int]:
    """``ADDRESS:PORT``, an IPv6 address in brackets. Raises ``ValueError`` with a reason."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f'"{text}" is not ADDRESS:PORT')
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f'"{text}" is not ADDRESS:PORT; an IPv6 address goes in brackets')
    return host or "0.0.0.0", int(port)
