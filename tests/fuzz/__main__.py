"""Fuzzes one target after the other, guided by which code the octets reach (Atheris, on libFuzzer).

    python -m tests.fuzz [--runs 1000000] [TARGET ...]

A lying member's conversation takes as long as some hundred datagrams: of these there are a tenth as many.

What reaches new code is kept in ``.fuzz/TARGET``, and is where the next call begins. An input that breaks what the
target asserts is printed and written to ``.fuzz/TARGET-crash-…``. It becomes a test, whether a seed or a named case.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

import atheris

from tests.pages import ROOT

KEPT = ROOT / ".fuzz"
LONGEST = {"members": 600, "neighbour-discovery": 1600, "heartbeat-frames": 1600, "netlink": 600}
SECONDS = 60  # of one input, on a busy machine: more is a loop
MEMORY_MIB = 1024


def fuzz(name: str, runs: int) -> None:
    """Does not return: libFuzzer ends the process."""
    with atheris.instrument_imports(include=["speaker"]):
        from tests.fuzz.targets import TARGETS
    target = TARGETS[name]
    corpus = KEPT / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    words = [
        f"-runs={runs // 10 if name == 'members' else runs}",
        f"-max_len={LONGEST.get(name, 400)}",
        f"-timeout={SECONDS}",
    ]
    words += [f"-rss_limit_mb={MEMORY_MIB}", f"-artifact_prefix={KEPT}/{name}-", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], *words, str(corpus)], target.check)
    atheris.Fuzz()


def main() -> int:
    from tests.fuzz.targets import TARGETS

    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--runs", type=int, default=1_000_000, help="inputs for each target (%(default)s)")
    parser.add_argument("target", nargs="*", choices=[[], *TARGETS], help="all, if none is named")
    options = parser.parse_args()
    codes = []
    for name in options.target or TARGETS:
        program = f"from tests.fuzz.__main__ import fuzz; fuzz({name!r}, {options.runs})"
        codes.append(subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode)
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
