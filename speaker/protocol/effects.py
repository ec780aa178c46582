"""The vocabulary between the speaker's decisions and its sockets: what comes in from links, what is to be sent.

The parts of the protocol never touch a socket. They receive these values together with the time, and emit effects that
the announcer carries out in order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from msgspec import Struct

from cluster.addresses import Family, family_of
from cluster.objects import AddressText, NodeName
from speaker.link import LinkName, Mac
from speaker.plan import BundleId

ROUTED_MAC = Mac(bytes(6))
"""In the place of a MAC, where the kernel finds the way."""
LINK_LOCAL_LENGTH = 64
"""Of the prefix of link-local addresses (RFC 4291 §2.5.6)."""

_FAMILIES = {
    (False, False): frozenset[Family](),
    (True, False): frozenset({Family.IPV4}),
    (False, True): frozenset({Family.IPV6}),
    (True, True): frozenset(Family),
}


@dataclass(frozen=True, slots=True)
class LinkState:
    """One announced interface as netlink shows it now."""

    name: LinkName
    index: int
    mac: Mac
    up: bool
    """Administratively up and with carrier."""
    prefixes: tuple[str, ...] = ()
    """Own addresses with prefix length, ``192.0.2.11/24``; the subnets that are connected here."""
    gateways: tuple[AddressText, ...] = ()
    """Next hops of default routes through this link, one of each family at most: third parties that prove that the
    link works."""
    link_local: AddressText | None = None
    """Own IPv6 address that is valid on this link only (RFC 4291 §2.5.6), ``fe80::11``; None: the kernel speaks no IPv6
    here. Every link has the same subnet of such addresses, so it is none of ``prefixes``."""
    routed: bool = False
    """The kernel finds the way to each speaker, on whatever subnet it is: everybody is reached here, and by unicast
    alone. No address can be announced here."""

    @property
    def own(self) -> tuple[str, ...]:
        """All own addresses, with prefix length."""
        return self.prefixes if self.link_local is None else (*self.prefixes, f"{self.link_local}/{LINK_LOCAL_LENGTH}")

    @property
    def families(self) -> frozenset[Family]:
        """The families that the node's kernel speaks here: it can serve no other address here, and cannot be heard by
        any other."""
        v4 = any(family_of(AddressText(prefix)) is Family.IPV4 for prefix in self.prefixes)
        return _FAMILIES[v4, self.link_local is not None]


@dataclass(frozen=True, slots=True)
class NeighbourSeen:
    """A frame of ARP or of Neighbour Discovery that passed the filter: an answer to something we asked, a question for
    an address that we hold, or a rival's claim to one."""

    link: LinkName
    sender: AddressText
    sender_mac: Mac
    target: AddressText
    is_reply: bool
    proof: bytes = b""
    """Of an answer to a question with a nonce: what only the speaker that holds the address can have made of it."""


@dataclass(frozen=True, slots=True)
class SendHeartbeat:
    """Send a datagram to the link's heartbeat group in every family that the link speaks (224.0.0.254 and ff02::114,
    UDP 7948, TTL and hop limit 255)."""

    link: LinkName
    data: bytes


@dataclass(frozen=True, slots=True)
class SendUnicast:
    """Send a datagram to one speaker, in the family of its address (UDP 7948, TTL or hop limit 255). A refusal by its
    kernel comes back as ``datagram_refused``.
    """

    link: LinkName
    to: AddressText
    mac: Mac
    data: bytes


@dataclass(frozen=True, slots=True)
class Knock:
    """Send an empty datagram to one speaker, in the family of its address (UDP 7948). Who lives does not notice it. A
    refusal by its kernel comes back as ``datagram_refused``."""

    link: LinkName
    to: AddressText
    mac: Mac


@dataclass(frozen=True, slots=True)
class AskAddress:
    """Ask for ``target`` by ARP or Neighbour Discovery: everybody, or ``mac`` alone (RFC 826 allows either; RFC 1122
    §2.3.2.1 uses the latter as a unicast poll)."""

    link: LinkName
    target: AddressText
    mac: Mac | None = None
    nonce: bytes = b""
    """Eight octets that go with the question, in an ARP frame's padding or an option of Neighbour Discovery. A speaker
    that answers puts a proof there."""


@dataclass(frozen=True, slots=True)
class ProbeAddress:
    """Ask everybody whether anybody has ``target``, without saying that this node has any address: an ARP probe
    (RFC 5227 §2.1.1), or a solicitation from ``::`` (RFC 4862 §5.4.2)."""

    link: LinkName
    target: AddressText


