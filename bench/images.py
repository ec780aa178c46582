"""Both images: how large they are, how soon their containers are ready, and what memory they work with.

    python -m bench.images [--starts 5] [--json FILE]

A cluster of containers (``tests/docker``) is brought up. Each daemon is ended and started again so many times while the
others run. *Ready* is the first /readyz that says so, asked for every hundredth of a second in the daemon's network.
The *working set* is what the kernel counts for the container, without file pages that it would give back first: what
Kubernetes calls so too. With ``--starts 0``, or without the programs of a control plane, there are sizes alone.
"""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import tempfile
from datetime import datetime
from pathlib import Path

from bench.report import Figures, arguments, progress, show, write
from tests import real
from tests.docker.cluster import DAEMONS, Cluster
from tests.engine import base_image, build_images, compose_command, docker, environment, packed

MIB = 1 << 20
AWAIT = """
import sys, time, urllib.request
deadline = time.time() + 60
print("looking", flush=True)
while time.time() < deadline:
    try:
        urllib.request.urlopen(sys.argv[1], timeout=1)
    except OSError:
        time.sleep(0.01)
    else:
        print(time.time())
        break
"""


def sizes(images: dict[str, str]) -> dict[str, Figures]:
    """MiB of each image and of their base; of an image also what a node fetches that has the base."""
    base = base_image()
    found: dict[str, Figures] = {}
    for name, image in {**images, "base": base}.items():
        octets = int(docker("inspect", "--format", "{{.Size}}", image))
        found[name] = {"on disk, MiB": octets / MIB, "compressed, MiB": packed(image) / MIB}
        found[name]["of that ours, MiB"] = 0 if image == base else packed(image, beside=base) / MIB
    return found


def base_described() -> str:
    base = base_image()
    made = "made-by" in docker("inspect", "--format", "{{json .Config.Labels}}", base)
    return f"On {base}" + (", which scripts/engine made out of Debian's packages" if made else "")


def ready_after(cluster: Cluster, daemon: str) -> float:
    """Seconds from a container's start until it is ready."""
    docker("stop", cluster.container(daemon))
    asker = ["docker", "exec", cluster.container(cluster.beside(daemon)), "python", "-c", AWAIT]
    with subprocess.Popen(
        [*asker, cluster.url(daemon, "/readyz")], env=environment(), stdout=subprocess.PIPE, text=True
    ) as looking:
        assert looking.stdout is not None
        looking.stdout.readline()
        docker("start", cluster.container(daemon))
        ready = float(looking.stdout.readline())
    state = json.loads(docker("inspect", "--format", "{{json .State}}", cluster.container(daemon)))
    return ready - datetime.fromisoformat(state["StartedAt"][:26] + "+00:00").timestamp()


def of_containers(images: dict[str, str], starts: int) -> dict[str, Figures]:
    """Of a container of each daemon: seconds until it is ready, and its working set."""
    found: dict[str, Figures] = {}
    with tempfile.TemporaryDirectory() as directory:
        cluster = Cluster("berthlb-bench", Path(directory), images)
        compose = [*compose_command(), "-f", str(cluster.file), "-p", cluster.project]
        try:
            progress.print("starting a cluster of containers")
            for step in (["up", "--detach", *cluster.first], ["up", "--detach", "--no-recreate", *DAEMONS]):
                subprocess.run([*compose, *step], env=environment(), check=True, capture_output=True)
                if step[-1] not in DAEMONS:
                    cluster.install()
            cluster.await_ready()
            for daemon in DAEMONS:
                progress.print(f"starting {daemon} {starts} times")
                took = [ready_after(cluster, daemon) for _ in range(starts)]
                memory = docker("stats", "--no-stream", "--format", "{{.MemUsage}}", cluster.container(daemon))
                found[daemon] = {
                    "ready, least, s": min(took),
                    "ready, median, s": statistics.median(took),
                    "ready, most, s": max(took),
                    "working set, MiB": mib(memory.split(" / ")[0]),
                }
        finally:
            subprocess.run(
                [*compose, "down", "--timeout", "0", "--volumes"], env=environment(), check=True, capture_output=True
            )
    return found


def mib(shown: str) -> float:
    """Of an amount of memory as docker shows it, such as ``24.9MiB``."""
    number, unit = re.fullmatch(r"([\d.]+)([KMG]iB)", shown).groups()  # type: ignore[union-attr]
    return float(number) * {"KiB": 1 / 1024, "MiB": 1, "GiB": 1024}[unit]


def main() -> None:
    parser = arguments("images", __doc__)
    parser.add_argument("--starts", type=int, default=5, metavar="N", help="of each daemon (%(default)s)")
    given = parser.parse_args()
    progress.print("building")
    images = build_images()
    figures = {"images": sizes(images), "containers": {}}
    tell(figures["images"], "image", title=base_described())
    reason = real.why_not()
    if given.starts and not reason:
        figures["containers"] = of_containers(images, given.starts)
        tell(figures["containers"], "container")
    write(given.json, figures)
    if given.starts and reason:
        sys.exit(f"no container was started: {reason}")


def tell(found: dict[str, Figures], what: str, title: str | None = None) -> None:
    heads = next(iter(found.values()))
    show([what, *heads], {name: list(figures.values()) for name, figures in found.items()}, title=title)


if __name__ == "__main__":
    main()
