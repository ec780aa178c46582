"""The speakers' processes: killed, stopped, restarted, standing still."""

from __future__ import annotations

from cluster.api.client import NODES
from cluster.drain import DRAIN_ANNOTATION
from lab.control.messages import SPEAKER, SpeakerProcess
from lab.faults.fault import Deed, Scene
from lab.objects.manifests import api_of
from lab.readiness import await_ready


def kill(process: SpeakerProcess) -> Deed:
    """SIGKILL to the holder's announcer, its watcher, or both."""

    def cause(scene: Scene) -> None:
        scene.lab.speaker(scene.holder, "kill", process)

    return cause


def stop(scene: Scene) -> None:
    """SIGTERM, as Kubernetes ends a pod."""
    scene.lab.speaker(scene.holder, "stop")


def pause(seconds: float) -> Deed:
    """SIGSTOP to both of the holder's processes, and SIGCONT so much later."""

    def cause(scene: Scene) -> None:
        scene.lab.speaker(scene.holder, "pause", seconds=seconds)

    return cause


def start(scene: Scene) -> None:
    """Every speaker that does not run, all at once."""
    processes = scene.lab.status().processes
    running = {each.host for each in processes if each.running and each.name == SPEAKER}
    for name in scene.nodes:
        if name not in running:
            scene.lab.speaker(name, "start")


def roll(scene: Scene) -> None:
    """As a DaemonSet is rolled: one speaker after the other is ended and started, the holder's first. Each waits until
    the one before it is ready."""
    for name in (scene.holder, *scene.others):
        scene.lab.speaker(name, "stop")
        scene.lab.speaker(name, "start")
        await_ready(scene.lab)


def step_clock(seconds: float) -> Deed:
    """The wall clock of the holder's speaker."""

    def cause(scene: Scene) -> None:
        scene.lab.step_clock(scene.holder, seconds)

    return cause


def kill_all(scene: Scene) -> None:
    """SIGKILL to every speaker, and all start together."""
    for name in scene.nodes:
        scene.lab.speaker(name, "kill")
    start(scene)


def drain(scene: Scene) -> None:
    _annotate(scene, "a fault")


def end_drain(scene: Scene) -> None:
    _annotate(scene, None)


def _annotate(scene: Scene, reason: str | None) -> None:
    body = {"metadata": {"annotations": {DRAIN_ANNOTATION: reason}}}
    api_of(scene.lab).patch(NODES, None, scene.holder, body)
