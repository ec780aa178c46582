"""Which node a pod goes to that names none."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from lab.standins.placing import place
from lab.standins.views import Pod


def a_pod(name: str, node: str = "", *, app: str = "web", revision: str = "1", ending: bool = False) -> Pod:
    meta: dict[str, Any] = {"name": name, "namespace": "default", "uid": f"uid-{name}"}
    meta["labels"] = {"app": app, "pod-template-hash": revision}
    if ending:
        meta["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    return msgspec.convert({"metadata": meta, "spec": {"nodeName": node}}, Pod)


NEW = a_pod("new")


@pytest.mark.parametrize(
    ("pods", "nodes", "bound", "chosen"),
    [
        ([], "ab", {}, "a"),
        ([a_pod("one", "a")], "ab", {}, "b"),
        ([a_pod("one", "a", ending=True)], "ab", {}, "a"),
        ([a_pod("one", "a", app="db"), a_pod("two", "a", revision="0")], "ab", {}, "a"),
        ([a_pod("one")], "ab", {"uid-one": "a"}, "b"),
        ([a_pod("one", "b")], "b", {}, "b"),
        ([], "", {}, None),
    ],
    ids=["the first", "spread", "what ends is gone", "each revision by itself", "bound lately", "the only one", "none"],
)
def test_a_pod_goes_where_there_are_fewest_of_its_kind(
    pods: list[Pod], nodes: str, bound: dict[str, str], chosen: str | None
) -> None:
    assert place(NEW, [*pods, NEW], nodes, bound) == chosen
