"""Interfaces that are left out by their names."""

from __future__ import annotations

import pytest

from speaker.exclusion import DEFAULT, MAX_PATTERNS, Exclusion, PatternError
from speaker.link import LinkName


def excluded(exclusion: Exclusion, names: str) -> list[str]:
    return [name for name in names.split() if exclusion.by(LinkName(name)) is not None]


def test_without_a_list_the_names_are_metallbs() -> None:
    names = "docker0 cbr0 dummy1 virbr0 lxcbr0 veth1 lo cali12 tunl0 flannel.1 kube-ipvs0 cni0 nodelocaldns lxc_health"
    assert excluded(DEFAULT, names) == names.split()
    assert excluded(DEFAULT, "eth0 lo1 local bond0 enp1s0 xdocker br0 wlan0") == []


def test_a_pattern_may_match_anywhere_in_the_name() -> None:
    """As the list of MetalLB's Helm chart has it, whose ``lo`` is in ``wlo1``, too."""
    assert excluded(Exclusion(["docker.*", "lo"]), "mydocker0 wlo1 lo eth0") == ["mydocker0", "wlo1", "lo"]
    assert Exclusion(["^eth", "^eth0$"]).by(LinkName("eth0")) == "^eth", "the first one is named"


def test_an_empty_list_excludes_nothing() -> None:
    assert excluded(Exclusion([]), "lo veth0 docker0") == []


def test_a_pattern_that_is_no_expression_is_named() -> None:
    with pytest.raises(PatternError, match=r'"\[eth" is no regular expression: ') as refused:
        Exclusion(["^lo$", "[eth"])
    assert refused.value.index == 1
    with pytest.raises(PatternError, match=f"more than {MAX_PATTERNS}"):
        Exclusion(["a"] * (MAX_PATTERNS + 1))
