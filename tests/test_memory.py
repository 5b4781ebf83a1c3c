"""Kernels that hold a known amount are measured to hold it."""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from mtbench import AttentionSpec, Case
from mtbench.inputs import Array, Inputs, make_inputs
from mtbench.measure.memory import SAMPLED, VMHWM, _sampled, host_peak, unseen
from tests.known.faulty import BLOCKS
from tests.processes import in_a_fresh_process

pytestmark = pytest.mark.alone

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
        assert peak.method == f"{VMHWM}; good to {unseen() >> 10} KiB"
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


class FreesLate(Holds):
    """As XLA's CPU client: a thread frees what the call has used once the call has said that it is done, and
    the next call's large blocks come after that."""

    def __init__(self, size: int) -> None:
        super().__init__(BLOCKS["numpy"], size, 1)
        self.used: queue.Queue[list[object]] = queue.Queue()
        self.freed = threading.Semaphore(1)
        threading.Thread(target=self.free, daemon=True).start()

    def free(self) -> None:
        import hashlib

        while True:
            block = self.used.get()
            end = time.perf_counter() + 0.1
            while time.perf_counter() < end:
                hashlib.sha256(bytes(1 << 20))  # busy, and without the GIL
            del block
            self.freed.release()

    def __call__(self) -> None:
        self.freed.acquire()
        self.used.put([self.make(self.size)])


def check_late_frees() -> None:
    peak = host_peak(FreesLate(64 * MIB)).bytes
    assert peak is not None
    assert abs(peak - 64 * MIB) <= 4 * MIB, peak / MIB


@pytest.mark.skipif(sys.platform != "linux", reason="VmHWM is Linux's")
def test_what_is_freed_after_the_call_is_not_taken_for_memory_in_use() -> None:
    in_a_fresh_process(check_late_frees)


class TakesTurns(Holds):
    """One call on one thread, the next on another, as from a pool: each has an arena of its own."""

    def __init__(self, size: int, count: int) -> None:
        super().__init__(BLOCKS["numpy"], size, count)
        self.pools = [ThreadPoolExecutor(1) for _ in range(2)]

    def __call__(self) -> None:
        self.pools.reverse()
        self.pools[0].submit(lambda: len([self.make(self.size) for _ in range(self.count)])).result()


def check_turns() -> None:
    from mtbench.measure.memory import settle_allocator

    settle_allocator()
    kernel = TakesTurns(4 * MIB, 6)
    for _ in range(30):
        kernel()
    peak = host_peak(kernel).bytes
    assert peak is not None
    assert abs(peak - 24 * MIB) <= 2 * MIB, peak / MIB


@pytest.mark.skipif(sys.platform != "linux", reason="VmHWM is Linux's")
def test_what_another_thread_left_free_does_not_hide_a_call() -> None:
    in_a_fresh_process(check_turns)


def check_holes() -> None:
    """Blocks one at a time, each in the hole that its like left: resident, if it were not given back, to the
    last of them."""
    from mtbench.measure.memory import settle_allocator

    settle_allocator()
    keep = []
    blocks = []
    for size in range(4 * MIB, 14 * MIB, MIB):
        blocks.append(BLOCKS["numpy"](size))
        keep.append([bytes(60_000) for _ in range(20)])
    blocks.clear()

    class Steps(Holds):
        def __call__(self) -> None:
            for size in range(4 * MIB, 14 * MIB, MIB):
                self.make(size - MIB // 2)

    peak = host_peak(Steps(BLOCKS["numpy"], 0, 0)).bytes
    assert peak is not None
    assert keep
    assert abs(peak - 12.5 * MIB) <= MIB, peak / MIB


@pytest.mark.skipif(sys.platform != "linux", reason="VmHWM is Linux's")
def test_holes_in_the_heap_are_not_counted_once_each() -> None:
    in_a_fresh_process(check_holes)
