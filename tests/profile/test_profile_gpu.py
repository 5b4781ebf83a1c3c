"""Profiles on a card: kernels by every framework, held against the suite's own device clock."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtbench.profile.assembling import AGREES
from mtbench.profile.command import make_profile
from mtbench.profile.target import target_of
from mtbench.spec import AttentionSpec, Case

pytestmark = [pytest.mark.gpu, pytest.mark.alone]

CASE = Case(
    spec=AttentionSpec(kind="momentum"), batch=8, heads=16, seq_len=4096, dtype="bfloat16", device="cuda"
)


@pytest.mark.parametrize(
    ("backend", "form"),
    [("torch-eager", "chunked"), ("torch-compile", "chunked"), ("triton", "fused"), ("jax", "chunked")],
)
def test_a_profile_on_a_card(tmp_path: Path, backend: str, form: str) -> None:
    profile = make_profile(
        target_of(backend, CASE, form), tmp_path / "made", calls=5, without=("flame", "counters", "proton")
    )
    seen = profile.traced
    assert seen is not None, profile.missing
    assert seen.kernels
    assert all(kernel.ms > 0 for kernel in seen.kernels)
    launched = [kernel for kernel in seen.kernels if kernel.grid]
    assert launched
    assert all(kernel.registers and kernel.block for kernel in launched)
    clock = profile.device_ms
    assert clock is not None
    off = abs(seen.busy_ms / clock - 1)
    # A neighbour's noise is a remark, too.
    disturbed = any(remark.startswith("The profiler disturbed") for remark in profile.remarks)
    assert disturbed == (off > AGREES), (off, profile.remarks)
    assert off < 0.25, f"the kernels cover {seen.busy_ms} ms and the device clock says {clock} ms"
    assert any(course.at_peak for course in profile.memory), profile.missing
    if backend == "triton":
        assert any(kernel.spilled_bytes is not None for kernel in seen.kernels)
        tensor = [counts.get("tensor-core instructions", 0) for counts in profile.made.digest.values()]
        assert max(tensor) > 0
    if backend == "jax":
        assert "optimised.hlo.txt" in profile.made.digest
    else:
        allocator = profile.memory[0]
        swept = profile.row.peak_memory_bytes
        assert swept is not None
        assert allocator.peak_bytes == pytest.approx(swept, rel=0.1)
