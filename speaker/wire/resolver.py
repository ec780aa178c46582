"""Address resolution on one open link, for one family: the sockets around a responder.

There are two sockets. *Questions* receives what others ask, and rivals; everything is sent through it. *Answers*
receives the answers to our own questions, so that a flood of others' questions cannot push out of the queue what may
tell that somebody lives.

**The groups** to which others' questions go are joined and left as the responder says (``memberships``).

**The filter** in the kernel follows the responder. When the responder answers for something that the filter does not
pass yet, the filter is attached anew at once. It is narrowed to what is held some time after the last change, and then
rests for long enough that narrowing costs no more than a third of a percent of the time.

I/O only. What is particular to the family comes with its `Resolution`.
"""

from __future__ import annotations

import errno

from speaker.link import Mac
from speaker.protocol.effects import LinkState
from speaker.wire.addresses import WireAddress, nearest, own_of
from speaker.wire.bpf import NOTHING
from speaker.wire.memberships import Memberships
from speaker.wire.process import boottime
from speaker.wire.resolution import Resolution, Responder
from speaker.wire.sockets import PacketSocket, attach_filter

EXPECTED_S = 0.25
"""Seconds for which answers to a probe are waited for; the protocol decides after 50 ms."""
TIGHTEN_WAIT_S = 0.5
"""Seconds until the filter is narrowed to what is held after that changed: mostly there is more to come."""
TIGHTEN_REST = 300
"""Seconds of rest for each second that narrowing took: thousands of addresses that come and go cost a third of a
percent."""


class Resolver:
    """See the module's docstring."""

    def __init__(self, state: LinkState, resolution: Resolution, responder: Responder) -> None:
        """Raises ``OSError`` if the sockets cannot be had now."""
        self._resolution = resolution
        self.responder = responder
        self.frame_octets = resolution.frame_octets
        self.questions = PacketSocket(state.name, state.index, resolution.ethertype, NOTHING)
        try:
            self._attach()
            self.answers = PacketSocket(state.name, state.index, resolution.ethertype, resolution.answers)
        except OSError:
            self.questions.close()
            raise
        self._memberships = Memberships(state.name, state.index, responder.groups)
        self._probed: dict[WireAddress, float] = {}
        """Until when answers to probes are waited for, in order of time."""
        self.sample_at = 0.0
        """When the protocol sees an asker next."""
        self._tighten_at: float | None = None
        """When the filter is to be narrowed; ``None`` where nothing would come of it."""
        self._rests_until = 0.0
        self._set(state)

    def set_state(self, state: LinkState, responder: Responder) -> None:
        """The same interface, as it is now."""
        had_own = bool(self._own)
        self._set(state)
        if responder is not self.responder:
            self.responder = responder
            self._probed.clear()
            self._attach()
            self._memberships.close()
            self._memberships = Memberships(state.name, state.index, responder.groups)
        elif self._own and not had_own:
            self._memberships.rejoin()

    def ask(self, target: WireAddress, to: Mac | None, nonce: bytes) -> int:
        """Ask one host, or everybody, who has an address; 0, or the ``errno`` with which the kernel refused the frame.

        The question comes from an address of our own, so that the answer comes to us and nobody takes the question for
        a claim. Where there is none of the family, nothing is asked (``EADDRNOTAVAIL``).
        """
        if not self._own:
            return errno.EADDRNOTAVAIL
        source = nearest(self._own, target)
        return self.questions.send(self._resolution.question(target, source, self._mac, to, nonce))

    def probe(self, target: WireAddress, now: float) -> int:
        """Ask everybody whether anybody has an address; as `ask`. No address of our own is needed."""
        if not self._probed:
            attach_filter(self.answers.socket, self._resolution.probe_answers)
        self._probed.pop(target, None)
        self._probed[target] = now + EXPECTED_S
        self.responder.expect(target)
        return self.questions.send(self._resolution.probe(target, self._mac))

    def let_pass(self, now: float) -> None:
        """Have the kernel pass what the responder answers for now."""
        if self.responder.filter.behind:
            self._attach()
        if self._tighten_at is None and not self.responder.filter.tight:
            self._tighten_at = max(now + TIGHTEN_WAIT_S, self._rests_until)

    def next_deadline(self) -> float | None:
        """When `handle_timer` is due; ``None`` while nothing is to be done."""
        dues = (self._tighten_at, self._memberships.next_deadline(), next(iter(self._probed.values()), None))
        return min((at for at in dues if at is not None), default=None)

    def handle_timer(self, now: float) -> None:
        self._memberships.handle_timer(now)
        self._expect_no_more(now)
        if self._tighten_at is not None and now >= self._tighten_at:
            self.responder.filter.tighten()
            self._attach()
            self._tighten_at = None
            self._rests_until = now + TIGHTEN_REST * (boottime() - now)

    def close(self) -> None:
        self.questions.close()
        self.answers.close()
        self._memberships.close()

    def _expect_no_more(self, now: float) -> None:
        """Wait no more for answers that would have come by now."""
        waited = bool(self._probed)
        while self._probed and (first := next(iter(self._probed.items())))[1] <= now:
            del self._probed[first[0]]
            self.responder.expect_no_more(first[0])
        if waited and not self._probed:
            attach_filter(self.answers.socket, self._resolution.answers)

    def _set(self, state: LinkState) -> None:
        self._mac = state.mac
        self._own = own_of(state.own, self._resolution.family)

    def _attach(self) -> None:
        """Let pass what the filter does now, from the next frame on."""
        let_pass = self.responder.filter
        while True:
            try:
                attach_filter(self.questions.socket, let_pass.code)
            except OSError as error:
                if error.errno != errno.ENOMEM or not let_pass.shrink():
                    raise
            else:
                return
