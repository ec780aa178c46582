"""From what the announcer holds to what people are told of it, and from when on.

``Telling`` takes the announcer's claims and decisions, the node's links and labels, and what changed in the Plan, and
passes to ``Publisher`` and ``Reporter`` what follows:

1. Claims name addresses, and the Plan says which Services have them: so nothing is told before the first Plan is out.
2. A watcher that starts anew learns from the cache of status objects what its node announced before, and repeats no
   Event of it. That cache is waited for, and no longer than ``RECORDS_WAIT_S``: it only saves Events that are no news.
3. Until then claims gather. From then on each change of claims, Plan or links is told as it comes.
4. A node that is drained hands over what others can hold. What it announces ``KEPT_S`` later it keeps, and that is told
   of each Service and of the node.
5. Once the announcer can claim, what was left over from before is reviewed with each change of the Plan
   (``Publisher.review_left``).

Times are monotonic seconds.
"""

from __future__ import annotations

from collections.abc import Mapping

from cluster.config import Config
from cluster.objects import AddressText, NodeName
from speaker.api.announcements import Announcements
from speaker.api.planner import Planner
from speaker.api.publisher import Publisher
from speaker.api.reporter import Reporter
from speaker.api.stranded import Links, SpokenFamilies, StrandedServices
from speaker.channel import Claims, ClaimsChange, Holding
from speaker.link import LinkName

RECORDS_WAIT_S = 5.0  # for the status objects' cache
KEPT_S = 10.0  # for a drained node to hand over what others can hold: thousands of addresses take a second or two


class Telling:
    """See the module's docstring."""

    def __init__(self, planner: Planner, publisher: Publisher, reporter: Reporter, node: NodeName) -> None:
        self.announcements = Announcements(planner)
        self._planner = planner
        self._stranded = StrandedServices(planner, node)
        self._publisher = publisher
        self._reporter = reporter
        self._begins_at: float | None = None
        """When it begins at the latest; None: no Plan is out, or it has begun."""
        self._begun = False
        self._ready = self._reviewed = False
        """The announcer can claim; what is left over from before was reviewed."""
        self._claims: dict[AddressText, Holding | None] = {}
        """Changes of the announcer's claims that were not told yet."""
        self._links: frozenset[LinkName] | None = None
        self._links_told: frozenset[LinkName] | None = None
        self._families = SpokenFamilies()
        self._spoken: Links | None = None
        self._spoken_told: Links | None = None
        self._labels: dict[str, str] | None = None
        self._drain = ""
        self._drain_told_at: float | None = None
        """When to tell what became of the drain, or that it is over; None: that was told."""
        self._demand: tuple[Config, dict[str, str], frozenset[LinkName]] | None = None
        """What advertisements demanded of which node, when this was told last."""

    # -------------------------------------------------------------------- what happens

    def take_claims(self, message: Claims | ClaimsChange) -> Mapping[AddressText, Holding | None]:
        """The announcer's claims; what of them has changed, as far as it is known here."""
        changes: dict[AddressText, Holding | None] = dict(message.held)
        if isinstance(message, Claims):
            changes = {**dict.fromkeys((*self.announcements.claimed(), *self._claims)), **changes}
        self._claims.update(changes)
        self.announcements.suspended = frozenset(message.suspended)
        self._tell_claims()
        return changes

    def set_links(self, links: Links, now: float) -> None:
        """The links that can be announced on. To be told again each second."""
        names = frozenset(links)
        if names != self._links:
            self._links = names
            self._reporter.troubles.set_links(names, now)
        self._spoken = self._families.seen(links, now)

    def announcer_ready(self) -> None:
        """The announcer can claim."""
        self._ready = True

    def set_labels(self, labels: dict[str, str]) -> None:
        """Those of this node."""
        self._labels = labels

    def set_drain(self, why: str, now: float) -> None:
        """Why people have drained this node; empty where they have not."""
        if why != self._drain:
            self._drain_told_at = now + KEPT_S if why else now
            self._drain = why

    def plan_sent(self, now: float) -> None:
        """The first Plan is out, or the change of it that was last taken from the planner."""
        if self._begun:
            self._publisher.tell(self.announcements.plan_changed())
            if self._reviewed:
                self._publisher.review_left(self._planner.reconsidered, self._may_serve_later)
            self._reporter.tell_stranded(self._stranded.plan_changed(), now)
        elif self._begins_at is None:
            self._begins_at = now + RECORDS_WAIT_S

    # -------------------------------------------------------------------- what is told

    def next_deadline(self) -> float | None:
        """When to call ``advance``; None: not before something happens."""
        return self._drain_told_at if self._begun else self._begins_at

    def advance(self, config: Config | None, now: float, *, recorded: bool) -> None:
        """Tell what has changed. ``recorded``: it is known which status objects name this node."""
        if self._begins_at is not None and (recorded or now >= self._begins_at):
            self._begins_at, self._begun = None, True
            self._tell_claims()
        if self._begun and self._ready and not self._reviewed:
            self._reviewed = True
            self._publisher.review_left(None, self._may_serve_later)
        if self._begun and self._links is not None and self._links != self._links_told:
            self._links_told = self._links
            self._publisher.tell(self.announcements.set_links(self._links))
        if self._begun and self._spoken is not None and self._spoken != self._spoken_told:
            self._spoken_told = self._spoken
            self._reporter.tell_stranded(self._stranded.set_links(self._spoken), now)
        if self._begun and self._drain_told_at is not None and now >= self._drain_told_at:
            self._drain_told_at = None
            self._publisher.tell(self.announcements.set_drain(self._drain))
            if self._drain:
                self._reporter.tell_drained(self.announcements.announced, self._drain)
        if config is not None and self._labels is not None and self._links is not None:
            demand, before = (config, self._labels, self._links), self._demand
            if before is None or config is not before[0] or demand[1:] != before[1:]:
                self._demand = demand
                self._reporter.set_interfaces(*demand)

    def _may_serve_later(self, service: str) -> bool:
        """Whether endpoints are all that a Service lacks."""
        bundle = self._planner.bundle_of(service)
        return bundle is not None and not bundle.serving

    def _tell_claims(self) -> None:
        if self._begun and self._claims:
            changes, self._claims = self._claims, {}
            self._publisher.tell(self.announcements.change_claims(changes))
