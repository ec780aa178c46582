"""The documentation's commands work as written, its links lead somewhere, and it names nothing that is gone."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from controller.allocator import Reason

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "examples/kind/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]

ON_KIND = "tests/docker/test_kind.py"
RUN_ELSEWHERE = {
    "kubectl apply -f deploy/berthlb.yaml": "tests/kubernetes/control_plane.py",
    "examples/kind/up.sh": ON_KIND,
    "examples/kind/down.sh": ON_KIND,
    "kubectl get servicel2statuses --namespace metallb-system --output wide": ON_KIND,
    "berthlb kind-pool --cluster kind": ON_KIND,
    "make demo": "tests/lab/test_demo.py",
    "make check": "a part of make test",
    "make engine": "a part of make test, in CI",
    "make images": "tests/docker, but for the figures",
    "docker build --file Dockerfile.speaker --tag berthlb/speaker:0.1.0 .": "tests/docker, by scripts/images",
    "make test": "this run",
    ".venv/bin/pytest -m long --log-cli-level=INFO tests/lab/test_failover_figures.py": "a part of make test-long",
    "python -m controller --kubeconfig FILE": "tests/controller",
    "python -m speaker --kubeconfig FILE --node-name NODE": "tests/lab",
}
"""Commands of the documentation that other tests run: the command, and where."""

LAB_SESSION = re.compile(r"^\.venv/bin/python -m lab ")


RUN_BY_PAGE = {
    "docs/how-to/migrate-from-metallb.md": "tests/lab/test_migration.py",
    "docs/how-to/move-from-metallbs-configmap.md": "tests/kubernetes/test_conversion.py",
    "docs/how-to/install-with-helm.md": "tests/kubernetes/test_helm.py",
    "docs/how-to/monitor.md": "tests/kubernetes/test_helm.py, tests/kubernetes/test_manifests.py",
}
"""Pages whose commands another test runs in order, all of them: the page, and where."""


def commands(page: Path) -> list[str]:
    """Each line of the page's ``console`` blocks."""
    blocks = re.findall(r"```console\n(.*?)```", page.read_text(), re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line]


def test_every_documented_command_is_run_by_a_test() -> None:
    unknown = [
        f"{page.relative_to(ROOT)}: {command}"
        for page in PAGES
        for command in commands(page)
        if str(page.relative_to(ROOT)) not in RUN_BY_PAGE
        if command not in RUN_ELSEWHERE and not (page.name == "README.md" and LAB_SESSION.match(command))
    ]
    assert not unknown


def test_links_between_pages_lead_somewhere() -> None:
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in PAGES
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert not broken


def test_make_knows_the_documented_targets() -> None:
    targets = sorted({c.split()[1] for page in PAGES for c in commands(page) if c.startswith("make ")})
    assert targets
    subprocess.run(["make", "-n", *targets], cwd=ROOT, check=True, capture_output=True)


@pytest.mark.lab
@pytest.mark.timeout(180)
def test_the_lab_session_of_the_readme_runs_as_written(tmp_path: Path) -> None:
    """All of it in order; only the lab's name is changed, so that it does not meet a lab of the person who tests."""
    session = [c for c in commands(ROOT / "README.md") if LAB_SESSION.match(c)]
    name = f"readme-{tmp_path.parent.parent.name[-12:]}".lower()
    script = "\n".join(["set -eux", *session]).replace(" berth", f" {name}")
    try:
        subprocess.run(["bash", "-c", script], cwd=ROOT, check=True, timeout=120)
    finally:
        subprocess.run([".venv/bin/python", "-m", "lab", "down", "--name", name], cwd=ROOT, check=False, timeout=30)


def test_every_reason_for_having_no_address_is_explained() -> None:
    page = (ROOT / "docs/allocation.md").read_text()
    assert {reason.value for reason in Reason} <= set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
