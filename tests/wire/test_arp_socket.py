"""The filter in the kernel and the responder behind it, on a real (virtual) wire."""

from __future__ import annotations

import contextlib
import select
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

import pytest

from cluster.objects import AddressText
from speaker.link import Mac
from speaker.wire.addresses import WireAddress
from speaker.wire.arp.frames import READ_OCTETS, ArpFrame, Operation, reply_to
from speaker.wire.resolver import TIGHTEN_WAIT_S
from speaker.wire.sockets import PacketSocket
from tests.arp_frames import gratuitous, request
from tests.waiting import wait_until
from tests.wire.network import Wire, WireHost
from tests.wire.opened import arp_resolver, mac_of, responder_for, state_of

VIP, OTHER = AddressText("192.0.2.200"), AddressText("192.0.2.201")

pytestmark = pytest.mark.lab


@contextlib.contextmanager
def answering(host: WireHost, *held: AddressText) -> Iterator[None]:
    """A bare loop of socket and responder in a thread."""
    arp = arp_resolver(host, *held)
    done = threading.Event()

    def loop() -> None:
        while not done.is_set():
            if select.select([arp.questions.socket], [], [], 0.05)[0]:
                verdict = arp.responder.receive(arp.questions.socket.recv(READ_OCTETS), 0.0)
                if isinstance(verdict, bytes):
                    arp.questions.send(verdict)

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        arp.close()


def test_client_resolves_a_held_address_to_the_speakers_mac_and_no_other(wire: Wire) -> None:
    node, client = wire.host("node"), wire.host("client")
    with answering(node, VIP):
        assert client.resolve(VIP) == node.mac()
        assert client.answerers(VIP) == {node.mac()}
        assert client.answerers(VIP, "-D") == {node.mac()}, "a probe (sender 0.0.0.0) is answered"
        assert client.answerers(OTHER) == set()


class FramesReceived:
    """Frames that a socket receives, collected."""

    def __init__(self, arp: PacketSocket) -> None:
        self._socket = arp.socket
        self.frames: list[bytes] = []

    def has(self, count: int) -> bool:
        while select.select([self._socket], [], [], 0)[0]:
            self.frames.append(self._socket.recv(READ_OCTETS))
        return len(self.frames) >= count


def test_kernel_passes_what_concerns_held_addresses_and_nothing_else(wire: Wire, stack: ExitStack) -> None:
    node, client = wire.host("node"), wire.host("client")
    resolver, other = arp_resolver(node, VIP), arp_resolver(client)
    stack.callback(resolver.close)
    stack.callback(other.close)
    arp, rival = resolver.questions, other.questions
    mac, asker = mac_of(client), AddressText("192.0.2.2")
    wanted = [
        request(VIP, asker, mac),
        request(VIP, asker, mac, to=mac_of(node)),
        gratuitous(Operation.REPLY, VIP, mac),
        gratuitous(Operation.REQUEST, VIP, mac),
    ]
    unwanted = [
        request(OTHER, asker, mac),
        request(VIP, asker, mac, to=Mac(bytes.fromhex("02deadbeef00"))),
        gratuitous(Operation.REPLY, OTHER, mac),
    ]
    for frame in (*unwanted, *wanted):
        assert rival.send(frame.encode()) == 0
    ours = gratuitous(Operation.REPLY, VIP, mac_of(node)).encode()
    assert arp.send(ours) == 0, "our own frame, which must not come back"
    inbox = FramesReceived(arp)
    wait_until(lambda: inbox.has(len(wanted)))
    assert inbox.frames == [frame.encode() for frame in wanted]


def test_replacing_the_filter_loses_no_frame_of_an_address_that_stays(wire: Wire, stack: ExitStack) -> None:
    node, client = wire.host("node"), wire.host("client")
    arp, other = arp_resolver(node, VIP), arp_resolver(client)
    stack.callback(arp.close)
    stack.callback(other.close)
    asker = other.questions
    question = request(VIP, AddressText("192.0.2.2"), mac_of(client)).encode()
    scattered = [WireAddress((0x0A000000 + 5 * n).to_bytes(4, "big")).text for n in range(1200)]
    inbox = FramesReceived(arp.questions)
    for turn in range(40):
        arp.set_state(state_of(node, "192.0.2.99/24"), responder_for(mac_of(node), (VIP, *scattered[: 30 * turn])))
        assert asker.send(question) == 0
        wait_until(partial(inbox.has, turn + 1))
    assert inbox.frames == [question] * 40


def test_kernel_passes_a_new_address_at_once_and_only_what_is_held_in_the_end(wire: Wire, stack: ExitStack) -> None:
    node, client = wire.host("node"), wire.host("client")
    held = [WireAddress((0x0A000000 + 5 * n).to_bytes(4, "big")).text for n in range(900)]
    arp, other = arp_resolver(node, *held), arp_resolver(client)
    stack.callback(arp.close)
    stack.callback(other.close)
    asker = other.questions
    mac = mac_of(client)
    new, gone, foreign = (AddressText(address) for address in ("10.1.0.7", "10.0.0.5", "10.1.0.9"))
    arp.responder.hold(WireAddress.of(new))
    arp.responder.release(WireAddress.of(gone))
    arp.let_pass(0.0)
    inbox = FramesReceived(arp.questions)

    def ask(*targets: AddressText) -> list[bytes]:
        questions = [request(target, AddressText("192.0.2.2"), mac).encode() for target in targets]
        for question in questions:
            assert asker.send(question) == 0
        return questions

    expected = ask(new, AddressText("10.0.0.10"))
    wait_until(lambda: inbox.has(2))
    assert inbox.frames == expected
    arp.handle_timer(TIGHTEN_WAIT_S)
    ask(gone, foreign)
    expected += ask(new)
    wait_until(lambda: inbox.has(3))
    assert inbox.frames == expected


def question_to(node: WireHost, client: WireHost, nonce: bytes = b"") -> bytes:
    return request(VIP, AddressText("192.0.2.2"), mac_of(client), to=mac_of(node), nonce=nonce).encode()


def test_flood_of_questions_takes_nothing_from_the_answers_to_ours(wire: Wire, stack: ExitStack) -> None:
    """The answers have a queue of their own."""
    node, client = wire.host("node"), wire.host("client")
    asked, other = arp_resolver(node, VIP), arp_resolver(client)
    stack.callback(asked.close)
    stack.callback(other.close)
    questions, answers, flooder = asked.questions, asked.answers, other.questions
    question = question_to(node, client)
    while not questions.lost():
        assert flooder.send(question) == 0
    answer = ArpFrame.parse(request(OTHER, AddressText("192.0.2.1"), mac_of(node)).encode())
    assert flooder.send(reply_to(answer, mac_of(client), b"twelveoctets").encode()) == 0
    inbox = FramesReceived(answers)
    wait_until(lambda: inbox.has(1))
    assert [ArpFrame.parse(frame).proof for frame in inbox.frames] == [b"twelveoctets"]
    assert answers.lost() == 0
    assert FramesReceived(questions).has(100), "and the questions wait, as many as there is room for"
