"""Parts that the custom resources have in common: each check raises ``ConfigError`` with the part's path.

The API server's rules refuse most mistakes when an object is applied. Repetitions come this far, and objects that were
stored before an upgrade.
"""

from __future__ import annotations

from cluster.objects import LabelSelector, ServiceAllocation
from cluster.selectors import SelectorError, check_list


class ConfigError(Exception):
    """An object that cannot be honoured: ``field`` is its path as the user writes it, ``reason`` completes it."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


def check_allocation(allocation: ServiceAllocation) -> None:
    where = "spec.serviceAllocation"
    check_distinct(allocation.namespaces, f"{where}.namespaces")
    check_selectors(allocation.namespace_selectors, f"{where}.namespaceSelectors")
    check_selectors(allocation.service_selectors, f"{where}.serviceSelectors")


def check_distinct(names: tuple[str, ...], where: str) -> None:
    seen: set[str] = set()
    for position, name in enumerate(names):
        if name in seen:
            raise ConfigError(f"{where}[{position}]", f'repeats "{name}"')
        seen.add(name)


def check_selectors(selectors: tuple[LabelSelector, ...], where: str) -> None:
    try:
        check_list(selectors)
    except SelectorError as error:
        raise ConfigError(where + error.where, str(error)) from error
