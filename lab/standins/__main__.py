"""``python -m lab.standins``: started by a lab's keeper on ``cp``."""

from __future__ import annotations

import argparse
import socket
from pathlib import Path

import msgspec

from cluster.api import client
from cluster.daemon import logs
from lab.control.messages import Spec
from lab.standins.daemon import StandInDaemon
from lab.standins.real import RealKubelets


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m lab.standins")
    parser.add_argument("--keeper", type=int, required=True, help="the socket to the keeper, a descriptor")
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--spec", type=Path, required=True, help="what the lab is made from")
    given = parser.parse_args()
    logs.set_up()
    spec = msgspec.json.decode(given.spec.read_bytes(), type=Spec)
    api = client.connect(given.kubeconfig, user_agent="berthlb-lab-stand-ins")
    keeper = socket.socket(fileno=given.keeper)
    if spec.control_plane == "kubernetes":
        RealKubelets(api, keeper, spec).run()
    else:
        StandInDaemon(api, keeper, spec.layout, spec.node_grace).run()


if __name__ == "__main__":
    main()
