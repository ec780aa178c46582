"""An announcer on a real (virtual) wire: what clients and rivals see of it."""

from __future__ import annotations

import pytest

from cluster.objects import AddressText
from tests.waiting import wait_until
from tests.wire.network import Wire
from tests.wire.speakers import Speaker, bundle

VIP, OTHER = AddressText("192.0.2.200"), AddressText("192.0.2.201")

pytestmark = pytest.mark.lab


def test_lone_speaker_claims_what_is_planned_and_answers(wire: Wire) -> None:
    node, client = wire.host("node-1"), wire.host("client")
    speaker = Speaker(node)
    try:
        speaker.plan(1, bundle("a", (VIP,), "node-1"))
        wait_until(lambda: speaker.holds(VIP), 10)
        assert client.resolve(VIP) == node.mac()
    finally:
        speaker.end()
