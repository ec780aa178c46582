"""Copies of all objects that every controller reads, kept up to date by one reflector, and thread, of each kind.

Pools and advertisements are copied twice: those of the controller's namespace, which count, and those of all others,
of which is only said that they do not. Nothing waits for the latter.

What is observed is passed on at once. A new leader asks for everything anew (``refresh``): what the copies have once
that is done is no older than the question, however far a watch lagged behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from cluster.api.client import ApiClient
from cluster.api.reflector import Change, Reflector
from cluster.objects import Object, Service
from cluster.resources import (
    CONFIGURATION_STATES,
    IP_ADDRESS_POOLS,
    L2_ADVERTISEMENTS,
    NAMESPACES,
    NODE_IP_POOLS,
    NODES,
    SERVICE_CIDRS,
    SERVICES,
)


class Copies:
    """``start`` once, ``stop`` once. ``note`` is called with each change, from the reflectors' threads."""

    def __init__(self, client: ApiClient, namespace: str, note: Callable[[Change[Any]], object]) -> None:
        self._namespace = namespace

        def note_elsewhere(change: Change[Any]) -> None:
            if self._is_elsewhere(change.new or change.old):
                note(change)

        self._namespaces = Reflector(client, NAMESPACES, on_change=note)
        self._states = Reflector(client, CONFIGURATION_STATES, namespace=namespace, optional=True, on_change=note)
        self._services = Reflector(client, SERVICES, field_selector="spec.type=LoadBalancer", on_change=note)
        self._needed: Final[tuple[Reflector[Any], ...]] = (
            self._services,
            Reflector(client, IP_ADDRESS_POOLS, namespace=namespace, on_change=note),
            Reflector(client, NODE_IP_POOLS, namespace=namespace, optional=True, on_change=note),
            Reflector(client, L2_ADVERTISEMENTS, namespace=namespace, optional=True, on_change=note),
            self._namespaces,
            Reflector(client, NODES, on_change=note),
            self._states,
            Reflector(client, SERVICE_CIDRS, optional=True, on_change=note),
        )
        self._elsewhere: Final[tuple[Reflector[Any], ...]] = (
            Reflector(client, IP_ADDRESS_POOLS, optional=True, on_change=note_elsewhere),
            Reflector(client, NODE_IP_POOLS, optional=True, on_change=note_elsewhere),
            Reflector(client, L2_ADVERTISEMENTS, optional=True, on_change=note_elsewhere),
        )

    def start(self) -> None:
        for reflector in (*self._needed, *self._elsewhere):
            reflector.start()

    def stop(self) -> None:
        for reflector in (*self._needed, *self._elsewhere):
            reflector.stop()

    # -------------------------------------------------------------------- what there is

    def services(self) -> Mapping[str, Service]:
        """Those of type LoadBalancer, by ``namespace/name``."""
        return self._services.items()

    def everything(self) -> Iterator[Object]:
        """All objects, each once."""
        for reflector in self._needed:
            yield from reflector.items().values()
        for reflector in self._elsewhere:
            yield from (each for each in reflector.items().values() if self._is_elsewhere(each))

    def _is_elsewhere(self, view: Object | None) -> bool:
        return view is not None and view.metadata.namespace != self._namespace

    # -------------------------------------------------------------------- how good the copies are

    @property
    def synced(self) -> bool:
        """Whether everything has been listed once."""
        return all(each.synced for each in self._needed)

    @property
    def states_served(self) -> bool:
        """Whether the API has the kind ConfigurationState."""
        return not self._states.unserved

    @property
    def namespace_missing(self) -> bool:
        """Whether the controller's own namespace does not exist, as far as is known."""
        return self._namespaces.synced and self._namespace not in self._namespaces.items()

    def missing(self) -> list[str]:
        """What is not there yet, or not heard of at present; for people."""
        unlisted = [each.with_trouble for each in self._needed if not each.synced]
        deaf = [each.with_trouble for each in self._needed if each.synced and each.trouble]
        waiting = [f"waiting for the first list of {', '.join(unlisted)}"] if unlisted else []
        return waiting + ([f"no news of {', '.join(deaf)}"] if deaf else [])

    def refresh(self) -> tuple[int, ...]:
        """Have everything listed anew; the number of this request for each kind."""
        return tuple(each.refresh() for each in self._needed)

    def refreshed(self, asked: tuple[int, ...]) -> bool:
        """Whether all of that has come. It wakes nobody."""
        return all(each.refreshed >= number for each, number in zip(self._needed, asked, strict=True))
