"""The questions of a client that watches addresses, read by scapy, and what counts as an answer to them."""

from __future__ import annotations

from ipaddress import ip_address

from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6NDOptDstLLAddr, ICMPv6NDOptSrcLLAddr, IPv6
from scapy.layers.l2 import ARP, Ether

from lab.measuring.resolve import answer, arp_request, solicitation

OURS, THEIRS = "02:00:00:00:00:01", "02:00:00:00:00:02"
V4, V6 = ip_address("172.18.255.200"), ip_address("fd00:b1b::255:200")


def octets(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def test_a_solicitation_is_one_that_a_kernel_would_send() -> None:
    frame = Ether(solicitation(octets(OURS), ip_address("fe80::1").packed, V6.packed))
    again = Ether(bytes(frame))
    del again[ICMPv6ND_NS].cksum
    assert bytes(Ether(bytes(again))) == bytes(frame), "the checksum is the one that scapy computes"
    assert (frame.src, frame.dst) == (OURS, "33:33:ff:55:02:00")
    assert (frame[IPv6].src, frame[IPv6].dst, frame[IPv6].hlim) == ("fe80::1", "ff02::1:ff55:200", 255)
    assert (frame[ICMPv6ND_NS].tgt, frame[ICMPv6NDOptSrcLLAddr].lladdr) == (str(V6), OURS)


def test_an_advertisement_to_us_is_an_answer_and_one_to_all_is_not() -> None:
    message = ICMPv6ND_NA(tgt=str(V6), S=1) / ICMPv6NDOptDstLLAddr(lladdr=THEIRS)
    to_us = bytes(Ether(src=THEIRS, dst=OURS) / IPv6(src="fe80::2", dst="fe80::1", hlim=255) / message)
    to_all = bytes(Ether(src=THEIRS, dst="33:33:00:00:00:01") / IPv6(src="fe80::2", dst="ff02::1", hlim=255) / message)
    assert answer(to_us, octets(OURS)) == (V6, octets(THEIRS))
    assert answer(to_all, octets(OURS)) is None
    assert answer(to_us[:80], octets(OURS)) is None


def test_an_arp_reply_to_us_is_an_answer_and_a_request_is_not() -> None:
    reply = ARP(op=2, hwsrc=THEIRS, psrc=str(V4), hwdst=OURS, pdst="172.18.0.3")
    assert answer(bytes(Ether(src=THEIRS, dst=OURS) / reply), octets(OURS)) == (V4, octets(THEIRS))
    asked = arp_request(octets(OURS), ip_address("172.18.0.3").packed, V4.packed)
    assert (Ether(asked)[ARP].pdst, answer(asked, octets(OURS))) == (str(V4), None)
