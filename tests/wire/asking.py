"""A client that asks for an address all the time: when it was answered, and by whom."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import NamedTuple

from cluster.objects import AddressText
from tests.wire.network import WireHost
from tests.wire.speakers import ROOT


class Answer(NamedTuple):
    at: float
    """Seconds of CLOCK_MONOTONIC."""
    mac: str


class Asker:
    """Asks for an address by ARP a hundred times a second, from when it is made until ``end``."""

    def __init__(self, client: WireHost, address: AddressText) -> None:
        self._process = client.start(
            sys.executable, "-m", "lab.measuring.resolve", "eth0", address, cwd=ROOT, stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        self._process.stdout.readline()

    def end(self) -> list[Answer]:
        """All answers, in order."""
        self._process.terminate()
        output, _ = self._process.communicate(timeout=10)
        lines = map(json.loads, output.splitlines())
        return [Answer(line["at"], line["mac"]) for line in lines if "at" in line]  # others say when it asked late
