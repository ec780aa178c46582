"""Who leads, and what it may write: single steps, then two or three candidates through bad times."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from cluster.objects import Lease, decode
from controller.leadership import HOLDER, WRITE_S, Leadership, Look, Place, Put
from tests.controller.world import merge

LEASE_S = 15
WALL = 1_767_225_600.0


class Record:
    """The Lease in the API: compare-and-swap and nothing else."""

    def __init__(self) -> None:
        self.body: dict[str, Any] | None = None
        self.version = 0

    def view(self) -> Lease | None:
        return decode(msgspec.json.encode(self.body), Lease) if self.body else None

    def put(self, put: Put) -> Lease | None:
        """The Lease after this; None: refused."""
        asked = put.body.get("metadata", {}).get("resourceVersion")
        if put.create != (self.body is None) or (self.body and asked != self.body["metadata"]["resourceVersion"]):
            return None
        return self.write(put.body.get("metadata", {}).get("annotations"), **put.body["spec"])

    def write(self, annotations: dict[str, str] | None = None, /, **spec: Any) -> Lease:
        self.version += 1
        metadata = {"name": "berthlb-controller", "resourceVersion": str(self.version)}
        if annotations:
            metadata["annotations"] = annotations  # type: ignore[assignment]
        self.body = merge(self.body or {}, {"metadata": metadata, "spec": spec})
        view = self.view()
        assert view is not None
        return view

    def held_by(self, holder: str, duration: int | None = LEASE_S) -> None:
        self.write(holderIdentity=holder, leaseDurationSeconds=duration)


def candidate(identity: str = "me", place: Place | None = None) -> Leadership:
    return Leadership(identity, LEASE_S, random.Random(1), place)


def act(one: Leadership, record: Record, now: float) -> None:
    """All that it wants to ask at this moment, answered at once."""
    for _ in range(10):
        match one.next_step(now, WALL + now):
            case None:
                return
            case Look():
                one.observed(record.view(), now)
            case Put() as put if (lease := record.put(put)) is not None:
                one.put_made(lease, now, now)
            case Put():
                one.put_refused(now)
    raise AssertionError("it never has enough")


def leads_from(one: Leadership, record: Record, start: float, end: float) -> float | None:
    """When it begins to lead, left alone from ``start`` to ``end`` and acting whenever it wants to."""
    now = start
    while now <= end:
        act(one, record, now)
        if one.term(now) is not None:
            return now
        now = max(now + 0.001, one.next_deadline())
    return None


@pytest.fixture
def record() -> Record:
    return Record()


def test_where_there_is_no_lease_the_first_one_leads_at_once(record: Record) -> None:
    one, other = candidate("one"), candidate("other")
    act(one, record, 0.0)
    act(other, record, 0.0)
    assert (one.term(0.0), other.term(0.0), other.holder) == (1, None, "one")
    assert record.body is not None
    assert record.body["spec"] == {
        "holderIdentity": "one",
        "leaseDurationSeconds": 15,
        "acquireTime": "2026-01-01T00:00:00.000000Z",
        "renewTime": "2026-01-01T00:00:00.000000Z",
        "leaseTransitions": 0,
    }


def test_a_leader_that_renews_leads_on_in_one_term(record: Record) -> None:
    one, other = candidate("one"), candidate("other")
    act(one, record, 0.0)
    for now in range(200):
        act(one, record, float(now))
        act(other, record, float(now))
        assert (one.term(float(now)), other.term(float(now))) == (1, None)


def test_a_lease_that_does_not_change_is_taken_when_its_duration_has_passed_by_the_own_clock(record: Record) -> None:
    """The times in the record are of another machine's clock, whatever that says; here it is years behind."""
    record.write(holderIdentity="dead", leaseDurationSeconds=15, renewTime="2001-01-01T00:00:00.000000Z")
    one = candidate()
    assert leads_from(one, record, 1000.0, 1100.0) == pytest.approx(1015.0, abs=0.01)
    assert one.transitions == 1


def test_every_renewal_that_is_seen_begins_the_wait_anew(record: Record) -> None:
    record.held_by("other")
    one = candidate()
    assert leads_from(one, record, 0.0, 14.0) is None
    record.held_by("other")
    assert leads_from(one, record, 14.0, 28.9) is None
    assert leads_from(one, record, 28.9, 40.0) is not None


def test_the_duration_in_the_record_counts(record: Record) -> None:
    record.held_by("other", 60)
    assert leads_from(candidate(), record, 0.0, 100.0) == pytest.approx(60.0, abs=0.01)


