"""What is known beforehand is what is measured, through the door that a third party's backend comes in by."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from mtbench.results import Run
from tests.known.package import install

pytestmark = pytest.mark.alone

ROOT = Path(__file__).parents[2]
MIB = 1 << 20


def sweep(folder: Path, arguments: str, **env: str) -> Run:
    """A run of installed backends, in a folder where nothing else is."""
    packages = folder / "packages"
    if not packages.exists():
        packages.mkdir()
        install(packages)
    words = f"run {arguments} --attention softmax --heads 1 --head-dim 4 --out {folder / 'run'}"
    done = subprocess.run(
        [sys.executable, "-m", "mtbench", *words.split()],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(packages)]), **env},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    return Run.load(folder / "run")


def test_five_milliseconds_are_five_milliseconds(tmp_path: Path) -> None:
    """Or the row says that something else had the CPU: then the call did take longer."""
    for attempt in range(3):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        (row,) = sweep(folder, "--backend logged --form takes_5_ms --seq-len 16")
        assert row.wall_ms is not None
        assert row.wall_ms.minimum == pytest.approx(5.0, rel=0.01)
        assert row.machine[0]["seconds"] >= 30 * 0.005
        if "noisy" not in row.flags:
            assert row.wall_ms.median == pytest.approx(5.0, rel=0.01)
            return
        assert row.wall_ms.median > 0.99 * 5.0


@pytest.mark.parametrize(
    "framework",
    [
        "numpy",
        pytest.param("torch", marks=pytest.mark.torch),
        pytest.param("jax", marks=pytest.mark.jax),
    ],
)
def test_what_is_held_is_measured(framework: str, tmp_path: Path) -> None:
    """In the order of the forms, so that each small amount comes after a larger one."""
    found = {}
    for row in sweep(tmp_path, f"--preset quick --backend holds-{framework} --seq-len 16 --by-backend"):
        assert row.status == "ok", row.reason
        found[row.form] = (row.peak_memory_bytes or 0) / MIB
    assert list(found) == ["512_mib", "8_mib", "256_mib", "64_x_4_mib", "1_x_8_mib"]
    for form, mib in {"512_mib": 512, "8_mib": 8, "256_mib": 256, "64_x_4_mib": 256, "1_x_8_mib": 8}.items():
        assert abs(found[form] - mib) <= max(0.05 * mib, 0.5), found


@pytest.mark.torch
def test_a_gradient_that_is_one_percent_off_is_wrong(tmp_path: Path) -> None:
    rows = sweep(tmp_path, "--backend wrong-dk --seq-len 64 --mode forward,forward_backward")
    forward, backward = sorted(rows, key=lambda row: row.case.mode)
    assert forward.status == "ok", forward.reason
    assert backward.status == "wrong"
    # Relative to the two sums that dk is the difference of.
    assert backward.reason.startswith("dk beyond tolerance: relative error of dk 0.0")


def test_a_kernel_that_forks_leaves_no_one_behind(tmp_path: Path) -> None:
    before = set(psutil.pids())
    run = sweep(tmp_path, "--backend logged --form forks,right --seq-len 16")
    assert [row.status for row in run] == ["ok", "ok"]
    left = [p for p in psutil.process_iter(["cmdline"]) if p.pid not in before]
    assert not [p for p in left if "mtbench.sweep.worker" in " ".join(p.info["cmdline"] or ())]


def test_every_launch_is_another_process(tmp_path: Path) -> None:
    log = tmp_path / "log"
    words = "--backend logged --form right,takes_5_ms --seq-len 16,32 --launches 3"
    run = sweep(tmp_path, words, KNOWN_LOG=str(log))
    for row in run:
        assert row.wall_ms is not None
        assert len(row.wall_ms.sizes) == len(row.machine) == row.launches == 3
        assert row.wall_ms.median == sorted(row.wall_ms.launch_medians)[1]
    built = [line.split() for line in log.read_text().splitlines()]
    plan = run.header["plan"]
    recorded = [plan["rows"][place] for launch in plan["order"] for place in launch]
    assert [id_ for _, id_ in built] == recorded  # each is built once a launch, in the order on record
    assert len(built) == 12
    assert len({pid for pid, _ in built}) == 3
    lines = (tmp_path / "run" / "measurements.jsonl").read_text().splitlines()
    assert len(lines) == 4  # one a row, once the run is whole
