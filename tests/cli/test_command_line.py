"""``berthlb`` as a shell sees it: streams and exit codes."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from cli.__main__ import main

ROOT = Path(__file__).parents[2]
SEED = ROOT / "examples/seeds/legacy-configmap.yaml"

EXPECTED = """\
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata:
  name: default
  namespace: metallb-system
spec:
  addresses:
  - 192.168.1.100-192.168.1.159
---
apiVersion: metallb.io/v1beta1
kind: L2Advertisement
metadata:
  name: default
  namespace: metallb-system
spec:
  ipAddressPools:
  - default
"""


def run(*words: str, given: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cli", *words]
    return subprocess.run(command, input=given, capture_output=True, text=True, cwd=ROOT, timeout=30, check=False)


def test_a_tutorials_configmap_is_converted() -> None:
    done = run("convert", str(SEED))
    assert (done.returncode, done.stdout, done.stderr) == (0, EXPECTED, "")


def test_standard_input_is_read_for_a_dash() -> None:
    done = run("convert", "-", given=SEED.read_text())
    assert (done.returncode, done.stdout, done.stderr) == (0, EXPECTED, "")


def test_remarks_go_to_standard_error_only() -> None:
    pool = {"name": "Lan", "protocol": "layer2", "addresses": ["192.0.2.0/24"]}
    done = run("convert", "-", "--namespace", "lb", given=yaml.safe_dump({"peers": [{}], "address-pools": [pool]}))
    assert done.returncode == 0
    assert [each["metadata"] for each in yaml.safe_load_all(done.stdout)] == [{"name": "lan", "namespace": "lb"}] * 2
    first, second = done.stderr.splitlines()
    assert first == "berthlb convert: standard input: peers: left out, BGP peers (1): BerthLB does not serve BGP"
    assert second.startswith('berthlb convert: standard input: pool "Lan" is named lan')


def test_nothing_to_apply_is_no_success() -> None:
    done = run("convert", "-", given="peers: [{}]")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].endswith("there is no layer2 pool: nothing to apply")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "berthlb: the following arguments are required: COMMAND"),
        (["frobnicate"], "frobnicate"),
        (["convert"], "berthlb convert: the following arguments are required: FILE"),
        (["convert", "no-such-file"], "berthlb convert: no-such-file: No such file or directory"),
        (["convert", "."], "berthlb convert: .: Is a directory"),
        (
            ["convert", str(SEED), "--namespace", "A_b"],
            f'berthlb convert: {SEED}: "A_b" cannot be the name of a namesp',
        ),
        (["convert", sys.executable], f"berthlb convert: {sys.executable}: not YAML"),
    ],
)
def test_mistakes_get_one_line_and_exit_code_2(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    printed = capsys.readouterr()
    assert ended.value.code == 2
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert said in printed.err


def test_a_full_disk_is_told() -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "cli", "convert", str(SEED)]
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT, timeout=30, check=False
        )
    assert (done.returncode, done.stderr) == (1, "berthlb convert: cannot write the result: No space left on device\n")


def test_the_installed_command_is_this_one() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    module, _, function = scripts["berthlb"].partition(":")
    assert getattr(import_module(module), function) is main


def test_it_starts_without_what_only_daemons_and_the_lab_need() -> None:
    """A converter runs where no cluster is at hand."""
    watched = ["kubernetes", "prometheus_client", "typer", "rich", "aiohttp", "pyroute2"]
    program = f"import cli.__main__, sys; print([name for name in {watched} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == "[]\n"
