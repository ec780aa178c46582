"""What is said over a lab's control socket: requests to the keeper, and its answers.

A message is one datagram of a Unix SOCK_SEQPACKET socket, JSON, told from others by its ``op``. File descriptors travel
beside a message (SCM_RIGHTS): the standard streams of a command, or a socket made in a host's network namespace. A
connection carries one request at a time; a connection that started a command belongs to that command until it ends.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from lab.layout import STATUS_PORT, Host, Layout
from lab.shipped.rights import DaemonName, Rights

MAX_MESSAGE = 200_000  # octets; just under the kernel's default limit for one datagram (net.core.wmem_default)

SPEC = "spec.json"  # in the lab's directory
CONTROLLER = "controller"  # names of processes
SPEAKER = "speaker"

ControlPlane = Literal["embedded", "kubernetes"]
ProxyMode = Literal["nftables", "iptables"]
Action = Literal["start", "stop", "kill", "pause", "resume"]
SpeakerProcess = Literal["announcer", "watcher", "both"]


class Spec(msgspec.Struct, frozen=True):
    """Everything that a lab is made from."""

    name: str
    layout: Layout
    directory: str
    """Where the control socket, the kubeconfigs and the logs are."""
    api_port: int
    """Port on 127.0.0.1, outside the lab, at which the API server answers."""
    daemons: bool = True
    """Whether our daemons run."""
    speakers: bool = True
    """Whether speakers are among them."""
    node_grace: float = 5.0
    """Seconds without a word from a node until its Node is Ready=Unknown and its endpoints are not ready."""
    controllers: int = 1
    """How many replicas of the controller, of which one leads."""
    controller_args: tuple[str, ...] = ()
    speaker_args: tuple[str, ...] = ()
    rights: dict[DaemonName, Rights] = {}
    """What each of our daemons may do."""
    programs: dict[str, str] = {}
    """Of a real control plane: the path of each program. Empty: the embedded one."""
    proxy_mode: ProxyMode = "nftables"
    """Of a real kube-proxy."""

    @property
    def control_plane(self) -> ControlPlane:
        return "kubernetes" if self.programs else "embedded"

    @property
    def controller_ports(self) -> dict[str, int]:
        """Where each replica of the controller shows its status, by the name of its process."""
        names = [CONTROLLER, *(f"{CONTROLLER}-{number}" for number in range(2, self.controllers + 1))]
        return {name: STATUS_PORT + index for index, name in enumerate(names)}


# ------------------------------------------------------------------------ requests


class ToKeeper(msgspec.Struct, frozen=True, tag_field="op", tag=lambda name: name.lower()):
    """Base of what a client may ask."""


class GetStatus(ToKeeper, frozen=True):
    """Asks for ``LabStatus``."""

    memory: bool = False
    """Measure each process' memory as well (some milliseconds per process)."""


class Exec(ToKeeper, frozen=True):
    """Run a command on a host. Beside it travel three descriptors: its standard input, output and error.

    Answered by ``Started`` and, when it ended, ``Ended``. Closing the connection earlier kills it.
    """

    host: str
    argv: tuple[str, ...]
    environment: dict[str, str]
    directory: str
    terminal: bool = False
    """Its standard input is a terminal that is to become its controlling terminal."""


class Signal(ToKeeper, frozen=True):
    """Send a signal to the command of this connection (its process group)."""

    number: int


class Socket(ToKeeper, frozen=True):
    """Make a socket in a host's network namespace; answered by ``Done`` with the descriptor beside it."""

    host: str
    family: int
    type: int
    protocol: int


class Power(ToKeeper, frozen=True):
    """Cut a node's power (link down and every process killed, at once), or switch it on."""

    node: str
    on: bool


class Cable(ToKeeper, frozen=True):
    """Pull a host's cable, or put it back."""

    host: str
    up: bool


class DropFrames(ToKeeper, frozen=True):
    """Have the LAN's switch drop frames: rules of nftables without their verdict, in place of those of before."""

    frames: tuple[str, ...]


class Act(ToKeeper, frozen=True):
    """Act on a process of a host. ``stop`` is SIGTERM, answered when the process has ended; ``start`` starts again what
    the lab itself runs there, and has ended."""

    host: str
    process: str
    action: Action
    part: SpeakerProcess = "both"
    """Of a speaker, which is two processes. Of others, both are one."""
    seconds: float | None = None
    """Of a pause: resume after that long."""


