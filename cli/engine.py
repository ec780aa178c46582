"""Asks a container engine about its networks, and the kind clusters on one of them about their pools.

Everything goes through the engine's own command, also what an API server is asked: a kind node has kubectl and the
administrator's kubeconfig. So neither kind nor kubectl is needed here, no kubeconfig of the user's is read, and it
works where the engine is in a virtual machine.

These are several questions, and things may vanish between them; then they are asked again. A cluster that does not
answer is an error: its addresses are its own also while it is stopped.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence

from cli.kind_pool import PoolOfCluster, Surroundings, pools_of
from cli.networks import Container, Network, containers, networks

TRIES = 3
ASK_S = 60.0
"""A busy engine takes seconds; one that takes longer than this does not answer."""
POOLS_PATH = "/apis/metallb.io/v1beta1/ipaddresspools"
_KUBECTL = ("kubectl", "--kubeconfig=/etc/kubernetes/admin.conf", "--request-timeout=20s", "get", "--raw", POOLS_PATH)


class EngineError(Exception):
    """The engine, or a cluster, did not tell; the message is one line and says what to do where that is known."""


def surroundings(engine: str, network: str) -> Surroundings:
    """What is on the network now. ``engine`` is a command, docker or podman.

    Raises ``EngineError`` or ``AnswerError``.
    """
    known = _stable(engine, ("network", "ls", "--quiet"), ("network", "inspect"))
    there = networks(known)
    ours = next((each for each in there if each.name == network), None)
    if ours is None:
        names = ", ".join(sorted(each.name for each in there if each.subnets)) or "none"
        raise EngineError(f"{engine} has no network {network} (it has {names}); kind makes it with its first cluster")
    listing = ("ps", "--all", "--quiet", "--no-trunc", "--filter", f"network={network}")
    present = containers(_stable(engine, listing, ("inspect", "--type", "container")))
    others = tuple(each for each in there if each is not ours)
    return Surroundings(ours, others, present, tuple(_pools(engine, ours, present)))


def _pools(engine: str, network: Network, present: Sequence[Container]) -> Iterator[PoolOfCluster]:
    nodes = [each for each in present if each.cluster is not None and network.name in each.networks]
    for cluster in sorted({each.cluster for each in nodes if each.cluster is not None}):
        answer = _ask_cluster(engine, cluster, [each for each in nodes if each.cluster == cluster])
        if answer is not None:
            yield from pools_of(cluster, answer)


def _ask_cluster(engine: str, cluster: str, nodes: Sequence[Container]) -> bytes | None:
    """A cluster's pools, from the first of its control plane's nodes that answers; None: it knows no pools."""
    why = "none of its control plane's nodes runs"
    for node in (each for each in nodes if each.control_plane and each.running):
        done = _run(engine, "exec", node.name, *_KUBECTL)
        if done.returncode == 0:
            return done.stdout
        why = _last_line(done)
        if "(NotFound)" in why:
            return None
    raise EngineError(
        f"the pools of cluster {cluster} are not known: {why};"
        f" start it, or delete it with: kind delete cluster --name {cluster}"
    )


def _stable(engine: str, listing: Sequence[str], inspecting: Sequence[str]) -> bytes:
    """All that a listing names, inspected: a JSON array."""
    for _ in range(TRIES):
        listed = _run(engine, *listing)
        if listed.returncode != 0:
            raise EngineError(f"{engine} does not answer: {_last_line(listed)}")
        names = listed.stdout.decode(errors="replace").split()
        if not names:
            return b"[]"
        inspected = _run(engine, *inspecting, *names)
        if inspected.returncode == 0:
            return inspected.stdout
    raise EngineError(f"{engine} {' '.join(inspecting)}: {_last_line(inspected)}")


def _run(*command: str) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=ASK_S, check=False)
    except FileNotFoundError as error:
        raise EngineError(f"{command[0]} is not on PATH") from error
    except OSError as error:
        raise EngineError(f"{command[0]} cannot be run: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise EngineError(f"{' '.join(command[:2])} has not ended after {ASK_S:.0f} s") from error


def _last_line(done: subprocess.CompletedProcess[bytes]) -> str:
    # docker exec says on its standard output what it could not run.
    lines = (done.stderr.strip() or done.stdout).decode(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else f"it ended with {done.returncode} and said nothing"
