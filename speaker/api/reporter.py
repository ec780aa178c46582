"""Saying aloud what is wrong: from decisions, facts and the configuration to Events, ConfigurationState and the log.

What keeps the speaker from doing its part is logged as it begins and as it ends, is on record as long as it lasts, and
is an Event each ten minutes. A conflict about an address is an Event on the Services that have it.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Mapping
from dataclasses import replace

from cluster.config import Config, Problem
from cluster.objects import NodeName
from speaker.api.events import EventGate, event_of
from speaker.api.planner import Planner
from speaker.api.publisher import Publisher
from speaker.api.records import Verdict, about_service
from speaker.api.stranded import Stranded, advertisements_without_interface, unusable_interfaces
from speaker.api.troubles import Trouble, Troubles
from speaker.link import LinkName
from speaker.protocol.effects import Decision

logger = logging.getLogger(__name__)


class Reporter:
    """Called from the watcher's loop. Time in monotonic seconds."""

    def __init__(self, publisher: Publisher, planner: Planner, node: NodeName, namespace: str) -> None:
        self.troubles = Troubles(node, namespace)
        self.present: tuple[Trouble, ...] = ()
        """What keeps us from doing our part, as of the last ``judge``."""
        self._publisher = publisher
        self._planner = planner
        self._node = node
        self._gate = EventGate()
        self._stranded_gate = EventGate()
        self._verdict = Verdict()

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Of the configuration."""
        return self._verdict.problems or ()

    def set_problems(self, problems: tuple[Problem, ...]) -> None:
        if problems != self._verdict.problems:
            for problem in problems:
                logger.warning("configuration problem", extra={"problem": problem.text})
            self._say(replace(self._verdict, problems=problems))

    def set_interfaces(self, config: Config, labels: Mapping[str, str], links: frozenset[LinkName]) -> None:
        """What advertisements demand of this node, which has these labels, and what it has to announce on."""
        unusable = unusable_interfaces(config, labels, links, _all_interfaces())
        self.troubles.set_unusable(unusable)
        self._say(replace(self._verdict, without_interface=advertisements_without_interface(config, labels, links)))

    def tell_stranded(self, stranded: list[Stranded], now: float) -> None:
        """Services that this node would announce first, and cannot."""
        for each in stranded:
            service = self._planner.service(each.service)
            if service and self._stranded_gate.admits((each.service,), now):
                message = each.message(self._node, _all_interfaces())
                self._publisher.warn(about_service(service.metadata), "announceFailed", message)

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
        for key in self._planner.holders(event.address):
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
        self._say(replace(self._verdict, troubles=self.present))

    def _say(self, verdict: Verdict) -> None:
        if verdict != self._verdict:
            self._verdict = verdict
            self._publisher.configuration(verdict)


def _all_interfaces() -> frozenset[LinkName]:
    return frozenset(LinkName(name) for _, name in socket.if_nameindex())