@pytest.mark.parametrize("duration", [None, 0, -5])
def test_a_record_without_a_duration_gets_the_usual_one(record: Record, duration: int | None) -> None:
    record.held_by("other", duration)
    assert leads_from(candidate(), record, 0.0, 100.0) == pytest.approx(15.0, abs=0.01)


@pytest.mark.parametrize("empty", ["", None])
def test_a_released_lease_is_taken_at_once(record: Record, empty: str | None) -> None:
    record.write(holderIdentity=empty, leaseDurationSeconds=15, leaseTransitions=3)
    one = candidate()
    assert leads_from(one, record, 0.0, 0.0) == 0.0
    assert one.transitions == 4


def test_a_standby_that_hears_of_the_release_takes_over_at_once(record: Record) -> None:
    one, other = candidate("one"), candidate("other")
    act(one, record, 0.0)
    act(other, record, 0.0)
    put = one.release(1.0, WALL)
    assert put is not None
    assert record.put(put)
    other.heard(record.view(), 1.0)
    act(other, record, 1.0)
    assert other.term(1.0) == 1


def test_only_who_leads_releases(record: Record) -> None:
    record.held_by("other")
    one = candidate()
    act(one, record, 0.0)
    assert one.release(0.0, WALL) is None


def test_who_cannot_renew_stops_before_the_lease_expires_and_its_writes_end_before_that_too(record: Record) -> None:
    one = candidate()
    act(one, record, 0.0)
    for now in (0.0, 5.0, 9.99):
        assert one.write_limit(1, now) == WRITE_S
        assert now + WRITE_S < LEASE_S
    assert one.term(10.0) is None
    assert one.write_limit(1, 10.0) is None
    assert one.lost == "the Lease could not be renewed in time"


def test_a_leader_that_slept_through_its_lease_leads_no_more_when_it_wakes_and_then_anew(record: Record) -> None:
    one = candidate()
    act(one, record, 0.0)
    assert one.write_limit(1, 60.0) is None
    act(one, record, 60.0)  # nobody took it meanwhile
    assert one.term(60.0) == 2
    assert one.write_limit(1, 60.0) is None


def test_a_renewal_counts_from_when_it_was_sent(record: Record) -> None:
    """The others may have seen it long before its answer came."""
    one = candidate()
    act(one, record, 0.0)
    put = one.next_step(2.0, WALL)
    assert isinstance(put, Put)
    lease = record.put(put)
    assert lease is not None
    one.put_made(lease, 2.0, 6.0)
    assert one.term(11.9) == 1
    assert one.term(12.0) is None


def test_a_renewal_answered_after_the_deadline_begins_a_new_term(record: Record) -> None:
    """In between the term was over, whether anybody looked or not."""
    one = candidate()
    act(one, record, 0.0)
    put = one.next_step(9.0, WALL)
    assert isinstance(put, Put)
    lease = record.put(put)
    assert lease is not None
    one.put_made(lease, 9.0, 11.0)
    assert one.term(11.0) == 2


def test_an_acquisition_whose_answer_was_lost_is_found_and_renewed(record: Record) -> None:
    one = candidate()
    one.observed(None, 0.0)
    put = one.next_step(0.0, WALL)
    assert isinstance(put, Put)
    assert record.put(put)
    one.failed(5.0)
    assert one.term(5.0) is None
    assert leads_from(one, record, 5.0, 8.0) is not None
    assert one.transitions == 0


def test_another_holder_ends_the_term(record: Record) -> None:
    one = candidate()
    act(one, record, 0.0)
    record.held_by("thief")
    one.heard(record.view(), 1.0)
    assert one.term(1.0) is None
    assert one.lost == 'the Lease names "thief"'
    assert leads_from(one, record, 1.0, 15.9) is None


def test_a_watch_that_lags_is_not_believed(record: Record) -> None:
    record.held_by("before")
    old = record.view()
    one = candidate()
    assert leads_from(one, record, 0.0, 20.0) is not None
    now = one.next_deadline()
    one.heard(old, now)
    assert one.term(now) == 1


def test_somebody_else_s_remark_on_the_lease_costs_nothing(record: Record) -> None:
    one = candidate()
    act(one, record, 0.0)
    record.write()
    act(one, record, one.next_deadline())
    assert one.term(5.0) == 1
    assert leads_from(one, record, 5.0, 5.0) == 5.0


