"""The command line refuses in one line, with an exit code that says whose fault it is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lab.cli.main import app, main
from lab.client import Lab
from lab.objects.manifests import SEEDS
from tests.pages import ROOT
from tests.waiting import wait_until

pytestmark = pytest.mark.lab


def run(*words: str, given: str = "") -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "lab", *words]
    return subprocess.run(argv, input=given, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["frobnicate"], "frobnicate"),
        (["up", "--nodes", "0"], "--nodes"),
        (["up", "--nodes", "many"], "--nodes"),
        (["up", "--lan", "10.244.0.0/16"], "pods"),
        (["up", "--lan", "fd00::/64"], "--lan"),
        (["up", "--name", "../../etc"], "--name"),
        (["up", "--node-grace", "-1"], "--node-grace"),
        (["down", "--name", "never-was"], "never-was is not up"),
        (["exec", "--name", "never-was", "cp", "--", "true"], "never-was is not up"),
        (["speaker", "kill", "node-1", "--process", "brain"], "--process"),
        (["holder", "172.18.255"], "172.18.255"),
        (["apply"], "-f FILE"),
        (["get", "unicorns"], "unicorns"),
        (["delete", "service"], "KIND NAME"),
        (["workload", "web", "--label", "nonsense"], "KEY=VALUE"),
    ],
)
def test_bad_arguments_get_one_line_and_exit_code_2(
    words: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["lab", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    printed = capsys.readouterr()
    assert ended.value.code == 2
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert said in printed.err


COMMANDS = ["up", "down", "list", "status", "exec", "holder", "logs", "workload", "apply", "delete", "get", "demo"]
GROUPS = ["node stop", "node start", "link up", "link down"]
GROUPS += [f"speaker {action}" for action in ("start", "stop", "kill", "pause", "resume")]


@pytest.mark.parametrize("words", COMMANDS + GROUPS)
def test_every_command_has_help(words: str) -> None:
    done = CliRunner().invoke(app, [*words.split(), "--help"])
    assert done.exit_code == 0
    assert "Usage" in done.output


def test_exec_passes_streams_and_exit_code_through(lab: Lab) -> None:
    done = run("exec", "--name", lab.name, "node-1", "--", "sh", "-c", "cat; hostname >&2; exit 7", given="hello")
    assert (done.returncode, done.stdout, done.stderr) == (7, "hello", "node-1\n")


def test_apply_get_and_delete_go_through_the_api(lab: Lab) -> None:
    to = ("--name", lab.name)
    manifests = ("-f", str(SEEDS / "kind-metallb-pool.yaml"), "-f", str(SEEDS / "kind-nginx-service.yaml"))
    done = run("apply", *to, *manifests)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "ipaddresspool metallb-system/example created",
        "l2advertisement metallb-system/empty created",
        "service dev/nginx-service created",
    ]
    again = run("apply", *to, *manifests)
    assert "service dev/nginx-service unchanged" in again.stdout
    got = run("get", *to, "service", "nginx-service", "-n", "dev", "-o", "json")
    assert json.loads(got.stdout)["spec"]["type"] == "LoadBalancer"
    assert "nginx-service" in run("get", *to, "svc", "-A").stdout
    assert "172.18.255.200" in run("get", *to, "ipaddresspools", "-n", "metallb-system").stdout
    gone = run("delete", *to, "service", "nginx-service", "-n", "dev")
    assert gone.stdout == "service dev/nginx-service deleted\n"
    missing = run("get", *to, "service", "nginx-service", "-n", "dev")
    assert (missing.returncode, missing.stderr.count("\n")) == (1, 1)


def test_apply_names_the_refused_object_and_field_and_applies_the_rest(lab: Lab, tmp_path: Path) -> None:
    manifest = tmp_path / "mixed.yaml"
    manifest.write_text("""\
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: bad, namespace: metallb-system}
spec: {addresses: not-a-list}
---
apiVersion: v1
kind: Unicorn
metadata: {name: horn}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: good}
""")
    done = run("apply", "--name", lab.name, "-f", str(manifest))
    assert done.returncode == 1
    assert done.stdout == "configmap default/good created\n"
    refused = done.stderr.splitlines()
    assert len(refused) == 2
    assert refused[0].startswith("ipaddresspool metallb-system/bad refused: ")
    assert "spec.addresses" in refused[0]
    assert "Unicorn" in refused[1]


def test_workload_answers_with_who_it_is(lab: Lab) -> None:
    done = run("workload", "--name", lab.name, "hello", "--replicas", "3", "--port", "8080")
    assert done.returncode == 0, done.stderr
    assert [line.split()[:2] for line in done.stdout.splitlines()[1:]] == [
        ["default/hello-1", "node-1"],
        ["default/hello-2", "node-2"],
        ["default/hello-3", "node-1"],
    ]
    address = done.stdout.splitlines()[2].split()[2]
    asked = run("exec", "--name", lab.name, "node-1", "--", "curl", "-s", "-m3", f"http://{address}:8080/x")
    assert json.loads(asked.stdout) == {"node": "node-2", "pod": "hello-2", "client": "172.18.0.11", "path": "/x"}
    run("workload", "--name", lab.name, "hello", "--replicas", "0")
    wait_until(lambda: not any(p.name.startswith("pod default.hello") for p in lab.status().processes if p.running))
