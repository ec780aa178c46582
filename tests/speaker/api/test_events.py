"""Which decisions become Events, and that strangers on the LAN cannot make them many."""

from __future__ import annotations

import pytest

from cluster.objects import AddressText, NodeName
from speaker.api.events import BURST, MEMORY, ON_NODE, REFILL_S, REPEAT_S, Event, EventGate, conflict_message, event_of
from speaker.link import LinkName
from speaker.protocol.effects import ConflictView, Decision

NODE = NodeName("node-1")
CONFLICT = {"address": "192.0.2.1", "mac": "02:00:00:00:00:99", "link": "eth0"}


def told(reason: str, **fields: str | int | float) -> Event:
    found = event_of(Decision(reason, fields), NODE)
    assert found is not None
    return found


def conflict(**more: str) -> Event:
    return told("AddressConflict", **CONFLICT, **more)


# ------------------------------------------------------------------------ on Services


def test_a_conflict_says_first_what_was_seen() -> None:
    found = conflict()
    assert (found.address, found.reason) == ("192.0.2.1", "AddressConflict")
    assert found.message.startswith("02:00:00:00:00:99 on eth0 also answers for 192.0.2.1, which node node-1 announces")


@pytest.mark.parametrize(
    ("more", "causes", "not_these"),
    [
        ({"seen": "kernel", "node": "node-2"}, ["node node-2", "kernel", "strictARP"], ["7948", "proxy ARP"]),
        ({"seen": "twin", "node": "node-2"}, ["node node-2 too", "a node name of its own"], ["strictARP", "7948"]),
        ({"seen": "blocked", "node": "node-2"}, ["node node-2", "UDP port 7948"], ["strictARP", "proxy ARP"]),
        ({"seen": "stranger"}, ["No speaker", "proxy ARP", "forges"], ["strictARP", "7948"]),
        ({"node": "node-2"}, ["node node-2", "strictARP"], ["proxy ARP"]),
        ({}, ["No speaker", "proxy ARP"], ["strictARP"]),
        ({"seen": "something new"}, ["No speaker"], ["strictARP"]),
        ({"seen": "kernel"}, ["a node, where", "strictARP"], ["None"]),
    ],
)
def test_a_conflict_names_the_causes_that_fit_and_no_others(
    more: dict[str, str], causes: list[str], not_these: list[str]
) -> None:
    message = conflict(**more).message
    assert [each for each in causes if each not in message] == []
    assert [each for each in not_these if each in message] == []


@pytest.mark.parametrize("fields", [{}, {"address": "192.0.2.1"}, {"mac": "02:00:00:00:00:99"}])
def test_what_names_no_rival_is_no_event(fields: dict[str, str | int | float]) -> None:
    assert event_of(Decision("AddressConflict", fields), NODE) is None
    assert event_of(Decision("Claimed", {**fields, **CONFLICT}), NODE) is None


# ------------------------------------------------------------------------ on the Node


@pytest.mark.parametrize(
    ("reason", "fields", "said"),
    [
        (
            "DuplicateNode",
            {"node": "node-1", "mac": "02:00:00:00:00:99", "address": "192.0.2.99", "link": "eth0"},
            ["02:00:00:00:00:99", "192.0.2.99", "eth0", "calls itself node-1 too", "a node name of its own"],
        ),
        ("DuplicateNode", {"node": "node-1", "yields": 1}, ["This one stays silent"]),
        ("DuplicateNode", {"node": "node-1", "yields": 0}, ["It stays silent"]),
        (
            "DatagramsBlocked",
            {"node": "node-2", "link": "eth0", "address": "192.0.2.12"},
            ["node-2", "eth0", "192.0.2.12", "UDP port 7948", "switch"],
        ),
        ("CannotSend", {"link": "eth0", "error": "No buffer space"}, ["eth0", "No buffer space", "firewall"]),
        ("ReceiveOverflow", {"link": "eth0"}, ["eth0", "CPU", "flood"]),
        (
            "MemberNonsense",
            {"node": "node-2", "mac": "02:00:00:00:00:02", "address": "192.0.2.12", "what": "epoch 2^63"},
            ["node-2", "02:00:00:00:00:02", "192.0.2.12", "epoch 2^63", "key"],
        ),
        (
            "MemberNonsense",
            {"link": "eth0", "address": "192.0.2.12", "what": "x"},
            ["a speaker (address 192.0.2.12, on"],
        ),
        (
            "OtherVersion",
            {"link": "eth0", "address": "192.0.2.12", "what": "version b'2'"},
            ["a speaker (address 192.0.2.12, on eth0)", "version b'2'", "node-1", "upgrade"],
        ),
        ("NobodyHeard", {"link": "eth0"}, ["eth0", "UDP port 7948", "ARP"]),
    ],
)
def test_what_is_wrong_with_a_node_is_on_the_node_and_says_who_and_what_to_do(
    reason: str, fields: dict[str, str | int | float], said: list[str]
) -> None:
    found = told(reason, **fields)
    assert (found.address, found.reason) == (None, reason)
    assert [each for each in said if each not in found.message] == []


