"""What is read, and how two sides are matched."""

from __future__ import annotations

import json
import shutil

import pytest

from mtbench.compare.cases import ABSENT, NOT_TIMED, match
from mtbench.compare.machines import differences, refuse_unlike_machines, software_differences
from mtbench.compare.sides import read_side
from mtbench.compare.verdicts import compare_sides
from mtbench.errors import BadInput
from mtbench.registry import import_part
from mtbench.results import Run
from tests.compare.conftest import benchmark_file, launches, side, write_run


def test_a_run_folder(tmp_path):
    folder = write_run(
        tmp_path / "run", {("jax", 64): [1.0, 2.0, 3.0], ("jax", 128): "oom"}, outcome="interrupted"
    )
    found = read_side(folder)
    timed, failed = found.rows.values()
    assert timed.wall_ms == (1.0, 2.0, 3.0)
    assert (timed.backend, timed.device_ms) == ("jax", ())
    assert (failed.status, failed.reason, failed.wall_ms) == ("oom", "why oom", ())
    assert found.machine["CPU"] == "Some CPU"
    assert found.software["commit"] == "0123456789ab"
    assert found.remarks == ("the run is not complete (interrupted)",)


def test_a_file_is_one_launch_and_a_folder_of_files_has_one_each(tmp_path):
    for n in range(3):
        benchmark_file(tmp_path / "saved" / f"000{n}.json", {"fast": 0.001 + n / 1000, "slow": 0.1})
    one = read_side(tmp_path / "saved" / "0001.json")
    assert one.rows["tests/test_x.py::fast"].wall_ms == (2.0,)
    folder = read_side(tmp_path / "saved")
    assert folder.rows["tests/test_x.py::fast"].wall_ms == pytest.approx((1.0, 2.0, 3.0))
    assert folder.machine == {"CPU": "Some CPU", "cores": "4", "architecture": "x86_64"}


def test_the_samples_do_where_a_file_has_no_median(tmp_path):
    benchmarks = [{"name": "x", "stats": {"data": [0.001, 0.002, 0.009]}}]
    file = benchmark_file(tmp_path / "a.json", {}, benchmarks=benchmarks)
    assert read_side(file).rows["x"].wall_ms == (2.0,)


def test_one_test_of_two_backends_is_two_cases(tmp_path):
    for backend in ("jax", "triton"):
        benchmark_file(
            tmp_path / "saved" / f"{backend}.json",
            {},
            benchmarks=[{"name": "x", "stats": {"median": 1}, "extra_info": {"backend": backend}}],
        )
    assert list(read_side(tmp_path / "saved").rows) == ["jax/x", "triton/x"]


def test_mtbenchs_own_file_matches_its_run(tmp_path):
    folder = write_run(tmp_path / "run", {("jax", 64): launches(), ("triton", 64): "wrong"})
    exports = import_part("reports.exports")
    file = tmp_path / "own.json"
    file.write_text(exports.pytest_benchmark_json(Run.load(folder)))
    run, own = read_side(folder), read_side(file)
    assert set(own.rows) < set(run.rows)
    assert differences(run, own) == []
    assert own.machine == run.machine
    (case,), (other,) = match(run, own)
    assert case.backend == "jax"
    assert case.b_ms == pytest.approx(case.a_ms)
    assert len(case.b_ms) > 1
    assert other.b == ABSENT
    compare_sides(run, own)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda p: p / "nothing", "does not exist"),
        (lambda p: p, "holds neither a run"),
        (lambda p: (p / "x.json").write_text("{") and p / "x.json", "is not pytest-benchmark's JSON"),
        (lambda p: (p / "x.json").write_text("[]") and p, "has no list of benchmarks"),
        (lambda p: (p / "x.json").write_text("\0") and p, "is not pytest-benchmark's JSON"),
        (lambda p: (p / "x.json").write_bytes(b"\xff\xfe") and p, "is not pytest-benchmark's JSON"),
        (
            lambda p: benchmark_file(p / "x.json", {}, benchmarks=[{"name": "x", "stats": {}}]),
            "without a name or a median",
        ),
        (
            lambda p: benchmark_file(p / "x.json", {"x": float("nan")}),
            "without a name or a median",
        ),
        (
            lambda p: benchmark_file(p / "x.json", {}, benchmarks=[3]),
            "without a name or a median",
        ),
        (
            lambda p: benchmark_file(
                p / "x.json", {}, benchmarks=[{"name": "x", "stats": {"median": 1}}] * 2
            ),
            "has the benchmark x twice",
        ),
    ],
)
def test_what_is_no_side(tmp_path, make, says):
    with pytest.raises(BadInput, match=says):
        read_side(make(tmp_path))


def test_a_folder_of_two_commits_or_machines_is_no_side(tmp_path):
    benchmark_file(tmp_path / "1.json", {"x": 1.0})
    benchmark_file(tmp_path / "2.json", {"x": 1.0}, commit_info={"id": "another"})
    with pytest.raises(BadInput, match="more than one commit"):
        read_side(tmp_path)
    benchmark_file(tmp_path / "2.json", {"x": 1.0}, cpu={"count": 8})
    with pytest.raises(BadInput, match="more than one machine"):
        read_side(tmp_path)


