"""The gratuitous schedule: what is said when, on which link, and how fast."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.objects import AddressText
from speaker.link import LinkName, Mac
from speaker.protocol.effects import AnswerChange, LinkState
from speaker.protocol.settings import LEAST_GRATUITOUS_LIMIT
from speaker.wire.addresses import WireAddress
from speaker.wire.answering import Answering
from speaker.wire.arp.frames import ArpFrame, Operation
from speaker.wire.families import RESOLUTIONS
from speaker.wire.gratuitous import LONGEST_ROUND, REPEAT_S, SLACK_S, SLOW_PERIOD_S, Frame, GratuitousSchedule

ETH0, ETH1 = LinkName("eth0"), LinkName("eth1")
OWN, SECOND = Mac(bytes.fromhex("020000000001")), Mac(bytes.fromhex("020000000002"))
VIP, OTHER = AddressText("192.0.2.200"), AddressText("192.0.2.201")
REQUEST, BOTH = [Operation.REQUEST], [Operation.REQUEST, Operation.REPLY]


def many(count: int) -> tuple[AddressText, ...]:
    return tuple(AddressText(f"10.0.{n // 250}.{n % 250}") for n in range(count))


def held(*addresses: AddressText, links: frozenset[LinkName] = frozenset((ETH0,)), quiet: bool = False) -> AnswerChange:
    return AnswerChange(dict.fromkeys(addresses, links), frozenset((ETH0,)) if quiet else frozenset())


def released(*addresses: AddressText) -> AnswerChange:
    return held(*addresses, links=frozenset())


def link(name: LinkName = ETH0, mac: Mac = OWN, up: bool = True) -> LinkState:
    return LinkState(name, 2, mac, up=up)


class Schedule:
    """The schedule, the ledger that it follows, and addresses as texts."""

    def __init__(self, limit: int | None = None) -> None:
        self._answering = Answering(RESOLUTIONS)
        self._schedule = GratuitousSchedule(RESOLUTIONS, self._answering, limit)
        self.set_links, self.cancel = self._schedule.set_links, self._schedule.cancel
        self.handle_timer, self.next_deadline = self._schedule.handle_timer, self._schedule.next_deadline

    def change_answers(self, change: AnswerChange, now: float) -> None:
        self._schedule.follow(self._answering.change(change), now)

    def announce(self, addresses: Iterable[AddressText], defend: bool = False) -> None:
        self._schedule.announce(map(WireAddress.of, addresses), defend)


def schedule(*addresses: AddressText, limit: int | None = None) -> Schedule:
    made = Schedule(limit)
    made.set_links([link()], 0.0)
    made.change_answers(held(*addresses), 0.0)
    return made


def said(frames: list[Frame]) -> list[Operation]:
    return [ArpFrame.parse(frame.data).operation for frame in frames]


def run(made: Schedule, until: float, now: float = 0.0) -> list[tuple[float, Frame]]:
    """What an obedient loop sends."""
    sent = [(now, frame) for frame in made.handle_timer(now)]
    while (deadline := made.next_deadline()) is not None and deadline <= until:
        now = max(now, deadline) + 1e-6
        sent += [(now, frame) for frame in made.handle_timer(now)]
    return sent


def test_one_request_at_once_then_both_forms_four_times_just_past_the_locktime() -> None:
    made = schedule(VIP)
    made.announce((VIP,))
    assert said(made.handle_timer(0.0)) == REQUEST
    times = []
    now = 0.0
    for _ in range(4):
        deadline = made.next_deadline()
        assert deadline is not None
        assert 1.0 < deadline - now < 1.2
        now = deadline
        assert said(made.handle_timer(now)) == BOTH
        times.append(now)
    assert times[-1] <= 5.0
    deadline = made.next_deadline()
    assert deadline is not None
    assert now + SLOW_PERIOD_S <= deadline <= now + SLOW_PERIOD_S + SLACK_S


def test_loop_that_is_awake_sends_a_repeat_when_it_is_due_and_is_not_woken_again_for_it() -> None:
    made = schedule(VIP)
    made.announce((VIP,))
    made.handle_timer(0.0)
    assert made.handle_timer(REPEAT_S - 0.01) == []
    assert said(made.handle_timer(REPEAT_S)) == BOTH
    assert made.next_deadline() == 2 * REPEAT_S + SLACK_S


def test_nothing_is_said_of_an_address_before_it_is_announced() -> None:
    assert schedule(VIP).handle_timer(0.0) == []


def test_held_address_is_repeated_slowly_for_ever() -> None:
    sent = run(schedule(VIP), 10 * SLOW_PERIOD_S + 1)
    assert said([frame for _, frame in sent]) == BOTH * 10


def test_first_round_is_urgent_first_and_at_most_five_thousand_a_second() -> None:
    addresses = many(10_000)
    made = schedule(*addresses)
    made.announce(addresses)
    sent = [(at, frame) for at, frame in run(made, 2.5) if at <= 2.5]
    firsts = list(dict.fromkeys(frame.address.text for _, frame in sent))
    assert firsts == list(addresses), "in the order of urgency, and all of them within two and a half seconds"
    for second in (0.0, 0.7, 1.0):
        assert sum(second <= at < second + 0.1 for at, _ in sent) <= 660


def test_repeats_are_at_most_a_thousand_frames_a_second_and_none_is_left_out() -> None:
    addresses = many(2_000)
    made = schedule(*addresses)
    made.announce(addresses)
    sent = run(made, 40)
    repeats = [(at, frame) for at, frame in sent if at > 1.0]
    for start in range(1, 20):
        assert sum(start <= at < start + 1 for at, _ in repeats) <= 1_050
    counts = Counter(frame.address.text for _, frame in sent)
    assert set(counts.values()) == {9}


def test_slow_repeats_of_many_addresses_are_spread() -> None:
    sent = run(schedule(*many(10_000)), 2 * SLOW_PERIOD_S)
    for start in range(int(SLOW_PERIOD_S), int(2 * SLOW_PERIOD_S), 20):
        assert sum(start <= at < start + 1 for at, _ in sent) <= 105


def test_slow_repetition_is_ahead_of_a_switch_that_forgets_a_mac_after_five_minutes() -> None:
    assert SLOW_PERIOD_S + SLACK_S < 300


@given(
    limit=st.integers(LEAST_GRATUITOUS_LIMIT, 60),
    count=st.integers(1, 40),
    defended=st.lists(st.tuples(st.integers(0, 39), st.floats(0, 60)), max_size=5),
)
def test_limit_holds_in_any_second_and_leaves_nothing_out(
    limit: int, count: int, defended: list[tuple[int, float]]
) -> None:
    addresses = many(count)
    made = schedule(*addresses, limit=limit)
    made.announce(addresses)
    sent: list[tuple[float, Frame]] = []
    now = 0.0
    for number, at in sorted(defended, key=lambda pair: pair[1]):
        sent += run(made, at, now)
        now = at
        made.announce((addresses[number % count],), defend=True)
    sent += run(made, 1000.0, now)
    times = [at for at, _ in sent]
    for first, beyond in zip(times, times[limit:], strict=False):
        assert beyond - first >= 1.0, "never more than the limit within a second"
    counts = Counter(frame.address.text for _, frame in sent)
    assert all(counts[address] >= 9 + 2 for address in addresses), "announced, repeated, and slowly again"
    if not defended:
        assert [frame.address.text for _, frame in sent[:count]] == list(addresses), "the first round first"


def test_least_limit_lets_a_round_of_every_family_pass() -> None:
    rounds = [each for made in RESOLUTIONS.values() for each in (made.first_round, made.every_round)]
    assert all(0 < len(each) <= LONGEST_ROUND < LEAST_GRATUITOUS_LIMIT for each in rounds)


def test_answer_to_a_rival_does_not_wait_for_a_long_first_round() -> None:
    made = schedule(VIP, *many(500), limit=10)
    made.announce(many(500))
    run(made, 5.0)
    made.announce((VIP,), defend=True)
    assert VIP in {frame.address.text for _, frame in run(made, 5.5, now=5.0)}


def test_limit_is_for_each_link() -> None:
    made = Schedule(LEAST_GRATUITOUS_LIMIT)
    made.set_links([link(), link(ETH1, SECOND)], 0.0)
    made.change_answers(held(VIP, links=frozenset((ETH0, ETH1))), 0.0)
    made.announce((VIP,))
    assert {frame.link for frame in made.handle_timer(0.0)} == {ETH0, ETH1}


def test_released_address_drops_out_at_once() -> None:
    made = schedule(VIP, OTHER)
    made.announce((VIP, OTHER))
    made.change_answers(released(VIP), 0.0)
    assert {frame.address.text for _, frame in run(made, 700.0)} == {OTHER}


def test_announcing_what_is_not_held_says_nothing() -> None:
    made = schedule(VIP)
    made.announce((OTHER,))
    assert made.handle_timer(0.0) == []


def test_defence_is_one_round_in_both_forms_ahead_of_everything() -> None:
    made = schedule(VIP, *many(500))
    made.announce(many(500))
    made.announce((VIP,), defend=True)
    frames = made.handle_timer(0.0)
    assert [frame.address.text for frame in frames[:2]] == [VIP, VIP]
    assert said(frames[:2]) == BOTH
    assert VIP not in {frame.address.text for _, frame in run(made, 100.0)}


def test_announcing_again_starts_over_and_does_not_add_up() -> None:
    made = schedule(VIP)
    for _ in range(50):
        made.announce((VIP,))
    sent = run(made, 2 * (REPEAT_S + SLACK_S) + 0.1)
    assert said([frame for _, frame in sent]) == REQUEST + BOTH * 2
    made.announce((VIP,))
    assert len(run(made, 20.0, now=3.0)) == 9


def test_cancelled_schedule_says_nothing_but_the_slow_rounds() -> None:
    made = schedule(VIP)
    made.announce((VIP,))
    made.cancel(0.5)
    sent = run(made, 250.0, now=0.5)
    assert [int(at) for at, _ in sent] == [240, 240]


def test_suspended_link_says_nothing_and_keeps_nothing_for_later() -> None:
    made = schedule(VIP)
    made.announce((VIP,))
    made.change_answers(AnswerChange({}, suspended=frozenset((ETH0,))), 0.0)
    made.announce((VIP,))
    assert run(made, 1000.0) == []
    made.change_answers(AnswerChange({}), 1000.0)
    assert made.handle_timer(1000.0) == []
    made.announce((VIP,))
    assert said(made.handle_timer(1000.0)) == REQUEST


def test_quiet_link_says_nothing_and_keeps_nothing_for_later() -> None:
    made = schedule(VIP)
    made.announce((VIP,))
    made.change_answers(held(VIP, quiet=True), 0.0)
    made.announce((VIP,))
    assert run(made, 1000.0) == []
    made.change_answers(held(VIP), 1000.0)
    assert made.handle_timer(1000.0) == []


def test_link_that_went_down_says_nothing_and_forgets_what_it_had_to_say() -> None:
    made = schedule(VIP)
    made.announce((VIP,))
    made.set_links([link(up=False)], 0.1)
    assert run(made, 1000.0, now=0.1) == []
    made.set_links([link()], 1.0)
    assert made.handle_timer(1.0) == []


def test_new_mac_is_announced_for_all_that_is_held() -> None:
    made = schedule(VIP)
    made.set_links([link(mac=SECOND)], 1.0)
    frames = made.handle_timer(1.0)
    assert [ArpFrame.parse(frame.data).sender_mac for frame in frames] == [SECOND]


def test_each_link_announces_what_is_held_there_with_its_own_mac() -> None:
    made = Schedule()
    made.change_answers(AnswerChange({VIP: frozenset((ETH0, ETH1)), OTHER: frozenset((ETH1,))}), 0.0)
    made.set_links([link(), link(ETH1, SECOND)], 0.0)
    made.announce((VIP, OTHER, AddressText("2001:db8::1")))
    frames = made.handle_timer(0.0)
    assert [(f.link, f.address.text, ArpFrame.parse(f.data).source) for f in frames] == [
        (ETH0, VIP, OWN),
        (ETH1, VIP, SECOND),
        (ETH1, OTHER, SECOND),
    ]


@settings(max_examples=60)
@given(
    steps=st.lists(
        st.tuples(
            st.floats(0.0, 3.0),
            st.sampled_from(["hold", "announce", "defend", "cancel", "down", "up", "run"]),
            st.sets(st.integers(0, 5)),
        ),
        max_size=40,
    )
)
def test_only_held_addresses_are_said_whatever_happens(steps: list[tuple[float, str, set[int]]]) -> None:
    made, now, holding = schedule(), 0.0, frozenset[AddressText]()
    for wait, what, numbers in steps:
        addresses = tuple(AddressText(f"10.0.0.{n}") for n in sorted(numbers))
        if what == "hold":
            made.change_answers(released(*(holding - set(addresses))), now)
            holding = frozenset(addresses)
            made.change_answers(held(*addresses), now)
        elif what in ("announce", "defend"):
            made.announce(addresses, defend=what == "defend")
        elif what == "cancel":
            made.cancel(now)
        elif what in ("down", "up"):
            made.set_links([link(up=what == "up")], now)
        for at, frame in run(made, now + wait, now):
            assert frame.address.text in holding
            now = max(now, at)
        now += wait


def test_what_is_stood_in_for_is_never_said_unasked_until_it_is_taken_over() -> None:
    made, here = schedule(OTHER), frozenset((ETH0,))
    away = {VIP: {ETH0: SECOND}}
    made.change_answers(AnswerChange({VIP: here}, macs=away), 0.0)
    made.announce([VIP])
    made.announce([VIP], defend=True)
    assert {frame.address.text for _, frame in run(made, 3 * SLOW_PERIOD_S)} == {OTHER}
    made.set_links([link(mac=Mac(bytes.fromhex("020000000009")))], 1000.0)
    assert {frame.address.text for frame in made.handle_timer(1000.0)} == {OTHER}, "nor with another MAC of our own"
    made.change_answers(AnswerChange({VIP: here}), 1001.0)
    made.announce([VIP])
    first = [frame for frame in made.handle_timer(1001.0) if frame.address.text == VIP]
    assert [ArpFrame.parse(frame.data).sender_mac for frame in first] == [bytes.fromhex("020000000009")]
    made.change_answers(AnswerChange({VIP: here}, macs=away), 1001.1)
    assert VIP not in {frame.address.text for _, frame in run(made, 1001.1 + 2 * SLOW_PERIOD_S, 1001.1)}, "it is back"


def test_link_that_is_new_begins_with_what_is_its_own() -> None:
    made, here = Schedule(), frozenset((ETH0,))
    made.change_answers(AnswerChange({VIP: here, OTHER: here}, macs={VIP: {ETH0: SECOND}}), 0.0)
    made.set_links([link()], 0.0)
    assert {frame.address.text for _, frame in run(made, 2 * SLOW_PERIOD_S)} == {OTHER}