@dataclass(frozen=True, slots=True)
class WatchFrames:
    """Tell of frames of any kind that arrive on the link (``receive_frame``), or do so no longer: whoever hears
    anything at all is not cut off."""

    link: LinkName
    wanted: bool


@dataclass(frozen=True, slots=True)
class SendGratuitous:
    """Start the schedule of gratuitous frames (RFC 5227 §3) for addresses that are answered for, most urgent first.

    ``defend`` sends one round only: an answer to a rival.
    """

    addresses: tuple[AddressText, ...]
    defend: bool = False


class AskRecord(Struct, frozen=True, tag=True):
    """Write this node into a bundle's record in the API, unless that names another node that may hold it. The answer
    comes back as ``answer_record``."""

    bundle: BundleId
    services: tuple[str, ...]
    """Those of the bundle, ``namespace/name``."""
    epoch: int
    """What the claim has, or would have."""
    blocked: tuple[NodeName, ...]
    """Nodes that may hold it: their Leases are renewed, and they are not heard."""


class RecordAnswer(Struct, frozen=True, tag=True):
    """Whose a bundle's record is, by the API: this node's, or another one's that may hold it."""

    bundle: BundleId
    epoch: int
    """For the claim: not less than what was asked, and above that of the former holder. 0: it is not this node's."""
    holder: NodeName


class FormerHolder(Struct, frozen=True, array_like=True, gc=False):
    """Who held a bundle, by its record in the API."""

    node: NodeName
    epoch: int
    """Of the claim; 0 where the record has none, as those of earlier releases."""


class Decision(Struct, frozen=True, tag=True):
    """What the protocol decided and somebody may ask about later. It is one structured log line, it counts in
    ``berthlb_speaker_decisions_total``, and it goes to the watcher, where one that people must see becomes an Event
    (``speaker.api.events``).
    """

    reason: str
    """Of a bounded set, in CamelCase: the line's message, the metric's label and the Event's reason."""
    fields: dict[str, str | int | float] = {}
    """Its details: the line's fields."""
    at: float = 0.0
    """When it was taken, in seconds since 1970. The protocol knows no such time: the announcer fills it in."""


Action = SendHeartbeat | SendUnicast | Knock | AskAddress | ProbeAddress | WatchFrames | SendGratuitous | AskRecord
"""What is done; mypy sees to it that every shell can do each."""
Effect = Action | Decision


@dataclass(frozen=True, slots=True)
class AnswerChange:
    """What to answer for from now on, as far as it differs from before."""

    links: Mapping[AddressText, frozenset[LinkName]]
    """Addresses whose links changed, with the links on which they are answered for now: none, where they are not."""
    quiet: frozenset[LinkName] = frozenset()
    """Links on which nothing gratuitous may be sent now: this node may be the one that is cut off there."""
    suspended: frozenset[LinkName] = frozenset()
    """Links on which nothing is answered now, and nothing gratuitous sent, whatever ``links`` says: this node does not
    know who has taken over there. Ten thousand addresses are suspended at the cost of one."""
    macs: Mapping[AddressText, Mapping[LinkName, Mac]] = field(default_factory=dict)
    """Of addresses in ``links``: the MAC that answers name, on those links where that is not this node's own. This node
    stands in there for a speaker that restarts: nothing gratuitous is sent, and another node holds the address."""


class PeerView(Struct, frozen=True, array_like=True, gc=False):
    node: NodeName
    alive: bool
    detection_s: float
    """D of this peer now: silence longer than this is a death."""
    lateness_s: float
    claims: int
    suspected: bool = False
    """On a link, and alive on none without suspicion."""
    heartbeats: int = 0
    """That were heard in its present session."""
    missed: int = 0
    """That were due then, and were not heard."""


class ConflictView(Struct, frozen=True, array_like=True, gc=False):
    """Somebody else who has an address of the Plan."""

    address: AddressText
    mac: str
    link: LinkName
    seen: str
    """What it is: as the field of this name of the decisions ``AddressConflict`` and ``AddressTaken``."""
    node: str
    """Of the cluster; empty: none."""
    cluster: str
    """Digest of another cluster of which it is a speaker; empty: none that is known."""
    withheld: bool
    """Nobody of the cluster has announced the address since it was assigned."""
