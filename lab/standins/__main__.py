"""``python -m lab.standins``: started by a lab's keeper on ``cp``."""

from __future__ import annotations

import argparse
import socket
from pathlib import Path

import msgspec

from cluster import client, logs
from lab.layout import Layout
from lab.standins.daemon import StandIns


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m lab.standins")
    parser.add_argument("--keeper", type=int, required=True, help="the socket to the keeper, a descriptor")
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--layout", required=True, help="who is on the LAN, as JSON")
    parser.add_argument("--node-grace", type=float, required=True, help="seconds of silence until a node is lost")
    given = parser.parse_args()
    logs.set_up()
    layout = msgspec.json.decode(given.layout, type=Layout)
    api = client.connect(given.kubeconfig, user_agent="berthlb-lab-stand-ins")
    StandIns(api, socket.socket(fileno=given.keeper), layout, given.node_grace).run()


if __name__ == "__main__":
    main()
