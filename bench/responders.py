"""What one frame costs a responder, ARP's and Neighbour Discovery's, in CPU time and without a socket.

    python -m bench.responders [--rounds 50] [--json FILE]

It needs no rights. Measured are, with 1,000 addresses held, for each family and each kind of frame: the nanoseconds of
CPU time a frame, the least of so many rounds. ``bench.arp`` and ``bench.nd`` measure the whole way, through the kernel.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence

from bench import arp, nd
from bench.report import Figures, arguments, show, write
from cluster.objects import AddressText
from speaker.link import LinkName, Mac
from speaker.wire.addresses import WireAddress
from speaker.wire.arp import frames as arp_frames
from speaker.wire.arp.responder import ArpResponder
from speaker.wire.nd import frames as nd_frames
from speaker.wire.nd.responder import NdResponder
from speaker.wire.resolution import Responder

ETH0, OWN, CLIENT = LinkName("eth0"), Mac(b"\x02\0\0\0\0\1"), Mac(b"\x02\0\0\0\0\2")
SENDERS, FRAMES = 10_000, 2_000
ARP_ADDRESSES = [AddressText(f"198.51.{100 + n // 250}.{n % 250}") for n in range(1000)]
ND_ADDRESSES = [AddressText(f"2001:db8::a:{n:x}") for n in range(1, 1001)]
Kinds = Mapping[str, Sequence[bytes]]


def of_arp() -> tuple[Responder, Kinds]:
    held = [WireAddress.of(text) for text in ARP_ADDRESSES]
    asker = WireAddress.of(AddressText("192.0.2.7"))
    return ArpResponder(ETH0, OWN), {
        "question, 1 sender, 1 address": arp.questions(ARP_ADDRESSES[:1], 1, FRAMES),
        "question, 10000 senders, 1000 addresses": arp.questions(ARP_ADDRESSES, SENDERS, FRAMES),
        "probe for duplicates": [arp_frames.request(each, arp_frames.NO_ADDRESS, CLIENT).encode() for each in held],
        "question for another's address": arp.foreign_questions(),
        "rival": [arp_frames.request(asker, each, CLIENT).encode() for each in held],
        "garbage": [bytes(arp_frames.ARP_FRAME_OCTETS)],
    }


def of_nd() -> tuple[Responder, Kinds]:
    held = [WireAddress.of(text) for text in ND_ADDRESSES]
    asker = WireAddress.of(AddressText("2001:db8::7"))
    without_mac = (nd_frames.NeighbourSolicitation(OWN, CLIENT, asker, each, each) for each in held)
    return NdResponder(ETH0, OWN), {
        "question, 1 sender, 1 address": nd.questions(ND_ADDRESSES[:1], 1, FRAMES),
        "question, 10000 senders, 1000 addresses": nd.questions(ND_ADDRESSES, SENDERS, FRAMES),
        "question by unicast": [nd_frames.solicit(each, asker, CLIENT, to=OWN).encode() for each in held],
        "question without the asker's MAC": [question.encode() for question in without_mac],
        "probe for duplicates": [nd_frames.probe(each, CLIENT).encode() for each in held],
        "question for another's address": nd.foreign_questions(),
        "rival": [nd_frames.unsolicited(each, CLIENT).encode() for each in held],
        "garbage": [bytes(nd_frames.LEAST_OCTETS)],
    }


def nanoseconds(responder: Responder, frames: Sequence[bytes], rounds: int) -> float:
    """CPU time of one frame: the least of so many rounds, which other work disturbs least."""
    batch = list(itertools.islice(itertools.cycle(frames), FRAMES))
    receive, least = responder.receive, float("inf")
    for _ in range(rounds):
        began = time.process_time_ns()
        for frame in batch:
            receive(frame, 0.0)
        least = min(least, (time.process_time_ns() - began) / FRAMES)
    return least


def main() -> None:
    parser = arguments("responders", __doc__)
    parser.add_argument("--rounds", type=int, default=50, help="of each measurement (%(default)s)")
    options = parser.parse_args()
    figures: dict[str, Figures] = {}
    for name, addresses, (responder, kinds) in (("ARP", ARP_ADDRESSES, of_arp()), ("ND", ND_ADDRESSES, of_nd())):
        for text in addresses:
            responder.hold(WireAddress.of(text))
        figures[name] = {kind: nanoseconds(responder, frames, options.rounds) for kind, frames in kinds.items()}
    rows = {f"{name}: {kind}": [value] for name, found in figures.items() for kind, value in found.items()}
    show(["frame", "CPU, ns"], rows)
    write(options.json, figures)


if __name__ == "__main__":
    main()
