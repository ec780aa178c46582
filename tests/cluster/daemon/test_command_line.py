"""Arguments that make no sense: one line, and an exit code that says that starting again is of no use."""

from __future__ import annotations

import sys

import pytest

from cluster.daemon.command_line import EXIT_USAGE, OneLineParser, complain


def a_parser() -> OneLineParser:
    parser = OneLineParser(prog="berthlb-speaker")
    parser.add_argument("--node-name")
    parser.add_argument("--log-level", choices=["info", "debug"])
    return parser


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--node-name=$(NODE_NAME)"],
            "--node-name=$(NODE_NAME): there is no NODE_NAME in the container's environment",
        ),
        (["--unknown"], "unrecognized arguments: --unknown"),
        (["--log-level", "loud"], "invalid choice: 'loud'"),
    ],
)
def test_it_is_refused_in_one_line(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        a_parser().read(arguments)
    assert ended.value.code == EXIT_USAGE == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("berthlb-speaker: ")
    assert words in line


def test_what_only_looks_like_a_reference_is_taken() -> None:
    assert a_parser().read(["--node-name", "$NODE_NAME"]).node_name == "$NODE_NAME"


def test_nobody_to_complain_to_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    complain("berthlb-speaker", "nobody hears this")
