"""The peak memory of a linear-time form grows as its inputs do: O(N d), at three lengths."""

from __future__ import annotations

import os
import sys
from typing import Any

import pytest

from mtbench import AttentionSpec, Case, load_backend
from mtbench.inputs import make_inputs
from tests.processes import in_a_fresh_process

LENGTHS = (4096, 8192, 16384)
CPUS = 2
"""Of more the counters that the peak is read from may miss more than a case takes."""
EACH = [
    pytest.param("torch-eager", "forward_backward", marks=pytest.mark.torch),
    pytest.param("torch-compile", "forward", marks=pytest.mark.torch),  # its backward compiles for a minute
    pytest.param("native", "forward", marks=pytest.mark.native),
    pytest.param("jax", "forward_backward", marks=pytest.mark.jax),
]
MIB = 1 << 20


def peaks(name: str, mode: str) -> None:
    from mtbench.frameworks import load_framework
    from mtbench.measure.memory import host_peak, unseen

    backend = load_backend(name)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CPUS])
    load_framework(backend.framework).start("cpu", CPUS)
    missed = unseen()
    for kind in ("linear", "momentum"):
        found = []
        for n in LENGTHS:
            sizes: Any = {"heads": 2, "seq_len": n, "head_dim": 32, "mode": mode}
            case = Case(spec=AttentionSpec(kind=kind), **sizes)  # type: ignore[arg-type]
            kernel = backend.build(case, "chunked")
            kernel.load(make_inputs(case))
            kernel.wait(kernel())
            found.append(host_peak(kernel).bytes or 0)
        # What it returns, at least.
        for n, peak in zip(LENGTHS, found, strict=True):
            assert peak >= 2 * n * 32 * 4 - missed, (kind, found)
        for n, peak in zip(LENGTHS[1:], found[1:], strict=True):
            # Four times the length with an N x N array would be sixteen times the memory.
            assert peak <= 1.5 * n / LENGTHS[0] * (found[0] + missed) + MIB, (kind, found)


@pytest.mark.alone
@pytest.mark.skipif(sys.platform != "linux", reason="VmHWM is Linux's")
@pytest.mark.parametrize(("name", "mode"), EACH)
def test_four_times_the_length_takes_four_times_the_memory(name: str, mode: str) -> None:
    in_a_fresh_process(peaks, name, mode)
