"""From what the parts found to a profile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mtbench.backend import TF32
from mtbench.floor import floor_bytes
from mtbench.profile import made as compiled
from mtbench.profile import ncu
from mtbench.profile.bounds import Facts, bound_of
from mtbench.profile.flame import SPEEDSCOPE
from mtbench.profile.parts import TRACE, Findings
from mtbench.profile.record import (
    Flame,
    Machine,
    Made,
    MemoryCourse,
    Profile,
    Traced,
    Work,
    read_course,
    read_flame,
)
from mtbench.profile.trace import read_trace, traced
from mtbench.results import Measurement
from mtbench.work import operations

__all__ = ["AGREES", "assemble", "disturbance", "facts_of", "seen_in", "work_of"]

AGREES = 0.05
"""The union of the kernels traced and the suite's device clock differ by less, or the profiler disturbed the
run."""
SLOWED = 1.25
"""The same of a CPU's wall clock, which a profiler of operators always slows: over it, it is said."""
BESIDE = ("memory-snapshot.pickle", "device-memory.prof.gz")
EAGER = ("torch",)
"""Frameworks whose operators are launched one by one; another's program is one launch on a CPU."""


def assemble(
    row: Measurement,
    findings: Findings,
    machine: Machine,
    seen: Traced | None,
    *,
    framework: str,
    folder: Path,
    environment: Mapping[str, Any],
) -> Profile:
    """The profile. What the findings lack it says, and does without."""
    machine = _machine_for(row.form, machine)
    found, missing = findings.found, dict(findings.missing)
    missing.pop("build", None)
    if seen is not None:
        seen = _completed(seen, findings)
    if why := found.get("counters", {}).get("why"):
        missing["counters"] = why
    made = found.get("made")
    counted = found.get("ncu", {}).get("kernels", {})
    work = work_of(row, found.get("work", {}), counted)
    remarks = disturbance(row, seen)
    traces = [TRACE] if seen is not None else []
    traces += [SPEEDSCOPE] if "flame" in found else []
    traces += [found["proton"]["file"]] if "proton" in found else []
    traces += [name for name in BESIDE if (folder / name).is_file()]
    return Profile(
        row=row,
        environment=environment,
        bound=bound_of(facts_of(row, seen, found.get("busy"), counted, framework), work, machine),
        work=work,
        machine=machine,
        traced=seen,
        memory=_courses(found),
        flame=_flame(found),
        counters=found.get("counters", {}).get("counters", {}),
        made=Made() if made is None else Made(**made["made"]),
        traces=tuple(traces),
        remarks=tuple(remarks),
        missing=missing,
    )


def seen_in(findings: Findings, folder: Path, device: str) -> Traced | None:
    """What the trace has; None where there is none, or one that cannot be read, as the findings then say."""
    if "trace" not in findings.found:
        return None
    try:
        return traced(read_trace(folder / TRACE), device=device)
    except (OSError, ValueError, KeyError, TypeError) as error:
        findings.missing["trace"] = f"the trace cannot be read: {error}"
        return None


def _completed(seen: Traced, findings: Findings) -> Traced:
    """With what others know of its kernels."""
    told = findings.found.get("made", {}).get("stacks", [])
    stacks = {(name, registers): stack for name, registers, stack in told}
    kernels = compiled.with_spills(seen.kernels, stacks)
    return replace(seen, kernels=ncu.with_counters(kernels, findings.found.get("ncu", {}).get("kernels", {})))


def _machine_for(form: str, machine: Machine) -> Machine:
    """The machine, as far as that form can be held against it: one in TF32 multiplies up to eight times as
    fast as float32's products, and a rate of such products is not measured."""
    if not form.endswith(TF32):
        return machine
    rates = {dtype: rate for dtype, rate in machine.matmul_flop_per_s.items() if dtype != "float32"}
    return replace(machine, matmul_flop_per_s=rates)


def disturbance(row: Measurement, seen: Traced | None) -> list[str]:
    """What else was at work while the clocks ran, and what the profiler did to the run, a sentence each."""
    noise = [reason for launch in row.machine for reason in launch.get("noisy", ())]
    told = [f"While the clocks ran {'; '.join(dict.fromkeys(noise))}."] if noise else []
    return told + _by_profiler(row, seen)


