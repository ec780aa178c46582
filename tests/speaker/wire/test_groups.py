"""Which group is joined on which socket, against a kernel that lends each socket so much memory."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from speaker.wire.addresses import WireAddress
from speaker.wire.groups import Groups, MembershipStep
from speaker.wire.nd.frames import solicited_node
from tests.speaker.wire.nd.messages import OTHER, VIP, address

few = st.integers(0, 30).map(lambda n: WireAddress(VIP[:11] + bytes((n % 3, 0, 0, 0, n))))
"""Of which some have a group in common."""


class Kernel:
    """What the kernel does, with room for ``most`` groups on a socket. Raises if asked for what it would refuse."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.sockets: list[set[WireAddress]] = []
        self.able = True
        self.steps = 0

    @property
    def groups(self) -> set[WireAddress]:
        return set().union(*self.sockets)

    def carry_out(self, groups: Groups, most_steps: int = 10_000) -> None:
        for _ in range(most_steps):
            step = groups.next_step()
            if step is None:
                return
            self.steps += 1
            if not self.able:
                groups.failed(step)
                return
            self._take(groups, step)

    def _take(self, groups: Groups, step: MembershipStep) -> None:
        assert step.socket <= len(self.sockets)
        if not step.joins:
            self.sockets[step.socket].remove(step.group)
        else:
            assert step.group not in self.groups, "joined twice"
            if step.socket == len(self.sockets):
                self.sockets.append(set())
            elif len(self.sockets[step.socket]) == self.most:
                assert groups.no_room(step)
                return
            self.sockets[step.socket].add(step.group)
        groups.done(step)


@given(
    steps=st.lists(st.tuples(st.sampled_from(["hold", "release", "carry out", "unable", "able", "forget"]), few)),
    most=st.integers(1, 5),
)
def test_groups_of_what_is_held_are_joined_in_the_end_and_no_others(
    steps: list[tuple[str, WireAddress]], most: int
) -> None:
    groups, kernel, held = Groups(), Kernel(most), set[WireAddress]()
    for what, each in steps:
        match what:
            case "hold" if each not in held:
                held.add(each)
                groups.want(solicited_node(each))
            case "release" if each in held:
                held.remove(each)
                groups.want_no_more(solicited_node(each))
            case "carry out":
                kernel.carry_out(groups, 3)
            case "unable" | "able":
                kernel.able = what == "able"
            case "forget":
                kernel.sockets.clear()
                groups.forget()
        assert groups.missing == len({solicited_node(each) for each in held} - kernel.groups)
    kernel.able = True
    kernel.carry_out(groups)
    assert groups.next_step() is None
    assert kernel.groups == {solicited_node(each) for each in held}


def test_sockets_are_filled_one_after_the_other_and_again_where_there_is_room() -> None:
    groups, kernel = Groups(), Kernel(100)
    held = [WireAddress(VIP[:13] + n.to_bytes(3, "big")) for n in range(1000)]
    for each in held:
        groups.want(solicited_node(each))
    kernel.carry_out(groups)
    assert [len(groups) for groups in kernel.sockets] == [100] * 10
    assert kernel.steps == 1000 + 9, "a socket that is full is found out once"
    for each in held[:500:50]:
        groups.want_no_more(solicited_node(each))
        kernel.carry_out(groups)
    for each in held[:500:50]:
        groups.want(solicited_node(each))
    kernel.carry_out(groups)
    assert [len(groups) for groups in kernel.sockets] == [100] * 10


def test_addresses_that_end_alike_have_one_membership_until_the_last_of_them_goes() -> None:
    groups, kernel, twin = Groups(), Kernel(10), address("2001:db8:1::200")
    groups.want(solicited_node(VIP))
    groups.want(solicited_node(twin))
    kernel.carry_out(groups)
    assert kernel.steps == 1
    groups.want_no_more(solicited_node(VIP))
    kernel.carry_out(groups)
    assert kernel.groups == {solicited_node(VIP)}
    groups.want_no_more(solicited_node(twin))
    kernel.carry_out(groups)
    assert kernel.groups == set()


def test_what_comes_and_goes_before_its_turn_costs_nothing() -> None:
    groups, kernel = Groups(), Kernel(10)
    groups.want(solicited_node(VIP))
    kernel.carry_out(groups)
    groups.want_no_more(solicited_node(VIP))
    groups.want(solicited_node(OTHER))
    groups.want_no_more(solicited_node(OTHER))
    groups.want(solicited_node(VIP))
    kernel.carry_out(groups)
    assert kernel.steps == 1


def test_failure_of_one_holds_up_no_other_and_is_tried_again() -> None:
    groups, kernel = Groups(), Kernel(10)
    groups.want(solicited_node(VIP))
    groups.want(solicited_node(OTHER))
    refused = groups.next_step()
    assert refused is not None
    groups.failed(refused)
    kernel.carry_out(groups, 1)
    assert kernel.groups == {solicited_node(OTHER)}
    kernel.carry_out(groups)
    assert kernel.groups == {solicited_node(VIP), solicited_node(OTHER)}


def test_new_socket_without_room_is_a_failure() -> None:
    groups = Groups()
    groups.want(solicited_node(VIP))
    step = groups.next_step()
    assert step is not None
    assert not groups.no_room(step)
    groups.failed(step)
    assert groups.next_step() == step, "tried again"
