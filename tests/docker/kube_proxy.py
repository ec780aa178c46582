"""What a node and its kube-proxy do in these tests, run by the Python of our images: ``kube_proxy.py PREFIX``.

Packets for addresses of the prefix are this machine's, as kube-proxy has it, and at port 80 of all of them the host's
name is served. That they are taken in does not mean that ARP is answered for them: the container has ``arp_ignore`` 1.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

RTM_NEWROUTE, NLM_F_REQUEST, NLM_F_ACK, NLM_F_CREATE, NLMSG_ERROR = 24, 0x1, 0x4, 0x400, 2  # linux/netlink.h
RT_TABLE_LOCAL, RTPROT_BOOT, RT_SCOPE_HOST, RTN_LOCAL, RTA_DST, RTA_OIF = 255, 3, 254, 2, 1, 4  # linux/rtnetlink.h


def make_local(prefix: ipaddress.IPv4Network) -> None:
    """``ip route add local PREFIX dev lo``, for an image that has no ``ip``."""
    route = struct.pack("BBBBBBBBI", socket.AF_INET, prefix.prefixlen, 0, 0, RT_TABLE_LOCAL, RTPROT_BOOT,
                        RT_SCOPE_HOST, RTN_LOCAL, 0)  # fmt: skip
    route += struct.pack("HH4s", 8, RTA_DST, prefix.network_address.packed)
    route += struct.pack("HHI", 8, RTA_OIF, socket.if_nametoindex("lo"))
    flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        netlink.sendall(struct.pack("IHHII", 16 + len(route), RTM_NEWROUTE, flags, 1, 0) + route)
        kind, number = struct.unpack_from("IHHIIi", netlink.recv(4096))[1::4]
    if kind != NLMSG_ERROR or number:
        raise OSError(-number, os.strerror(-number), str(prefix))


class Name(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        name = socket.gethostname().encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(name)))
        self.end_headers()
        self.wfile.write(name)


if __name__ == "__main__":
    make_local(ipaddress.IPv4Network(sys.argv[1]))
    ThreadingHTTPServer(("", 80), Name).serve_forever()