class LetGo(ToKeeper, frozen=True):
    """Let the lab outlive the command that made it. Only that command may say so, on its own connection."""


class Down(ToKeeper, frozen=True):
    """End the lab."""


AnyRequest = GetStatus | Exec | Signal | Socket | Power | Cable | DropFrames | Act | LetGo | Down


# ------------------------------------------------------------------------ answers


class FromKeeper(msgspec.Struct, frozen=True, tag_field="op", tag=lambda name: name.lower()):
    """Base of what the keeper answers."""


class Done(FromKeeper, frozen=True):
    """It is done."""


class Declined(FromKeeper, frozen=True):
    """It cannot be done; nothing was changed."""

    reason: str


class Started(FromKeeper, frozen=True):
    pid: int
    """Process id inside the lab."""


class Ended(FromKeeper, frozen=True):
    code: int
    """Exit code, or minus the number of the signal that ended it."""


class ProcessStatus(msgspec.Struct, frozen=True):
    host: str
    name: str
    pid: int
    """Process id inside the lab."""
    running: bool
    code: int | None = None
    """Once it has ended: exit code, or minus the number of the signal."""
    pss_kib: int | None = None
    """Proportional set size, KiB: private memory, and its share of what is shared."""


class HostStatus(msgspec.Struct, frozen=True):
    host: Host
    namespace: str | None
    """A path for ``nsenter --net``; None while the power is off."""
    power: bool
    link: bool


class LabStatus(FromKeeper, frozen=True):
    name: str
    keeper_pid: int
    """Process id outside the lab. Killing it ends the lab."""
    directory: str
    kubeconfig: str
    """For programs outside the lab."""
    kubeconfig_inside: str
    """For programs on the lab's hosts."""
    api_server: str
    api_server_inside: str
    layout: Layout
    control_plane: ControlPlane
    daemons: bool
    speakers: bool
    controller_ports: dict[str, int]
    node_grace: float
    hosts: tuple[HostStatus, ...]
    processes: tuple[ProcessStatus, ...]


AnyAnswer = Done | Declined | Started | Ended | LabStatus


# ------------------------------------------------------------------------ keeper and stand-ins


class NodeUp(msgspec.Struct, frozen=True, tag_field="op", tag="node-up"):
    """Keeper to stand-ins: a node has power, and its cable is plugged in. Beside it travels its network namespace."""

    node: str


class NodeDown(msgspec.Struct, frozen=True, tag_field="op", tag="node-down"):
    """Keeper to stand-ins: nothing is heard from a node any more."""

    node: str
    power: bool
    """False: its power was cut and its processes are gone. True: only its cable was pulled."""


class StartPod(msgspec.Struct, frozen=True, tag_field="op", tag="start-pod"):
    """Stand-ins to keeper: run a workload's HTTP server."""

    node: str
    pod: str
    """``namespace/name``."""
    addresses: tuple[str, ...]
    ports: tuple[int, ...]


class StopPod(msgspec.Struct, frozen=True, tag_field="op", tag="stop-pod"):
    """Stand-ins to keeper: end a workload's HTTP server and take its addresses away."""

    node: str
    pod: str
    addresses: tuple[str, ...]


class PodStarted(msgspec.Struct, frozen=True, tag_field="op", tag="pod-started"):
    """Keeper to stand-ins: it listens; or why it does not."""

    pod: str
    error: str | None = None


class PodEnded(msgspec.Struct, frozen=True, tag_field="op", tag="pod-ended"):
    """Keeper to stand-ins: its process has ended by itself."""

    pod: str
    code: int


class ApiReady(msgspec.Struct, frozen=True, tag_field="op", tag="api-ready"):
    """Stand-ins to keeper: the real API server answers, and has everything that a lab begins with."""


ToStandIns = NodeUp | NodeDown | PodStarted | PodEnded
FromStandIns = StartPod | StopPod | ApiReady

# ------------------------------------------------------------------------ decoders

REQUESTS: msgspec.json.Decoder[AnyRequest] = msgspec.json.Decoder(AnyRequest)
ANSWERS: msgspec.json.Decoder[AnyAnswer] = msgspec.json.Decoder(AnyAnswer)
TO_STAND_INS: msgspec.json.Decoder[ToStandIns] = msgspec.json.Decoder(ToStandIns)
FROM_STAND_INS: msgspec.json.Decoder[FromStandIns] = msgspec.json.Decoder(FromStandIns)
