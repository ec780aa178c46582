"""What a speaker follows in the API: each kind by a reflector of its own, and of each kind as little as it needs.

A change is handed to the function that was given for its kind, on the reflector's thread. Changes of pools and
advertisements that say nothing else than before are not handed on (``configuration.says_otherwise``).

``synced`` says when all is known that a Plan is made of; it never becomes untrue again. The definitions of what only
people read may be missing in the cluster, and nothing waits for them. A Plan also waits for the ConfigMap of excluded
interfaces, but not where the server does not let us read it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from cluster.api.client import (
    CONFIG_MAPS,
    CONFIGURATION_STATES,
    ENDPOINT_SLICES,
    IP_ADDRESS_POOLS,
    L2_ADVERTISEMENTS,
    LEASES,
    NODES,
    SECRETS,
    SERVICE_L2_STATUSES,
    SERVICES,
    ApiClient,
)
from cluster.api.reflector import Change, Reflector
from cluster.components import COMPONENT_LABEL
from cluster.l2status import NODE_LABEL
from cluster.objects import ConfigMap, Object
from cluster.resources import NODE_IP_POOLS, Resource
from cluster.slices import SLICES_OF_SERVICES
from speaker.api import exclusions
from speaker.api.configuration import says_otherwise
from speaker.api.kept import kept_record, kept_service, kept_slice
from speaker.keys import KEY_SECRET
from speaker.options import Options

T = TypeVar("T", bound=Object)
Take = Callable[[Change[Any]], object]
"""What becomes of a change. Called from a reflector's thread."""


class Sources:
    """See the module's docstring. ``take`` says for each kind, by its plural, what becomes of its changes; Secrets only
    where no key was given. Who observes follows what a Plan is made of, and the status objects of every node."""

    def __init__(self, client: ApiClient, options: Options, take: Mapping[str, Take]) -> None:
        own = options.namespace

        def follow(
            resource: Resource[T],
            namespace: str | None = None,
            *,
            labels: str | None = None,
            fields: str | None = None,
            optional: bool = False,
            keep: Callable[[T], T] = lambda read: read,
            of_interest: Callable[[Change[Any]], bool] = lambda _: True,
        ) -> Reflector[T]:
            take_it = take[resource.plural]
            return Reflector(
                client,
                resource,
                namespace=namespace,
                label_selector=labels,
                field_selector=fields,
                optional=optional,
                keep=keep,
                on_change=lambda change: take_it(change) if of_interest(change) else None,
            )

        self._for_plan: list[Reflector[Any]] = [
            follow(SERVICES, fields="spec.type=LoadBalancer", keep=kept_service),
            follow(ENDPOINT_SLICES, labels=SLICES_OF_SERVICES, keep=kept_slice),
            follow(NODES),
            follow(IP_ADDRESS_POOLS, own, of_interest=says_otherwise),
            follow(L2_ADVERTISEMENTS, own, of_interest=says_otherwise),
        ]
        of_this_node = None if options.observe else f"{NODE_LABEL}={options.node}"
        self._records = follow(SERVICE_L2_STATUSES, own, labels=of_this_node, optional=True, keep=kept_record)
        self._all: list[Reflector[Any]] = [*self._for_plan, self._records]
        self._exclusion: Reflector[ConfigMap] | None = None
        self._leases: Reflector[Any] | None = None
        self._node_pools: Reflector[Any] | None = None
        if options.observe:
            return
        self._exclusion = follow(CONFIG_MAPS, own, fields=f"metadata.name={exclusions.NAME}")
        self._leases = follow(LEASES, own, labels=f"{COMPONENT_LABEL}=speaker")
        self._node_pools = follow(NODE_IP_POOLS, own, optional=True, of_interest=_comes_or_goes)
        self._all += [self._exclusion, self._leases, self._node_pools]
        self._all.append(follow(CONFIGURATION_STATES, own, labels=f"{COMPONENT_LABEL}=speaker", optional=True))
        if not options.key:
            self._all.append(follow(SECRETS, own, fields=f"metadata.name={KEY_SECRET}"))

    def start(self) -> None:
        for reflector in self._all:
            reflector.start()

    def stop(self) -> None:
        for reflector in self._all:
            reflector.stop()

    @property
    def synced(self) -> bool:
        """Whether all is known that a Plan is made of."""
        known = all(each.synced for each in self._for_plan)
        return known and (self._exclusion is None or self._exclusion.synced or bool(self._exclusion.trouble))

    @property
    def current(self) -> bool:
        """Whether all that a Plan is made of is followed now."""
        return not any(each.trouble for each in self._for_plan)

    @property
    def exclusion_known(self) -> bool:
        """Whether it is known which interfaces are excluded."""
        return self._exclusion is not None and self._exclusion.synced

    @property
    def recorded(self) -> bool:
        """Whether it is known which status objects name this node."""
        return self._records.synced

    @property
    def listed(self) -> bool:
        """Whether the speakers' Leases are known."""
        return self._leases is not None and self._leases.synced

    @property
    def node_pools_known(self) -> bool:
        """Whether it is known if there are NodeIPPools."""
        return self._node_pools is not None and self._node_pools.synced

    def wait_synced(self, then: Callable[[], object]) -> None:
        """Wait for both, and call ``then`` whenever another kind is known."""
        waited = (*self._for_plan, self._records, self._exclusion, self._leases, self._node_pools)
        for reflector in waited:
            if reflector is not None:
                reflector.wait_synced()
                then()

    def missing(self) -> list[str]:
        """The kinds that a Plan still lacks, each with what is wrong with it."""
        return [each.with_trouble for each in self._for_plan if not each.synced]

    def failures(self) -> dict[str, int]:
        """By plural, requests that failed in a row."""
        return {each.resource.plural: each.counters.failures for each in self._all}

    def errors(self) -> int:
        """Objects and changes that could not be taken in."""
        return sum(each.callback_errors + each.counters.undecodable for each in self._all)


def _comes_or_goes(change: Change[Any]) -> bool:
    """What a NodeIPPool says is the controller's to read: its status changes with each Service."""
    return change.old is None or change.new is None