def test_the_clock_is_one_for_both_sides(tmp_path):
    rows = {("jax", 64): launches(2.0), ("triton", 64): launches(2.0)}
    a = write_run(tmp_path / "a", rows, device_ms={("jax", 64): launches(1.0)})
    b = write_run(tmp_path / "b", rows, device_ms={key: launches(1.0) for key in rows})
    matched, _ = match(read_side(a), read_side(b))
    assert [(case.backend, case.clock) for case in matched] == [("jax", "device"), ("triton", "wall")]
    assert matched[0].a_ms == pytest.approx(launches(1.0))
    assert matched[1].b_ms == pytest.approx(launches(2.0))


@pytest.mark.parametrize(
    ("a", "b", "broken"),
    [
        ("ok", "wrong", True),
        ("ok", "crash", True),
        ("ok", "oom", True),
        ("ok", "unsupported", True),
        ("wrong", "ok", False),
        ("wrong", "crash", False),
        ("unsupported", "unsupported", False),
        ("ok", None, False),
        (None, "wrong", False),
    ],
)
def test_what_worked_and_fails_is_broken(a, b, broken):
    rows = {"x/other": launches()}

    def with_status(status):
        if status is None:
            return side(rows)
        return side({**rows, "x/case": launches() if status == "ok" else status})

    comparison = compare_sides(with_status(a), with_status(b))
    (other,) = comparison.others
    assert (other.a, other.b) == (a or ABSENT, b or ABSENT)
    assert other.broken is broken
    assert comparison.exit_code == (1 if broken else 0)
    assert comparison.counts["broken"] == broken


def test_ok_without_a_time_is_not_broken():
    a = side({"x/1": launches(), "x/2": launches()})
    b = side({"x/1": launches(), "x/2": ()})
    (other,) = compare_sides(a, b).others
    assert (other.b, other.broken) == (NOT_TIMED, False)


def test_nothing_in_common():
    with pytest.raises(BadInput, match="no case in common"):
        match(side({"x/1": launches()}), side({"x/2": launches()}))


def test_machines_that_differ_are_refused_and_software_is_said():
    a = side({"x/1": launches()}, machine={"CPU": "one", "threads": "2"}, software={"torch": "2.1"})
    b = side({"x/1": launches()}, machine={"CPU": "two", "threads": "2"}, software={"torch": "2.2"})
    with pytest.raises(BadInput, match=r"the machines differ \(CPU one and two\).*--across-machines"):
        refuse_unlike_machines(a, b)
    with pytest.raises(BadInput):
        compare_sides(a, b)
    comparison = compare_sides(a, b, across_machines=True)
    assert "the machines differ: CPU one and two" in comparison.remarks
    assert software_differences(a, b) == ["torch 2.1 and 2.2"]
    assert "A and B differ in: torch 2.1 and 2.2" in comparison.remarks


def test_what_only_one_side_knows_is_no_difference():
    assert differences(side({}, machine={"threads": "2"}), side({}, machine={})) == []


def test_too_few_launches_are_not_judged():
    comparison = compare_sides(side({"x/1": [1.0]}), side({"x/1": [2.0, 2.0]}))
    (case,) = comparison.judged
    assert (case.verdict, case.tested) == ("unsure", False)
    assert case.reason == "too few launches (1 in A, 2 in B)"
    assert case.ratio == pytest.approx(2)
    assert comparison.exit_code == 3
    assert any("--launches 8" in remark for remark in comparison.remarks)


@pytest.mark.parametrize("effect", [0, -1, 100, float("nan")])
def test_an_effect_out_of_range(effect):
    with pytest.raises(BadInput, match="--effect"):
        compare_sides(side({"x/1": launches()}), side({"x/1": launches()}), effect_percent=effect)


@pytest.mark.parametrize("schema", [1, 2])
def test_folders_of_earlier_versions_are_still_read(schema, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(f"tests/fixtures/runs/schema-{schema}", folder)
    run = Run.load(folder)
    assert run.header["schema"] == schema
    assert {json.loads(x)["schema"] for x in (folder / "measurements.jsonl").read_text().splitlines()} == {
        schema
    }
    assert run.unreadable_lines == 0
    assert any(row.ranked for row in run)
    import_part("reports.page").write_report(folder)
    assert "torch-eager" in (folder / "report.html").read_text()
    launches_a_row = {len(row.wall_ms.launches) for row in run if row.wall_ms}
    assert launches_a_row == {1 if schema == 1 else 3}
    comparison = compare_sides(read_side(folder), read_side(folder / "pytest-benchmark.json"))
    assert comparison.judged
    comparison = compare_sides(read_side(folder), read_side(folder))
    assert {case.verdict for case in comparison.judged} == {"unsure" if schema == 1 else "same"}
    assert all(row.status == "unsupported" for row in run if not row.ranked)
