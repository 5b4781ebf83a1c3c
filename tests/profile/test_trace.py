"""Traces of a GPU, as kineto and XLA write them, read to kernels, gaps and calls."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest

from mtbench.frameworks.profiling import CALL
from mtbench.measure.statistics import Samples
from mtbench.profile.assembling import disturbance
from mtbench.profile.record import Traced
from mtbench.profile.trace import read_trace, traced
from mtbench.results import Measurement
from mtbench.spec import AttentionSpec, Case


@pytest.fixture
def kineto(recorded: Path) -> Traced:
    return traced(read_trace(recorded / "kineto.json"), device="cuda")


def test_kernels_of_torch(kineto: Traced) -> None:
    assert kineto.calls == 3
    gemm, element, copy = kineto.kernels  # by time; the kernel that flushes the cache is in no call
    assert (gemm.calls, gemm.ms, gemm.registers, gemm.shared_bytes) == (2, 0.22, 168, 213488)
    assert (gemm.grid, gemm.block, gemm.operator) == ((16, 64, 1), (384, 1, 1), "aten::bmm")
    assert (element.calls, element.ms, element.operator) == (1, 0.06, "aten::exp")
    assert (copy.name, copy.grid, copy.registers) == ("Memcpy DtoD (Device -> Device)", (), None)
    assert copy.operator == "aten::copy_"


def test_time_with_and_without_kernels(kineto: Traced) -> None:
    """50 to 150, 155 to 215, 200 to 320 on another stream, 290 to 340: what overlaps counts once."""
    assert kineto.busy_ms == pytest.approx(0.285)
    assert kineto.before_ms == pytest.approx(0.050)
    assert kineto.between_ms == pytest.approx(0.005)
    assert kineto.after_ms == pytest.approx(0.064)  # of the call of median length
    assert kineto.wall_ms == pytest.approx(0.404)
    assert kineto.launches == 4
    assert [piece.lane for piece in kineto.pieces] == ["stream 7", "stream 7", "stream 20", "stream 7"]


def test_kernels_that_touch_leave_no_gap(recorded: Path, tmp_path: Path) -> None:
    """Not even the 1e-11 us that a difference of floats leaves."""
    told = json.loads((recorded / "kineto.json").read_text())
    at = {}
    for event in told["traceEvents"]:
        if event.get("cat") in ("kernel", "gpu_memcpy"):
            event["dur"] = 30.1
            call = int(event["ts"] // 1000)
            event["ts"] = at.get(call, event["ts"])
            at[call] = event["ts"] + 30.1
    (tmp_path / "t.json").write_text(json.dumps(told))
    assert traced(read_trace(tmp_path / "t.json"), device="cuda").between_ms == 0


def test_operators_on_the_host(kineto: Traced) -> None:
    by_name = {operator.name: operator for operator in kineto.operators}
    assert by_name["aten::bmm"].calls == 2
    assert by_name["aten::bmm"].self_ms == pytest.approx(0.024)
    assert by_name["aten::bmm"].shapes == "128x4096x64, 128x64x64"
    assert "aten::amax" not in by_name


def test_kernels_of_jax(recorded: Path) -> None:
    seen = traced(read_trace(recorded / "xla.trace.json"), device="cuda")
    gemm, element = seen.kernels
    assert (gemm.calls, gemm.ms, gemm.operator) == (2, 0.175, "gemm_fusion_dot.4")
    assert (gemm.registers, gemm.shared_bytes, gemm.grid, gemm.block) == (
        255,
        98304,
        (1024, 1, 1),
        (128, 1, 1),
    )
    assert (element.registers, element.shared_bytes) == (28, 0)
    assert seen.busy_ms == pytest.approx(0.195)  # and not twice, with the line of XLA's instructions
    assert seen.between_ms == pytest.approx(0.002)


def test_an_annotation_on_a_line_of_the_gpu_is_no_call(recorded: Path, tmp_path: Path) -> None:
    told = json.loads((recorded / "xla.trace.json").read_text())
    events = told["traceEvents"]
    (gpu, *_) = (e["pid"] for e in events if e.get("name") == "process_name" and "GPU" in e["args"]["name"])
    call = next(e for e in events if e.get("name") == CALL)
    events.append(call | {"pid": gpu, "tid": 999})
    (tmp_path / "t.json").write_text(json.dumps(told))
    assert len(read_trace(tmp_path / "t.json").calls) == len(read_trace(recorded / "xla.trace.json").calls)


def test_a_gzipped_trace_is_the_same(recorded: Path, tmp_path: Path, kineto: Traced) -> None:
    (tmp_path / "t.json.gz").write_bytes(gzip.compress((recorded / "kineto.json").read_bytes()))
    assert traced(read_trace(tmp_path / "t.json.gz"), device="cuda") == kineto


def test_lost_kernels_are_an_error(recorded: Path, tmp_path: Path) -> None:
    told = json.loads((recorded / "kineto.json").read_text())
    told["traceEvents"] = [event for event in told["traceEvents"] if event.get("cat") != "kernel"]
    told["traceEvents"] = [event for event in told["traceEvents"] if event.get("cat") != "gpu_memcpy"]
    (tmp_path / "t.json").write_text(json.dumps(told))
    with pytest.raises(ValueError, match="recorded no kernel"):
        traced(read_trace(tmp_path / "t.json"), device="cuda")
    told["traceEvents"] = []
    (tmp_path / "t.json").write_text(json.dumps(told))
    with pytest.raises(ValueError, match="no call that was traced"):
        read_trace(tmp_path / "t.json")


@pytest.mark.parametrize(
    ("clock_ms", "says"), [(0.285, ""), (0.273, ""), (0.25, "14% more"), (0.31, "8% less")]
)
def test_a_disturbed_run_says_so(kineto: Traced, clock_ms: float, says: str) -> None:
    case = Case(spec=AttentionSpec(kind="softmax"), device="cuda", dtype="bfloat16")
    row = Measurement(case=case, backend="b", form="f", status="ok", wall_ms=Samples([0.4]))
    told = disturbance(replace(row, device_ms=Samples([clock_ms])), kineto)
    assert bool(told) == bool(says)
    assert all(says in line for line in told)
    assert "no device clock" in disturbance(row, kineto)[0]
    noisy = replace(row, device_ms=Samples([0.285]), machine=({"noisy": ["others took 40% of the CPUs"]},))
    assert disturbance(noisy, kineto) == ["While the clocks ran others took 40% of the CPUs."]
