"""A profile of a GPU's call, made of recorded traces and counters by what makes every profile."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from mtbench.measure.statistics import Samples
from mtbench.profile.assembling import assemble, seen_in
from mtbench.profile.memory import course
from mtbench.profile.ncu import by_kernel, read_csv
from mtbench.profile.parts import TRACE, Findings
from mtbench.profile.record import FILE, Machine, Profile
from mtbench.results import Measurement
from mtbench.spec import AttentionSpec, Case
from tests.profile.conftest import RECORDED

CASE = Case(
    spec=AttentionSpec(kind="softmax"), batch=8, heads=16, seq_len=4096, dtype="bfloat16", device="cuda"
)
MACHINE = Machine(
    measured="2026-11-25T12:00:00+00:00",
    copy_bytes_per_s=3.08e12,
    matmul_flop_per_s={"bfloat16": 6.9e14, "float32": 5.1e13},
    call_ms=0.018,
    operator_ms=0.004,
)


def gpu_profile(folder: Path, **changes: Any) -> Profile:
    """It, written into a folder; fields of it may be given."""
    (folder / TRACE).write_bytes((RECORDED / "kineto.json").read_bytes())
    row = Measurement(
        case=CASE,
        backend="torch-eager",
        form="chunked",
        status="ok",
        wall_ms=Samples([0.40, 0.41, 0.39, 0.40, 0.42]),
        device_ms=Samples([0.25, 0.26, 0.25, 0.25, 0.25]),
        span_ms=Samples([0.29] * 5),
        peak_memory_bytes=96 << 20,
        memory_method="torch.cuda.max_memory_allocated after reset_peak_memory_stats",
    )
    found = course({"history": json.loads((RECORDED / "history.json").read_text())})
    assert found is not None
    gemm = "nvjet_hsh_128x256_64x4_2x1_v_bz_coopB_NNT"
    digest = {"k.ptx": {"tensor-core instructions": 32, "barriers": 4, "loads and stores of local memory": 0}}
    findings = Findings(
        found={
            "trace": {},
            "ncu": {"kernels": by_kernel(read_csv((RECORDED / "ncu.csv").read_text()))},
            "memory": {"course": as_json(found)},
            "made": {
                "made": {"files": [["compiled/k.ptx", 900]], "digest": digest},
                "stacks": [[gemm, 168, 64]],
            },
            "flame": {"flame": {"name": "all", "seconds": 2.0, "children": [FRAME]}},
            "counters": {"counters": {"instructions": 2e6, "cycles": 1e6, "task-clock": 0.4}, "why": ""},
        },
        missing={"proton": "it did not run: <no such thing>"},
    )
    profile = assemble(
        row,
        findings,
        MACHINE,
        seen_in(findings, folder, "cuda"),
        framework="torch",
        folder=folder,
        environment={"os": "Linux", "threads": 8},
    )
    profile = replace(profile, **changes)
    (folder / FILE).write_text(profile.to_json())
    return profile


FRAME = {
    "name": "run (softmax.py)",
    "seconds": 1.9,
    "children": [{"name": "at::_ops::bmm::call (libtorch_cpu.so)", "seconds": 1.2, "children": []}],
}


def as_json(value: Any) -> Any:
    return json.loads(json.dumps(asdict(value)))
