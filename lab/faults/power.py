"""Power and cables: nodes that are gone at once, one or all."""

from __future__ import annotations

from lab.faults import wire
from lab.faults.fault import Scene
from lab.layout import CONTROL_PLANE

API_SERVER = "apiserver"


def cut_power(scene: Scene) -> None:
    scene.lab.stop_node(scene.holder)


def power_on(scene: Scene) -> None:
    """Every node that is off."""
    for host in scene.lab.status().hosts:
        if not host.power:
            scene.lab.start_node(host.host.name)


def pull_cable(scene: Scene) -> None:
    scene.lab.pull_link(scene.holder)


def put_cable_back(scene: Scene) -> None:
    scene.lab.plug_link(scene.holder)


def stop_api_server(scene: Scene) -> None:
    """It stands still, as with a disk that does not answer: nobody is refused, and nobody gets an answer."""
    scene.lab.process(CONTROL_PLANE, API_SERVER, "pause")


def resume_api_server(scene: Scene) -> None:
    scene.lab.process(CONTROL_PLANE, API_SERVER, "resume")


def cut_power_without_api(scene: Scene) -> None:
    stop_api_server(scene)
    cut_power(scene)


def power_on_with_api(scene: Scene) -> None:
    resume_api_server(scene)
    power_on(scene)


def site_power_cut(scene: Scene) -> None:
    """All nodes lose power, and come back together before the API server answers. What it has stored is there again."""
    stop_api_server(scene)
    wire.lose_all(scene)  # the nodes are ended one after the other, and none may take over from another meanwhile
    for name in scene.nodes:
        scene.lab.stop_node(name)
    wire.heal(scene)
    power_on(scene)
    resume_api_server(scene)
