"""Each benchmark runs as the documentation says, with small numbers: figures come out, on the screen and as JSON.

The figures themselves are a benchmark's business; here they are looked at only as far as any machine must have them.
"""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.pages import ROOT

pytestmark = pytest.mark.slow


def run(name: str, *words: str, figures: Path) -> tuple[Any, str]:
    """Run ``python -m bench.NAME``; what it wrote and what it showed."""
    written = figures / f"{name}.json"
    argv = [sys.executable, "-m", f"bench.{name}", *words, f"--json={written}"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=550, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(written.read_text()), done.stdout


def test_allocation_times_every_case(tmp_path: Path) -> None:
    found, shown = run("allocation", "--taken=2000", figures=tmp_path)
    assert len(found) == 11
    for name, case in found.items():
        assert name in shown
        assert 0 < case["median_us"] <= case["p99_us"]
        assert case["octets_per_address"] >= case["octets_per_holder"] or "a thousand" in name


def test_responders_time_each_kind_of_frame_of_both_families(tmp_path: Path) -> None:
    found, shown = run("responders", "--rounds=1", figures=tmp_path)
    for name, figures in found.items():
        for kind, nanoseconds in figures.items():
            assert f"{name}: {kind}" in shown
            assert nanoseconds > 0
    assert set(found) == {"ARP", "ND"}


def test_what_heartbeats_cost_is_measured_for_each_number_of_nodes(tmp_path: Path) -> None:
    found, shown = run("load", "--nodes", "3", "6", "--seconds=2", figures=tmp_path)
    assert set(found) == {"3 nodes", "6 nodes"}
    for nodes, figures in found.items():
        assert nodes in shown
        others = int(nodes.split()[0]) - 1
        assert figures["heartbeats heard/s"] == pytest.approx(10 * others, rel=0.1)
        assert figures["said by unicast/s"] == 0
        assert 0 < figures["death: without owner, s"] < 1


@pytest.mark.lab
@pytest.mark.parametrize(("name", "foreign"), [("arp", "datagrams"), ("nd", "packets")])
def test_answers_of_the_speaker_and_the_kernel_are_measured(name: str, foreign: str, tmp_path: Path) -> None:
    found, shown = run(name, "--seconds=0.2", "--addresses=50", figures=tmp_path)
    assert set(found) == {"speaker", "kernel"}
    for figures in found.values():
        assert figures["replies/s, 1 senders, 1 addresses"] > 0
        assert 0 < figures["answer p50, µs"] <= figures["answer p99, µs"]
    assert found["speaker"][f"foreign {foreign}/s"] > 0
    assert "kernel" in shown


@pytest.mark.lab
def test_faults_goes_on_with_what_a_file_lacks(tmp_path: Path) -> None:
    words = ("--faults=power-cut", "--nodes=2", "--busy=1")
    (first,), shown = run("faults", *words, "--repeat=1", figures=tmp_path)
    assert "power-cut" in shown
    assert set(first["seen"]["silence_s"]) == {"ARP", "NS"}
    assert all(0 < seconds < 60 for seconds in first["seen"]["silence_s"].values())
    assert first["seen"]["moved"]
    assert first["seen"]["requests"] > 0
    again, _ = run("faults", *words, "--repeat=1", figures=tmp_path)
    assert again == [first]


@pytest.mark.lab
def test_growth_counts_a_claim_for_each_service(tmp_path: Path) -> None:
    found, shown = run("growth", "--services=20", "--more-nodes=2", figures=tmp_path)
    assert 0 < found["created, s"] < found["announced, s"] < found["quiet, s"]
    assert found["claims beyond one for each Service"] >= 0
    assert found["cp controller: CPU, s"] > 0
    assert found["node-1 speaker: memory, MiB"] > 1
    assert 0 <= found["node-1 speaker: idle, % of a core"] < 100
    assert "announced, s" in shown


@pytest.mark.lab
def test_company_measures_one_announcer_among_made_up_ones(tmp_path: Path) -> None:
    found, shown = run("company", "--nodes", "3", "7", "--services=21", "--seconds=2", figures=tmp_path)
    for nodes, figures in found.items():
        assert nodes in shown
        others = int(nodes.split()[0]) - 1
        assert figures["addresses held"] == 21 / (others + 1)
        assert figures["heartbeats heard/s"] == pytest.approx(10 * others, rel=0.2)
        assert figures["CPU, % of a core"] > 0
        assert figures["taken for dead"] == 0


PARTS = {
    "changes": "10: CPU per change, ms (most)",
    "growth": "growth: CPU seconds of an announcer (most)",
    "kill": "kill -9: seconds without an answer (most)",
}


@pytest.mark.lab
def test_scale_measures_each_part(tmp_path: Path) -> None:
    """All at once: each of them waits nearly all the time."""
    for part in PARTS:
        (tmp_path / part).mkdir()
    with ThreadPoolExecutor() as pool:
        runs = pool.map(lambda part: run("scale", part, "--services=30", figures=tmp_path / part), PARTS)
        for figure, (found, shown) in zip(PARTS.values(), runs, strict=True):
            assert 0 < found[figure] < 60
            assert figure in shown


@pytest.mark.lab
@pytest.mark.real
def test_services_compares_the_controller_with_clients_that_only_write(tmp_path: Path) -> None:
    found, shown = run("services", "--services=20", figures=tmp_path)
    (figures,) = found["rounds"]
    assert found["services"] == 20
    for figure in ("created_s", "bare_s", "watched_s", "assigned_s", "cpu_s", "restarted_s", "killed_s"):
        assert figures[figure] > 0
        assert figure in shown
    assert figures["ratio_to_bare"] == pytest.approx(figures["assigned_s"] / figures["bare_s"])


@pytest.mark.docker
@pytest.mark.real
@pytest.mark.xdist_group("docker")
def test_images_weighs_both_and_starts_them(tmp_path: Path) -> None:
    found, shown = run("images", "--starts=1", figures=tmp_path)
    for daemon in ("controller", "speaker"):
        image = found["images"][daemon]
        assert 0 < image["of that ours, MiB"] < image["compressed, MiB"] < image["on disk, MiB"]
    assert len(found["containers"]) == 3
    for name, container in found["containers"].items():
        assert 0 < container["ready, least, s"] < 60
        assert container["working set, MiB"] > 1
        assert name in shown


@pytest.mark.lab
def test_restarts_has_every_speaker_end_and_begin_under_a_clients_eyes(tmp_path: Path) -> None:
    found, shown = run("restarts", "--addresses=4", figures=tmp_path)
    figures = found["wire 4"]
    assert figures["connections"] == 4
    assert figures["addresses that nobody answered"] == 0
    assert 0 < figures["request, ms (median)"] <= figures["request, ms (most)"]
    assert "a speaker ends, s (most)" in shown
