"""What heartbeats say of their senders, and what follows from each."""

from __future__ import annotations

import pytest

from cluster.objects import AddressText, NodeName
from cluster.times import LONG_AGO
from speaker.link import LinkName
from speaker.protocol.absences import Absences
from speaker.protocol.datagram import Drop, Envelope, Unknown
from speaker.protocol.heartbeat import BY_GROUP, RETURNED, SUSPECTED, Flag, Heartbeat, Message, pack_heard
from speaker.protocol.identity import Identity
from speaker.protocol.membership import Membership
from speaker.protocol.mirrors import Mirrors
from speaker.protocol.news import News
from speaker.protocol.peers import Sighting
from speaker.protocol.sessions import Sessions
from speaker.protocol.standing import Standing
from tests.speaker.protocol.company import ETH0, ETH1, ME, VIP, B, C, Company, address_of, link_local_of, mac_of

OUR_SESSION, THEIR_SESSION = 1, 2
ALIVE, SUSPECT, DEAD = Standing
NOTHING = Flag(0)


class Hearing:
    """``b`` is heard by this node, in one session of its."""

    def __init__(self) -> None:
        self.company = Company()
        self.roster = self.company.roster
        self.company.link(ETH0, "10.0.0.1/16")
        self.company.link(ETH1, "10.1.0.1/16")
        mirrors, sessions = Mirrors(self.roster), Sessions(self.roster)
        absences = Absences(OUR_SESSION, self.roster, sessions, mirrors)
        identity = Identity(OUR_SESSION, self.roster, sessions=sessions, mirrors=mirrors, absences=absences)
        self.membership = Membership(identity, self.roster, sessions=sessions, mirrors=mirrors, absences=absences)
        self.sequence = 0
        self.source = address_of(B)
        """From which the peer is heard."""

    def take(self, message: Message | Unknown, now: float, link: LinkName = ETH0, sequence: int | None = None) -> News:
        self.sequence += 1
        envelope = Envelope(THEIR_SESSION, self.sequence if sequence is None else sequence, message)
        return self.membership.receive(link, self.source, envelope, now, by_group=True)

    def hear(
        self,
        now: float = 0.0,
        flags: Flag = NOTHING,
        heard: tuple[tuple[int, int], ...] = ((OUR_SESSION, 0),),
        *,
        due_ms: int = 100,
        link: LinkName = ETH0,
        version: int = 0,
        sequence: int | None = None,
        asks: tuple[tuple[int, int], ...] = (),
        lost: tuple[LinkName, ...] = (),
    ) -> News:
        mac, packed = mac_of(B, link), pack_heard(heard)
        message = Heartbeat(B, due_ms, int(flags), link, mac, ("10.0.0.2/16",), (), packed, version, 0, asks, lost=lost)
        return self.take(message, now, link, sequence)

    def come_back(self, link: LinkName, said_on: LinkName, now: float) -> News:
        """This node's own heartbeat is heard on one of its links."""
        message = Heartbeat("a", 100, 0, said_on, mac_of(ME, said_on), (), (), b"", 0, 0, ())
        source = AddressText("fe80::1")  # of both links
        return self.membership.receive(link, source, Envelope(OUR_SESSION, 1, message), now, by_group=True)

    def seen(self, link: LinkName = ETH0) -> Sighting:
        return self.roster.peers[B].sightings[link]


@pytest.mark.parametrize(
    ("flags", "able_since", "starting"),
    [(NOTHING, None, False), (Flag.ABLE, 5.0, False), (Flag.STARTING, None, True)],
)
def test_a_peer_is_what_it_says_of_itself(flags: Flag, able_since: float | None, starting: bool) -> None:
    hearing = Hearing()
    hearing.hear(5.0, flags)
    seen = hearing.seen()
    assert (seen.standing, seen.able_since, seen.starting) == (ALIVE, able_since, starting)
    assert seen.detector.interval == 0.1


def test_a_peer_that_leaves_is_gone_at_once_with_its_claims() -> None:
    hearing = Hearing()
    hearing.hear()
    hearing.company.claims(hearing.roster.peers[B])
    news = hearing.hear(0.1, Flag.LEAVING)
    assert hearing.roster.peers == {}
    assert (news.claims, news.changed) == ({VIP: "death of b"}, True)


@pytest.mark.parametrize(("flags", "answers"), [(NOTHING, False), (Flag.ANSWER, True)])
def test_whoever_wants_an_answer_gets_one_at_once_and_by_unicast(flags: Flag, answers: bool) -> None:
    hearing = Hearing()
    hearing.hear()
    news = hearing.hear(0.1, flags)
    assert news.speak is answers
    assert news.unicast == ({(ETH0, B): ((address_of(B), mac_of(B)),)} if answers else {})