def _by_profiler(row: Measurement, seen: Traced | None) -> list[str]:
    if seen is None or row.wall_ms is None:
        return []
    if row.case.device != "cuda":
        ratio = seen.wall_ms / row.wall_ms.median
        if ratio <= SLOWED:
            return []
        told = f"The profiler disturbed the run: a call took {ratio:.1f} times as long under it"
        return [f"{told}. The times of operators are too long, the short ones' most."]
    if row.device_ms is None:
        return [f"There is no device clock to hold the kernels against: {row.device_reason}."]
    clock = row.device_ms.median
    off = seen.busy_ms / clock - 1
    if abs(off) <= AGREES:
        return []
    told = f"The profiler disturbed the run: its kernels cover {seen.busy_ms:.4g} ms of a call"
    return [f"{told}, {abs(off):.0%} {'more' if off > 0 else 'less'} than the device clock's {clock:.4g} ms."]


def work_of(row: Measurement, told: Mapping[str, float], counted: Mapping[str, Mapping[str, float]]) -> Work:
    """The most that anybody knows of: the definition's least, what operators or a program say, and of the
    bytes what the GPU counted, which decides."""
    flop, bytes_ = float(operations(row.case)), float(floor_bytes(row.case))
    flop_from = bytes_from = "the attention's definition, the least"
    source = "XLA's cost analysis" if "transcendentals" in told else "its operators"
    if told.get("flop", 0.0) > flop:
        flop, flop_from = told["flop"], source
    if told.get("bytes", 0.0) > bytes_:
        bytes_, bytes_from = told["bytes"], source
    dram = [
        values["dram_read_bytes"] + values.get("dram_written_bytes", 0.0)
        for values in counted.values()
        if "dram_read_bytes" in values
    ]
    if dram:
        bytes_, bytes_from = sum(dram), "the GPU's counters (ncu)"
    return Work(flop=flop, bytes=bytes_, flop_from=flop_from, bytes_from=bytes_from)


def facts_of(
    row: Measurement,
    seen: Traced | None,
    busy: Mapping[str, float] | None,
    counted: Mapping[str, Mapping[str, float]],
    framework: str,
) -> Facts:
    """What the rules look at. The times are those without a profiler wherever there are such, and the fastest
    sample of each, as a ceiling's is: what disturbs a call is not what bounds it."""
    case = row.case
    assert row.wall_ms is not None  # noqa: S101  (no profile is made of another row)
    wall = row.wall_ms.minimum
    if case.device == "cuda":
        clock = row.device_ms.minimum if row.device_ms else seen.busy_ms if seen else wall
        launches = seen.launches if seen else 1.0
    else:
        # Both halves of this ratio are of the same calls.
        clock = wall * min(1.0, busy["worked_ms"] / busy["wall_ms"]) if busy else wall
        launches = seen.launches if seen and framework in EAGER else 1.0
    return Facts(
        device=case.device,
        dtype=case.dtype,
        wall_ms=wall,
        busy_ms=clock,
        launches=max(1.0, launches),
        tensor_share=_tensor_share(counted),
    )


def _tensor_share(counted: Mapping[str, Mapping[str, float]]) -> float | None:
    """Of the kernels' time, in which tensor or float units were at work, by ncu."""
    told = [
        (max(values.get("tensor_percent", 0.0), values.get("fma_percent", 0.0)), values.get("time_ns", 0.0))
        for values in counted.values()
    ]
    total = sum(time for _, time in told)
    return sum(percent * time for percent, time in told) / total / 100 if total else None


def _courses(found: Mapping[str, Mapping[str, Any]]) -> tuple[MemoryCourse, ...]:
    courses = [read_course(found[part]["course"]) for part in ("memory", "resident") if part in found]
    plan = found.get("made", {}).get("plan")
    return (*courses, *([] if plan is None else [read_course(plan)]))


def _flame(found: Mapping[str, Mapping[str, Any]]) -> Flame | None:
    return read_flame(found["flame"]["flame"]) if "flame" in found else None
