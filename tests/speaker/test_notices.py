"""Which notices become Events, and that strangers on the LAN cannot make them many."""

from __future__ import annotations

import pytest

from cluster.objects import NodeName
from speaker.channel import Notice
from speaker.notices import BURST, MEMORY, REFILL_S, REPEAT_S, NoticeGate, alert

NODE = NodeName("node-1")
CONFLICT = {"address": "192.0.2.1", "mac": "02:00:00:00:00:99", "link": "eth0"}


def test_a_stranger_is_named_by_mac_and_interface() -> None:
    told = alert(Notice("AddressConflict", {**CONFLICT}), NODE)
    assert told is not None
    assert (told.address, told.reason) == ("192.0.2.1", "AddressConflict")
    assert "02:00:00:00:00:99 on eth0 also answers for 192.0.2.1" in told.message


def test_a_node_whose_kernel_answers_is_named_with_the_remedy() -> None:
    told = alert(Notice("AddressConflict", {**CONFLICT, "node": "node-2"}), NODE)
    assert told is not None
    assert "node-2" in told.message
    assert "strictARP" in told.message


@pytest.mark.parametrize("fields", [{}, {"address": "192.0.2.1"}, {"mac": "02:00:00:00:00:99"}])
def test_what_names_no_rival_is_no_event(fields: dict[str, str | int | float]) -> None:
    assert alert(Notice("Claimed", fields), NODE) is None


def test_the_same_rival_is_news_again_after_a_while() -> None:
    gate = NoticeGate()
    assert gate.admits(("a",), 1000.0)
    assert not gate.admits(("a",), 1000.0 + REPEAT_S - 1)
    assert gate.admits(("a",), 1000.0 + REPEAT_S)


def test_a_flood_of_macs_is_bounded_in_rate_and_in_memory() -> None:
    gate = NoticeGate()
    duration = 10 * MEMORY * REFILL_S / 100
    admitted = sum(gate.admits((str(i),), 1000.0 + i * REFILL_S / 100) for i in range(10 * MEMORY))
    assert BURST <= admitted <= BURST + duration / REFILL_S + 1
    patient = NoticeGate()
    assert all(patient.admits((str(i),), 1000.0 + i * REFILL_S) for i in range(3 * MEMORY))
    assert len(patient) == MEMORY
