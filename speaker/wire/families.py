"""The address families in which this node answers, and the door to each one's room.

This table is the only place that tells the families apart. An address of a family that is not in it is neither answered
nor asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from cluster.addresses import Family
from speaker.wire.arp import frames
from speaker.wire.arp.filter import ANSWERS
from speaker.wire.arp.responder import ArpResponder
from speaker.wire.resolution import Resolution

ARP = Resolution(
    ethertype=frames.ETHERTYPE_ARP,
    frame_octets=frames.READ_OCTETS,
    responder=ArpResponder,
    answers=ANSWERS,
    question=frames.question,
    first_round=(frames.gratuitous_request,),
    every_round=(frames.gratuitous_request, frames.gratuitous_reply),
)

RESOLUTIONS: Mapping[Family, Resolution] = MappingProxyType({Family.IPV4: ARP})
