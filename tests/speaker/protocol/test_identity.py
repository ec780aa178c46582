"""Which sessions count, and which of two machines with one name yields."""

from __future__ import annotations

import pytest

from cluster.objects import AddressText, NodeName
from speaker.link import Mac
from speaker.protocol.absences import Absences
from speaker.protocol.crowd import MAX_PEERS
from speaker.protocol.datagram import Drop, Envelope, HeartbeatError
from speaker.protocol.heartbeat import Flag, Heartbeat, pack_heard
from speaker.protocol.identity import MAX_PENDING, TWIN_S, Identity
from speaker.protocol.mirrors import Mirrors
from speaker.protocol.news import News
from speaker.protocol.peers import Peer
from speaker.protocol.sessions import Sessions
from speaker.protocol.standing import Standing
from tests.speaker.protocol.company import ETH0, ME, B, Company

OUR_SESSION = 50
HERE, THERE = AddressText("10.0.0.7"), AddressText("10.0.0.8")
HERE6, THERE6 = AddressText("fe80::7"), AddressText("fe80::8")
ALIVE, SUSPECT, DEAD = Standing
NOTHING = Flag(0)


class Door:
    def __init__(self) -> None:
        self.company = Company()
        self.company.link(ETH0, "10.0.0.1/16")
        roster = self.company.roster
        mirrors, self.sessions = Mirrors(roster), Sessions(roster)
        absences = Absences(OUR_SESSION, roster, self.sessions, mirrors)
        self.identity = Identity(OUR_SESSION, roster, sessions=self.sessions, mirrors=mirrors, absences=absences)
        self.sequence = 0

    def knock(
        self,
        session: int,
        node: NodeName = B,
        *,
        names_us: bool = True,
        source: AddressText = HERE,
        flags: Flag = NOTHING,
        now: float = 0.0,
    ) -> tuple[Peer | None, News]:
        self.sequence += 1
        heard = pack_heard([(OUR_SESSION, 0)] if names_us else [])
        mac = Mac(bytes((2, 0, 0, 0, 0, int(source[-1]))))
        message = Heartbeat(node, 100, int(flags), ETH0, mac, (), (), heard, 0, 0, ())
        return self.identity.introduce(ETH0, source, Envelope(session, self.sequence, message), message, now)

    def heard(self, peer: Peer, source: AddressText, standing: Standing, *, yields: bool = False) -> None:
        """As ``membership`` keeps it."""
        other = self.company.peer(peer.node, eth0=standing).sightings[ETH0]
        other.address, other.other_address, other.yields = source, None, yields
        peer.sightings[ETH0] = other
        self.company.roster.peers[peer.node] = peer


@pytest.mark.parametrize(("names_us", "peer"), [(False, False), (True, True)])
def test_a_session_counts_once_it_names_ours(names_us: bool, peer: bool) -> None:
    door = Door()
    known, news = door.knock(7, names_us=names_us)
    assert (known is not None, 7 in door.company.roster.pending) == (peer, not peer)
    assert news.speak  # it is to hear our session


@pytest.mark.parametrize(
    ("source", "standing", "yields", "flags", "taken"),
    [
        (HERE, ALIVE, False, NOTHING, True),  # from the same place: it was started anew
        (HERE6, ALIVE, False, NOTHING, True),  # and is heard in its other family first
        (THERE, ALIVE, False, NOTHING, False),  # two machines have one name: the first one stays
        (THERE6, ALIVE, False, NOTHING, False),
        (THERE, SUSPECT, False, NOTHING, False),
        (THERE, DEAD, False, NOTHING, True),
        (THERE, ALIVE, True, NOTHING, True),  # the first one yields
        (THERE, ALIVE, True, Flag.YIELDS, False),
    ],
)
def test_another_session_of_a_node_waits_while_the_former_one_lives_elsewhere(
    *, source: AddressText, standing: Standing, yields: bool, flags: Flag, taken: bool
) -> None:
    door = Door()
    first, _ = door.knock(7)
    assert first is not None
    door.heard(first, HERE, standing, yields=yields)
    first.sightings[ETH0].mac = Mac(bytes((2, 0, 0, 0, 0, int(HERE[-1]))))
    second, _ = door.knock(8, source=source, flags=flags)
    assert (second is not None) is taken
    assert door.sessions.is_retired(7, sequence=1) is taken
    assert door.sessions.is_retired(7, sequence=1_000_000) is (taken and source in {HERE, HERE6})


@pytest.mark.parametrize(
    ("able", "theirs", "session", "yields"),
    [
        (False, NOTHING, 60, False),  # the lower session stays
        (False, NOTHING, 40, True),
        (True, NOTHING, 40, False),  # who is able stays
        (False, Flag.ABLE, 60, True),
        (True, Flag.ABLE, 60, False),
        (True, Flag.ABLE, 40, True),
        (False, Flag.YIELDS, 40, False),  # nobody yields to one that yields
    ],
)
def test_one_of_two_machines_with_our_name_yields(able: bool, theirs: Flag, session: int, yields: bool) -> None:
    door = Door()
    door.company.roster.able = able
    assert door.knock(session, ME, flags=theirs)[0] is None
    assert door.identity.yields(TWIN_S - 0.1) is yields
    assert not door.identity.yields(TWIN_S)  # it has been silent for so long
    assert door.company.decisions() == ["DuplicateNode"]


def test_a_session_that_is_removed_never_counts_again() -> None:
    door = Door()
    peer, _ = door.knock(7)
    assert peer is not None
    news = door.identity.remove(peer, 1.0)
    assert news.changed
    assert door.sessions.peer(7) is None
    assert door.sessions.is_retired(7, sequence=1_000_000)


@pytest.mark.parametrize(("names_us", "most"), [(False, MAX_PENDING), (True, MAX_PEERS)])
def test_the_tables_are_bounded(names_us: bool, most: int) -> None:
    door = Door()
    for number in range(most):
        peer, _ = door.knock(100 + number, NodeName(f"n{number}"), names_us=names_us)
        if peer is not None:
            peer.sightings[ETH0] = door.company.peer(B, eth0=ALIVE).sightings[ETH0]
            door.company.roster.peers.pop(B)
    with pytest.raises(HeartbeatError) as error:
        door.knock(100 + most, NodeName("one more"), names_us=names_us)
    assert error.value.reason is Drop.TABLE_FULL
