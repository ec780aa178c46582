"""Says for how long a bundle without endpoints is held, and for how long it is taken over.

Endpoints vanish for two reasons, which look the same in the API:

- The pods are gone. Then the address should fall silent.
- The API server was away for longer than Kubernetes waits for a node's word. kube-controller-manager then calls every
  node's state unknown and every pod not ready, and takes it back as the kubelets speak again. That must cost no
  address.

So the time since a bundle last served decides:

1. For 60 s its holder holds on to it. For 50 s another node takes it over, if the holder dies.
2. Then the holder releases it, and nobody claims it until it serves.

The time does not run while all candidates of the bundle are NotReady: the pods are not what is in trouble then, and the
API server may go away again before it has told of anything better. A speaker that never saw a bundle serve cannot tell
for how long it has not, and takes nothing over.

Example: a Service is scaled to zero at noon. Its address is answered for until 12:01, and then by nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cluster.objects import AddressText
from cluster.times import LONG_AGO, NEVER
from speaker.plan import NOT_READY_TIER, Bundle, BundleId

UNSERVED_S = 60.0
"""For which a bundle is held on. After an outage of the API server the last kubelet has spoken, and its pods are ready
again, within half a minute (it writes every 10 s, and backs off while it fails); this is twice as much."""

TAKE_OVER_S = UNSERVED_S - 10.0
"""For which it is taken over: shorter, so that a release at the end is not answered by a speaker whose Plan lags."""


class Unserved:
    """What one speaker's Plans have told."""

    def __init__(self) -> None:
        self._since: dict[BundleId, float] = {}

    def change(
        self,
        former_of: Mapping[AddressText, Bundle],
        changed: Iterable[Bundle],
        removed: Iterable[BundleId],
        now: float,
    ) -> None:
        """A change of the Plan. ``former_of`` has the bundles before it by their addresses, which outlive a bundle's
        name."""
        begun = {bundle.id: self._begin(bundle, former_of, now) for bundle in changed if not bundle.serving}
        for id_ in removed:
            self._since.pop(id_, None)
        for bundle in changed:
            self._since.pop(bundle.id, None)
        self._since.update(begun)

    def _begin(self, bundle: Bundle, former_of: Mapping[AddressText, Bundle], now: float) -> float:
        formers = [former_of[address] for address in bundle.addresses if address in former_of]
        since = max((self._since.get(former.id, now) for former in formers), default=LONG_AGO)
        if since + TAKE_OVER_S <= now:
            return since
        if bundle.candidates and all(candidate.tier == NOT_READY_TIER for candidate in bundle.candidates):
            return NEVER
        return min(since, now)

    def ids(self) -> Iterable[BundleId]:
        """The bundles that do not serve."""
        return self._since.keys()

    def release_at(self, bundle: Bundle) -> float:
        """Until when the holder of a bundle that does not serve holds on to it; ``NEVER`` while that is not counted."""
        return self._since[bundle.id] + UNSERVED_S

    def may_be_held(self, bundle: Bundle, now: float) -> bool:
        """Whether it serves, or did until lately enough to be held."""
        return bundle.serving or now < self.release_at(bundle)

    def lately(self, bundle: Bundle, now: float) -> bool:
        """Whether it serves, or did until lately enough to be taken over."""
        return bundle.serving or now < self._since[bundle.id] + TAKE_OVER_S
