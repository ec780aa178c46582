"""What heartbeats are authenticated with: the cluster's identity and the keys, as they become known.

The announcer gets both together (``Credentials``), as soon as both are known and again whenever they change. A Secret
that was deleted, or that holds no key that can be used, changes nothing: the keys that a speaker has go on working
among those that have them.
"""

from __future__ import annotations

import logging

from cluster.objects import Secret
from speaker.channel import Credentials
from speaker.keys import KEY_SECRET, BadKeyError, keys_of

logger = logging.getLogger(__name__)


class Authentication:
    """See the module's docstring. ``key`` is one that was given on the command line."""

    def __init__(self, key: bytes | None, namespace: str) -> None:
        self._secret = f"Secret {namespace}/{KEY_SECRET}"
        self._cluster: str | None = None
        self._keys: tuple[bytes, ...] = (key,) if key else ()
        self._trouble = "does not exist"
        self._sent: Credentials | None = None

    def set_cluster(self, uid: str) -> None:
        """The UID of the namespace ``kube-system``."""
        self._cluster = uid

    def set_secret(self, secret: Secret | None) -> None:
        """The Secret with the keys as it is now; None when it is gone."""
        if secret is None:
            return
        try:
            self._keys = keys_of(secret)
        except BadKeyError as error:
            self._trouble = str(error)
            logger.error("heartbeat key", extra={"secret": KEY_SECRET, "problem": str(error)})

    def take(self) -> Credentials | None:
        """What the announcer has to be sent now; None: it has what is known, or too little is known."""
        if self._cluster is None or not self._keys:
            return None
        credentials = Credentials(self._cluster, self._keys)
        if credentials == self._sent:
            return None
        self._sent = credentials
        logger.info("credentials", extra={"cluster": self._cluster, "keys": len(self._keys)})
        return credentials

    def missing(self) -> list[str]:
        """What is not known yet, each as a remark for people."""
        missing = [] if self._keys else [f"no heartbeat key: {self._secret} {self._trouble}"]
        return missing if self._cluster is not None else [*missing, "the cluster's identity is not known"]
