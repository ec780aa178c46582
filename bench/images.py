"""Both images: how large they are, how soon their containers are ready, what memory they work with.

    python -m bench.images [--starts 5]

A cluster of containers (tests/docker) is brought up, and each daemon ended and started again so many times, while the
others run. "Ready" is the first /readyz that says so, asked for each hundredth of a second in the daemon's own network.
The working set is what the kernel counts for the container, without file pages that it would give back first: what
Kubernetes calls so too. Without the programs of a control plane there are sizes alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

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
progress = Console(stderr=True)


def sizes(images: dict[str, str]) -> Table:
    base = base_image()
    made = "made-by" in docker("inspect", "--format", "{{json .Config.Labels}}", base)
    title = f"On {base}" + (", which scripts/engine made out of Debian's packages" if made else "")
    table = Table("image", "MiB", "compressed", "compressed, without its base", title=title)
    for name, image in {**images, "base": base}.items():
        octets = int(docker("inspect", "--format", "{{.Size}}", image))
        figures = [octets, packed(image), 0 if image == base else packed(image, beside=base)]
        table.add_row(name, *(f"{each / MIB:.1f}" for each in figures))
    return table


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


def of_containers(images: dict[str, str], starts: int) -> Table:
    table = Table("container", "ready after s: least", "median", "most", "working set")
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
                figures = (min(took), statistics.median(took), max(took))
                table.add_row(daemon, *(f"{each:.2f}" for each in figures), memory.split(" / ")[0])
        finally:
            subprocess.run(
                [*compose, "down", "--timeout", "0", "--volumes"], env=environment(), check=True, capture_output=True
            )
    return table


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--starts", type=int, default=5)
    starts = arguments.parse_args().starts
    progress.print("building")
    images = build_images()
    Console().print(sizes(images))
    if reason := real.why_not():
        sys.exit(f"no container was started: {reason}")
    Console().print(of_containers(images, starts))


if __name__ == "__main__":
    main()