def test_a_heartbeat_that_a_newer_one_overtook_has_nothing_to_say() -> None:
    hearing = Hearing()
    hearing.hear(0.0, sequence=1)
    hearing.hear(0.1, Flag.ABLE, sequence=3)
    hearing.hear(0.2, sequence=2)
    assert hearing.seen().able_since == 0.1
    assert hearing.hear(0.3, sequence=2).dropped is not None


@pytest.mark.parametrize(
    ("heard", "lives"),
    [
        (((OUR_SESSION, 0),), True),
        (((9, 0),), True),
        ((), False),  # it hears nobody, and we hear another one
        (((9, SUSPECTED | 200), (8, 240)), True),
        (((9, SUSPECTED | 200), (8, 260)), False),  # whoever is asked answers within 2.5 short intervals
    ],
)
def test_a_peer_that_hears_nobody_gives_no_sign_of_life_while_another_does(
    heard: tuple[tuple[int, int], ...], lives: bool
) -> None:
    hearing = Hearing()
    hearing.hear()
    hearing.company.peer(C, eth0=ALIVE)
    hearing.hear(0.1, heard=heard)
    assert hearing.seen().life_at == (0.1 if lives else 0.0)


@pytest.mark.parametrize(
    ("silence_s", "flags", "how", "in_step", "doubted", "doubled"),
    [
        (0.2, NOTHING, 0, False, False, False),  # shorter than D
        (1.0, NOTHING, 0, False, True, True),
        (1.0, NOTHING, 0, True, False, True),
        (1.0, NOTHING, RETURNED, False, True, False),  # neither heard the other: the network was cut
        (1.0, Flag.CUT_OFF, 0, False, False, False),  # it was as silent as it seemed
    ],
)
def test_who_is_back_after_a_long_silence_is_doubted_until_its_claims_are_known(
    *, silence_s: float, flags: Flag, how: int, in_step: bool, doubted: bool, doubled: bool
) -> None:
    hearing = Hearing()
    hearing.hear()
    hearing.seen().standing = SUSPECT
    news = hearing.hear(silence_s, flags, ((OUR_SESSION, how),), version=0 if in_step else 3)
    assert hearing.seen().standing is ALIVE
    assert news.changed
    assert bool(hearing.roster.links[ETH0].fencing.doubted) is doubted
    assert (hearing.roster.detection(hearing.seen(), silence_s) > 0.35) is doubled


def test_a_suspicion_that_is_said_is_answered_three_times_and_makes_everybody_speak_quickly() -> None:
    hearing = Hearing()
    hearing.hear()
    news = [hearing.hear(0.1 * i, heard=((OUR_SESSION, SUSPECTED), (9, 0))) for i in range(1, 6)]
    assert [each.speak for each in news] == [True, True, True, False, False]
    assert [each.alarm_until for each in news] == [pytest.approx(1.0 + 0.1 * i) for i in range(1, 6)]
    assert hearing.hear(0.7).alarm_until == LONG_AGO


@pytest.mark.parametrize(("how", "hears_us_at", "hears_group_at"), [(100, 0.9, LONG_AGO), (100 | BY_GROUP, 0.9, 1.0)])
def test_it_is_known_how_a_peer_hears_us(how: int, hears_us_at: float, hears_group_at: float) -> None:
    hearing = Hearing()
    hearing.hear(1.0, heard=((OUR_SESSION, how),))
    assert hearing.seen().hears_us_at == pytest.approx(hears_us_at)
    assert hearing.seen().hears_group_at == hears_group_at


def test_what_a_peer_lacks_of_our_claims_is_asked_of_us_and_nothing_else_is() -> None:
    hearing = Hearing()
    assert list(hearing.hear(asks=((OUR_SESSION, 4), (9, 7))).asked) == [4]


def test_one_that_speaks_often_on_one_link_is_expected_to_on_all() -> None:
    hearing = Hearing()
    for link in (ETH0, ETH1):
        hearing.hear(0.0, due_ms=1000, link=link)
    hearing.hear(0.5, due_ms=100)
    assert hearing.seen(ETH1).detector.interval == 0.1
    assert hearing.seen(ETH1).life_at == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("session", "node", "drop"),
    [(OUR_SESSION, B, Drop.OWN), (THEIR_SESSION, NodeName("other"), Drop.NONSENSE), (7, None, Drop.UNKNOWN_SESSION)],
)
def test_what_does_not_count_is_dropped_with_a_reason(session: int, node: NodeName | None, drop: Drop) -> None:
    hearing = Hearing()
    hearing.hear()
    message: Message | Unknown = Unknown(9)
    if node is not None:
        message = Heartbeat(node, 100, 0, ETH0, mac_of(B), (), (), b"", 0, 0, ())
    news = hearing.membership.receive(ETH0, address_of(B), Envelope(session, 99, message), 0.1, by_group=True)
    assert news.dropped is not None
    assert news.dropped.reason is drop


def test_a_message_of_a_later_release_is_a_sign_that_we_hear_and_no_sign_of_life() -> None:
    hearing = Hearing()
    hearing.hear()
    news = hearing.take(Unknown(9), 0.1)
    assert news.dropped is not None
    assert news.dropped.reason is Drop.UNKNOWN_KIND
    assert (hearing.seen().heard_at, hearing.seen().life_at) == (0.1, 0.0)


