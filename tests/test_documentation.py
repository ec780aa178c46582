"""The documentation's commands work as written, its links lead somewhere, and it names nothing that is gone."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.allocation.outcomes import Reason
from tests.pages import PAGES, README, ROOT, block_with, commands

ON_KIND = "tests/docker/test_kind.py"
RUN_ELSEWHERE = {
    "kubectl apply -f deploy/berthlb.yaml": "tests/kubernetes/control_plane.py",
    "examples/kind/up.sh": ON_KIND,
    "examples/kind/down.sh": ON_KIND,
    "kubectl get servicel2statuses --namespace metallb-system --output wide": ON_KIND,
    "berthlb kind-pool --cluster kind": ON_KIND,
    "make venv": "tests/lab/test_clone.py",
    "make demo": "tests/lab/cli/test_demo.py",
    "make check": "a part of make test",
    "make engine": "a part of make test, in CI",
    "make images": "tests/docker, but for the figures",
    "docker build --file Dockerfile.speaker --tag berthlb/speaker:0.1.0 .": "tests/docker, by scripts/images",
    "make test": "this run",
    "make faults": "tests/bench/test_benchmarks.py, once with two nodes",
    "make faults FAULTS=power-cut,drain REPEAT=5 NODES=3": "tests/bench/test_benchmarks.py, likewise",
    ".venv/bin/pytest -m long --log-cli-level=INFO tests/lab/test_failover_figures.py": "a part of make test-long",
    ".venv/bin/python -m controller --kubeconfig FILE": "tests/lab/test_clone.py",
    ".venv/bin/python -m speaker --kubeconfig FILE --node-name NODE": "tests/lab/test_clone.py",
}
"""Commands of the documentation that other tests run: the command, and where."""

LAB_SESSION = block_with(README, "-m lab up")


RUN_BY_PAGE = {
    "docs/how-to/migrate-from-metallb.md": "tests/lab/test_migration.py",
    "docs/how-to/move-from-metallbs-configmap.md": "tests/kubernetes/test_conversion.py",
    "docs/how-to/install-with-helm.md": "tests/kubernetes/test_helm.py",
    "docs/tutorials/node-ip-behind-nat.md": "tests/lab/test_node_ip_tutorial.py",
    "docs/how-to/monitor.md": "tests/kubernetes/test_helm.py, tests/kubernetes/test_manifests.py",
}
"""Pages whose commands another test runs in order, all of them: the page, and where."""


def test_every_documented_command_is_run_by_a_test() -> None:
    unknown = [
        f"{page.relative_to(ROOT)}: {command}"
        for page in PAGES
        for command in commands(page)
        if str(page.relative_to(ROOT)) not in RUN_BY_PAGE
        if command not in RUN_ELSEWHERE and not (page == README and command in LAB_SESSION)
    ]
    assert not unknown


def prose(page: Path) -> str:
    """The page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The names under which a page's headings can be linked to, as GitHub makes them."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE):
        text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        again = (f"{slug}-{number}" for number in itertools.count(1))
        found.add(slug if slug not in found else next(name for name in again if name not in found))
    return found


def links(page: Path) -> Iterator[tuple[str, Path, str]]:
    """Each link to a file here: as it is written, the file, and the heading."""
    for written in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if "://" not in written:
            file, _, heading = written.partition("#")
            yield written, (page.parent / file).resolve() if file else page, heading


def test_links_between_pages_lead_somewhere() -> None:
    broken = [
        f"{page.relative_to(ROOT)}: {written}"
        for page in PAGES
        for written, target, heading in links(page)
        if not target.exists() or (heading and heading not in anchors(target))
    ]
    assert not broken


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, new = set[Path](), {ROOT / "README.md"}
    while new:
        reached |= new
        pages = [page for page in new if page.suffix == ".md"]
        linked = {file for page in pages for _, target, _ in links(page) for file in files_of(target)}
        new = linked - reached
    assert not [str(page.relative_to(ROOT)) for page in PAGES if page not in reached]


def files_of(target: Path) -> list[Path]:
    return sorted(target.glob("*.md")) if target.is_dir() else [target]


PATH_HERE = re.compile(
    r"(?:cluster|controller|speaker|cli|lab|bench|tests|scripts|deploy|docs|crds|examples|requirements)/[\w./-]*"
)


def test_every_file_and_folder_that_a_page_names_is_there() -> None:
    gone = [
        f"{page.relative_to(ROOT)}: {name}"
        for page in PAGES
        for name in re.findall(r"`([^`\s]+)`", prose(page))
        if PATH_HERE.fullmatch(name) and not (ROOT / name).exists()
    ]
    assert not gone


def test_every_program_that_a_page_names_is_there() -> None:
    for page in PAGES:
        for module in set(re.findall(r"python -m ([a-z]+(?:\.\w+)*)", page.read_text())):
            path = ROOT / module.replace(".", "/")
            assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), f"{page.name}: {module}"


