"""``examples/kind/`` and ``berthlb kind-pool`` with the real kind, engine, kubectl and API server, and our images.

No node image can be pulled where these run, so one is made: ``kind/node.py`` says what stands in it for what. Pods are
run by ``kubelets``, and traffic that reaches a node is served by ``node.py``. Our daemons, in the images that ``up.sh``
built, give out the addresses and answer for them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv6Network
from pathlib import Path

import pytest
import yaml

from cluster.addresses import parse_address, parse_range
from lab.assets.build import build
from lab.assets.cache import cache_directory
from lab.assets.pinned import KIND
from tests.docker.cluster import KUBE_PROXY, free_network
from tests.docker.kubelets import KUBECTL, ContainerKubelets
from tests.engine import docker, environment
from tests.real import program
from tests.waiting import wait_until

pytestmark = [
    pytest.mark.docker,
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.xdist_group("docker"),
    pytest.mark.timeout(900),
]

ROOT = Path(__file__).parents[2]
NAME = f"berthlb-{hashlib.sha256(bytes(ROOT)).hexdigest()[:8]}"
"""Of the cluster, its network and its image: what a run that was killed has left is removed by the next."""
OWN_ENGINE = Path("/run/netns/berthlb-engine")
"""Where the network of an engine is that scripts/engine started."""
MADE = {
    "small": ["--subnet={at}0/29"],
    "shared": ["--subnet={at}0/24", "--ip-range={at}128/25", "--aux-address=router={at}126"],
    "dual": ["--subnet={at}0/24", "--ipv6", "--subnet={six}"],
}
"""Networks, as the engine is told to make them."""
PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kubectl")


@dataclass(frozen=True)
class Machine:
    """Where a person runs the scripts: beside the engine, with kind and kubectl on PATH."""

    directory: Path
    environment: dict[str, str]

    def run(self, *command: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
        """In the network in which the engine's bridges are."""
        inside = environment()["DOCKER_HOST"] == "unix:///run/berthlb-engine/docker.sock"
        prefix = [f"nsenter --net={OWN_ENGINE}".split()] if inside else []
        return subprocess.run(
            [*(word for words in prefix for word in words), *command],
            cwd=ROOT, env={**self.environment, **more}, capture_output=True, text=True, check=False, timeout=600,
        )  # fmt: skip


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    directory = tmp_path_factory.mktemp("kind")
    programs = directory / "bin"
    programs.mkdir()
    built, _ = build(KIND, cache_directory(os.environ), os.environ, lambda _: None)
    (programs / "kind").symlink_to(built / "kind")
    (programs / "kubectl").symlink_to(program("kubectl"))
    found = {
        **environment(),
        "PATH": f"{programs}:{os.environ['PATH']}",
        "KUBECONFIG": str(directory / "kubeconfig"),
        "KIND_CLUSTER_NAME": NAME,
        "KIND_EXPERIMENTAL_DOCKER_NETWORK": NAME,
        "KIND_IMAGE": f"{NAME}:node",
    }
    found.pop("KIND_EXPERIMENTAL_PROVIDER", None)
    machine = Machine(directory, found)
    remove()
    make_node_image(directory)
    yield machine
    remove()


def remove() -> None:
    """Whatever is of this checkout."""
    there = docker("ps", "--all", "--quiet", "--filter", f"network={NAME}").split()
    there += docker("ps", "--all", "--quiet", "--filter", f"label=io.x-k8s.kind.cluster={NAME}").split()
    if there:
        docker("rm", "--force", "--volumes", *set(there), check=False)
    docker("network", "rm", NAME, check=False)


def make_node_image(directory: Path) -> None:
    context = directory / "node"
    shutil.copytree(Path(__file__).parent / "kind", context)
    shutil.copy(KUBE_PROXY, context)
    (context / "programs").mkdir()
    for name in PROGRAMS:
        shutil.copy(program(name), context / "programs" / name)  # type: ignore[arg-type]  # each is one
    credentials = context / "credentials"
    credentials.mkdir()
    names = f"subjectAltName=IP:127.0.0.1,DNS:localhost,DNS:{NAME}-control-plane,DNS:{NAME}-b-control-plane"
    new = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=kube-apiserver")
    files = ("-keyout", f"{credentials}/server.key", "-out", f"{credentials}/server.crt")
    subprocess.run([*new, "-addext", names, *files], check=True, capture_output=True)
    subprocess.run(["openssl", "genrsa", "-out", f"{credentials}/sa.key", "2048"], check=True, capture_output=True)
    base = re.findall(r"^ARG BASE_IMAGE=(.*)", (ROOT / "Dockerfile.speaker").read_text(), re.MULTILINE)[0]
    docker("build", "--quiet", "--tag", f"{NAME}:node", "--build-arg", f"BASE_IMAGE={base}", str(context))


