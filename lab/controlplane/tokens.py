"""ServiceAccount tokens, signed with the lab's own key: what kubelets ask the API server for, with any lifetime.

The claims are those of a bound token (``kubernetes.io`` with namespace and ServiceAccount); RFC 7519, RS256.
"""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path

from cluster.objects import ObjectMeta
from lab.controlplane.credentials import OPENSSL_S, SERVICE_ACCOUNT_KEY

ISSUER = "https://kubernetes.default.svc"
LIFETIME_S = 3600.0  # what kubelets ask for


def sign_token(directory: Path, account: ObjectMeta, now: float, lifetime_s: float = LIFETIME_S) -> str:
    """A token for that ServiceAccount. ``directory`` is the credentials'; ``now`` is seconds since 1970."""
    namespace, name = account.namespace, account.name
    claims = {
        "iss": ISSUER,
        "aud": [ISSUER],
        "sub": f"system:serviceaccount:{namespace}:{name}",
        "iat": int(now),
        "nbf": int(now),
        "exp": int(now + lifetime_s),
        "kubernetes.io": {"namespace": namespace, "serviceaccount": {"name": name, "uid": account.uid}},
    }
    signed = f"{_encoded({'alg': 'RS256', 'typ': 'JWT'})}.{_encoded(claims)}"
    signature = subprocess.run(
        ["openssl", "dgst", "-sha256", "-sign", SERVICE_ACCOUNT_KEY],
        cwd=directory,
        input=signed.encode(),
        capture_output=True,
        timeout=OPENSSL_S,
        check=True,
    ).stdout
    return f"{signed}.{_base64(signature)}"


def write_token(path: Path, token: str) -> None:
    """Write it whole or not at all: a reader gets the one before until it is there."""
    new = path.with_suffix(".new")
    new.touch(mode=0o600)
    new.write_text(token)
    new.rename(path)


def _encoded(value: object) -> str:
    return _base64(json.dumps(value).encode())


def _base64(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()
