"""The rules that we install are rules for Prometheus, and tell a person enough."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.chart import ROOT, VALUES, without_definitions
from tests.real import program

pytestmark = pytest.mark.real

PAGE = ROOT / "docs/reference/alerts.md"


def rules(objects: list[dict[str, Any]]) -> dict[str, Any]:
    (found,) = [each["spec"] for each in objects if each["kind"] == "PrometheusRule"]
    assert isinstance(found, dict)
    return found


INSTALLED = rules(list(yaml.safe_load_all((ROOT / "deploy/monitoring.yaml").read_text())))


@pytest.mark.parametrize("values", [None, "everything"], ids=["installed", "everything"])
def test_promtool_finds_nothing_wrong(tmp_path: Path, values: str | None) -> None:
    more = ("--values", str(VALUES / f"{values}.yaml"))
    found = INSTALLED if values is None else rules(without_definitions(*more))
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump(found))
    done = subprocess.run([program("promtool"), "check", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(found['groups'][0]['rules'])} rules found" in done.stdout


def test_the_page_lists_every_alert_with_its_severity() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|", PAGE.read_text(), re.MULTILINE)
    installed = [(each["alert"], each["labels"]["severity"]) for each in INSTALLED["groups"][0]["rules"]]
    assert sorted(rows) == sorted(installed)
