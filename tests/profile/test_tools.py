"""What other programs tell, read; and what is said where they may not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mtbench.profile.assembling import facts_of, work_of
from mtbench.profile.counters import count
from mtbench.profile.flame import fold, problem, record_flame
from mtbench.profile.ncu import by_kernel, count_call, read_csv, with_counters
from mtbench.profile.parts import Asked, Findings
from mtbench.profile.record import Kernel
from mtbench.profile.tools import by_tools
from mtbench.profile.trace import read_trace, traced
from mtbench.results import Measurement, Samples
from mtbench.spec import AttentionSpec, Case
from tests.profile.conftest import ROOT, needs_py_spy

CASE = Case(
    spec=AttentionSpec(kind="softmax"), batch=8, heads=16, seq_len=4096, dtype="bfloat16", device="cuda"
)


def test_ncus_counters_by_kernel(recorded: Path) -> None:
    counted = by_kernel(read_csv((recorded / "ncu.csv").read_text()))
    gemm, element = counted.values()
    assert gemm["dram_read_bytes"] == 2 * 134217728  # of both launches
    assert gemm["tensor_percent"] == pytest.approx((61 * 100 + 41 * 120) / 220)  # weighted by time
    assert element["occupancy_percent"] == pytest.approx(91.2)


def test_counters_find_their_kernels(recorded: Path) -> None:
    """ncu writes what is around a function's name otherwise than kineto."""
    seen = traced(read_trace(recorded / "kineto.json"), device="cuda")
    counted = by_kernel(read_csv((recorded / "ncu.csv").read_text()))
    gemm, element, copy = with_counters(seen.kernels, counted)
    assert gemm.counters["registers"] == gemm.registers == 168
    assert element.counters["memory_percent"] == pytest.approx(88.0)
    assert copy.counters == {}
    two = {"a::f<1>(int)": {"x": 1.0}, "a::f<2>(int)": {"x": 2.0}}
    assert with_counters([Kernel(name="f<3>", calls=1, ms=1)], two)[0].counters == {}  # which of the two?


def test_what_the_gpu_counted_decides(recorded: Path) -> None:
    counted = by_kernel(read_csv((recorded / "ncu.csv").read_text()))
    row = Measurement(case=CASE, backend="b", form="f", status="ok", wall_ms=Samples([0.4]))
    work = work_of(row, {"flop": 1.0, "bytes": 9e12}, counted)
    assert work.bytes == 2 * 134217728 + 2 * 67108864 + 2 * 67108864
    assert "ncu" in work.bytes_from
    assert "definition" in work.flop_from  # the operators say less than the definition needs at the least
    seen = facts_of(row, None, None, counted, "torch")
    assert seen.tensor_share == pytest.approx((61 * 100 + 4 * 60 + 41 * 120) / 280 / 100)


@pytest.mark.parametrize("text", ["", "==PROF== Connected to process 1\n", '"ID","Metric Name"\n'])
def test_no_rows_of_ncu(text: str) -> None:
    assert read_csv(text) == []


def test_ncu_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert count_call("torch-eager", CASE, "sdpa", 1, {}) == ([], "ncu (Nsight Compute) is not installed")
    assert count_perf() == ({}, "perf is not installed")


def count_perf() -> tuple[dict[str, float], str]:
    return count(lambda: sum(range(1000)), 10)


@pytest.mark.skipif(sys.platform != "linux", reason="perf is of Linux")
def test_perf_counts_or_says_why_not() -> None:
    found, why = count_perf()
    assert found or why
    assert all(value >= 0 for value in found.values())
    assert len(why.splitlines()) <= 1


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ("Error: Failed to open process\nReason: EPERM: Operation not permitted", "forbids ptrace"),
        ("Permission Denied: Try running again with elevated permissions", "forbids ptrace"),
        (
            "Error: Failed to find python version from target process",
            "py-spy failed (exit code 1): Error: Failed",
        ),
        ("", "it says nothing"),
    ],
)
def test_what_py_spy_complains_of(told: str, says: str) -> None:
    assert says in problem(told, 1)


def test_py_spy_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    flame, why = record_flame(lambda: None, tmp_path)
    assert flame is None
    assert why == "py-spy is not installed (pip install py-spy)"


def test_stacks_are_folded_from_the_loop_down() -> None:
    names = ["main", "repeat_calls", "attention", "exp", "wait"]
    files = ["main.py", "flame.py", "mine.py", "libm.so", "pool.py"]
    told = {
        "shared": {"frames": [{"name": n, "file": f"/x/{f}"} for n, f in zip(names, files, strict=True)]},
        "profiles": [
            {
                "name": 'Process 1 Thread 2 "MainThread"',
                "samples": [[0, 1, 2, 3], [0, 1, 2], [0]],
                "weights": [2, 1, 1],
            },
            {"name": 'Process 1 Thread 3 "pool"', "samples": [[4]], "weights": [1]},
        ],
    }
    flame = fold(told)
    assert flame.seconds == 5
    assert [(one.name, one.seconds) for one in flame.children] == [
        ("attention (mine.py)", 3),
        ("thread MainThread", 1),
        ("thread pool", 1),
    ]
    assert [(one.name, one.seconds) for one in flame.children[0].children] == [("exp (libm.so)", 2)]


@pytest.mark.torch
def test_the_process_that_ncu_starts_makes_its_call() -> None:
    case = Case(heads=1, seq_len=32, head_dim=16)
    words = [sys.executable, "-P", "-m", "mtbench.profile.replay", "torch-eager", "chunked", "1"]
    done = subprocess.run(
        [*words, json.dumps(case.to_dict())],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


def test_py_spy_is_installed_where_the_tests_run() -> None:
    needs_py_spy()


def asked_for(folder: Path, *without: str) -> Asked:
    return Asked(
        backend="torch-eager",
        case=CASE,
        form="chunked",
        threads=1,
        memory_limit_bytes=1 << 30,
        folder=folder,
        cache=folder,
        calls=1,
        without=frozenset(without),
    )


def test_ncu_is_spared_a_call_of_many_kernels(tmp_path: Path) -> None:
    findings, told = Findings(), list[str]()
    by_tools(asked_for(tmp_path, "proton"), findings, told.append, launches=5000, triton=True)
    assert "a call has 5,000, over 400" in findings.missing["ncu"]
    assert findings.missing["proton"] == "left out, as was asked for"
    by_tools(asked_for(tmp_path, "ncu"), findings, told.append, launches=5, triton=False)
    assert findings.missing["ncu"] == "left out, as was asked for"
    assert told == []  # nothing was started