def test_every_test_that_a_page_names_is_there() -> None:
    there = {
        name
        for path in (ROOT / "tests").rglob("*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    named = {name for page in PAGES for name in re.findall(r"`(test_\w+)`", prose(page))}
    assert named <= there, named - there


def test_make_knows_the_documented_targets() -> None:
    targets = sorted({c.split()[1] for page in PAGES for c in commands(page) if c.startswith("make ")})
    assert targets
    subprocess.run(["make", "-n", *targets], cwd=ROOT, check=True, capture_output=True)


def test_make_alone_says_what_each_target_does() -> None:
    said = subprocess.run(["make"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    shown = dict(re.findall(r"^make ([a-z-]+) +(\S.*)$", said, re.MULTILINE))
    assert sorted(shown) == sorted(re.findall(r"^([\w-]+):(?!=)", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert subprocess.run(["make", "help"], cwd=ROOT, check=True, capture_output=True, text=True).stdout == said


@pytest.mark.lab
def test_the_lab_session_of_the_readme_runs_as_written_and_curl_goes_on_without_the_holder() -> None:
    """The lab has another name than a lab of the person who tests; no command says which.

    While requests may still go to the dead node's pod, the last curl is also run by thirty clients one after the other:
    some time out, some are answered with "no route to host", and each goes on."""
    *session, curl, down = LAB_SESSION
    run_on_client, curl_itself = curl.split(" -- ")
    thirty = f"for n in {{1..30}}; do {curl_itself} >/dev/null & all+=($!); sleep 0.1; done"
    session += [
        f"{run_on_client} -- bash -c '{thirty}; for each in ${{all[@]}}; do wait $each || exit; done'",
        curl,
        down,
    ]
    environment = {**os.environ, "BERTHLB_LAB": f"readme-{os.getpid()}"}
    script = "\n".join(["set -eux", *session])
    try:
        done = subprocess.run(
            ["bash", "-c", script], cwd=ROOT, env=environment, check=False, timeout=280, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        lines = done.stdout.splitlines()
        (holder,) = (line for line in lines if re.fullmatch(r"node-\d", line))
        assert f"+ .venv/bin/python -m lab node stop {holder}" in done.stderr
        before, after = (json.loads(line) for line in lines if line.startswith("{"))
        assert before["node"]
        assert after["node"] not in {"", holder}
    finally:
        subprocess.run([".venv/bin/python", "-m", "lab", "down"], cwd=ROOT, env=environment, check=False, timeout=30)


def test_every_reason_for_having_no_address_is_explained() -> None:
    page = (ROOT / "docs/allocation.md").read_text()
    assert {reason.value for reason in Reason} <= set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))


def test_every_name_that_the_recipes_use_is_in_the_code() -> None:
    page = prose(ROOT / "docs/how-to/change.md")
    files = {ROOT / name for name in re.findall(r"`([\w./]+\.py)`", page)}
    there = set(re.findall(r"\w+", "\n".join(file.read_text() for file in files)))
    names = [name for name in re.findall(r"`([^`]+)`", page) if "/" not in name and not name.startswith("test_")]
    used = {
        word for name in names for word in re.findall(r"\w*[a-z]_\w+|_\w+|[A-Z]+[a-z]+[A-Z]?\w*|[A-Z]+_[A-Z_]+", name)
    }
    assert len(files) > 10
    assert used
    assert used <= there, used - there


def test_every_metric_that_a_page_names_is_on_the_page_of_metrics() -> None:
    there = set(re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/reference/metrics.md").read_text(), re.MULTILINE))
    named = {
        name
        for page in PAGES
        for name in re.findall(r"`((?:berthlb|metallb)_\w+)(?:\{\w+\})?`", prose(page))
        if page.name != "metrics.md"
    }
    assert named <= there, named - there


def test_each_word_of_the_glossary_is_explained_once() -> None:
    words = re.findall(r"^\| \*\*(.+?)\*\* \|", (ROOT / "docs/glossary.md").read_text(), re.MULTILINE)
    each = [word for entry in words for word in entry.split(", ")]
    assert len(each) > 50
    assert sorted(each) == sorted(set(each))


def test_each_decision_is_called_by_its_number() -> None:
    for page in sorted((ROOT / "docs/decisions").glob("*.md")):
        assert page.read_text().startswith(f"# {page.name[:4]}: "), page.name


def test_every_event_and_condition_that_a_page_names_is_on_its_reference_page() -> None:
    events = set(re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/reference/events.md").read_text(), re.MULTILINE))
    objects = (ROOT / "docs/reference/custom-resources.md").read_text()
    conditions = set(re.findall(r"^\| `?([\w./]+)`? \| [^|]*(?:True|False):", objects, re.MULTILINE))
    for page in PAGES:
        text = " ".join(prose(page).split())
        named = set(re.findall(r"Events? `(\w+)`", text))
        assert named <= events, f"{page.name}: {named - events}"
        named = set(re.findall(r"[Cc]onditions? `([\w./]+)`", text))
        assert named <= conditions, f"{page.name}: {named - conditions}"


def test_every_log_line_that_a_page_names_is_said() -> None:
    code = "\n".join(
        path.read_text() for name in ("cluster", "controller", "speaker") for path in (ROOT / name).rglob("*.py")
    )
    named = {line for page in PAGES for line in re.findall(r"log lines? `([^`]+)`", " ".join(prose(page).split()))}
    assert len(named) > 5
    assert not {line for line in named if f'"{line}"' not in code}
