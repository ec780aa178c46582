"""Which datagrams of a session count."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from speaker.protocol.replay import ReplayWindow


@given(st.lists(st.integers(0, 600), max_size=400))
def test_each_sequence_counts_once(sequences: list[int]) -> None:
    window = ReplayWindow()
    accepted = [sequence for sequence in sequences if window.accept(sequence)]
    assert len(accepted) == len(set(accepted))
    assert not accepted or max(sequences) in accepted


def test_the_window_lets_the_network_reorder_and_forgets_what_is_old() -> None:
    window = ReplayWindow()
    assert window.accept(1000)
    assert window.accept(1000 - window.WIDTH + 1)
    assert not window.accept(1000 - window.WIDTH)
    assert window.accept(999)
    assert not window.accept(999)
