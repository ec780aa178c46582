"""All faults, and what the documentation promises of each.

The bounds hold for up to 50 nodes on machines that have time for their speakers. Where a node dies and another one
takes over, the bound is the protocol's G1: D, whose floor is 350 ms, and 0.3 s. Where an address is handed over, both
answer until the claim is heard. That no request is lost and no connection breaks is promised where nothing moves.
"""

from __future__ import annotations

from lab.faults import daemons, power, wire
from lab.faults.fault import Fault, Movement, Promise, nothing

D_S = 0.35
"""The floor of the detection time (``--detection-floor``)."""
AT_ONCE_S = 0.05
"""An answer is no later, and two do not answer for longer: five of a client's questions."""
START_S = 10.0
"""For an interpreter to start, for the caches, for the second and three intervals in which a speaker listens."""
PAUSE_S = 2.0
CLOCK_S = 3600.0
DEAF_S = 2.5 + D_S + 0.3
"""The others may be idle and speak once a second. So long it takes a deaf one to find out that it hears nobody."""

AGAIN_S = 2 * D_S + 0.3
"""Who was taken for dead, lived, and had heard the others is given twice D in the ten minutes after that
(``speaker.protocol.detector``). A fault is repeated within these."""

TAKEN_OVER = Promise(Movement.MOVES, silence_s=D_S + 0.3, two_answer_s=AT_ONCE_S)
"""Its holder is gone, and that has to be found out."""
HANDED_OVER = Promise(Movement.MOVES, silence_s=AT_ONCE_S, two_answer_s=AT_ONCE_S)
UNNOTICED = Promise(Movement.STAYS, silence_s=AT_ONCE_S, two_answer_s=0.0, lost=0, broken=0)
STARTED = Promise(Movement.STAYS, silence_s=START_S, two_answer_s=0.0)
"""All speakers were gone, and the record says who held what."""
RESTARTED = UNNOTICED
"""A speaker says that it goes, and another one stands in for it."""
KILLED = Promise(Movement.STAYS, silence_s=D_S + 0.3, two_answer_s=0.0, lost=0, broken=0)
"""That a speaker is gone has to be found out; then another one stands in for it."""
NOTHING_FALSE = Promise(Movement.STAYS, two_answer_s=0.0)
"""Frames are lost, answers among them, and nobody is taken for dead."""

CALM = Fault("calm", "nothing", nothing, UNNOTICED, lasts_s=5.0)
"""What is measured then is the machine's own part in the figures."""
FAULTS = (
    Fault("power-cut", "the holder loses power", power.cut_power, TAKEN_OVER, power.power_on),
    Fault("announcer-killed", "SIGKILL to the holder's announcer", daemons.kill("announcer"), KILLED, daemons.start),
    Fault("watcher-killed", "SIGKILL to the holder's watcher", daemons.kill("watcher"), UNNOTICED),
    Fault("both-killed", "SIGKILL to both of the holder's processes", daemons.kill("both"), KILLED, daemons.start),
    Fault("stopped", "SIGTERM to the holder's speaker", daemons.stop, RESTARTED, daemons.start),
    Fault(
        "rolling-restart",
        "one speaker after the other is ended and started, as a DaemonSet is rolled",
        daemons.roll,
        RESTARTED,
        daemons.start,
    ),
    Fault("drain", "the holder is drained, and taken back", daemons.drain, HANDED_OVER, daemons.end_drain),
    Fault("link-down", "the holder's cable is pulled", power.pull_cable, TAKEN_OVER, power.put_cable_back),
    Fault(
        "paused",
        f"the holder's speaker stands still for {PAUSE_S:g} s (SIGSTOP)",
        daemons.pause(PAUSE_S),
        Promise(Movement.EITHER, silence_s=AGAIN_S, two_answer_s=AT_ONCE_S),
        lasts_s=PAUSE_S + 2.0,
    ),
    Fault(
        "api-away",
        "the API server does not answer, and then the holder loses power",
        power.cut_power_without_api,
        TAKEN_OVER,
        power.power_on_with_api,
    ),
    Fault("loss-5", "the LAN loses 5% of all frames", wire.lose(5), NOTHING_FALSE, wire.heal, lasts_s=5.0),
    Fault(
        "loss-20",
        "the LAN loses 20% of all frames",
        wire.lose(20),
        Promise(Movement.EITHER),
        wire.heal,
        lasts_s=5.0,
    ),
    Fault(
        "mute",
        "nothing that the holder sends arrives",
        wire.mute,
        Promise(Movement.MOVES, silence_s=AGAIN_S, two_answer_s=AT_ONCE_S),
        wire.heal,
        lasts_s=3.0,
    ),
    Fault(
        "deaf",
        "nothing arrives at the holder",
        wire.deafen,
        Promise(Movement.MOVES, silence_s=DEAF_S, two_answer_s=AT_ONCE_S),
        wire.heal,
        lasts_s=DEAF_S,
    ),
    Fault(
        "mute-to-nodes",
        "nothing that the holder sends arrives at other nodes; clients hear it",
        wire.mute_to_nodes,
        Promise(Movement.MOVES, silence_s=AT_ONCE_S, two_answer_s=AT_ONCE_S),
        wire.heal,
        lasts_s=3.0,
    ),
    Fault(
        "deaf-to-nodes",
        "nothing that other nodes send arrives at the holder; it hears clients",
        wire.deafen_to_nodes,
        Promise(Movement.EITHER),
        wire.heal,
        lasts_s=3.0,
    ),
    Fault(
        "lan-split",
        "the LAN is cut in two, the holder on one side and the client on the other; both reach the API server",
        wire.split_lan,
        TAKEN_OVER,
        wire.heal,
        lasts_s=3.0,
    ),
    Fault(
        "api-split",
        "no node reaches the API server; the LAN is whole",
        wire.split_api,
        UNNOTICED,
        wire.heal,
        lasts_s=3.0,
    ),
    Fault(
        "rival",
        "another machine answers for the addresses, too",
        wire.rival,
        Promise(Movement.STAYS, silence_s=AT_ONCE_S),
        wire.end_rival,
        lasts_s=3.0,
    ),
    Fault(
        "storm",
        f"{wire.STORM_FRAMES_S:,} questions a second, for {wire.STORM_S:g} s",
        wire.storm,
        Promise(Movement.STAYS, two_answer_s=0.0),
    ),
    Fault(
        "clock-stepped",
        f"the clock of the holder is {CLOCK_S / 3600:g} h ahead, and right again",
        daemons.step_clock(CLOCK_S),
        UNNOTICED,
        daemons.step_clock(0.0),
        lasts_s=3.0,
    ),
    Fault("all-started", "all speakers are killed, and start together", daemons.kill_all, STARTED, daemons.start),
    Fault(
        "site-power-cut",
        "all nodes lose power, and the API server is away until they are back",
        power.site_power_cut,
        STARTED,
        power.power_on_with_api,
    ),
)
