"""One fault once: caused under load, watched, mended, watched again; and what a client saw of all that."""

from __future__ import annotations

import time
from collections.abc import Sequence

from lab.client import Lab
from lab.faults.fault import Fault, Movement, Scene
from lab.faults.seen import Episode, Seen, judge
from lab.layout import url_host
from lab.measuring import measure
from lab.measuring.measure import ClientWatch, wait_for
from lab.readiness import await_ready

RATE = 200.0
CONNECTIONS = 5
WATCHED_S = 2.0
"""A fault is watched for so long before it is mended, and so is what comes afterwards."""
STEADY_S = 1.0
"""So long every request must succeed before all is taken to be well."""
OVER_S = 90.0
"""By then everybody answers again."""
EACH_S = 0.1
"""What the client saw is looked at so often."""


def run(lab: Lab, fault: Fault, addresses: Sequence[str], lasts_s: float | None = None) -> Seen:
    """Cause the fault at whichever node holds the addresses, one in each family. ``lasts_s`` replaces the fault's own.

    Raises ``LabError`` where all is not well again.
    """
    urls = [f"http://{url_host(address)}/" for address in addresses]
    with measure.watching(lab, *addresses, url=urls, rate=RATE, connections=CONNECTIONS) as watch:
        wait_for(lambda: _succeeds(watch, 0.0), OVER_S, "every request succeeds, before the fault", EACH_S)
        before = measure.steady_holder(watch)
        scene = Scene(lab, measure.node_of(lab, before), tuple(addresses))
        began = time.monotonic()
        try:
            fault.cause(scene)
            time.sleep(max(0.0, began + (fault.lasts_s if lasts_s is None else lasts_s) - time.monotonic()))
            if fault.promise.move is not Movement.STAYS:
                wait_for(lambda: _answered(watch, began), OVER_S, "somebody answers", EACH_S)
            time.sleep(WATCHED_S)
        finally:
            fault.mend(scene)
        await_ready(lab)
        mended = time.monotonic()
        time.sleep(WATCHED_S - STEADY_S)
        wait_for(lambda: _succeeds(watch, mended), OVER_S, "every request succeeds, after the fault", EACH_S)
        after = measure.steady_holder(watch)
        nodes = {host.mac for host in lab.status().layout.nodes}
        episode = Episode(began, time.monotonic(), before, after, nodes)
        return judge(episode, watch.answers(), watch.requests(), watch.late_questions())


def _answered(watch: ClientWatch, since: float) -> bool:
    """Whether each address was answered for some time after ``since``, and not long ago."""
    now = time.monotonic()
    return {a.address for a in watch.answers() if a.at > max(since, now - STEADY_S)} == set(watch.addresses)


def _succeeds(watch: ClientWatch, since: float) -> bool:
    """Whether all requests that ``STEADY_S`` had, some time after ``since``, have succeeded."""
    requests = [each for each in watch.requests() if each.start > since]
    if not requests or requests[-1].start - requests[0].start < STEADY_S:
        return False
    return all(each.ok for each in requests if each.start > requests[-1].start - STEADY_S)
