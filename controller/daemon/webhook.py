"""MetalLB's admission webhook, where it was left behind: it refuses every pool.

MetalLB has the API server ask it about each pool and advertisement, and refuse them where it does not answer. After
MetalLB is taken away, this one object may be forgotten. Then no pool can be applied, and the API server's words do not
say what to do.

1. The leader looks for the object every ``CHECK_S``, in a thread of its own.
2. It looks whether the Service that the API server asks is there, and whether any endpoint of it is ready.
3. What it finds twice, ``PAUSE_S`` apart, is a problem: MetalLB may just be starting.

Not seen: a Service in another namespace with nothing behind it, since its endpoints are not ours to read.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from cluster.api.client import ApiClient
from cluster.api.errors import ApiError, NotFound
from cluster.config import Problem
from cluster.objects import ServiceReference, ValidatingWebhookConfiguration
from cluster.resources import ENDPOINT_SLICES, SERVICES, VALIDATING_WEBHOOK_CONFIGURATIONS
from cluster.slices import SERVICE_NAME_LABEL

NAME = "metallb-webhook-configuration"
"""Under this name all of MetalLB's manifests have it."""
CHECK_S = 60.0
PAUSE_S = 10.0
"""Between the two looks that must agree. A pod that starts answers within that time."""

logger = logging.getLogger("controller")


class LeftWebhook:
    """See the module's docstring. ``start`` once, ``stop`` once. ``leading`` says whether to look, ``changed`` is
    called from the thread whenever ``problem`` is another one."""

    def __init__(
        self, client: ApiClient, namespace: str, leading: Callable[[], bool], changed: Callable[[], object]
    ) -> None:
        """``namespace``: where endpoints may be read."""
        self.problem: Problem | None = None
        """What is wrong with it; None: nothing, as far as is known."""
        self._client = client
        self._namespace = namespace
        self._leading = leading
        self._changed = changed
        self._found: Problem | None = None
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
                self._look()
            self._woken.wait(CHECK_S if self._found == self.problem else PAUSE_S)
            self._woken.clear()

    def _look(self) -> None:
        try:
            found, error = self._problem(), ""
        except ApiError as failure:
            found, error = self._found, str(failure)
        if error and error != self._error:
            logger.warning("MetalLB's webhook cannot be looked for", extra={"error": error})
        self._error = error
        agreed = found == self._found or found is None
        self._found = found
        if agreed and not error and found != self.problem:
            self.problem = found
            self._changed()

    def _problem(self) -> Problem | None:
        try:
            configuration = self._client.get(VALIDATING_WEBHOOK_CONFIGURATIONS, None, NAME)
        except NotFound:
            return None
        for service in _asked(configuration):
            if missing := self._what_is_missing(service):
                reason = (
                    f"asks the Service {service.namespace}/{service.name}, {missing}, so every pool is refused; "
                    f"if MetalLB left it behind: kubectl delete validatingwebhookconfiguration {NAME}"
                )
                return Problem("ValidatingWebhookConfiguration", NAME, "webhooks", reason, "LeftBehind")
        return None

    def _what_is_missing(self, service: ServiceReference) -> str:
        try:
            self._client.get(SERVICES, service.namespace, service.name)
        except NotFound:
            return "which does not exist"
        if service.namespace != self._namespace:
            return ""
        selector = f"{SERVICE_NAME_LABEL}={service.name}"
        for page in self._client.list_pages(ENDPOINT_SLICES, service.namespace, selector):
            if any(each.conditions.is_ready for one in page.items for each in one.endpoints or ()):
                return ""
        return "behind which nobody is ready to answer"


def _asked(configuration: ValidatingWebhookConfiguration) -> list[ServiceReference]:
    """The Services without whose answer something is refused."""
    asked = [
        each.client_config.service
        for each in configuration.webhooks
        if each.failure_policy == "Fail" and each.client_config.service is not None
    ]
    return list(dict.fromkeys(asked))
