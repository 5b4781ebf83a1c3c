"""Kernels that hold a known amount are measured to hold it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from mtbench import AttentionSpec, Case
from mtbench.inputs import Array, Inputs, make_inputs
from mtbench.measure.memory import SAMPLED, VMHWM, _sampled, host_peak
from tests.known.faulty import BLOCKS
from tests.processes import in_a_fresh_process

MIB = 1 << 20


class Holds:
    """A kernel that allocates, touches and drops `count` blocks of `size` bytes."""

    layout = "bhnd"
    untimed = None
    config: Mapping[str, Any] = {}

    def __init__(self, make: Callable[[int], object], size: int, count: int) -> None:
        self.make, self.size, self.count = make, size, count

    def load(self, inputs: Inputs) -> None: ...

    def __call__(self) -> object:
        return [self.make(self.size) for _ in range(self.count)]

    def wait(self, result: object) -> None: ...

    def outputs(self, result: object) -> dict[str, Array]:
        return {}


FRAMEWORKS = pytest.mark.parametrize(
    "framework",
    [
        "numpy",
        pytest.param("torch", marks=pytest.mark.torch),
        pytest.param("jax", marks=pytest.mark.jax),
    ],
)


def check_known_amounts(framework: str) -> None:
    # A larger case comes first and in between: what it leaves behind must not hide the next.
    for mib, count in ((512, 1), (8, 1), (256, 1), (4, 64), (8, 1), (24, 1)):
        kernel = Holds(BLOCKS[framework], mib * MIB, count)
        kernel()
        peak = host_peak(kernel)
        assert peak.method == VMHWM
        assert peak.bytes is not None
        wanted = mib * count * MIB
        assert abs(peak.bytes - wanted) <= max(0.05 * wanted, MIB / 2), (mib, count, peak.bytes / MIB)


@pytest.mark.skipif(sys.platform != "linux", reason="VmHWM is Linux's")
@FRAMEWORKS
def test_a_known_amount_is_measured(framework: str) -> None:
    in_a_fresh_process(check_known_amounts, framework)


def test_without_the_high_water_mark_it_is_sampled_and_says_so() -> None:
    class Slow(Holds):
        def wait(self, result: object) -> None:
            import time

            time.sleep(0.05)

    peak = _sampled(Slow(BLOCKS["numpy"], 256 * MIB, 1))
    assert peak.method == SAMPLED
    assert peak.bytes is not None
    assert abs(peak.bytes - 256 * MIB) <= 26 * MIB


def check_outputs(framework: str) -> None:
    from mtbench.frameworks import load_framework
    from mtbench.measure.memory import settle_allocator

    settle_allocator()
    for n in (1024, 4096, 1024):
        case = Case(spec=AttentionSpec(kind="softmax"), heads=8, seq_len=n, head_dim=64)
        kernel = load_framework(framework).kernel(lambda q, k, v: v * 2, case)
        kernel.load(make_inputs(case))
        for _ in range(30):
            kernel.wait(kernel())
        wanted = 8 * n * 64 * 4
        peak = host_peak(kernel).bytes
        assert peak is not None
        assert abs(peak - wanted) <= max(0.05 * wanted, MIB / 2), (n, peak / MIB)


@pytest.mark.skipif(sys.platform != "linux", reason="VmHWM is Linux's")
@FRAMEWORKS
def test_what_a_kernel_returns_is_measured_after_it_was_timed(framework: str) -> None:
    """Many calls under the settled allocator first: a framework's threads keep what they freed."""
    in_a_fresh_process(check_outputs, framework)
