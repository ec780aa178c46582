"""The demo's program on kind, in clusters of either family. The rest of ``examples/kind`` is tried in tests/docker."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import yaml

from lab.layout import url_host
from tests.waiting import wait_until

DEMO = Path(__file__).parents[1] / "examples/kind/demo.yaml"


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_the_demos_pods_serve_both_families(address: str) -> None:
    (container,) = next(yaml.safe_load_all(DEMO.read_text()))["spec"]["template"]["spec"]["containers"]
    (program,) = container["args"]
    with socket.create_server(("", 0)) as free:
        port = free.getsockname()[1]
    assert program.count("8080") == 1
    argv = [sys.executable, "-c", program.replace("8080", str(port))]
    with subprocess.Popen(argv, env={**os.environ, "NODE": "node-1"}, stderr=subprocess.DEVNULL) as server:

        def page() -> str:
            try:
                with urllib.request.urlopen(f"http://{url_host(address)}:{port}/", timeout=2) as answer:
                    return str(answer.read().decode())
            except OSError:
                return ""

        try:
            assert wait_until(page) == "served by a pod on node-1\n"
        finally:
            server.kill()
