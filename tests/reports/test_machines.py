"""A run of several kinds of machine: shown side by side, and no row of one ever beside a row of another where
anything is ranked, averaged or joined."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re

import pytest

from mtbench.compare import compare_sides, read_side
from mtbench.compare.sides import Side
from mtbench.errors import BadInput
from mtbench.measure.statistics import Samples
from mtbench.results import Run
from mtbench.trend import read_runs, trend_of
from reports.exports import flat_rows, measurements_csv, pytest_benchmark_files
from reports.figure_files import figure_csv, write_figures
from reports.machines import kinds, side_by_side
from reports.medians import median_tables
from reports.page import write_report
from reports.payback import paybacks
from reports.plan import plan_figures
from reports.table_text import table_texts
from reports.verdict import judge
from reports.winners import WinnerMap

SLOWNESS = {"simulated-big": 1.0, "simulated-small": 7.0, "simulated-<i>odd": 0.4}


def machine(name, **facts):
    return {
        "environment": {
            "os": "Linux",
            "cpu": {"model": f"CPU of {name}", "cores": 4, "affinity": 4},
            "memory_bytes": 2**34,
            "gpus": [],
            "python": "3.11",
            "packages": {"torch": "2.13"},
            "threads": 4,
        },
        "workers": {
            "torch-eager on cpu": {
                "copy_bytes_per_s": 1e10 * len(name),
                "matmul_flop_per_s": {"float32": 1e11},
            }
        },
        "devices": {"cpu": None, "cuda": "there is no NVIDIA driver"},
        "unavailable": {},
        "label": name,
        "nodes": [{"cpus": 4}, {"cpus": 4, "lacks": {"jax": "jax is not installed"}}],
        **facts,
    }


def scaled(row, name, factor):
    wall = row.wall_ms and Samples([v * factor for v in row.wall_ms.values], list(row.wall_ms.sizes))
    return dataclasses.replace(row, hardware=name, wall_ms=wall)


@pytest.fixture(scope="module")
def rows(sweep):
    return [scaled(row, name, factor) for name, factor in SLOWNESS.items() for row in sweep((128, 256, 512))]


@pytest.fixture(scope="module")
def folder(rows, save, tmp_path_factory):
    path = tmp_path_factory.mktemp("kinds") / "run"
    save(
        path,
        rows,
        environment=None,
        workers=None,
        machines={name: machine(name) for name in SLOWNESS},
        notes=["a note"],
    )
    header = json.loads((path / "run.json").read_text())
    del header["environment"], header["workers"]
    header["support"] = [{**entry, "unavailable": {}} for entry in header["support"]]
    (path / "run.json").write_text(json.dumps(header))
    return path


def one(rows):
    """The kind of machine of rows that something was made of: there must be one."""
    (found,) = {row.hardware for row in rows}
    return found


def test_no_race_crossover_or_payback_is_between_two_kinds(rows):
    verdicts = judge(rows)
    assert {v.context.hardware for v in verdicts} == set(SLOWNESS)
    for verdict in verdicts:
        for race in verdict.races.values():
            assert one(c.row for c in race.ranking) == verdict.context.hardware
    by_kind = {name: [v for v in verdicts if v.context.hardware == name] for name in SLOWNESS}
    told = [[[r.winner.name for r in v.races.values()] for v in found] for found in by_kind.values()]
    assert told[0] == told[1] == told[2]  # each is judged as if it were alone
    for (context, _), found in paybacks(rows).items():
        for paid in found:
            assert one((paid.row, paid.other)) == context.hardware


def test_every_figure_and_table_is_of_one_kind(folder):
    run = Run.load(folder)
    figures = plan_figures(list(run), run.ceilings)
    assert {figure.quantity for figure in figures} >= {
        "winners",
        "latency",
        "memory",
        "agreement",
        "roofline",
    }
    assert len({figure.name for figure in figures}) == len(figures)
    for figure in figures:
        assert one(figure.rows) == figure.context.hardware
        if not isinstance(figure, WinnerMap):
            for row in csv.DictReader(io.StringIO(figure_csv(figure, run.ceilings))):
                assert row["hardware"] == figure.context.hardware
    ceilings = {f.context.hardware: f.roof.copy for f in figures if f.quantity == "roofline"}
    assert len(set(ceilings.values())) == 3  # each below its own machine's
    tables = median_tables(list(run))
    assert len(tables) == 3 * len(median_tables([r for r in run if r.hardware == "simulated-big"]))
    assert {re.search(r"; on ([^;]+)", table.title)[1] for table in tables} == set(SLOWNESS)


def test_what_is_side_by_side_is_as_measured_and_ranks_nothing(rows):
    tables = side_by_side(rows)
    by_id = {row.id: row for row in rows}
    assert len(tables) == 2  # forward, and with the backward
    for table in tables:
        assert set(table.hardware) == set(SLOWNESS)
        for line in table.lines:
            assert not any(cell.best for cell in line.cells if cell)
    line = next(line for line in tables[0].lines if (line.backend, line.form) == ("jax", "parallel"))
    shown = dict(zip(tables[0].hardware, line.cells, strict=True))
    times = [
        row
        for row in by_id.values()
        if (row.backend, row.form) == ("jax", "parallel") and row.case.seq_len == line.seq_len
    ]
    for row in times:
        if (
            row.case.mode == "forward"
            and row.case.spec.kind == line.attention
            and row.case.batch == line.shape.batch
            and row.case.head_dim == line.shape.head_dim
        ):
            assert float(shown[row.hardware].text) == pytest.approx(row.wall_ms.median, rel=0.05)
    assert not side_by_side([row for row in rows if row.hardware == "simulated-big"])


def test_the_page_says_what_was_measured_on_and_that_nothing_is_ranked_across(folder):
    page = write_report(folder).read_text(encoding="utf-8")
    for words in (
        "3 kinds of machine",
        "no row of one is ranked with",
        "Side by side",
        "CPU of simulated-small",
        "jax (on 1 of 2 nodes)",
        "jax is not installed",
        "a note",
        "cpu, float32, forward, causal; on simulated-big",
    ):
        assert words in page, words
    assert "<i>odd" not in page
    assert "devices here" not in page


def test_captions_and_texts_name_each_machine(folder, tmp_path):
    texts = [path.read_text() for path in write_figures(folder, tmp_path, ["svg"]) if path.suffix == ".txt"]
    for text in texts:
        assert len(set(re.findall(r"CPU of simulated-[\w<>]+", text))) == 1, text
    table = table_texts(folder)["markdown"]
    assert all(f"CPU of {name}" in table.replace("\\", "") for name in ("simulated-big", "simulated-small"))


def test_exports_have_the_kind_and_one_machine_a_file(folder):
    run = Run.load(folder)
    lines = list(csv.DictReader(io.StringIO(measurements_csv(run))))
    assert [line["hardware"] for line in lines] == [row.hardware for row in run]
    assert len({line["id"] for line in lines}) == len(lines)
    shares = {row["hardware"]: row["floor_ms"] for row in flat_rows(run) if row["seq_len"] == 128}
    assert len(set(shares.values())) == 3
    files = pytest_benchmark_files(run)
    assert list(files) == [f"pytest-benchmark-{n}.json" for n in (1, 2, 3)]
    models = [json.loads(text)["machine_info"]["cpu"]["brand_raw"] for text in files.values()]
    assert models == [f"CPU of {name}" for name in SLOWNESS]
    for text in files.values():
        names = [benchmark["name"] for benchmark in json.loads(text)["benchmarks"]]
        assert len(names) == len(set(names)) == sum(r.ranked for r in run if r.hardware == "simulated-big")


def test_a_frame_has_the_kind(folder):
    pytest.importorskip("pandas")
    import mtbench

    frame = mtbench.load(folder)
    assert set(frame["hardware"]) == set(SLOWNESS)
    assert frame.groupby("hardware")["wall_ms_median"].median().is_unique


def test_a_run_of_one_machine_is_as_it_was(make_run, row):
    run = Run.load(make_run([row(1.0)]))
    assert list(run.parts()) == [""]
    assert kinds(run) == []
    assert next(iter(run)).id == next(iter(run)).unplaced_id
    page = write_report(run.folder).read_text(encoding="utf-8")
    assert 'id="machines"' not in page
    assert 'id="beside"' not in page


def in_launches(row, name, factor, seed):
    values = [factor * (1 + 0.01 * ((seed * 7 + n * 13) % 11) / 11) for n in range(40)]
    return dataclasses.replace(row, hardware=name, wall_ms=Samples(values, [5] * 8))


CASES = 24


def run_of(save, path, row, factors):
    made = [
        in_launches(row(1.0, seq_len=64 + n, backend="xyz"[n % 3]), name, factor, seed=n)
        for name, factor in factors.items()
        for n in range(CASES)
    ]
    more = {"machines": {name: machine(name) for name in factors}} if "" not in factors else {}
    return save(path, made, **more)


def test_a_comparison_sets_each_kind_against_its_like(save, row, tmp_path):
    a = read_side(run_of(save, tmp_path / "a", row, {"one": 1.0, "two": 5.0}))
    b = read_side(run_of(save, tmp_path / "b", row, {"one": 1.0, "two": 10.0}))
    found = compare_sides(a, b)
    assert {case.id.rpartition("@")[2]: round(case.ratio) for case in found.judged} == {"one": 1, "two": 2}
    assert {kind: round(one.drift_ratio) for kind, one in found.by_kind.items()} == {"one": 1, "two": 2}
    assert [case.verdict for case in found.judged if case.id.endswith("@one")] == ["same"] * CASES
    assert any("in B on two" in remark for remark in found.remarks)
    assert not any("in B on one" in remark for remark in found.remarks)


def test_a_kind_that_one_side_lacks_is_compared_with_nothing(save, row, tmp_path):
    a = read_side(run_of(save, tmp_path / "a", row, {"one": 1.0, "two": 5.0}))
    b = read_side(run_of(save, tmp_path / "b", row, {"one": 1.0, "three": 5.0}))
    found = compare_sides(a, b)
    assert {case.id.rpartition("@")[2] for case in found.judged} == {"one"}
    assert {case.id.rpartition("@")[2]: (case.a, case.b) for case in found.others} == {
        "two": ("ok", "absent"),
        "three": ("absent", "ok"),
    }


def test_a_run_of_one_of_its_kinds_is_compared_with_that_one(save, row, tmp_path):
    both = read_side(run_of(save, tmp_path / "a", row, {"one": 1.0, "two": 5.0}))
    alone = read_side(run_of(save, tmp_path / "b", row, {"two": 5.0}))
    found = compare_sides(both, alone)
    assert len(found.judged) == CASES
    assert {case.verdict for case in found.judged} == {"same"}
    other = Side(path=tmp_path, rows=alone.rows, machine={"CPU": "Z80"})
    with pytest.raises(BadInput):
        compare_sides(both, other)


def test_a_trend_has_a_line_for_each_kind(save, row, tmp_path):
    paths = [run_of(save, tmp_path / f"run{n}", row, {"one": 1.0, "two": 5.0}) for n in range(3)]
    trends = trend_of(read_runs(paths))
    assert [trend.runs for trend in trends] == [3, 3]
    assert [trend.line.machine["CPU"] for trend in trends] == ["CPU of one", "CPU of two"]
    assert all(not trend.changes for trend in trends)