@pytest.mark.parametrize("reason", sorted(ON_NODE))
def test_a_decision_without_its_fields_is_told_all_the_same(reason: str) -> None:
    assert "None" not in told(reason).message


def test_two_rivals_are_two_things_and_a_repetition_is_none() -> None:
    again = told("AddressConflict", **CONFLICT, count=7)
    assert conflict().key == again.key
    assert conflict().key != told("AddressConflict", **{**CONFLICT, "mac": "02:00:00:00:00:77"}).key


# ------------------------------------------------------------------------ how often


def test_the_same_rival_is_news_again_after_a_while() -> None:
    gate = EventGate()
    assert gate.admits(("a",), 1000.0)
    assert not gate.admits(("a",), 1000.0 + REPEAT_S - 1)
    assert gate.admits(("a",), 1000.0 + REPEAT_S)


def test_a_flood_of_macs_is_bounded_in_rate_and_in_memory() -> None:
    gate = EventGate()
    duration = 10 * MEMORY * REFILL_S / 100
    admitted = sum(gate.admits((str(i),), 1000.0 + i * REFILL_S / 100) for i in range(10 * MEMORY))
    assert BURST <= admitted <= BURST + duration / REFILL_S + 1
    patient = EventGate()
    assert all(patient.admits((str(i),), 1000.0 + i * REFILL_S) for i in range(3 * MEMORY))
    assert len(patient) == MEMORY


# ------------------------------------------------------------------------ an address that somebody else has


def test_an_address_that_was_taken_is_told_of_with_who_has_it_and_what_to_do() -> None:
    found = told("AddressTaken", **CONFLICT, seen="stranger")
    assert (found.address, found.reason) == ("192.0.2.1", "AddressTaken")
    assert found.message.startswith("02:00:00:00:00:99 on eth0 has 192.0.2.1 already, so that no node announces it")
    assert "out of the pool" in found.message
    assert event_of(Decision("AddressTaken", {"address": "192.0.2.1"}), NODE) is None


@pytest.mark.parametrize("reason", ["AddressTaken", "AddressConflict"])
def test_a_speaker_of_another_cluster_is_called_one(reason: str) -> None:
    message = told(reason, **CONFLICT, seen="cluster", cluster="3598a3c588d3319f").message
    assert "speaker of another cluster on this LAN (MAC 02:00:00:00:00:99, cluster digest 3598a3c588d3319f)" in message
    assert "proxy ARP" not in message


@pytest.mark.parametrize(("withheld", "reason"), [(True, "AddressTaken"), (False, "AddressConflict")])
def test_what_lasts_is_said_in_the_words_of_its_event(withheld: bool, reason: str) -> None:
    address, mac, link = AddressText(CONFLICT["address"]), CONFLICT["mac"], LinkName(CONFLICT["link"])
    view = ConflictView(address, mac, link, "stranger", "", "", withheld)
    assert conflict_message(view, NODE) == told(reason, **CONFLICT, seen="stranger").message
