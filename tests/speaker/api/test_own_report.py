"""What a speaker's Lease reports of the nodes, and when it is written."""

from __future__ import annotations

import pytest

from cluster.node_report import REPORT_ANNOTATION, NodeReport, read_report
from cluster.objects import NodeName
from speaker.api.own_report import HOLD_S, OwnReport

ME, B, C = NodeName("node-a"), NodeName("node-b"), NodeName("node-c")


def made(*, pool: bool = True) -> OwnReport:
    report = OwnReport(ME)
    for node in (ME, B, C):
        report.set_node(node, exists=True)
    if pool:
        report.set_pool("metallb-system/nodes", exists=True)
    report.pools_known()
    report.set_own_node(frozenset())
    report.set_unheard([], 0.0)
    return report


def said(report: OwnReport, now: float) -> NodeReport:
    return read_report({REPORT_ANNOTATION: report.text(now) or ""})


def unheard(report: OwnReport, now: float) -> frozenset[NodeName]:
    return said(report, now).unheard


def test_a_silent_node_is_reported_at_once_and_one_that_is_back_after_a_hold() -> None:
    report = made()
    report.set_unheard([B], 1.0)
    assert unheard(report, 1.0) == {B}
    assert report.next_deadline() is None
    report.set_unheard([], 2.0)
    assert unheard(report, 2.0) == {B}
    assert report.next_deadline() == 2.0 + HOLD_S
    assert unheard(report, 2.0 + HOLD_S) == frozenset()
    assert report.next_deadline() is None


def test_a_node_that_is_silent_again_within_the_hold_costs_no_write() -> None:
    report = made()
    report.set_unheard([B], 1.0)
    before = report.text(1.0)
    for at in range(2, 60, 4):
        report.set_unheard([], at)
        assert report.text(at) == before
        report.set_unheard([B, C], at + 2)
        report.set_unheard([B], at + 2)
        assert unheard(report, at + 2) == {B, C}
        before = report.text(at + 2)


def test_a_node_is_heard_when_it_was_for_the_whole_hold() -> None:
    report = made()
    report.set_unheard([B], 1.0)
    report.set_unheard([], 2.0)
    report.set_unheard([B], 6.0)
    report.set_unheard([], 7.0)
    assert unheard(report, 2.0 + HOLD_S) == {B}
    assert unheard(report, 7.0 + HOLD_S) == frozenset()


def test_only_nodes_that_exist_are_reported_and_never_its_own() -> None:
    report = made()
    report.set_unheard([ME, B, C, NodeName("long-gone")], 1.0)
    report.set_node(C, exists=False)
    assert unheard(report, 1.0) == {B}


def test_nothing_is_reported_without_a_node_pool() -> None:
    report = made(pool=False)
    assert (report.take_wanted(), report.take_wanted()) == (False, None)
    report.set_unheard([B], 1.0)
    report.set_own_node(frozenset({("TCP", 22)}), "nftables", proxy_healthy=True)
    assert said(report, 1.0) == NodeReport()
    report.set_pool("metallb-system/nodes", exists=True)
    assert (report.take_wanted(), report.take_wanted()) == (True, None)
    everything = NodeReport(frozenset({B}), frozenset({("TCP", 22)}), "nftables", True)
    assert said(report, 1.0) == everything
    report.set_pool("metallb-system/more", exists=True)
    report.set_pool("metallb-system/nodes", exists=False)
    assert (report.take_wanted(), said(report, 1.0)) == (None, everything)
    report.set_pool("metallb-system/more", exists=False)
    assert (report.take_wanted(), said(report, 1.0)) == (False, NodeReport())


def test_a_report_waits_until_it_is_known_whether_there_is_a_node_pool() -> None:
    report = OwnReport(ME)
    assert (report.text(1.0), report.take_wanted()) == (None, None)
    report.pools_known()
    assert (report.text(1.0), report.take_wanted()) == ("{}", False)


def test_the_report_of_the_speaker_before_stays_until_this_one_has_found_out_all() -> None:
    report = OwnReport(ME)
    report.set_pool("metallb-system/nodes", exists=True)
    assert report.text(1.0) is None
    report.set_own_node(frozenset())
    assert report.text(1.0) is None, "who is unheard is not known"
    report.set_unheard([], 2.0)
    assert report.text(2.0) == "{}"


@pytest.mark.parametrize("always", [True, False])
def test_a_speaker_for_liveness_alone_always_reports(*, always: bool) -> None:
    report = OwnReport(ME, always=always)
    assert report.take_wanted() is (True if always else None)