@pytest.fixture(scope="module")
def kubelets(machine: Machine) -> Iterator[ContainerKubelets]:
    directory = machine.directory / "accounts"
    directory.mkdir()
    running = ContainerKubelets(NAME, NAME, directory).start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def up(machine: Machine, kubelets: ContainerKubelets) -> str:
    """The demo's address, once ``up.sh`` has ended."""
    done = machine.run("examples/kind/up.sh", "--no-pull")
    assert done.returncode == 0, f"{done.stderr}\n{kubelets.trouble}"
    return done.stdout.split()[-1]


def kind_pool(machine: Machine, *arguments: str) -> subprocess.CompletedProcess[str]:
    return machine.run(ROOT / ".venv/bin/python", "-m", "cli", "kind-pool", *arguments)


def addresses(manifest: str) -> list[str]:
    pool, advertisement = yaml.safe_load_all(manifest)
    assert advertisement["spec"]["ipAddressPools"] == [pool["metadata"]["name"]]
    found = pool["spec"]["addresses"]
    assert isinstance(found, list)
    return found


def test_up_ends_with_an_address_that_answers(up: str, machine: Machine, kubelets: ContainerKubelets) -> None:
    """From this machine too: the script asked, and so does this."""
    pool = json.loads(kubelets.kubectl("get", "ipaddresspool", "kind", "--namespace=metallb-system", "--output=json"))
    assert parse_address(up) in parse_range(pool["spec"]["addresses"][0])
    assert machine.run("curl", "--silent", "--fail", "--max-time", "10", f"http://{up}/").stdout.startswith(NAME)


def test_once_more_changes_nothing(up: str, machine: Machine, kubelets: ContainerKubelets) -> None:
    def what_runs() -> set[str]:
        pods = json.loads(kubelets.kubectl("get", "pods", "--all-namespaces", "--output=json"))["items"]
        return {each["metadata"]["uid"] for each in pods}

    before = what_runs()
    done = machine.run("examples/kind/up.sh", "--no-pull", "--engine=docker")
    assert done.returncode == 0, f"{done.stderr}\n{kubelets.trouble}"
    assert done.stdout.split()[-1] == up
    assert what_runs() == before
    assert f"up.sh: http://{up}/ answers a container on network {NAME}\n" in done.stderr
    assert f"up.sh: http://{up}/ answers this machine\n" in done.stderr


def test_the_status_that_the_page_shows_names_the_node(up: str, machine: Machine, kubelets: ContainerKubelets) -> None:
    command = ["kubectl", "get", "servicel2statuses", "--namespace", "metallb-system", "--output", "wide"]
    holder = wait_until(lambda: re.search(rf"{NAME}-worker2?", machine.run(*command).stdout), 60)
    assert holder is not None


def test_another_cluster_on_the_network_gets_other_addresses(
    up: str, machine: Machine, kubelets: ContainerKubelets
) -> None:
    """And what is not known of a cluster that is stopped is not guessed."""
    mine = addresses(kind_pool(machine).stdout)
    other = f"{NAME}-b"
    labels = ("--label", f"io.x-k8s.kind.cluster={other}", "--label", "io.x-k8s.kind.role=control-plane")
    where = ("--network", NAME, "--name", f"{other}-control-plane")
    docker("run", "--detach", "--privileged", "--volume", "/var", *where, *labels, f"{NAME}:node")
    unknown = kind_pool(machine)
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert f"the pools of cluster {other} are not known: " in unknown.stderr
    docker("exec", f"{other}-control-plane", "kubeadm", "init")
    theirs = kind_pool(machine, "--cluster", other)  # it knows no pools yet
    assert theirs.returncode == 0, theirs.stderr
    assert not set(addresses(theirs.stdout)) & set(mine)
    manifest = (ROOT / "deploy/berthlb.yaml").read_text() + "---\n" + theirs.stdout
    manifest_file = machine.directory / "other.yaml"
    manifest_file.write_text(manifest)
    ask = " ".join(["docker", "exec", "--interactive", f"{other}-control-plane", *KUBECTL])

    def applied() -> bool:  # the second time the definitions are there
        return machine.run("sh", "-c", f"{ask} apply -f - < {manifest_file}").returncode == 0

    wait_until(applied, 60)
    assert addresses(kind_pool(machine, "--cluster", other).stdout) == addresses(theirs.stdout)
    assert addresses(kind_pool(machine).stdout) == mine
    docker("stop", "--time", "0", f"{other}-control-plane")
    stopped = kind_pool(machine)
    assert stopped.returncode == 2
    assert stopped.stderr == (
        f"berthlb kind-pool: the pools of cluster {other} are not known: none of its control plane's nodes runs;"
        f" start it, or delete it with: kind delete cluster --name {other}\n"
    )
    docker("rm", "--force", "--volumes", f"{other}-control-plane")


