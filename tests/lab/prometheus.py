"""A real Prometheus on a lab's LAN, which reads the lab's daemons as our PodMonitor would have it read their pods."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import yaml

from lab.client import Command, Lab
from lab.layout import CONTROL_PLANE, STATUS_PORT, url_host
from tests.real import program
from tests.waiting import wait_until

HOST = "client"
PORT = 9090
INTERVAL = "1s"
OPEN = (f"--listen=:{STATUS_PORT}",)
"""What speakers are told, so that somebody else on the LAN can read them."""

Sample = dict[str, str]
"""The labels of a series that a query returns."""


class Prometheus:
    """Runs from its making to ``end``, on the lab's client."""

    def __init__(self, lab: Lab, directory: Path, rules: dict[str, Any]) -> None:
        self._lab = lab
        (directory / "rules.yaml").write_text(yaml.safe_dump(rules))
        scrape = {"job_name": "metallb", "static_configs": list(self._targets())}
        timing = {"scrape_interval": INTERVAL, "scrape_timeout": INTERVAL, "evaluation_interval": INTERVAL}
        configuration = {"global": timing, "rule_files": ["rules.yaml"], "scrape_configs": [scrape]}
        (directory / "prometheus.yaml").write_text(yaml.safe_dump(configuration))
        argv = [
            program("prometheus"),
            f"--config.file={directory}/prometheus.yaml",
            f"--storage.tsdb.path={directory}/data",
            f"--web.listen-address=127.0.0.1:{PORT}",
        ]
        self._log = (directory / "prometheus.log").open("wb")
        self._process: Command = lab.start(HOST, argv, stdout=subprocess.DEVNULL, stderr=self._log)

    def _targets(self) -> list[dict[str, Any]]:
        status = self._lab.status()
        controller = url_host(status.layout.control_plane.address)
        wanted = {name: f"{controller}:{port}" for name, port in self._controllers().items()}
        found = [self._target("controller", name, address) for name, address in wanted.items()]
        nodes = [(node.name, f"{url_host(node.address)}:{STATUS_PORT}") for node in status.layout.nodes]
        return [*found, *(self._target("speaker", f"speaker-{name}", address) for name, address in nodes)]

    def _controllers(self) -> dict[str, int]:
        names = [each.name for each in self._lab.status().processes if each.host == CONTROL_PLANE]
        return {name: STATUS_PORT + at for at, name in enumerate(sorted(n for n in names if "controller" in n))}

    @staticmethod
    def _target(component: str, pod: str, address: str) -> dict[str, Any]:
        """With the labels that the operator makes of a pod's."""
        labels = {"namespace": "metallb-system", "container": component, "pod": pod}
        return {"targets": [address], "labels": {**labels, "app_kubernetes_io_component": component}}

    def end(self) -> None:
        self._process.terminate()
        self._process.wait(10)
        self._process.close()
        self._log.close()

    def ask(self, query: str) -> list[Sample]:
        """The series that a query has now. It must be one."""
        url = f"http://127.0.0.1:{PORT}/api/v1/query?{urlencode({'query': query})}"
        said = self._lab.run(HOST, ["curl", "--silent", "--max-time", "5", url]).output
        if not said.startswith("{"):  # it starts, and says so or nothing
            return []
        answer: dict[str, Any] = json.loads(said)
        assert answer["status"] == "success", (query, answer)
        result: list[Any] = answer["data"]["result"]
        return [{**each["metric"], "value": each["value"][1]} for each in result]

    def await_all(self) -> None:
        """Until every target has been read."""
        wait_until(
            lambda: (found := self.ask("up")) and all(each["value"] == "1" for each in found), 30, "not all read"
        )

    def firing(self) -> set[str]:
        """Alerts that fire."""
        return {each["alertname"] for each in self.ask('ALERTS{alertstate="firing"}')}

    def has_fired(self, alert: str, seconds: float) -> bool:
        """Within so many seconds up to now."""
        fired = f'ALERTS{{alertname="{alert}",alertstate="firing"}}'
        return bool(self.ask(f"max_over_time({fired}[{max(1, int(seconds))}s])"))
