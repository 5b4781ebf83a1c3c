"""The CSV and pytest-benchmark's JSON, read back by other programs."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import subprocess
import sys

import pytest

from mtbench.results import Agreement, Run
from reports.exports import flat_row, measurements_csv, pytest_benchmark_json


@pytest.fixture
def rows(row):
    bad = {"o": Agreement(relative=float("nan"), max_abs=float("inf"), tolerance=1e-5)}
    return [
        row(1.25, row={"config": {"block": 64}, "flags": ("noisy", "slow"), "peak_memory_bytes": 1024}),
        row(2.5, backend="jax", seq_len=512),
        row(None, backend="triton", row={"flags": ("interpreted",), "wall_reason": "interpreted"}),
        row(0.1, backend="jax", form="chunked", status="wrong", row={"agreement": bad}),
        row(None, form="sdpa", status="error", row={"reason": '=HYPERLINK("x"),\n"quoted" \x00 \ud800'}),
        row(3.0, lengths=(17,), attention="momentum"),
    ]


@pytest.fixture
def run(make_run, rows):
    return Run.load(make_run(rows))


def test_csv_round_trip(run, rows):
    lines = list(csv.DictReader(io.StringIO(measurements_csv(run))))
    assert len(lines) == len(rows)
    first = lines[0]
    low, high = rows[0].wall_ms.interval
    assert float(first["wall_ms_median"]) == rows[0].wall_ms.median
    assert (float(first["wall_ms_ci_low"]), float(first["wall_ms_ci_high"])) == (low, high)
    assert first["wall_ms_samples_count"] == "15"
    assert first["causal"] == first["ranked"] == "true"
    assert first["flags"] == "noisy slow"
    assert json.loads(first["config"]) == {"block": 64}
    assert first["device_ms_median"] == ""
    assert lines[2]["wall_ms_median"] == ""
    assert (lines[3]["relative_error"], lines[3]["max_abs_o"], lines[3]["ranked"]) == ("nan", "inf", "false")
    assert lines[5]["lengths"] == "17"
    assert [line["id"] for line in lines] == [row.id for row in rows]


def test_csv_has_no_formula_and_is_utf8(run):
    text = measurements_csv(run)
    assert "\0" not in text
    text.encode()
    (reason,) = [line["reason"] for line in csv.DictReader(io.StringIO(text)) if line["status"] == "error"]
    assert reason.startswith("'=HYPERLINK")


def test_csv_is_what_pandas_reads(run, rows):
    import pandas as pd

    frame = pd.read_csv(io.StringIO(measurements_csv(run)))
    assert frame["wall_ms_median"].dropna().tolist() == [r.wall_ms.median for r in rows if r.wall_ms]
    assert frame["ranked"].dtype == bool


def test_csv_of_no_rows_is_its_header(make_run):
    lines = measurements_csv(Run.load(make_run())).splitlines()
    assert len(lines) == 1
    assert "wall_ms_median" in lines[0].split(",")


def test_every_row_has_the_same_columns(rows):
    assert len({tuple(flat_row(row)) for row in rows}) == 1


def test_pytest_benchmark_has_the_ranked_rows_in_seconds(run, rows):
    data = json.loads(pytest_benchmark_json(run))
    ranked = [row for row in rows if row.ranked]
    assert [b["fullname"] for b in data["benchmarks"]] == [row.id for row in ranked]
    first = data["benchmarks"][0]
    assert first["group"] == ranked[0].case.id
    assert first["stats"]["median"] == pytest.approx(ranked[0].wall_ms.median / 1000)
    assert first["stats"]["data"] == [ms / 1000 for ms in ranked[0].wall_ms.values]
    assert first["extra_info"]["peak_memory_bytes"] == 1024
    assert data["commit_info"]["id"] == "0123456789abcdef"
    assert data["machine_info"]["cpu"]["count"] == 4
    assert data["machine_info"]["machine"] == "x86_64"
    assert data["datetime"] == "2026-11-24T03:11:47+00:00"


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6, 7, 15])
def test_pytest_benchmark_statistics_are_its_own(make_run, row, n):
    theirs = pytest.importorskip("pytest_benchmark.stats").Stats()
    one = dataclasses.replace(row(1.0, width=0.5, n=n))
    for ms in one.wall_ms.values:
        theirs.update(ms / 1000)
    (bench,) = json.loads(pytest_benchmark_json(Run.load(make_run([one]))))["benchmarks"]
    ours = {key: bench["stats"][key] for key in theirs.fields}
    expected = theirs.as_dict()
    assert ours.pop("outliers") == expected.pop("outliers")
    assert ours == pytest.approx(expected)


@pytest.mark.parametrize("empty", [False, True])
def test_pytest_benchmark_compares_it(make_run, rows, tmp_path, empty):
    pytest.importorskip("pytest_benchmark")
    file = tmp_path / "pytest-benchmark.json"
    file.write_text(pytest_benchmark_json(Run.load(make_run([] if empty else rows))))
    command = [
        sys.executable,
        "-m",
        "pytest_benchmark",
        "compare",
        str(file),
        "--group-by=group,param:attention",
    ]
    done = subprocess.run(
        [*command, f"--csv={tmp_path / 'out.csv'}"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "Failed to load" not in done.stdout + done.stderr
    if not empty:
        assert "jax/parallel/softmax-causal-b1-h8-n512" in done.stdout
        assert "chunked" not in done.stdout  # a wrong row
