"""What a holder's Plans have said of the other candidates of a bundle: decided by people, or found by themselves.

A Plan that ranks a node higher than the last one did has one of two reasons:

- *A person decided it*: by a preference, a node selector or the interfaces of an advertisement, by a label of a node,
  by taking a node out of use or back, by a Service's traffic policy or its group, or by failback. That acts at once.
- *The node came back by itself*: it is Ready again, its network is available again, or an endpoint on it can serve
  again, or one that is not ending. It may go again in a moment. So it has to stay well for a while before it takes
  anything back.

A Plan says which is which, without any history: ``Bundle.unfit`` names the nodes that are lacking by themselves. So two
Plans tell them apart, one after the other.

Example: a node that is preferred is excluded by its label at 10:00 and included at 10:10. It was decided at 10:10. If
it was rebooted in the meantime and is Ready since 10:12, it is fit since 10:12, and has come back by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from cluster.objects import NodeName
from cluster.times import LONG_AGO
from speaker.plan import DRAINED_TIER, NOT_READY_TIER, Bundle, Candidate


class Regard(NamedTuple):
    """Of one candidate, as far as it is known."""

    decided_at: float = LONG_AGO
    """When people last decided how it is ranked beside this node."""
    fit_since: float = LONG_AGO
    """Since when it is Ready, has a network, and an endpoint where it needs one."""
    serving_since: float = LONG_AGO
    """With the policy Local, since when it has an endpoint that stays: an update of the pods has been there since."""


UNKNOWN = Regard()


def regards(
    before: Mapping[NodeName, Regard], former: Bundle, bundle: Bundle, own: NodeName, now: float
) -> dict[NodeName, Regard]:
    """What is known of the candidates of a bundle that was ``former`` until now."""
    was = {candidate.node: candidate for candidate in former.candidates}
    own_was, own_is = was.get(own), next((each for each in bundle.candidates if each.node == own), None)
    own_decided = own_was is not None and own_is is not None and _decided(own_was) != _decided(own_is)
    all_decided = own_decided or _asked(former) != _asked(bundle)
    found: dict[NodeName, Regard] = {}
    for candidate in bundle.candidates:
        regard, there = before.get(candidate.node, UNKNOWN), was.get(candidate.node)
        if there is None:
            returned = candidate.node in former.unfit and former.local == bundle.local
            decided = not returned
        else:
            returned = there.tier == NOT_READY_TIER and candidate.tier < NOT_READY_TIER
            returned |= there.ending and not candidate.ending
            decided = _decided(there) != _decided(candidate)
        if returned:
            regard = regard._replace(fit_since=now)
        if decided or all_decided:
            regard = regard._replace(decided_at=now)
        if bundle.local and not candidate.ending and (there is None or there.ending):
            regard = regard._replace(serving_since=now)
        if regard != UNKNOWN:
            found[candidate.node] = regard
    return found


def _asked(bundle: Bundle) -> tuple[object, ...]:
    """Of a bundle what people ask of all nodes."""
    return bundle.local, bundle.failback, bundle.spread


def _decided(candidate: Candidate) -> tuple[object, ...]:
    """Of a candidate what people decide."""
    return candidate.preference, candidate.interfaces, candidate.tier == DRAINED_TIER
