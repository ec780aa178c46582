"""MetalLB's admission webhook, where it was left behind: nobody answers for it, and every pool is refused.

MetalLB has the API server ask it about each pool and advertisement, and refuse them where it does not answer. Whoever
takes MetalLB away and forgets this one object can apply none any more, and the API server's words do not say what to
do. So the leader looks for it now and then, in a thread of its own.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from cluster.client import ApiClient
from cluster.config import Problem
from cluster.errors import ApiError, NotFound
from cluster.resources import SERVICES, VALIDATING_WEBHOOK_CONFIGURATIONS

NAME = "metallb-webhook-configuration"
"""Under this name all of MetalLB's manifests have it."""
CHECK_S = 60.0

logger = logging.getLogger("controller")


class LeftWebhook:
    """See the module's docstring. ``start`` once, ``stop`` once. ``leading`` says whether to look."""

    def __init__(self, client: ApiClient, leading: Callable[[], bool]) -> None:
        self.problem: Problem | None = None
        """What is wrong with it; None: nothing, as far as is known."""
        self._client = client
        self._leading = leading
        self._error = ""
        self._stopping = threading.Event()
        self._woken = threading.Event()
        self._thread = threading.Thread(target=self._run, name="webhook", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._woken.set()

    def look(self) -> None:
        """Look now. From any thread; returns at once."""
        self._woken.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            if self._leading():
                try:
                    self.problem = _problem(self._client)
                except ApiError as error:
                    if str(error) != self._error:
                        self._error = str(error)
                        logger.warning("MetalLB's webhook cannot be looked for", extra={"error": self._error})
            self._woken.wait(CHECK_S)
            self._woken.clear()


def _problem(client: ApiClient) -> Problem | None:
    try:
        found = client.get(VALIDATING_WEBHOOK_CONFIGURATIONS, None, NAME)
    except NotFound:
        return None
    for service in dict.fromkeys(each.client_config.service for each in found.webhooks):
        if service is None:
            continue
        try:
            client.get(SERVICES, service.namespace, service.name)
        except NotFound:
            reason = (
                f"asks the Service {service.namespace}/{service.name}, which does not exist, so every pool is refused; "
                f"MetalLB left it behind: kubectl delete validatingwebhookconfiguration {NAME}"
            )
            return Problem("ValidatingWebhookConfiguration", NAME, "webhooks", reason, "LeftBehind")
    return None
