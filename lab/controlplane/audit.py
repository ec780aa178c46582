"""The audit log of a real API server: what our daemons ask, as the users whose permissions ``deploy/`` justifies."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

NAMESPACE = "metallb-system"


def write_policy(path: Path, accounts: tuple[str, ...]) -> None:
    """Write an audit policy that logs the answered requests of these ServiceAccounts, and of nobody else."""
    users = [_user(account) for account in accounts]
    rules = [{"level": "Metadata", "users": users, "omitStages": ["RequestReceived"]}, {"level": "None"}]
    path.touch(mode=0o600)
    path.write_text(json.dumps({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": rules}))


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """One line of the log. Of a watch there are two: when it begins to be answered, and when it ends."""

    verb: str
    group: str
    resource: str
    """With its subresource: ``services/status``."""
    namespace: str
    name: str
    code: int
    """HTTP status of the answer."""
    at: float
    """When it came, in seconds since 1970."""
    complete: bool
    """Whether the answer has ended."""


def requests(log: Path, account: str) -> list[ApiRequest]:
    """What a ServiceAccount has asked so far."""
    return list(_read(log, _user(account))) if log.exists() else []


def _user(account: str) -> str:
    return f"system:serviceaccount:{NAMESPACE}:{account}"


def _read(log: Path, user: str) -> Iterator[ApiRequest]:
    for line in log.read_text().splitlines(keepends=True):
        if not line.endswith("\n"):
            return  # being written
        entry = json.loads(line)
        if entry["user"]["username"] != user:
            continue
        about, status = entry.get("objectRef", {}), entry.get("responseStatus", {})
        parts = (about.get("resource", ""), about.get("subresource", ""))
        yield ApiRequest(
            verb=entry["verb"],
            group=about.get("apiGroup", ""),
            resource="/".join(part for part in parts if part),
            namespace=about.get("namespace", ""),
            name=about.get("name", ""),
            code=status.get("code", 0),
            at=datetime.fromisoformat(entry["requestReceivedTimestamp"]).timestamp(),
            complete=entry["stage"] == "ResponseComplete",
        )
