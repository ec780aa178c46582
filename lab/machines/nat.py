"""The gateway's translation: 1:1 between the nodes' addresses on the LAN and their public ones, as clouds do it.

What comes for a public address goes on to the node's own, and its sender stays. What a node sends to the public side
comes from the node's public address there. Other hosts of the LAN share the gateway's own. A host of the LAN reaches a
node at its public address too: its packet comes back from the gateway, which therefore hides the sender likewise.
"""

from __future__ import annotations

import subprocess

from cluster.addresses import Family
from lab.layout import INTERFACE, PUBLIC_INTERFACE, Layout


def install(layout: Layout) -> None:
    """Translate in the network namespace that this thread is in."""
    subprocess.run(["nft", "-f", "-"], input=_rules(layout), text=True, check=True)


def _rules(layout: Layout) -> str:
    pairs = [(node.public_addresses[Family.IPV4], node.addresses[Family.IPV4]) for node in layout.nodes]
    to_nodes = ", ".join(f"{public} : {own}" for public, own in pairs)
    from_nodes = ", ".join(f"{own} : {public}" for public, own in pairs)
    return f"""\
table ip lab-nat {{
  map to-nodes {{ type ipv4_addr : ipv4_addr; elements = {{ {to_nodes} }} }}
  map from-nodes {{ type ipv4_addr : ipv4_addr; elements = {{ {from_nodes} }} }}
  chain nat-prerouting {{
    type nat hook prerouting priority dstnat
    dnat to ip daddr map @to-nodes
  }}
  chain nat-postrouting {{
    type nat hook postrouting priority srcnat
    oifname {PUBLIC_INTERFACE} snat to ip saddr map @from-nodes
    oifname {PUBLIC_INTERFACE} masquerade
    iifname {INTERFACE} ct status dnat snat to ip saddr map @from-nodes
    iifname {INTERFACE} ct status dnat masquerade
  }}
}}
"""
