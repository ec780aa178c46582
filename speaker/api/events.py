"""Which of the announcer's decisions become Events, on what, in which words, and how often.

``event_of`` turns a ``Decision`` that people must see into an ``Event``, on the Services that have the address or on
this speaker's Node. Its text says first what was seen (who, by which MAC, on which interface) and then the causes that
fit, with what to do about each.

An ``EventGate`` bounds their number, since a host on the LAN can cause conflicts with any number of MACs:

1. The same thing is one Event in ``REPEAT_S``.
2. ``BURST`` Events may follow on each other; after them one more is allowed each ``REFILL_S``.
3. ``MEMORY`` things are remembered, the latest ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from cluster.objects import AddressText, NodeName
from speaker.protocol.effects import ConflictView, Decision

REPEAT_S = 600.0  # until the same thing is worth another Event
MEMORY = 1024  # things remembered
BURST = 10  # Events in a row
REFILL_S = 10.0  # until one more is allowed after a burst

OPEN_THE_PORT = "let UDP port 7948 pass between the nodes, unicast and multicast to 224.0.0.254 or ff02::114"
"""What to do where heartbeats do not arrive."""
WHAT_STOPS_IT = (
    "a switch or virtual network that does not forward it, or a filter of tc, XDP or nftables' family netdev on either"
    " node (what iptables filters does not matter)"
)

Fields = Mapping[str, str | int | float]
Texts = dict[str, Callable[[Fields, NodeName], str | None]]
"""By reason: the text of an Event, from the decision's fields and this speaker's node; None where they do not do."""


class Event(NamedTuple):
    """What a Warning Event is to say, and on what."""

    address: AddressText | None
    """On the Services that have this address; None: on our own Node."""
    reason: str
    message: str
    key: tuple[str, ...]
    """Equal for what is the same thing again."""


def event_of(decision: Decision, node: NodeName) -> Event | None:
    """The Event that a decision becomes; None for one that nobody needs outside the log."""
    fields = decision.fields
    texts = ON_SERVICES if decision.reason in ON_SERVICES else ON_NODE
    message = texts[decision.reason](fields, node) if decision.reason in texts else None
    if message is None:
        return None
    address = AddressText(str(fields["address"])) if texts is ON_SERVICES else None
    told_apart = (str(fields.get(each, "")) for each in ("address", "mac", "node", "link", "seen"))
    return Event(address, decision.reason, message, (decision.reason, *told_apart))


# ------------------------------------------------------------------------ on Services


def _conflict(fields: Fields, node: NodeName) -> str | None:
    address, mac = fields.get("address"), fields.get("mac")
    if not address or not mac:
        return None
    seen = fields.get("seen") or ("kernel" if fields.get("node") else "stranger")
    rival = fields.get("node")
    who = f"node {rival}" if rival else "a node"
    causes = {
        "kernel": (
            f"It is {who}, where the kernel or another program answers without a claim. With kube-proxy in IPVS mode,"
            " set strictARP in its configuration; otherwise the address is configured on an interface there, or"
            " another load balancer runs there"
        ),
        "twin": (
            f"It is another machine that calls itself {who} too: give every machine a node name of its own, or end one"
            " of the two speakers"
        ),
        "blocked": (
            f"It is {who}, whose heartbeats do not arrive here, so that the two cannot agree who answers:"
            f" {OPEN_THE_PORT}"
        ),
    }
    return (
        f"{_on(mac, fields)} also answers for {address}, which node {node} announces; who believes it does not reach"
        f" the Service. {causes.get(str(seen)) or _stranger(fields)}"
    )


def _taken(fields: Fields, _: NodeName) -> str | None:
    address, mac = fields.get("address"), fields.get("mac")
    if not address or not mac:
        return None
    return (
        f"{_on(mac, fields)} has {address} already, so that no node announces it until it is free. {_stranger(fields)}."
        " Free the address there, or take it out of the pool"
    )


def _stranger(fields: Fields) -> str:
    """Who it may be that is no speaker of ours."""
    if cluster := fields.get("cluster"):
        return (
            f"It is a speaker of another cluster on this LAN (MAC {fields.get('mac')}, cluster digest {cluster}): give"
            " the two clusters different addresses"
        )
    return (
        "No speaker that is heard here has this MAC. Look for a machine or container on which the address is"
        " configured, a router that answers for others (proxy ARP), another load balancer, a node whose speaker does"
        " not run, or somebody who forges answers"
    )


def conflict_message(view: ConflictView, node: NodeName) -> str:
    """What is said of a conflict for as long as it lasts: the words of its Event."""
    said = ("address", "mac", "link", "seen", "node", "cluster")
    fields: Fields = {name: value for name in said if (value := str(getattr(view, name)))}
    return (_taken if view.withheld else _conflict)(fields, node) or ""


ON_SERVICES: Texts = {"AddressConflict": _conflict, "AddressTaken": _taken}

# ------------------------------------------------------------------------ on the Node


def _duplicate(fields: Fields, node: NodeName) -> str:
    silent = {0: "It stays silent", 1: "This one stays silent"}.get(
        int(fields.get("yields", -1)), "One of them is silent"
    )
    return (
        f"another machine{_whereabouts(fields)} calls itself {fields.get('node') or node} too. {silent} while the other"
        " runs. Give every machine a node name of its own, or end one of the two speakers"
    )


def _blocked(fields: Fields, node: NodeName) -> str:
    return (
        f"node {_said(fields, 'node')} lives and answers ARP on {_said(fields, 'link')}"
        f" (address {_said(fields, 'address')}), but its heartbeats do not arrive at node {node}:"
        f" {OPEN_THE_PORT}. What stops it is {WHAT_STOPS_IT}"
    )


def _cannot_send(fields: Fields, node: NodeName) -> str:
    return (
        f"node {node} cannot send on {_said(fields, 'link')}: {_said(fields, 'error')}. Other nodes will take its"
        " addresses over. Look at the interface, at firewall rules for what the node sends, and at the kernel's"
        " limits (dmesg)"
    )


def _overflow(fields: Fields, node: NodeName) -> str:
    return (
        f"the kernel of node {node} had to drop frames that arrived on {_said(fields, 'link')}, because the speaker did"
        " not take them in time: until it has heard the others again it takes nothing over. Give it CPU (a request,"
        " and no limit), and look for a flood on the network"
    )


def _nonsense(fields: Fields, node: NodeName) -> str:
    who = f"node {fields['node']}" if fields.get("node") else "a speaker"
    return (
        f"{who}{_whereabouts(fields)} says what cannot be ({_said(fields, 'what')}), and node {node} ignores it. It has"
        " the heartbeat key: see that its speaker is of this version; where it is no machine of yours, make a new key"
    )


def _other_version(fields: Fields, node: NodeName) -> str:
    return (
        f"a speaker{_whereabouts(fields)} says what node {node} does not understand ({_said(fields, 'what')}): it may"
        " be of a later release, and the two do not agree who answers for an address. Finish the upgrade; never skip a"
        " release whose notes say that the protocol changes"
    )


def nobody_heard(link: str) -> str:
    """What is said where no other speaker is heard on an interface, or on any where it is not named."""
    where = f" on {link}" if link else ""
    return f"no other speaker is heard{where}: {OPEN_THE_PORT}, and ARP. What stops it is {WHAT_STOPS_IT}"


ON_NODE: Texts = {
    "DuplicateNode": _duplicate,
    "DatagramsBlocked": _blocked,
    "CannotSend": _cannot_send,
    "ReceiveOverflow": _overflow,
    "MemberNonsense": _nonsense,
    "OtherVersion": _other_version,
    "NobodyHeard": lambda fields, _: nobody_heard(str(fields.get("link", ""))),
}


def _whereabouts(fields: Fields) -> str:
    """Where somebody is, as far as it is known, in brackets."""
    names = {"mac": "MAC", "address": "address", "link": "on"}
    known = [f"{name} {fields[field]}" for field, name in names.items() if fields.get(field)]
    return f" ({', '.join(known)})" if known else ""


def _on(mac: str | float, fields: Fields) -> str:
    return f"{mac} on {fields['link']}" if fields.get("link") else f"{mac}"


def _said(fields: Fields, name: str) -> str:
    return str(fields.get(name) or "unknown")


class EventGate:
    """See the module's docstring. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._told: dict[tuple[str, ...], float] = {}
        self._tokens = float(BURST)
        self._filled_at = 0.0

    def __len__(self) -> int:
        """How many things are remembered."""
        return len(self._told)

    def admits(self, key: tuple[str, ...], now: float) -> bool:
        """Whether an Event may be made of this thing now; if so it counts as made."""
        told = self._told.get(key)
        if told is not None and now - told < REPEAT_S:
            return False
        self._tokens = min(BURST, self._tokens + (now - self._filled_at) / REFILL_S)
        self._filled_at = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        self._told.pop(key, None)
        while len(self._told) >= MEMORY:
            del self._told[next(iter(self._told))]
        self._told[key] = now
        return True
