"""What is in the images, and that nothing else is."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.engine import base_image, docker, packed

ROOT = Path(__file__).parents[2]
DAEMONS = ("controller", "speaker")
IMPORTS = {"controller": ["controller.daemon.start"], "speaker": ["speaker.wire.announcer", "speaker.api.watcher"]}
OURS_MIB = 14.0
"""Compressed, on top of the base. An official slim Python has 41 to 45 MiB, and 60 are the limit."""

pytestmark = [
    pytest.mark.docker,
    pytest.mark.slow,
    pytest.mark.xdist_group("docker"),
]

LOOK = """
import importlib, json, pathlib, sys, tempfile
from importlib.metadata import distributions

for name in MODULES:
    importlib.import_module(name)
missing = [name for name, module in sys.modules.items()
           if (spec := getattr(module, "__spec__", None)) and spec.cached and not pathlib.Path(spec.cached).exists()]
from cluster.api.credentials import load
plugin = {"apiVersion": "client.authentication.k8s.io/v1", "command": "/plugin", "interactiveMode": "Never"}
kubeconfig = {"apiVersion": "v1", "kind": "Config", "current-context": "a",
              "clusters": [{"name": "a", "cluster": {"server": "http://192.0.2.1"}}],
              "users": [{"name": "a", "user": {"exec": plugin}}],
              "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}]}
pathlib.Path("/tmp/kubeconfig").write_text(json.dumps(kubeconfig))
pathlib.Path("/plugin").write_text('''#!/bin/sh
echo '{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": "t"}}'
''')
pathlib.Path("/plugin").chmod(0o755)
load(pathlib.Path("/tmp/kubeconfig"))
used = {str(module.__file__) for module in list(sys.modules.values()) if getattr(module, "__file__", None)}
unused = [each.name for each in distributions(path=[each for each in sys.path if "berthlb" in each])
          if not any(str(each.locate_file(file)) in used for file in each.files or ())]
programs = sorted(each.name for each in pathlib.Path("/opt/berthlb/programs").iterdir())
print(json.dumps({"missing": missing, "unused": unused, "programs": programs}))
"""


@pytest.mark.parametrize("daemon", DAEMONS)
def test_every_library_is_one_that_the_daemon_imports_and_all_it_imports_is_compiled(
    images: dict[str, str], daemon: str
) -> None:
    """In a pod or with a kubeconfig. What a read-only container finds without bytecode it compiles at every start."""
    program = LOOK.replace("MODULES", repr(IMPORTS[daemon]))
    said = docker("run", "--rm", "--network=none", "--user=0", "--entrypoint=python", images[daemon], "-c", program)
    assert json.loads(said) == {"missing": [], "unused": [], "programs": ["cluster", daemon]}


@pytest.mark.parametrize("daemon", DAEMONS)
def test_our_layers_are_small(images: dict[str, str], daemon: str) -> None:
    assert packed(images[daemon], beside=base_image()) < OURS_MIB * (1 << 20)


def test_a_node_that_has_one_image_has_most_of_the_other(images: dict[str, str]) -> None:
    """The libraries are one layer, as both Dockerfiles make it by the same steps."""
    assert packed(images["controller"], beside=images["speaker"]) < 3 * (1 << 20)


def test_the_controller_is_nobody_and_both_begin_by_themselves(images: dict[str, str]) -> None:
    users = {daemon: docker("inspect", "--format", "{{.Config.User}}", images[daemon]).strip() for daemon in DAEMONS}
    assert users == {"controller": "65532:65532", "speaker": "0:0"}
    for daemon in DAEMONS:
        assert "usage:" in docker("run", "--rm", "--network=none", "--read-only", images[daemon], "--help")


@pytest.mark.parametrize(
    ("options", "arguments", "advice"),
    [
        (("--cap-drop=ALL",), ("--node-name=node-1",), "capabilities: {add: [NET_RAW]}"),
        (("--cap-drop=ALL", "--cap-add=NET_RAW"), ("--node-name=$(NODE_NAME)",), "give it one (env)"),
        (("--cap-drop=ALL", "--cap-add=NET_RAW"), (), "spec.nodeName"),
        (("--cap-drop=ALL", "--cap-add=NET_RAW"), ("--node-name=node-1",), "not in a cluster"),
    ],
)
def test_a_speaker_that_can_never_work_says_what_to_do_and_ends_with_2(
    images: dict[str, str], options: tuple[str, ...], arguments: tuple[str, ...], advice: str
) -> None:
    name = docker("create", "--network=none", "--read-only", *options, images["speaker"], *arguments).strip()
    try:
        docker("start", name)
        assert docker("wait", name).strip() == "2"
        said = docker("logs", name, errors_too=True).splitlines()
        assert len(said) == 1
        assert advice in said[0]
    finally:
        docker("rm", "--force", name)


def test_both_images_have_the_libraries_that_are_locked_for_all_else() -> None:
    image, runtime = (
        set(re.findall(r"^[a-z].*==\S+", (ROOT / f"requirements/{each}.txt").read_text(), re.MULTILINE))
        for each in ("image", "runtime")
    )
    assert image
    assert image <= runtime, "make lock"