def test_a_lease_that_is_deleted_is_made_anew_by_its_holder_and_left_alone_by_those_who_knew_him(
    record: Record,
) -> None:
    one, other = candidate("one"), candidate("other")
    act(one, record, 0.0)
    act(other, record, 0.0)
    record.body = None
    other.heard(None, 0.5)
    act(other, record, 0.5)
    assert other.term(0.5) is None
    assert leads_from(other, record, 0.5, 15.0) is None
    act(one, record, 2.0)
    assert one.term(2.0) == 2
    record.body = None
    assert leads_from(other, record, 15.1, 40.0) is not None


def test_refusals_without_end_are_not_met_with_requests_without_end(record: Record) -> None:
    one = candidate()
    one.observed(None, 0.0)
    asked = 0
    now = 0.0
    while now < 10.0:
        match one.next_step(now, WALL):
            case None:
                now = one.next_deadline()
            case Look():
                one.observed(None, now)
            case Put():
                asked += 1
                one.put_refused(now)
    assert asked < 15


@pytest.mark.parametrize(("retry_after", "least", "most"), [(0.0, 1.0, 2.0), (7.0, 7.0, 7.0), (9999.0, 15.0, 15.0)])
def test_a_failure_is_followed_by_a_wait(retry_after: float, least: float, most: float) -> None:
    one = candidate()
    one.failed(100.0, retry_after)
    assert least <= one.next_deadline() - 100.0 <= most


# -------------------------------------------------------------------- who comes after one that has ended


def test_the_successor_in_the_same_place_waits_for_the_writes_of_the_dead_and_no_longer(record: Record) -> None:
    dead = candidate("dead", Place("pod-7", 0.0))
    act(dead, record, 100.0)
    record.view()
    successor = candidate("successor", Place("pod-7", 103.0))
    assert leads_from(successor, record, 103.5, 200.0) == pytest.approx(103.0 + WRITE_S, abs=0.01)


def test_a_renewal_of_the_dead_that_arrives_late_makes_nobody_wait_anew(record: Record) -> None:
    dead = candidate("dead", Place("pod-7", 0.0))
    act(dead, record, 100.0)
    late = dead.next_step(102.0, WALL)
    assert isinstance(late, Put)
    successor = candidate("successor", Place("pod-7", 103.0))
    act(successor, record, 103.5)
    assert record.put(late)
    assert leads_from(successor, record, 104.0, 200.0) == pytest.approx(103.0 + WRITE_S, abs=0.01)


@pytest.mark.parametrize("theirs", [None, Place("pod-8", 0.0)])
@pytest.mark.parametrize("ours", [None, Place("pod-7", 103.0)])
def test_a_candidate_that_cannot_know_that_the_holder_has_ended_waits_its_lease_out(
    record: Record, theirs: Place | None, ours: Place | None
) -> None:
    holder = candidate("holder", theirs)
    act(holder, record, 100.0)
    assert leads_from(candidate("other", ours), record, 104.0, 200.0) == pytest.approx(104.0 + LEASE_S, abs=0.01)


@pytest.mark.parametrize(
    "said", ["", "pod-7", "pod-7 2", "pod-7 2 dead", "pod-7 x holder", "pod-7 0 holder", "- 2 holder"]
)
def test_what_the_record_says_of_somebody_else_or_garbled_is_no_proof(record: Record, said: str) -> None:
    """An older version that took over leaves the annotation of its predecessor."""
    record.write({HOLDER: said}, holderIdentity="holder", leaseDurationSeconds=LEASE_S)
    one = candidate("one", Place("pod-7", 0.0))
    assert leads_from(one, record, 0.0, 100.0) == pytest.approx(LEASE_S, abs=0.01)


def test_writes_may_take_longer_once_the_record_says_so(record: Record) -> None:
    dead = candidate("dead", Place("pod-7", 0.0))
    act(dead, record, 100.0)
    for expected in (4.0, 8.0, 14.0, 14.0):
        before = dead.write_limit(1, 100.0)
        for _ in range(8):  # all that were under way
            dead.write_took_too_long(100.0)
        assert dead.write_limit(1, 100.0) == before
        act(dead, record, 100.0)
        assert dead.write_limit(1, 100.0) == expected
    assert dead.write_limit(1, 109.0) == pytest.approx(5.0)
    successor = candidate("successor", Place("pod-7", 101.0))
    assert leads_from(successor, record, 101.0, 200.0) == pytest.approx(115.0, abs=0.01)