def test_networks_of_other_kinds(up: str, machine: Machine) -> None:
    """Made by the engine, with the cluster's own nodes on them: small, shared out, and of both families."""
    found: dict[str, list[str]] = {}
    nets: dict[str, str] = {}
    six = IPv6Network(f"fd{NAME[-8:-6]}:{NAME[-6:-2]}::/64")
    last = six.broadcast_address - 128  # above are anycast addresses
    try:
        for name, options in MADE.items():
            nets[name] = str(free_network().network_address).removesuffix("0")
            subnets = [each.format(at=nets[name], six=six) for each in options]
            docker("network", "create", *subnets, f"{NAME}-{name}")
            docker("network", "connect", f"{NAME}-{name}", f"{NAME}-control-plane")
            found[name] = addresses(kind_pool(machine, "--network", f"{NAME}-{name}").stdout)
        for worker in ("worker", "worker2"):
            docker("network", "connect", f"{NAME}-small", f"{NAME}-{worker}")
        fewer = kind_pool(machine, "--network", f"{NAME}-small")
        for number in (1, 2):
            where = ("--network", f"{NAME}-small", "--name", f"{NAME}-guest-{number}")
            docker("run", "--detach", *where, "--entrypoint", "sleep", f"{NAME}:node", "infinity")
        full = kind_pool(machine, "--network", f"{NAME}-small")
    finally:
        for number in (1, 2):
            docker("rm", "--force", f"{NAME}-guest-{number}", check=False)
        for name in nets:
            for node in ("control-plane", "worker", "worker2"):
                docker("network", "disconnect", "--force", f"{NAME}-{name}", f"{NAME}-{node}", check=False)
            docker("network", "rm", f"{NAME}-{name}", check=False)
    small, shared, dual = nets["small"], nets["shared"], nets["dual"]
    assert found["small"] == [f"{small}5-{small}6"]
    assert found["shared"] == [f"{shared}76-{shared}125"]
    assert found["dual"] == [f"{dual}205-{dual}254", f"{last - 49}-{last}"]
    assert addresses(fewer.stdout) == [f"{small}6-{small}6"]
    assert "1 address left for containers" in fewer.stderr
    assert full.returncode == 2
    assert full.stderr.startswith(f"berthlb kind-pool: nothing is free in {small}0/29, which has 8 addresses: ")


def test_down_removes_the_cluster_and_may_be_run_again(up: str, machine: Machine, kubelets: ContainerKubelets) -> None:
    kubelets.stop()
    for _ in range(2):
        done = machine.run("examples/kind/down.sh")
        assert done.returncode == 0, done.stderr
        assert not docker("ps", "--all", "--quiet", "--filter", f"label=io.x-k8s.kind.cluster={NAME}")


@pytest.mark.parametrize(
    ("arguments", "more", "said"),
    [
        (["--fast"], {}, "--fast is no option of this; there are --no-pull and --engine docker|podman"),
        (["--engine"], {}, "--engine needs docker or podman"),
        (["--engine", "lxc"], {}, "--engine is docker or podman, not lxc"),
        (["--engine=podman"], {}, "podman is not on PATH; install it, or name the other one with --engine"),
        ([], {"DOCKER_HOST": "unix:///nowhere"}, "docker does not answer: "),
        (["--no-pull"], {"BASE_IMAGE": "no:such"}, "no:such is not there, and with --no-pull it is not pulled"),
        (["--no-pull"], {"KIND_CLUSTER_NAME": "new", "KIND_IMAGE": "no:such"}, "no:such is not there"),
        (["--no-pull"], {"KIND_CLUSTER_NAME": "new", "KIND_IMAGE": ""}, "with --no-pull, set KIND_IMAGE to"),
    ],
)
def test_what_is_missing_is_said_before_anything_is_made(
    machine: Machine, arguments: list[str], more: dict[str, str], said: str
) -> None:
    done = machine.run("examples/kind/up.sh", *arguments, **more)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"up.sh: {said}")
    assert done.stderr.count("\n") == 1
