"""How an observing daemon tells differences: log lines, and one metric."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from cluster.differences import DifferenceNews

MOST_TOLD = 100
"""Lines at a time; of more, the rest is a number."""

logger = logging.getLogger("observe")


def tell(news: DifferenceNews) -> None:
    """A line for each difference, as it begins and as it ends."""
    for difference in news.begun[:MOST_TOLD]:
        logger.warning("difference", extra=difference._asdict())
    for difference in news.over[:MOST_TOLD]:
        logger.info("difference over", extra={"kind": difference.kind, "about": difference.about})
    untold = max(0, len(news.begun) - MOST_TOLD) + max(0, len(news.over) - MOST_TOLD)
    if untold:
        logger.warning("more differences", extra={"lines": untold})


class DifferencesCollector(Collector):
    """Register it in the registry that ``/metrics`` shows. ``counts`` is called from the server's thread."""

    def __init__(self, counts: Callable[[], Mapping[str, int]]) -> None:
        self._counts = counts

    def collect(self) -> Iterable[Metric]:
        family = GaugeMetricFamily(
            "berthlb_observe_differences",
            "Where an observing daemon would do otherwise than what it finds.",
            labels=["difference"],
        )
        for kind, count in sorted(self._counts().items()):
            family.add_metric([kind], count)
        yield family
