"""The annotation by which a speaker reports of the nodes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.node_report import LONGEST_TEXT, REPORT_ANNOTATION, NodeReport, read_report, write_report
from cluster.objects import NodeName

NOTHING = NodeReport()

names = st.from_regex(r"[a-z0-9]([-a-z0-9.]{0,20}[a-z0-9])?", fullmatch=True).map(NodeName)
ports = st.tuples(st.sampled_from(["TCP", "UDP", "SCTP"]), st.integers(1, 65535))
reports = st.builds(
    NodeReport,
    st.frozensets(names, max_size=9),
    st.frozensets(ports, max_size=9),
    st.none() | st.sampled_from(["iptables", "ipvs", "nftables"]),
    st.none() | st.booleans(),
)


def read(text: str) -> NodeReport:
    return read_report({REPORT_ANNOTATION: text})


@given(reports)
def test_what_is_written_is_read(report: NodeReport) -> None:
    assert read(write_report(report)) == report


@pytest.mark.parametrize(
    ("report", "text"),
    [
        (NOTHING, "{}"),
        (NodeReport(unheard=frozenset(map(NodeName, ("node-c", "node-b")))), '{"unheard":["node-b","node-c"]}'),
        (
            NodeReport(frozenset(), frozenset({("UDP", 323), ("TCP", 10250), ("TCP", 22)}), "nftables", True),
            '{"listening":["22/TCP","323/UDP","10250/TCP"],"proxy":{"healthy":true,"mode":"nftables"}}',
        ),
        (NodeReport(proxy_healthy=False), '{"proxy":{"healthy":false}}'),
    ],
)
def test_equal_reports_are_the_same_text(report: NodeReport, text: str) -> None:
    assert write_report(report) == text


@pytest.mark.parametrize(
    ("text", "report"),
    [
        ("", NOTHING),
        ("no JSON", NOTHING),
        ("null", NOTHING),
        ('["node-b"]', NOTHING),
        ('{"unheard":"node-b","listening":{"22":1},"proxy":"nftables"}', NOTHING),
        ('{"unheard":[null,1,["node-a"],"","node-b"]}', NodeReport(frozenset({NodeName("node-b")}))),
        ('{"unheard":["' + "n" * 254 + '","node-b"],"seen":7}', NodeReport(frozenset({NodeName("node-b")}))),
        (
            '{"listening":["0/TCP","65536/TCP","22","22/tcp","-1/UDP","1e2/UDP","٢٢/TCP","000022/TCP","/TCP","22/TCP"]}',
            NodeReport(listening=frozenset({("TCP", 22)})),
        ),
        ('{"proxy":{"mode":7,"healthy":"yes"}}', NOTHING),
        ('{"proxy":{"mode":"' + "m" * 33 + '","healthy":null}}', NOTHING),
        ('{"proxy":{"mode":"eBPF","since":3}}', NodeReport(proxy_mode="eBPF")),
        ('{"later":' + "[" * 60_000 + "]" * 60_000 + ',"unheard":["node-b"]}', NOTHING),
        ('{"unheard":["node-b"],"later":"' + "x" * LONGEST_TEXT + '"}', NOTHING),
        ('{"unheard":["\ud800"]}', NOTHING),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_what_is_not_understood_is_passed_over(text: str, report: NodeReport) -> None:
    assert read(text) == report


@given(st.text(max_size=60) | st.recursive(st.none() | st.text(), st.lists, max_leaves=9).map(json.dumps))
def test_no_text_is_refused(text: str) -> None:
    read(text)


@given(
    st.dictionaries(
        st.sampled_from(["unheard", "listening", "proxy", "mode", "healthy"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
        ),
    ).map(json.dumps)
)
def test_no_json_is_refused(text: str) -> None:
    read(text)


def test_a_report_is_bounded() -> None:
    """Of many nodes the first by name count, of many ports the lowest, for the writer and for the reader alike."""
    nodes = [f"n{number:03}".ljust(253, "x") for number in range(400)]
    everything = NodeReport(
        frozenset(map(NodeName, nodes)), frozenset(("UDP", port) for port in range(65535, 60000, -1)), "m" * 32, True
    )
    text = write_report(everything)
    assert len(text) < LONGEST_TEXT
    kept = NodeReport(
        frozenset(map(NodeName, nodes[:256])), frozenset(("UDP", port) for port in range(60001, 60513)), "m" * 32, True
    )
    assert read(text) == kept
    assert write_report(kept) == text
    said = {
        "unheard": [f"n{number:03}" for number in range(399, -1, -1)],
        "listening": [f"{n}/TCP" for n in range(1, 999)],
    }
    assert read(json.dumps(said)) == NodeReport(
        frozenset(NodeName(f"n{number:03}") for number in range(256)),
        frozenset(("TCP", port) for port in range(1, 513)),
    )


def test_a_lease_without_a_report_reports_nothing() -> None:
    assert read_report({"berthlb.io/links": "[]"}) == NOTHING
