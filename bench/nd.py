"""How fast a speaker answers Neighbour Solicitations, beside the kernel's own answers on the same wire in the same run.

    python -m bench.nd [--seconds 2] [--addresses 1000] [--json FILE]

It needs root (network namespaces). The announcer runs as in a cluster, with protocol and heartbeats. Measured are:

- the answers a second with up to 64 solicitations outstanding, for one and for many senders and addresses;
- the time from one solicitation to its answer, one at a time;
- the CPU that other people's solicitations cost, 50,000 a second for addresses that the speaker does not hold;
- the CPU of 200,000 other IPv6 packets a second.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

from bench.asking import compare, measure, of_speaker
from bench.probes import take_precedence
from bench.report import Figures, arguments
from cluster.objects import AddressText
from speaker.link import Mac
from speaker.wire.addresses import WireAddress
from speaker.wire.ethernet import ETHERTYPE_IPV6
from speaker.wire.nd import frames
from tests.wire.network import Wire, WireHost
from tests.wire.opened import mac_of

UNASKED = 5
"""Unsolicited advertisements of an address that was just claimed."""
_UDP = 17


def questions(targets: Sequence[AddressText], senders: int, count: int) -> list[bytes]:
    chance = random.Random(1)
    made = []
    for target in itertools.islice(itertools.cycle(targets), count):
        number = chance.randrange(senders).to_bytes(2, "big")
        sender = WireAddress(bytes.fromhex("20010db8000000000000000000050000")[:14] + number)
        made.append(frames.solicit(WireAddress.of(target), sender, Mac(b"\x02\x00\x00\x01" + number)).encode())
    return made


def foreign_questions() -> list[bytes]:
    return questions([AddressText(f"2001:db8::f:{n:x}") for n in range(100, 150)], 1000, 100)


def foreign_packets(node: WireHost) -> list[bytes]:
    """Packets to the node that are no ICMPv6."""
    to = mac_of(node)
    frame = bytearray(frames.solicit(WireAddress(bytes(15) + b"\x01"), frames.ALL_NODES, to, to=to).encode())
    frame[20] = _UDP
    return [bytes(frame)] * 100


def main() -> None:
    parser = arguments("nd", __doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement (%(default)s)")
    parser.add_argument("--addresses", type=int, default=1000, metavar="N", help="that are held (%(default)s)")
    options = parser.parse_args()
    take_precedence()
    addresses = [AddressText(f"2001:db8::a:{n:x}") for n in range(1, options.addresses + 1)]

    def ours(wire: Wire, node: WireHost, client: WireHost) -> Figures:
        wire.with_ipv6()
        loads = {"questions": (foreign_questions(), 50_000), "packets": (foreign_packets(node), 200_000)}
        asked = (client, ETHERTYPE_IPV6, questions)
        return of_speaker(node, *asked, addresses=addresses, seconds=options.seconds, unasked=UNASKED, loads=loads)

    def kernel(wire: Wire, node: WireHost, client: WireHost) -> Figures:
        wire.with_ipv6()
        node.run("sh", "-c", "; ".join(f"ip address add {address}/128 dev eth0 nodad" for address in addresses))
        return measure(client, ETHERTYPE_IPV6, questions, addresses, options.seconds)

    compare(ours, kernel, options.json)


if __name__ == "__main__":
    main()
