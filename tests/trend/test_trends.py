"""Runs in order, a line a machine, and what `mtbench trend` says of them."""

from __future__ import annotations

import dataclasses
import random
from datetime import UTC, datetime

import pytest

from mtbench.compare.sides import read_side
from mtbench.errors import BadInput
from mtbench.trend import lines_of, read_runs, trend_of
from tests.compare.conftest import benchmark_file, launches, side
from tests.trend.conftest import KEYS, run_of


def test_the_changes(make_runs):
    (trend,) = trend_of(read_runs(make_runs()))
    slower, faster = trend.changes
    assert (slower.at, slower.since, faster.at) == (6, 5, 8)
    assert slower.series.id.startswith(f"{KEYS[1][0]}/")
    assert slower.ratio_low < 1.2 < slower.ratio_high
    assert faster.ratio == pytest.approx(0.67, rel=0.03)
    assert trend.summary.startswith("12 runs of one machine: 1 slower, 1 faster in 2 of 12 cases")
    assert trend.remarks_at(6) == ["commit 05cafe012345 and 06cafe012345"]
    assert trend.remarks == []


def test_the_order_is_the_commits_and_not_the_words(make_runs):
    paths = make_runs(6)
    random.Random(0).shuffle(paths)
    (line,) = lines_of(read_runs(paths))
    assert [s.path.name for s in line.sides] == [f"run-{n:02d}" for n in range(6)]
    assert line.ordered_by == "the run's start"


def test_commits_have_dates_of_their_own(tmp_path):
    """An old commit may be measured after a new one."""
    sides = [
        dataclasses.replace(
            side({"x/1": launches()}, path=f"{n}"),
            committed=datetime(2026, 1, 9 - n, tzinfo=UTC),
            started=datetime(2026, 2, 1 + n, tzinfo=UTC),
        )
        for n in range(4)
    ]
    (line,) = lines_of(sides)
    assert [s.path.name for s in line.sides] == ["3", "2", "1", "0"]
    assert line.ordered_by == "the commit's date"
    mixed = [dataclasses.replace(sides[0], committed=None), *sides[1:]]
    assert lines_of(mixed)[0].ordered_by == "the run's start"
    dateless = [dataclasses.replace(s, committed=None, started=None) for s in sides]
    (line,) = lines_of(dateless)
    assert [s.path.name for s in line.sides] == ["0", "1", "2", "3"]
    assert line.ordered_by.startswith("the order they were given in")


def test_a_run_says_when_its_commit_was_made(tmp_path):
    git = {"commit": "0123", "committed": "2026-01-02T03:04:05+02:00", "dirty": True}
    run = read_side(run_of(tmp_path / "run", 0, environment={"git": git}))
    assert run.committed == datetime(2026, 1, 2, 1, 4, 5, tzinfo=UTC)
    assert run.commit == "0123 with changes"
    file = benchmark_file(
        tmp_path / "x.json", {"x": 1}, commit_info={"id": "0123", "time": "2026-01-02T03:04:05Z"}
    )
    assert read_side(file).committed == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    for odd in ("yesterday", 7, None, ["2026"]):
        damaged = run_of(tmp_path / f"odd-{odd}", 0, started=odd)
        assert read_side(damaged).started is None


def test_unlike_machines_have_lines_of_their_own(make_runs, tmp_path):
    paths = [*make_runs(5), run_of(tmp_path / "elsewhere", 9, cpu="Another CPU")]
    here, there = trend_of(read_runs(paths))
    assert (here.runs, there.runs) == (5, 1)
    assert there.line.machine["CPU"] == "Another CPU"
    assert there.summary.startswith("1 run of one machine: too few to tell a change in any of 12 cases")


def test_a_case_may_be_missing_from_runs(make_runs):
    (trend,) = trend_of(read_runs(make_runs()))
    crashed = next(s for s in trend.line.series if "crash" in s.statuses)
    assert crashed.levels[2] is None
    assert sum(level is not None for level in crashed.levels) == 11
    level = crashed.levels[0]
    assert level.low_ms < level.ms < level.high_ms


def test_a_step_that_most_backends_share_may_be_the_machine(tmp_path):
    keys = [(f"backend-{k % 2}", n) for k in range(2) for n in range(6)]
    rows = [
        {f"{b}/{n}": launches(1.0 if run < 5 else 1.3, seed=20 * run + n) for b, n in keys}
        for run in range(10)
    ]
    runs = [
        dataclasses.replace(side(row, path=str(n)), started=datetime(2026, 1, 1 + n, tzinfo=UTC))
        for n, row in enumerate(rows)
    ]
    (trend,) = trend_of(runs)
    assert {change.at for change in trend.changes} == {5}
    assert any("it may be the machine" in remark for remark in trend.remarks_at(5))


def test_what_is_no_trend(make_runs, tmp_path):
    (one,) = make_runs(1)
    with pytest.raises(BadInput, match="one run is no trend"):
        read_runs([one, one, str(one) + "/"])
    with pytest.raises(BadInput, match="--effect 0"):
        trend_of(read_runs([one, run_of(tmp_path / "b", 1)]), effect_percent=0)
    with pytest.raises(BadInput, match="nothing to draw"):
        trend_of([side({"x/1": "oom"}), side({"x/1": "oom"})])


def test_trend(mtbench, make_runs, tmp_path):
    make_runs()
    done = mtbench("trend", *sorted(tmp_path.glob("runs/*")), "--out", "new/page.html", COLUMNS="160")
    assert done.returncode == 0, done.stderr
    *_, summary, last = done.stdout.splitlines()
    assert last == "trend: new/page.html"
    assert summary.startswith("12 runs of one machine: 1 slower, 1 faster in 2 of 12 cases")
    assert sum(line.startswith(("06cafe0 ", "08cafe0 ")) for line in done.stdout.splitlines()) == 2
    every = mtbench("trend", *sorted(tmp_path.glob("runs/*")), "--all", COLUMNS="160").stdout
    assert sum(line.startswith("- ") and "/softmax" in line for line in every.splitlines()) == 10
    assert (tmp_path / "trend.html").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("a", "one run is no trend"),
        ("a nothing", "nothing does not exist"),
        ("a b --effect -1", "--effect -1"),
        ("a b --out a", "--out a cannot be written"),
    ],
)
def test_bad_input_is_one_line(mtbench, tmp_path, words, says):
    run_of(tmp_path / "a", 0)
    run_of(tmp_path / "b", 1)
    done = mtbench("trend", *words.split())
    assert (done.returncode, len(done.stderr.splitlines()), done.stdout) == (2, 1, ""), done.stderr
    assert says in done.stderr
