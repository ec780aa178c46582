"""The address families in which this node answers, and the door to each one's room.

In address resolution, this table is the only place that tells the families apart. An address of a family that is not in
it is neither answered nor asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from cluster.addresses import Family
from speaker.wire.arp import filter as arp_filter
from speaker.wire.arp import frames as arp
from speaker.wire.arp.responder import ArpResponder
from speaker.wire.ethernet import ETHERTYPE_IPV6
from speaker.wire.nd import filter as nd_filter
from speaker.wire.nd import frames as nd
from speaker.wire.nd.responder import NdResponder
from speaker.wire.resolution import Resolution

ARP = Resolution(
    family=Family.IPV4,
    ethertype=arp.ETHERTYPE_ARP,
    frame_octets=arp.READ_OCTETS,
    responder=ArpResponder,
    answers=arp_filter.ANSWERS,
    probe_answers=arp_filter.ANSWERS,
    question=arp.question,
    probe=arp.probe,
    first_round=(arp.gratuitous_request,),
    every_round=(arp.gratuitous_request, arp.gratuitous_reply),
)
NEIGHBOUR_DISCOVERY = Resolution(
    family=Family.IPV6,
    ethertype=ETHERTYPE_IPV6,
    frame_octets=nd.READ_OCTETS,
    responder=NdResponder,
    answers=nd_filter.ANSWERS,
    probe_answers=nd_filter.PROBE_ANSWERS,
    question=nd.question,
    probe=nd.probe_question,
    first_round=(nd.unsolicited_advertisement,),
    every_round=(nd.unsolicited_advertisement,),
)

RESOLUTIONS: Mapping[Family, Resolution] = MappingProxyType(
    {resolution.family: resolution for resolution in (ARP, NEIGHBOUR_DISCOVERY)}
)
