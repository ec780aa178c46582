"""What goes wrong between the hosts: frames that are lost, and others that should not be there."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from lab.faults.fault import Deed, Scene
from lab.layout import CONTROL_PLANE, GATEWAY, INTERFACE
from lab.shipped import ROOT

STORM_FRAMES_S = 10_000
STORM_S = 3.0


def lose(percent: int) -> Deed:
    """The LAN loses so many of a hundred frames, at random, to each receiver on its own."""

    def cause(scene: Scene) -> None:
        scene.lab.drop(f"numgen random mod 100 < {percent}")

    return cause


def lose_all(scene: Scene) -> None:
    """The LAN carries nothing."""
    scene.lab.drop("meta length > 0")


def heal(scene: Scene) -> None:
    scene.lab.drop()


def deafen(scene: Scene) -> None:
    """Nothing arrives at the holder."""
    scene.lab.drop(f'oifname "{scene.holder}"')


def mute(scene: Scene) -> None:
    """Nothing that the holder sends arrives anywhere."""
    scene.lab.drop(f'iifname "{scene.holder}"')


def deafen_to_nodes(scene: Scene) -> None:
    """Nothing of the other nodes arrives at the holder; all else does."""
    scene.lab.drop(f"iifname {_ports(scene.others)} oifname {_ports([scene.holder])}")


def mute_to_nodes(scene: Scene) -> None:
    """Nothing of the holder arrives at the other nodes; all else does."""
    scene.lab.drop(f"iifname {_ports([scene.holder])} oifname {_ports(scene.others)}")


def split_lan(scene: Scene) -> None:
    """Half of the nodes, the holder among them, is cut off from the other half, the clients and the gateway. Both
    halves reach the API server."""
    half = (scene.holder, *scene.others[: len(scene.nodes) // 2 - 1])
    rest = [host.name for host in scene.lab.status().layout.hosts if host.name not in {*half, CONTROL_PLANE}]
    scene.lab.drop(f"iifname {_ports(half)} oifname {_ports(rest)}", f"iifname {_ports(rest)} oifname {_ports(half)}")


def split_api(scene: Scene) -> None:
    """No host of the LAN reaches the API server. They reach each other."""
    scene.lab.drop(f'iifname "{CONTROL_PLANE}"', f'oifname "{CONTROL_PLANE}"')


def rival(scene: Scene) -> None:
    """The gateway has the addresses too, and answers for them."""
    for address in scene.addresses:
        flags = ("nodad",) if ":" in address else ()
        _ip(scene, "add", address, *flags)


def end_rival(scene: Scene) -> None:
    for address in scene.addresses:
        _ip(scene, "delete", address)


def _ip(scene: Scene, action: str, address: str, *flags: str) -> None:
    scene.lab.run(GATEWAY, ["ip", "address", action, address, "dev", INTERFACE, *flags], check=action == "add")


def storm(scene: Scene) -> None:
    """Questions for the addresses and for others, of hosts that do not exist, from the gateway."""
    argv = ["-m", "lab.faults.storm", INTERFACE, *scene.addresses, f"--rate={STORM_FRAMES_S}", f"--seconds={STORM_S}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with scene.lab.start(GATEWAY, [sys.executable, *argv], environment=environment) as sending:
        sending.wait(60.0)


def _ports(names: Sequence[str]) -> str:
    return "{ " + ", ".join(f'"{name}"' for name in names) + " }"
