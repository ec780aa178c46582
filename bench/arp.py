"""How fast a speaker answers ARP, beside the kernel's own responder on the same wire in the same run.

    python -m bench.arp [--seconds 2] [--addresses 1000] [--json FILE]

It needs root (network namespaces). The announcer runs as in a cluster, with protocol and heartbeats. Measured are:

- the replies a second with up to 64 questions outstanding, for one and for many senders and addresses;
- the time from one question to its answer, one at a time;
- the CPU that other people's questions cost, 50,000 a second for addresses that the speaker does not hold;
- the CPU of 200,000 UDP datagrams a second that are no heartbeats.
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
from speaker.wire.arp import frames
from speaker.wire.heartbeats.encapsulation import UdpFrame
from speaker.wire.heartbeats.families import IPV4
from tests.wire.network import Wire, WireHost
from tests.wire.opened import mac_of

UNASKED = 9
"""Gratuitous frames for an address that was just claimed: a Request, and four rounds of a Request and a Reply."""


def questions(targets: Sequence[AddressText], senders: int, count: int) -> list[bytes]:
    chance = random.Random(1)
    made = []
    for target in itertools.islice(itertools.cycle(targets), count):
        number = chance.randrange(senders)
        mac = Mac(b"\x02\x00\x00\x01" + number.to_bytes(2, "big"))
        sender = WireAddress((0xC0000300 + number).to_bytes(4, "big"))
        made.append(frames.request(WireAddress.of(target), sender, mac).encode())
    return made


def foreign_questions() -> list[bytes]:
    return questions([AddressText(f"192.0.2.{n}") for n in range(100, 150)], 1000, 100)


def foreign_datagrams(node: WireHost) -> list[bytes]:
    """UDP datagrams to a port that nobody has on the node: a filter has to look into them before it drops them."""
    here, sender = (WireAddress.of(AddressText(text)) for text in ("192.0.2.1", "192.0.2.2"))
    frame = UdpFrame(mac_of(node), Mac(b"\x02\x00\x00\x01\x00\x00"), here, sender, 9, 9, 64, b"no heartbeat")
    return [IPV4.encode(frame)] * 100


def main() -> None:
    parser = arguments("arp", __doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement (%(default)s)")
    parser.add_argument("--addresses", type=int, default=1000, metavar="N", help="that are held (%(default)s)")
    options = parser.parse_args()
    take_precedence()
    addresses = [AddressText(f"198.51.{100 + n // 250}.{n % 250}") for n in range(options.addresses)]

    def ours(_: Wire, node: WireHost, client: WireHost) -> Figures:
        loads = {"questions": (foreign_questions(), 50_000), "datagrams": (foreign_datagrams(node), 200_000)}
        asked = (client, frames.ETHERTYPE_ARP, questions)
        return of_speaker(node, *asked, addresses=addresses, seconds=options.seconds, unasked=UNASKED, loads=loads)

    def kernel(_: Wire, node: WireHost, client: WireHost) -> Figures:
        node.run("sh", "-c", "; ".join(f"ip address add {address}/32 dev eth0" for address in addresses))
        node.run("ip", "route", "add", "default", "dev", "eth0")  # it answers only whom it could reach
        return measure(client, frames.ETHERTYPE_ARP, questions, addresses, options.seconds)

    compare(ours, kernel, options.json)


if __name__ == "__main__":
    main()
