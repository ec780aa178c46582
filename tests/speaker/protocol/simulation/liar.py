"""A member of the cluster that has the key and says what is not so."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from cluster.objects import AddressText
from speaker.protocol.datagram import Authenticator, HeartbeatError
from speaker.protocol.heartbeat import (
    MAX_EPOCH,
    MAX_PARTS,
    ClaimPart,
    ClaimStep,
    Flag,
    Heartbeat,
    Message,
    WireClaim,
    pack_address,
    pack_heard,
)
from tests.speaker.protocol.simulation.world import CLUSTER, KEYS, World

if TYPE_CHECKING:
    from collections.abc import Iterable

SESSION = 0x1A12
INTERVAL_S = 0.1
MET_S = 0.5  # until everybody knows it, and believes what it says
FORGOTTEN_S = 5.0  # after its last word: whatever it claimed is nobody's any more, and claimed by others
CLAIMS_IN_A_MESSAGE = 60


class Liar:
    """On the LAN, as ``liar`` at 10.0.3.1. It speaks to each speaker by itself, and hears everybody."""

    source = AddressText("10.0.3.1")
    mac = bytes([2, 0, 0, 0, 3, 1])

    def __init__(self, world: World) -> None:
        self._world = world
        self._authenticator = Authenticator(CLUSTER, KEYS)
        self._sequence = 0
        self._version = 0
        self._heard: dict[int, None] = {}
        self._ends_at = 0.0
        world.wire.on_datagram = self.hear

    def lie(self, seconds: float, *lies: Callable[[], None], due_ms: int = 100) -> None:
        """Say each of the lies over and over, for so long, between heartbeats."""
        world = self._world
        self._ends_at = world.now + seconds
        met_at = world.now + MET_S
        world.lying = True
        world.fault(f"a member lies for {seconds:.1f} s")

        def speak() -> None:
            if world.now >= self._ends_at:
                return
            self._say(self.heartbeat(due_ms))
            for lie in lies if world.now > met_at else ():
                lie()
            world.clock.after(INTERVAL_S, speak)

        def end() -> None:
            world.lying = False
            world.fault("the member that lied is forgotten")

        speak()
        world.clock.after(seconds + FORGOTTEN_S, end)

    def heartbeat(self, due_ms: int) -> Heartbeat:
        heard = pack_heard((session, 0) for session in list(self._heard)[-100:])
        flags = int(Flag.ABLE)
        return Heartbeat("liar", due_ms, flags, "eth0", self.mac, ("10.0.3.1/16",), (), heard, 0, 0, ())

    def claim(self, addresses: Iterable[str], epoch: int = MAX_EPOCH - 1) -> None:
        """Claim these in another step of its claim set."""
        claims = [WireClaim(pack_address(AddressText(address)), epoch, 0) for address in addresses]
        for i in range(0, len(claims), CLAIMS_IN_A_MESSAGE):
            self._version += 1
            self._say(ClaimStep(self._version, tuple(claims[i : i + CLAIMS_IN_A_MESSAGE])))

    def claim_more_than_there_is(self) -> None:
        """Another fifteen hundred addresses that nobody has a Service for."""
        first = self._version * CLAIMS_IN_A_MESSAGE
        self.claim(f"198.{18 + i // 65536}.{i // 256 % 256}.{i % 256}" for i in range(first, first + 1500))

    def send_parts_that_never_end(self) -> None:
        """Parts of a claim set of which one is missing, of another version each time."""
        self._version += 1
        nothing: tuple[WireClaim, ...] = ()
        for index in range(0, MAX_PARTS - 1, 40):
            self._say(ClaimPart(self._version, index, MAX_PARTS, nothing))

    def say(self, message: Message) -> None:
        self._say(message)

    def _say(self, message: Message) -> None:
        self._sequence += 1
        data = self._authenticator.encode(SESSION, self._sequence, message)
        for name in self._world.nodes:
            self._world.inject(name, self.source, data)

    def hear(self, _: str, data: bytes) -> None:
        try:
            session = self._authenticator.parse(data).session
        except HeartbeatError:
            return
        self._heard.pop(session, None)
        self._heard[session] = None
