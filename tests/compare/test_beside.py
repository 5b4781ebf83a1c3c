"""Several runs against the first, on machines alike and unlike, and `mtbench report` of them."""

from __future__ import annotations

import dataclasses

import pytest

from mtbench.compare.beside import set_beside
from mtbench.compare.sides import Side, TimedRow, read_side
from mtbench.errors import BadInput
from tests.compare.conftest import benchmark_file, launches, side, write_run

ROWS = {f"x/{n}": launches(seed=n) for n in range(6)}


def on(device: str, names: list[str], ms: float) -> Side:
    rows = {
        f"{name}-{device}": TimedRow(
            id=f"{name}-{device}",
            backend="x",
            status="ok",
            wall_ms=launches(ms),
            device=device,
            anywhere=name,
        )
        for name in names
    }
    return dataclasses.replace(side({}, path=device), rows=rows)


def test_each_against_the_first():
    slower = {name: tuple(1.3 * ms for ms in times) for name, times in ROWS.items()}
    pairs = set_beside([side(ROWS), side(ROWS), side(slower)])
    assert [pair.name for pair in pairs] == ["B", "C"]
    assert [pair.comparison.counts["slower"] for pair in pairs] == [0, 6]
    assert all(pair.judged and not pair.unlike for pair in pairs)


def test_unlike_machines_are_judged_only_when_asked_for():
    a, b = side(ROWS, machine={"GPUs": "H100"}), side(ROWS, machine={"GPUs": "H200"})
    (pair,) = set_beside([a, b])
    assert (pair.judged, pair.unlike) == (False, ("GPUs H100 and H200",))
    assert pair.remarks == []
    (pair,) = set_beside([a, b], across_machines=True)
    assert pair.judged
    assert pair.unlike


def test_a_case_on_a_cpu_and_on_a_gpu():
    (pair,) = set_beside([on("cpu", ["a", "b", "c"], 2.0), on("cuda", ["b", "c", "d"], 1.0)])
    assert not pair.judged
    assert pair.unlike == ("device cpu and cuda (B's cases stand under A's names)",)
    assert [case.id for case in pair.comparison.judged] == ["b-cpu", "c-cpu"]
    assert pair.comparison.judged[0].ratio == pytest.approx(0.5)
    assert {case.id for case in pair.comparison.others} == {"a-cpu", "d-cuda"}


def test_what_has_nothing_in_common_says_the_way_out():
    with pytest.raises(BadInput, match="no case in common: measure the same"):
        set_beside([on("cpu", ["a"], 1.0), on("cuda", ["b"], 1.0)])
    with pytest.raises(BadInput, match="two or more"):
        set_beside([side(ROWS)])


def test_a_run_knows_its_devices_and_samples(tmp_path):
    (row,) = read_side(write_run(tmp_path / "a", {("jax", 64): [1.0, 2.0]})).rows.values()
    assert (row.device, row.id.replace("-cpu-", "-")) == ("cpu", row.anywhere)
    assert row.samples("wall")[1] == pytest.approx((1.98, 2.0, 2.04))
    assert row.samples("device") == ()
    stats = {"median": 0.002, "data": [0.001, 0.002, 0.003]}
    for n in (1, 2):
        benchmark_file(tmp_path / "s" / f"{n}.json", {}, benchmarks=[{"name": "x", "stats": stats}])
    (row,) = read_side(tmp_path / "s").rows.values()
    assert row.samples("wall") == ((1.0, 2.0, 3.0), (1.0, 2.0, 3.0))


def test_report_of_two_runs(mtbench, two_runs, tmp_path):
    done = mtbench("report", *two_runs, "--out", "new/page.html")
    assert (done.returncode, done.stdout) == (0, "report: new/page.html\n"), done.stderr
    assert "1 slower" in (tmp_path / "new" / "page.html").read_text()
    assert mtbench("report", *two_runs, two_runs[0]).stdout == "report: comparison.html\n"
    assert not (two_runs[0] / "report.html").exists()


def test_report_of_one_run_is_as_it_was(mtbench, tmp_path):
    write_run(tmp_path / "a", {("jax", 64): launches()})
    assert mtbench("report", "a").stdout.strip() == "report: a/report.html"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("a --out x.html", "report a --out: that is for two runs"),
        ("a --effect 5", "report a --effect: that is for two runs"),
        ("a --across-machines", "report a --across-machines: that is for two runs"),
        ("a nothing", "nothing does not exist"),
        ("a other", "no case in common"),
        ("a a --effect 100", "--effect 100"),
        ("a a --out a", "--out a cannot be written"),
    ],
)
def test_bad_input_is_one_line(mtbench, tmp_path, words, says):
    write_run(tmp_path / "a", {("jax", 64): launches()})
    write_run(tmp_path / "other", {("triton", 64): launches()})
    done = mtbench("report", *words.split())
    assert (done.returncode, len(done.stderr.splitlines()), done.stdout) == (2, 1, ""), done.stderr
    assert says in done.stderr
