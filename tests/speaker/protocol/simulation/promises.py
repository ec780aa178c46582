"""The promises of the speaker (``docs/ownership.md``), on each network on its own. ``invariants`` asserts them.

G1  Of two speakers that hear each other there, at most one answers for an address, from D + 0.3 s after the last fault
    on. Who stands in for another one answers as that one: both name the same MAC.
G2  On each side of a partition somebody answers for every address in the Plan that belongs there, from D + 100 ms ×
    (better candidates that cannot + 1) + the probes after the last fault on, where it can be proved that one hears; or
    after the first proof of a lone speaker that took itself for isolated meanwhile. Where nobody at all is heard, 3.5 s
    later; but not on a link that came up less than 41 s ago, whose port a switch may still block. Half a second later,
    where a stand-in was lost with its node; and as late as for an idle node, where frames are lost and a holder died
    before it was heard to be one.
G3  At most one on each side: G1 for every pair of that side. After healing: G1.
G4  Nothing of this needs the API: schedules freeze it.
    While a speaker is starting, an address that nobody is known to have held may wait for it. One whose link has just
    come up is none that can claim, for 1.3 s. An address that belongs on several networks, or for which interfaces are
    named, may wait a second longer: for who holds it on another one to claim the rest.
    And an owner stays: without a fault nobody becomes or ceases to be one. That endpoints vanish and come back is none.
    Who does not come back, and is stood in for no more, is no owner any more. Who waited on a link that had come up,
    for somebody to be heard there, answers again then.
    A claim of the start is given on to who arrives: once, until nobody has arrived for 30 s. And a bundle goes to a
    higher preference.
    A bundle without an endpoint that serves is promised no new owner, but one in the place of one that is lost, as long
    as somebody there knows by its own Plan that it served lately, and by having heard the owner that it had one.
G5  Nobody claims what a living node answers for, unless that node has just named it as its successor, and whatever else
    is broken: whose claim was heard once is not taken for dead as long as ARP passes between the two from then on (or
    Neighbour Discovery, as the address is asked for), though no datagram does. Parts of a bundle that two hold come
    together; an address of several networks may be taken from who is not on all of them; and a machine that shares its
    name is not told the claims of those who know the other one. Nor is it promised where frames are lost as well, and
    datagrams do not pass or have begun to less than D ago, since two questions are all that D has time for; nor where a
    firewall answers "port unreachable" and frames are late: that, and a question unanswered for 50 ms, is what a dead
    speaker looks like; nor where what is said to the group has just ceased to pass, and frames or speakers are late:
    there is one question, by unicast, in the rest of D; nor where two frames in a row were lost, and the others or
    speakers are late. Who resumes what is answered for in its name claims nothing new.
G6  Nobody answers for an address on a network where it does not belong, who is or was on the one where it does, or
    hears somebody who is.
G8  Nobody answers for an address on an interface that does not speak its family.
G7  Nobody releases an address for a better candidate, and takes it again since that one did not: unless there was a
    fault. (Several who give on at once what they claimed at a start may give more than is taken.)

D is 350 ms as long as nothing has been late in that world, and nobody was taken for dead a moment before it was heard
again. Then it is the largest that any speaker on that side has for any peer that may hold something. A fault is what
``World.fault`` is told, three losses in a row between two hosts included, and a speaker becoming ready. Hearing is
``hearing``'s: what a firewall parts are two sides, but what the one answers for is answered for the other, since ARP
passes; and what the one lets go without being heard the other goes on taking for its, while ARP proves that it lives.

Above fifty holders all these times are longer in proportion (``hearing.pace_of``).

While a member of the cluster lies (``World.lying``) nothing is promised: a member has the key and can say anything.
"""

from __future__ import annotations

from tests.speaker.protocol.simulation.world import World

PROMISES = {
    "G1": "at most one of two speakers that hear each other answers for an address",
    "G2": "somebody answers for every address that is promised one",
    "G4": "an owner stays while nothing happens",
    "G5": "nobody claims what a living node answers for",
    "G6": "nobody answers on a network where the address does not belong",
    "G7": "nobody takes again what it released for another",
    "G8": "nobody answers on an interface that does not speak the address's family",
    "END": "when everything is healed, one node answers for each address, and nobody for any other",
}


class BrokenPromiseError(AssertionError):
    """A promise was not kept; the message has the seed and what happened."""

    def __init__(self, promise: str, what: str, world: World) -> None:
        """``promise``: its short name, as in the list above."""
        super().__init__(f"{promise}: {what} at {world.now:.4f}\n{world.story()}")
        self.promise = promise
        self.what = what
        self.world = world
