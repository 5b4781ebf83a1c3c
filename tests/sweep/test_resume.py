"""A run that was cut off is gone on with, where that is honest; and nothing that was finished is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mtbench import AttentionSpec, BadInput, Case
from mtbench.errors import StorageError
from mtbench.measure.statistics import Samples
from mtbench.results import Measurement, Run
from mtbench.run_folder import RunFolder
from mtbench.sweep.plan import order, plan_rows
from mtbench.workloads import PRESETS, Grid, Workload
from tests.conftest import Mtbench, started_with
from tests.known import faulty

ROOT = Path(__file__).parents[2]
FAULTY = ROOT / "tests" / "known" / "faulty.py"
SMALL = ("run", "--attention", "softmax", "--heads", "1", "--head-dim", "4", "--form", "right")


@pytest.fixture
def run(tmp_path: Path, mtbench: Mtbench) -> Path:
    """A finished run of three rows."""
    done = mtbench(*SMALL, "--backend", FAULTY, "--seq-len", "8,16,32", "--out", "r")
    assert done.returncode == 0, done.stderr
    return tmp_path / "r"


def change(file: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    header = json.loads(file.read_text())
    edit(header)
    file.write_text(json.dumps(header))


def test_a_truncated_last_line_is_repaired_and_its_row_measured_again(run: Path, mtbench: Mtbench) -> None:
    rows = run / "measurements.jsonl"
    first, second, third = rows.read_bytes().splitlines(keepends=True)
    rows.write_bytes(first + second + third[:-200])
    assert Run.load(run).unreadable_lines == 1
    with RunFolder.resume(run)[0]:
        # Before anything is appended: what comes next must not stand on the rest of a line.
        assert rows.read_bytes() == first + second
    done = mtbench("run", "--resume", "r")
    assert done.returncode == 0, done.stderr
    lines = rows.read_bytes().splitlines(keepends=True)
    assert lines[:2] == [first, second]
    assert json.loads(lines[2])["id"] == json.loads(third)["id"]
    assert lines[2] != third
    assert Run.load(run).unreadable_lines == 0


def test_a_whole_last_line_without_its_end_is_kept(run: Path, mtbench: Mtbench) -> None:
    rows = run / "measurements.jsonl"
    text = rows.read_bytes()
    rows.write_bytes(text[:-1])
    assert mtbench("run", "--resume", "r").returncode == 0
    assert rows.read_bytes() == text


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda h: h["environment"]["packages"].update(numpy="1.0"), "packages numpy (1.0 then,"),
        (lambda h: h["environment"]["cpu"].update(model="Z80"), "cpu model (Z80 then,"),
        (lambda h: h["code"].update({"mtbench/spec.py": "0" * 16}), "Changed since: mtbench/spec.py"),
        (lambda h: h["code"].update({"faulty.py": "0" * 16}), "Changed since: faulty.py"),
        (lambda h: h["plan"]["rows"].pop(), "the plan (faulty/right/softmax-causal-b1-h1-n32-d4"),
        (lambda h: h["plan"].pop("workload"), "begin a new one"),
    ],
)
def test_it_refuses_what_would_mix_two_kinds_of_rows(
    edit: Callable[[dict[str, Any]], object], said: str, run: Path, mtbench: Mtbench
) -> None:
    before = (run / "measurements.jsonl").read_bytes()
    change(run / "run.json", edit)
    done = mtbench("run", "--resume", "r")
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert (run / "measurements.jsonl").read_bytes() == before


def test_it_takes_no_other_option_and_needs_a_run(run: Path, mtbench: Mtbench) -> None:
    done = mtbench("run", "--resume", "r", "--seq-len", "64")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "leave out --seq-len" in done.stderr
    assert mtbench("run", "--resume", "nowhere").returncode == 2


def test_two_runs_never_write_one_folder(tmp_path: Path, mtbench: Mtbench) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [*SMALL[:-1], "hangs", "--backend", str(FAULTY), "--seq-len", "8", "--out", "r"]
    first = subprocess.Popen(
        [sys.executable, "-m", "mtbench", *words],
        cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        header, deadline = tmp_path / "r" / "run.json", time.monotonic() + 60
        while not (header.exists() and json.loads(header.read_text() or "{}").get("workers")):
            assert time.monotonic() < deadline  # what a worker says of itself is on disk before its first row
            time.sleep(0.05)
        for second in (("run", "--resume", "r"), (*SMALL, "--backend", FAULTY, "--out", "r")):
            done = mtbench(*second)
            assert done.returncode == 2
            assert "is being written by another run" in done.stderr or "already holds a run" in done.stderr
    finally:
        first.kill()
        first.wait()
    # The lock died with its holder.
    with RunFolder.resume(tmp_path / "r")[0]:
        pass


def test_a_run_that_was_killed_before_it_began_is_in_nobodys_way(tmp_path: Path, mtbench: Mtbench) -> None:
    """What is there by then: a lock that nobody holds, and a file for rows."""
    RunFolder.create(tmp_path / "r").close()
    assert mtbench("run", "--resume", "r").returncode == 2
    done = mtbench(*SMALL, "--backend", FAULTY, "--seq-len", "8", "--out", "r")
    assert done.returncode == 0, done.stderr
    (tmp_path / "r" / "run.json").unlink()
    done = mtbench(*SMALL, "--backend", FAULTY, "--seq-len", "16", "--out", "r")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "already holds rows" in done.stderr


def test_kill_9_at_random_moments_loses_and_repeats_nothing() -> None:
    script = ROOT / "scripts" / "kill_and_resume.py"
    done = subprocess.run(
        [sys.executable, str(script), "--kills", "5", "--rows", "8", "--seed", str(time.time_ns())],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def ended_by_a_full_disk(folder: Path, most: int, sizes: str) -> tuple[str, str]:
    """What a run says on stdout, and in one line on stderr, where no file can have more bytes than that."""
    done = subprocess.run(
        [
            *started_with(f"resource.setrlimit(resource.RLIMIT_FSIZE, ({most}, {most}))"),
            *(*SMALL, "--backend", str(FAULTY), "--seq-len", sizes, "--out", "r"),
        ],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("[")]
    return done.stdout, line


def test_a_full_disk_is_one_line_and_leaves_every_earlier_row(tmp_path: Path) -> None:
    """A limit on the size of a file stands in for the disk: the same write fails in the same place."""
    sizes = ",".join(map(str, range(8, 40)))
    _, line = ended_by_a_full_disk(tmp_path, 40_000, sizes)
    kept = Run.load(tmp_path / "r")
    assert line == (
        f"mtbench: r/measurements.jsonl cannot be written: File too large; the {len(kept.measurements)} rows "
        "before it are kept: make room, then `mtbench run --resume r`"
    )
    assert kept.measurements
    assert kept.unreadable_lines == 0


def test_a_disk_that_is_full_by_the_report_is_one_line(tmp_path: Path, mtbench: Mtbench) -> None:
    # Enough for the rows and the figures, not for the page, which carries a library of 1 MB and more.
    told, line = ended_by_a_full_disk(tmp_path, 700_000, "8")
    assert line == (
        "mtbench: r/report.html: File too large; no row is lost, and `mtbench report r` makes the report "
        "once it can be written"
    )
    assert "1 ok" in told
    assert not list((tmp_path / "r").glob("*.new"))
    assert [row.status for row in Run.load(tmp_path / "r")] == ["ok"]
    assert mtbench("report", "r").returncode == 0


def test_a_device_without_space_is_told(tmp_path: Path) -> None:
    (tmp_path / "measurements.jsonl").symlink_to("/dev/full")
    row = Measurement(case=Case(), backend="b", form="f", status="ok")
    with RunFolder.create(tmp_path) as folder, pytest.raises(StorageError, match="No space left on device"):
        folder.append(row)


def test_launches_are_joined_into_one_row() -> None:
    def launch(*ms: float, **more: Any) -> Measurement:
        values: dict[str, Any] = {"status": "ok", "machine": ({"seconds": 1.0},), "stage_s": {"build": 1.0}}
        return Measurement(
            case=Case(spec=AttentionSpec()), backend="b", form="f", wall_ms=Samples(ms), **values | more
        )

    row = launch(1.0, 2.0, 3.0).joined(launch(4.0, flags=("noisy",))).joined(launch(9.0, 10.0))
    assert row.wall_ms is not None
    assert row.wall_ms.launches == ((1.0, 2.0, 3.0), (4.0,), (9.0, 10.0))
    assert row.wall_ms.launch_medians == (2.0, 4.0, 9.5)
    assert row.wall_ms.median == 4.0
    assert row.flags == ("noisy",)
    assert row.stage_s == {"build": 3.0}
    assert Measurement.from_row(json.loads(json.dumps(row.to_row()))) == row
    ended = [launch(1.0, wall_reason=end) for end in ("interval", "time limit", "interval")]
    assert ended[0].joined(ended[1]).joined(ended[2]).wall_reason == "time limit"
    assert ended[0].joined(ended[2]).wall_reason == "interval"
    failed = row.joined(launch(1.0, status="wrong", reason="o beyond tolerance"))
    assert (failed.status, failed.reason) == ("wrong", "launch 4: o beyond tolerance")
    assert not failed.ranked


def test_the_order_is_seeded_and_keeps_a_case_together() -> None:
    grid = Grid(attention=("softmax",), seq_len=(8, 16, 32))
    rows = plan_rows(Workload(name="x", why="", grids=(grid,)), {"a": faulty.BACKEND, "b": faulty.LOGGED})
    shuffled = order(rows, seed=1, interleaved=True)
    assert sorted(row.id for row in shuffled) == sorted(row.id for row in rows)
    cases = [row.case.id for row in shuffled]
    assert cases == sorted(cases, key=cases.index)  # each in one piece
    assert [row.id for row in shuffled] == [row.id for row in order(rows, seed=1, interleaved=True)]
    assert [row.id for row in shuffled] != [row.id for row in order(rows, seed=2, interleaved=True)]
    assert order(rows, seed=1, interleaved=False) == rows


@pytest.mark.parametrize("preset", PRESETS)
def test_a_workload_survives_json(preset: str) -> None:
    workload = PRESETS[preset].override(seq_len=(3, 5), lengths=(2,))
    assert Workload.from_dict(json.loads(json.dumps(workload.to_dict()))) == workload


def test_a_folder_of_schema_1_says_that_it_cannot_be_gone_on_with(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"schema": 1, "plan": {}, "environment": {}}))
    from mtbench.sweep.header import workload_from

    run_folder, found = RunFolder.resume(tmp_path)
    run_folder.close()
    with pytest.raises(BadInput, match="begin a new one"):
        workload_from(found.header)
