"""The command line: what is accepted, and one line with exit code 2 for the rest."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.objects import ObjectMeta, Secret
from speaker.keys import BadKeyError, keys_of
from speaker.link import Reception
from speaker.options import parse
from speaker.protocol.settings import RestartMode

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def test_the_node_alone_is_enough() -> None:
    options = parse(["--node-name", "node-1"])
    assert (options.node, options.namespace, options.listen) == ("node-1", "metallb-system", (("127.0.0.1", 7472),))
    assert options.kubeconfig is None
    assert options.lb_class is None
    assert options.key is None


def test_an_empty_class_is_no_class() -> None:
    """As the controller reads it: a chart or a script may leave the value empty."""
    assert parse(["--node-name", "node-1", "--lb-class="]).lb_class is None


def test_everything_can_be_said(tmp_path: Path) -> None:
    kubeconfig, key = tmp_path / "kubeconfig", tmp_path / "key"
    kubeconfig.write_text("{}")
    key.write_bytes(b"k" * 32)
    options = parse(
        [
            *("--node-name", "node-1", "--kubeconfig", str(kubeconfig), "--namespace", "lb", "--lb-class", "berth"),
            *(
                "--listen",
                "[::1]:9000",
                "--listen",
                ":80",
                "--key-file",
                str(key),
                "--detection-floor",
                "0.5",
                "--gratuitous-limit",
                "10",
                "--no-address-probes",
                "--restart-mode",
                "release",
                "--receive",
                "allmulti",
                "--ignore-exclude-lb",
                "--drain-cordoned",
                "--failback",
                "--rebalance",
                "--liveness-only",
            ),
        ]
    )
    assert options.kubeconfig == kubeconfig
    assert (options.namespace, options.lb_class, options.listen) == ("lb", "berth", (("::1", 9000), ("", 80)))
    assert (options.key, options.detection_floor_s, options.ignore_exclude) == (b"k" * 32, 0.5, True)
    assert options.drain_cordoned
    assert options.failback
    assert options.rebalance
    assert (options.gratuitous_limit, options.probes) == (10, False)
    assert options.reception is Reception.ALL_MULTICAST
    assert options.restart_mode is RestartMode.RELEASE
    assert options.liveness_only


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "--node-name"),
        (["--node-name", ""], "spec.nodeName"),
        (["--node-name", "Node_1"], 'no Node can be called "Node_1"'),
        (["--node-name", "n" * 254], "no Node can be called"),
        (["--node-name=$(NODE_NAME)"], "no NODE_NAME in the container's environment: give it one (env)"),
        (["--node-name", "n", "--namespace=$(NAMESPACE)"], "no NAMESPACE in the container's environment"),
        (["--node-name", "n", "--listen=[$(HOST_IP)]:7472"], "no HOST_IP in the container's environment"),
        (["--node-name", "n", "--kubeconfig", "/does/not/exist"], "cannot read /does/not/exist"),
        (["--node-name", "n", "--kubeconfig", os.devnull], "is empty"),
        (["--node-name", "n", "--listen", "7472"], "not ADDRESS:PORT"),
        (["--node-name", "n", "--detection-floor", "fast"], "not a number"),
        (["--node-name", "n", "--detection-floor", "0.01"], "between 0.1 and 3.0"),
        (["--node-name", "n", "--detection-floor", "nan"], "between 0.1 and 3.0"),
        (["--node-name", "n", "--gratuitous-limit", "2"], "2 is less than 3"),
        (["--node-name", "n", "--gratuitous-limit", "-5"], "--gratuitous-limit"),
        (["--node-name", "n", "--gratuitous-limit", "1.5"], "not a number of frames"),
        (["--node-name", "n", "--receive", "everything"], "--receive"),
        (["--node-name", "n", "--restart-mode", "never"], "--restart-mode"),
        (["--node-name", "n", "--key-file", "pyproject.toml"], "a key has 16 to 64"),
        (["--node-name", "n", "--liveness-only", "--observe"], "--liveness-only and --observe are given"),
        (["--node-name", "n", "--colour", "blue"], "--colour"),
    ],
)
def test_bad_arguments_are_one_line_and_exit_code_2(
    arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as ended:
        parse(arguments)
    assert ended.value.code == 2
    line = capsys.readouterr().err
    assert reason in line
    assert line.count("\n") == 1


@pytest.mark.parametrize(
    ("kubeconfig", "reason"),
    [("not: [yaml", "not YAML"), ("{}", "kubeconfig")],
)
def test_a_kubeconfig_that_is_none_is_one_line_and_exit_code_2(tmp_path: Path, kubeconfig: str, reason: str) -> None:
    """Only the watcher can tell; nothing is sent on the network before it has."""
    path = tmp_path / "kubeconfig"
    path.write_text(kubeconfig)
    command = [
        sys.executable,
        "-m",
        "speaker",
        "--node-name",
        "n",
        "--kubeconfig",
        str(path),
        "--listen",
        "127.0.0.1:0",
    ]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert reason in ended.stderr
    assert ended.stderr.count("\n") == 1, ended.stderr


# ------------------------------------------------------------------------ the key in its Secret


def a_secret(**data: bytes) -> Secret:
    return Secret(ObjectMeta(name="berthlb-heartbeat"), {key: base64.b64encode(data[key]).decode() for key in data})


def test_the_current_key_signs_and_the_previous_still_verifies() -> None:
    assert keys_of(a_secret(current=b"c" * 32, previous=b"p" * 32)) == (b"c" * 32, b"p" * 32)
    assert keys_of(a_secret(current=b"c" * 32)) == (b"c" * 32,)
    assert keys_of(a_secret(current=b"c" * 32, previous=b"c" * 32)) == (b"c" * 32,)


@pytest.mark.parametrize(
    ("secret", "reason"),
    [
        (a_secret(), "has no current"),
        (a_secret(previous=b"p" * 32), "has no current"),
        (a_secret(current=b"short"), "has a current that has 5 bytes"),
        (a_secret(current=b"c" * 65), "has a current that has 65 bytes"),
        (a_secret(current=b"c" * 32, previous=b"p"), "has a previous that has 1 bytes"),
        (Secret(ObjectMeta(), {"current": "%%%"}), "has a current that is no base64"),
    ],
)
def test_a_key_that_cannot_be_used_is_refused_with_the_reason(secret: Secret, reason: str) -> None:
    with pytest.raises(BadKeyError, match=reason):
        keys_of(secret)
