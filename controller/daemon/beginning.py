"""What a controller does once when it begins to lead, beside deciding: each task in a thread, until it has worked.

1. It makes the key of the speakers' heartbeats, if there is none.
2. It looks for Services whose type was changed while no controller ran.
"""

from __future__ import annotations

import base64
import logging
import random
import secrets
import threading
from collections.abc import Callable

from cluster.api.client import ApiClient
from cluster.api.errors import AlreadyExists, ApiError
from cluster.objects import Service
from cluster.resources import SECRETS, SERVICES
from controller.retry import retry_delay
from controller.services.reading import bears_our_mark

KEY_SECRET = "berthlb-heartbeat"  # noqa: S105  # the name, not the key
KEY_BYTES = 32

logger = logging.getLogger("controller")


def make_key(client: ApiClient, namespace: str, stopping: threading.Event) -> None:
    """The key of the speakers' heartbeats, if there is none yet; never another one over it. Returns at once."""

    def make() -> None:
        key = base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()
        metadata = {"name": KEY_SECRET, "namespace": namespace}
        body = {"metadata": metadata, "type": "Opaque", "data": {"current": key}}
        try:
            client.create(SECRETS, namespace, body)
        except AlreadyExists:
            return
        logger.info("made the heartbeat key", extra={"object": f"{namespace}/{KEY_SECRET}"})

    _in_background("heartbeat key", make, stopping)


def find_leftovers(client: ApiClient, found: Callable[[Service], object], stopping: threading.Event) -> None:
    """Services whose type was changed while nobody watched: no LoadBalancers any more, but with our marks. Returns at
    once; ``found`` is called with each."""

    def find() -> None:
        for page in client.list_pages(SERVICES):
            for view in page.items:
                if view.spec.type != "LoadBalancer" and bears_our_mark(view):
                    found(view)

    _in_background("leftovers", find, stopping)


def _in_background(name: str, task: Callable[[], None], stopping: threading.Event) -> None:
    def run() -> None:
        attempts = 0
        while not stopping.is_set():
            try:
                task()
            except ApiError as error:
                attempts += 1
                logger.warning("retrying", extra={"task": name, "error": str(error)})
                stopping.wait(retry_delay(attempts, error.retry_after or 0.0, random.Random()))
            else:
                return

    threading.Thread(target=run, name=name, daemon=True).start()
