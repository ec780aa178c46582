"""Thousands of made-up octet strings for each `Target`; ``python -m tests.fuzz`` tries millions."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS


def near(seeds: tuple[bytes, ...]) -> st.SearchStrategy[bytes]:
    """Well-formed octets with a few changes: some overwritten, some put in, and an end cut off or another one."""
    change = st.tuples(st.integers(0, 200), st.integers(0, 3), st.binary(max_size=4))

    def changed(seed: bytes, changes: list[tuple[int, int, bytes]], length: int, tail: bytes) -> bytes:
        made = bytearray(seed)
        for at, removed, put in changes:
            start = at % (len(made) + 1)
            made[start : start + removed] = put
        return bytes(made[:length]) + tail

    lengths = st.one_of(st.just(4000), st.integers(0, 200))
    return st.builds(changed, st.sampled_from(seeds), st.lists(change, max_size=4), lengths, st.binary(max_size=40))


@pytest.mark.parametrize("name", TARGETS)
def test_octets_do_no_harm(name: str) -> None:
    target = TARGETS[name]
    examples = 60 if name == "members" else 600

    @settings(max_examples=examples)
    @given(st.one_of(near(target.seeds), st.binary(max_size=400)))
    def tried(data: bytes) -> None:
        target.check(data)

    for seed in target.seeds:
        target.check(seed)
    tried()
