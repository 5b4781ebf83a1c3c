"""The clocks, and how long one goes on sampling.

- ``wall``: the host's clock around the call and the framework's own wait: what a user waits.
- ``device``: the union of the intervals in which the GPU worked on the call (CUPTI), so that overlapping
  kernels count once and gaps not at all.
- ``span``: from the first kernel's start to the last one's end, gaps included.

Wall samples are taken without tracing, device samples after them with it. On a GPU the L2 is flushed before
every sample, outside what is timed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from mtbench.backend import Kernel, Spread
from mtbench.measure.cupti import CuptiError, recorder
from mtbench.measure.statistics import INTERVAL, TIME_LIMIT, Samples

__all__ = ["Sampling", "device_samples", "union_ns", "wall_samples", "warm_up"]

SPACING_S = 0.0005
"""From one wall sample's start to the next, at the least; calls in between are made and not timed. Every
sample of a call of some microseconds would only fill the files."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """When enough samples have been taken."""

    least: int = 30
    """Samples at the least."""
    least_s: float = 0.2
    """And for how long at the least. A neighbour takes the machine for tenths of a second at a time: all
    samples of a shorter time share that, and agree with each other."""
    least_slow: int = 5
    """The same where one takes over `slow_s`."""
    slow_s: float = 1.0
    target: float = 0.02
    """Go on until the median's interval is within this fraction of the median on either side, ..."""
    limit_s: float = 1.0
    """... or the sampling of this clock has taken so long."""
    warmup_s: float = 0.1
    """Calls before the first sample go on for this long, one at the least."""

    def to_dict(self) -> dict[str, Any]:
        """For run.json."""
        return asdict(self)


def warm_up(kernel: Kernel, sampling: Sampling) -> None:
    """Calls for `Sampling.warmup_s`, one at the least."""
    began = time.perf_counter()
    while True:
        kernel.wait(kernel())
        if time.perf_counter() - began >= sampling.warmup_s:
            return


def wall_samples(kernel: Kernel, flush: Callable[[], None], sampling: Sampling) -> tuple[Samples, str]:
    """Host milliseconds of a kernel that is warm, and what ended the sampling: ``interval`` or ``time
    limit``. Samples start `SPACING_S` apart or more. A `Spread` takes them itself."""
    if isinstance(kernel, Spread):
        return _sample(kernel.sample_ms, sampling)
    due = 0.0

    def one() -> float:
        nonlocal due
        while time.perf_counter() < due:
            kernel.wait(kernel())
        due = time.perf_counter() + SPACING_S
        flush()
        start = time.perf_counter_ns()
        result = kernel()
        kernel.wait(result)
        return (time.perf_counter_ns() - start) / 1e6

    return _sample(one, sampling)


def device_samples(
    kernel: Kernel, flush: Callable[[], None], sampling: Sampling
) -> tuple[Samples, Samples, str]:
    """Milliseconds by the device clock and by the span clock, of the same calls, and what ended it.

    Raises:
        CuptiError: CUPTI cannot be used here, or recorded no kernel for a call.
    """
    cupti = recorder()
    spans: list[float] = []

    def one() -> float:
        flush()
        cupti.drain()
        kernel.wait(kernel())
        intervals = cupti.drain()
        if not intervals:
            raise CuptiError("CUPTI recorded no kernel for a call that ran on the GPU")
        spans.append((max(end for _, end in intervals) - intervals[0][0]) / 1e6)
        return union_ns(intervals) / 1e6

    with cupti.recording():
        kernel.wait(kernel())  # the first traced call pays for setting CUPTI up
        device, stop = _sample(one, sampling)
    return device, Samples(spans), stop


def union_ns(intervals: Iterable[tuple[int, int]]) -> int:
    """The length of the union of intervals, which need not be in order.

    >>> union_ns([(0, 10), (5, 12), (20, 21)])
    13
    """
    total, reached = 0, 0
    for start, end in sorted(intervals):
        total += max(0, end - max(start, reached))
        reached = max(reached, end)
    return total


def _sample(one: Callable[[], float], sampling: Sampling) -> tuple[Samples, str]:
    began = time.perf_counter()
    values = [one()]
    slow = values[0] > sampling.slow_s * 1e3
    wanted = sampling.least_slow if slow else sampling.least
    while True:
        while len(values) < wanted or time.perf_counter() - began < sampling.least_s:
            values.append(one())
        samples = Samples(values)
        if samples.relative_width <= sampling.target:
            return samples, INTERVAL
        if time.perf_counter() - began >= sampling.limit_s:
            return samples, TIME_LIMIT
        wanted = len(values) + max(1, len(values) // 3)
