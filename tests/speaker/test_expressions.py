"""Go's regular expressions: what was found here was compared with Go's own (regexp.MatchString of Go 1.26)."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speaker.expressions import DEEPEST, LONGEST, Expression, ExpressionError


@pytest.mark.parametrize(
    ("expression", "matched", "others"),
    [
        ("lo", "lo vlo0 clone", "l o0"),
        ("^lo$", "lo", "lo0 vlo"),
        ("docker.*", "docker0 xdocker docker", "docke"),
        ("", "lo eth0", ""),
        ("a|^eth[13]$|", "eth2 b", ""),
        ("^(eth|wl)\\d+$", "eth0 wl12", "ethx eth"),
        ("^(?:eth|en)(?P<n>[0-9]{1,2})(?<m>s?)$", "eth1 en12s", "eth123 en1ss"),
        ("(?i)^ETH[^A]$", "eth0 EtHz", "etha ethA"),
        ("(?i:E)TH", "eTH ETH", "eth"),
        ("x(?i)y|z", "xy xY Z", "X"),
        ("(?U)^a+b*?$", "a aabb", "b"),
        ("^[[:alpha:]]+$", "eth", "eth0"),
        ("^[[:^digit:]x-]+$", "e-x", "e0"),
        ("^[]a^-]+$", "]a-^", "b"),
        ("^\\w+\\b\\.\\B*", "flannel.1", "-.1 flannel"),
        ("^\\Qbr.0*\\E$", "br.0*", "br.00 brx0"),
        ("^\\Qab\\E+$", "ab abb", "abab"),
        ("^a{2}b{1,}c{0,2}$", "aab aabbcc", "ab aabccc"),
        ("^a{,2}$", "a{,2}", "a aa"),
        ("^\\x65\\x{74}\\150\\060$", "eth0", "eth1"),
        ("\\A[\\d_]\\z", "1 _", "1_"),
        ("^\\pL\\p{Nd}\\P{L}\\p{^Lu}$", "e1-a é2_b", "ee-a e1-A"),
        ("^(|a)+b$", "b aab", "a"),
        ("^(a*)*$", "aaa", "aab"),
        ("(?m)^a$", "a", "ab"),
        ("(?s).", "a", ""),
    ],
)
def test_expression_matches_these_names_and_no_others(expression: str, matched: str, others: str) -> None:
    read = Expression(expression)
    assert [name for name in matched.split() if not read.matches(name)] == []
    assert [name for name in others.split() if read.matches(name)] == []


@pytest.mark.parametrize(
    "expression",
    [
        *("(", ")", "a)", "(a", "[a", "[", "a**", "a+*", "a{2}{3}", "*", "+a", "|*", "(*)", "{2}", "a{3,1}", "a{1001}"),
        *(
            "(a{32}){32}",
            "(?=a)",
            "(?!a)",
            "(?<=a)",
            "(?>a)",
            "(?#a)",
            "(?x)a",
            "(?i-)a",
            "\\1",
            "\\Z",
            "\\8",
            "\\C",
            "\\E",
        ),
        *("\\y", "\\", "\\x6", "\\x{110000}", "[b-a]", "[\\d-z", "[a-\\d]", "[[:nothing:]]", "\\p{Nothing}", "\\pX"),
        *("(?P<n>a)(?P<n>b)", "(?P=n)", "(?P<n"),
        pytest.param("a" * (LONGEST + 1), id="long"),
        pytest.param("(" * (DEEPEST + 1) + ")" * (DEEPEST + 1), id="deep"),
    ],
)
def test_what_go_does_not_have_is_refused_with_a_reason(expression: str) -> None:
    with pytest.raises(ExpressionError) as refused:
        Expression(expression)
    assert str(refused.value)


@pytest.mark.parametrize(
    "expression", ["^(a|a)*$", "(x+x+)+y", "^((a*)*)*b", "(a?){15}a{15}b", "(.*)(.*)(.*)(.*)(.*)Z"]
)
def test_no_expression_takes_long(expression: str) -> None:
    """By trying everything these take up to 2^127 steps."""
    assert not Expression(expression).matches("a" * 64 + "x" * 63)


_PIECES = st.sampled_from(
    [
        "a",
        "e",
        "0",
        "-",
        ".",
        "^",
        "$",
        "|",
        "(?:a|e)",
        "(e0)",
        "[a-e]",
        "[^a]",
        "\\d",
        "\\w",
        "\\b",
        "a*",
        ".+",
        "(a|-)?",
    ]
)


@given(st.lists(_PIECES, max_size=6).map("".join), st.text("ae0-.b", max_size=8))
def test_what_go_and_python_have_in_common_means_the_same(expression: str, name: str) -> None:
    assert Expression(expression).matches(name) == (re.search(expression, name) is not None)


@given(st.text("ab01()[]{}*+?|^$.\\,-:<>iP=dQEx", max_size=20), st.text("ab01-", max_size=8))
def test_any_text_is_an_expression_or_is_refused(text: str, name: str) -> None:
    try:
        read = Expression(text)
    except ExpressionError:
        return
    assert read.matches(name) in {True, False}
