"""Where a speaker says what is wrong: in the log, in Events, and in its ConfigurationState.

``Reporter`` takes facts, the configuration and the announcer's decisions, and has the ``Publisher`` write:

1. A trouble that keeps the speaker from doing its part (``troubles``) is logged as it begins and as it ends, is in the
   ConfigurationState as long as it lasts, and is an Event on the Node, at most one in ten minutes.
2. A decision that people must see (``events``) is an Event on the Node, or on the Services that have its address.
3. A Service that this node would announce first, and cannot for want of an interface (``stranded``), gets an Event.
4. A problem of the configuration is logged once and is in the ConfigurationState.
5. So is each address that somebody else on the LAN has, as long as that lasts; the controller makes a condition of the
   Service of it.

Nothing is written where nothing has changed. Times are monotonic seconds.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

from cluster.config import Config, Problem
from cluster.listing import first_few
from cluster.objects import AddressConflict, NodeName
from speaker.api.events import EventGate, conflict_message, event_of
from speaker.api.planner import Planner
from speaker.api.publisher import Publisher
from speaker.api.records import Findings, about_service, shortened
from speaker.api.stranded import Stranded, advertisements_without_interface, unusable_interfaces
from speaker.api.troubles import Trouble, Troubles
from speaker.channel import Stats
from speaker.link import LinkName
from speaker.protocol.effects import ConflictView, Decision

NAMESPACE_LOOK_S = 30.0  # between looks whether there is a namespace of ours, while nothing is found in it

logger = logging.getLogger(__name__)


class Reporter:
    """See the module's docstring. ``interfaces`` gives the names of all interfaces of the node."""

    def __init__(
        self,
        publisher: Publisher,
        planner: Planner,
        node: NodeName,
        namespace: str,
        interfaces: Callable[[], frozenset[LinkName]],
    ) -> None:
        self.troubles = Troubles(node, namespace)
        self.present: tuple[Trouble, ...] = ()
        """What keeps us from doing our part, as of the last ``judge``."""
        self._publisher = publisher
        self._planner = planner
        self._node = node
        self._interfaces = interfaces
        self._gate = EventGate()
        self._stranded_gate = EventGate()
        self._findings = Findings()
        self._namespace_look_at = 0.0
        self._drain = ""

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Of the configuration."""
        return self._findings.problems or ()

    def set_problems(self, problems: tuple[Problem, ...]) -> None:
        if problems != self._findings.problems:
            for problem in problems:
                logger.warning("configuration problem", extra={"problem": problem.text})
            self._say(replace(self._findings, problems=problems))

    def set_drain(self, why: str) -> None:
        """Why people have taken this node out of use; empty where they have not."""
        if why == self._drain:
            return
        self._drain = why
        if why:
            message = f"addresses of Services move to other nodes, as far as these can hold them: {why}"
            self._publisher.tell_of_node("Draining", shortened(message))
        else:
            self._publisher.tell_of_node("DrainOver", "the node may hold addresses of Services again")
        logger.info("drain", extra={"why": why})

    def tell_drained(self, announced: Collection[str], why: str) -> None:
        """What people drained this node for is done, but for these Services."""
        if not announced:
            self._publisher.tell_of_node("Drained", f"the node announces no Service any more: {shortened(why)}")
            return
        which = first_few(sorted(announced))
        message = f"the node still announces {len(announced)} Services, since no other node takes them: {which} ({why})"
        self._publisher.tell_of_node("DrainIncomplete", shortened(message))

    def set_interfaces(self, config: Config, labels: Mapping[str, str], links: frozenset[LinkName]) -> None:
        """What advertisements demand of this node, which has these labels, and what it has to announce on."""
        unusable = unusable_interfaces(config, labels, links, self._interfaces())
        self.troubles.set_unusable(unusable)
        self._say(replace(self._findings, without_interface=advertisements_without_interface(config, labels, links)))

    def tell_stranded(self, stranded: list[Stranded], now: float) -> None:
        """Services that this node would announce first, and cannot."""
        for each in stranded:
            service = self._planner.service(each.service)
            if service and self._stranded_gate.admits((each.service,), now):
                message = each.message(self._node, self._interfaces())
                self._publisher.warn(about_service(service.metadata), "announceFailed", message)

    def take_statistics(self, stats: Stats, now: float) -> None:
        """What the announcer says of itself each second."""
        self.troubles.set_refused(stats.refused)
        self.troubles.set_blocked(stats.blocked)
        self.troubles.set_reasons(stats.unusable)
        self.troubles.set_hearing(now, hears=any(peer.alive for peer in stats.peers))
        self.troubles.set_kernel(stats.kernel)
        self._set_conflicts(stats.conflicts)
        self.judge(now)

    def _set_conflicts(self, conflicts: tuple[ConflictView, ...]) -> None:
        said = (
            AddressConflict(each.address, each.withheld, shortened(conflict_message(each, self._node)))
            for each in conflicts
        )
        self._say(replace(self._findings, conflicts=tuple(sorted(said, key=lambda each: each.address))))

    def looks_for_namespace(self, config: Config | None, now: float) -> bool:
        """Whether to look now if there is a namespace of ours: where neither pools nor advertisements are found,
        perhaps there is none to find them in."""
        if config is not None and (config.pools or config.advertisements):
            self.troubles.set_namespace(exists=True)
            return False
        if now < self._namespace_look_at:
            return False
        self._namespace_look_at = now + NAMESPACE_LOOK_S
        return True

    def tell(self, decision: Decision, now: float) -> None:
        """The announcer has decided something."""
        event = event_of(decision, self._node)
        if event is None:
            return
        if event.address is None:
            self.troubles.note(event, now)
        if not self._gate.admits(event.key, now):
            return
        if event.address is None:
            self._publisher.warn_of_node(event.reason, event.message, decision.at or None)
            return
        for key in self._planner.services_with(event.address):
            service = self._planner.service(key)
            if service and self._planner.bundle_of(key):
                self._publisher.warn(about_service(service.metadata), event.reason, event.message, decision.at or None)

    def judge(self, now: float) -> None:
        """See what there is now, and say what has changed."""
        before, self.present = self.present, self.troubles.present(now)
        for trouble in self.troubles.facts(now):
            if self._publisher.knows_own_node and self._gate.admits((trouble.reason, trouble.text), now):
                self._publisher.warn_of_node(trouble.reason, trouble.text)
        if self.present == before:
            return
        for trouble in self.present:
            if trouble not in before:
                logger.warning("trouble", extra={"reason": trouble.reason, "text": trouble.text})
        for reason in {each.reason for each in before} - {each.reason for each in self.present}:
            logger.info("trouble over", extra={"reason": reason})
        self._say(replace(self._findings, troubles=self.present))

    def _say(self, findings: Findings) -> None:
        if findings != self._findings:
            self._findings = findings
            self._publisher.find(findings)