def test_a_peer_is_one_whatever_family_it_is_heard_by_and_is_reached_by_each() -> None:
    hearing = Hearing()
    v4, v6 = address_of(B), link_local_of(B)
    for number, hearing.source in enumerate((v4, v4, v6, v4, v6)):
        hearing.hear(number / 10)
    (seen,) = hearing.roster.peers[B].sightings.values()
    assert (seen.standing, seen.life_at) == (ALIVE, 0.4)
    assert seen.contacts == ((v6, mac_of(B)), (v4, mac_of(B)))
    assert hearing.roster.by_mac == {mac_of(B): B}
    hearing.source = AddressText("10.0.0.77")
    hearing.hear(0.5)
    assert seen.addresses == ("10.0.0.77", v6), "its IPv4 address is another one now"


def test_the_addresses_of_another_interface_are_others() -> None:
    hearing = Hearing()
    for hearing.source in (address_of(B), link_local_of(B)):
        hearing.hear()
    seen = hearing.seen()
    seen.note_place(AddressText("10.0.0.77"), mac_of(C))
    assert seen.contacts == (("10.0.0.77", mac_of(C)),)


def test_our_own_words_on_the_link_where_they_were_said_say_nothing_of_another_one() -> None:
    """A switch sent them back. The VLANs of one card have one MAC, and so one link-local address."""
    hearing = Hearing()
    assert not hearing.come_back(ETH0, said_on=ETH0, now=1.0).networks
    assert not hearing.come_back(ETH0, said_on=LinkName("was renamed"), now=1.0).networks
    assert (hearing.roster.links[ETH0].also, hearing.roster.links[ETH1].also) == ({}, {})


def test_our_own_words_on_another_link_say_that_both_are_one_segment() -> None:
    hearing = Hearing()
    told = [hearing.come_back(ETH0, said_on=ETH1, now=now).networks for now in (1.0, 2.0)]
    assert told == [True, False]
    assert (hearing.roster.links[ETH0].also, hearing.roster.links[ETH1].also) == ({ETH1: 2.0}, {ETH0: 2.0})


# ---------------------------------------------------------------------------------------------- links that peers lost


def heard_on_both() -> Hearing:
    """A peer that claims an address lives on two links."""
    hearing = Hearing()
    hearing.hear(0.0, link=ETH0)
    hearing.hear(0.0, link=ETH1)
    hearing.company.claims(hearing.roster.peers[B])
    return hearing


def test_a_peer_that_says_that_it_lost_a_link_is_dead_there_at_once_and_lives_elsewhere() -> None:
    hearing = heard_on_both()
    news = hearing.hear(0.01, link=ETH0, lost=(ETH1,))
    assert (hearing.seen(ETH0).standing, hearing.seen(ETH1).standing) == (ALIVE, DEAD)
    assert (news.claims, news.changed) == ({VIP: "death of b"}, True)
    hearing.hear(0.1, link=ETH1)
    assert hearing.seen(ETH1).standing is ALIVE, "it is back"


def test_what_a_peer_said_before_it_lost_a_link_and_comes_later_is_no_life_and_an_older_loss_is_none() -> None:
    hearing = heard_on_both()
    hearing.hear(0.01, link=ETH0, lost=(ETH1,), sequence=6)
    hearing.hear(0.02, link=ETH1, sequence=5)
    assert hearing.seen(ETH1).standing is DEAD
    hearing.hear(1.0, link=ETH1, sequence=9)
    hearing.hear(1.1, link=ETH0, lost=(ETH1,), sequence=8)
    assert hearing.seen(ETH1).standing is ALIVE


def test_a_peer_with_a_second_interface_on_the_segment_lives_there_without_the_first() -> None:
    hearing = heard_on_both()
    other = Heartbeat(B, 100, 0, "eth2", mac_of(B, LinkName("eth2")), (), (), pack_heard(((OUR_SESSION, 0),)), 0, 0, ())
    hearing.take(other, 0.01, ETH1)
    hearing.hear(0.02, link=ETH0, lost=(ETH1,))
    assert hearing.seen(ETH1).standing is ALIVE


def test_what_a_peer_says_by_a_link_that_it_says_to_have_lost_is_heard() -> None:
    hearing = heard_on_both()
    hearing.hear(0.01, link=ETH0, lost=(ETH0,))
    assert hearing.seen(ETH0).standing is ALIVE


def test_losses_that_follow_each_other_closely_are_not_believed() -> None:
    """All claims of the peer are judged anew for each."""
    hearing = heard_on_both()
    judged = 0
    for turn in range(100):
        at = turn / 100
        judged += bool(hearing.hear(at, link=ETH0, lost=(ETH1,)).claims)
        hearing.hear(at, link=ETH1)
    assert 1 <= judged <= 2
