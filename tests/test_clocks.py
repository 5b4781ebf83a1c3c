"""How long a clock goes on sampling, on a clock of the test's own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from mtbench.inputs import Array, Inputs
from mtbench.measure import clocks
from mtbench.measure.clocks import Sampling, device_samples, wall_samples
from mtbench.measure.cupti import CuptiError


class Clock:
    """A time that only the kernel's calls move on."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def perf_counter_ns(self) -> int:
        return round(self.now * 1e9)


class Takes:
    """A kernel whose call takes so many seconds, by the time at which it starts."""

    layout = "bhnd"
    untimed = None
    config: Mapping[str, Any] = {}

    def __init__(self, clock: Clock, seconds: Callable[[float], float]) -> None:
        self.clock, self.seconds = clock, seconds

    def load(self, inputs: Inputs) -> None: ...

    def __call__(self) -> object:
        self.clock.now += self.seconds(self.clock.now)
        return None

    def wait(self, result: object) -> None: ...

    def outputs(self, result: object) -> dict[str, Array]:
        return {}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(clocks, "time", clock)
    return clock


def sample(clock: Clock, seconds: Callable[[float], float], **sampling: float) -> tuple[Any, str]:
    return wall_samples(Takes(clock, seconds), lambda: None, Sampling(**sampling))  # type: ignore[arg-type]


def test_a_burst_that_outlasts_the_fewest_samples_is_not_the_median(clock: Clock) -> None:
    """Thirty samples of 1 ms at half the speed take 60 ms, and all agree."""
    samples, why = sample(clock, lambda now: 0.002 if now < 0.08 else 0.001)
    assert samples.median == pytest.approx(1.0)
    assert why == "interval"


def test_samples_that_agree_end_it(clock: Clock) -> None:
    samples, why = sample(clock, lambda now: 0.05)
    assert (len(samples.values), why) == (30, "interval")


def test_the_limit_ends_what_does_not_settle(clock: Clock) -> None:
    samples, why = sample(clock, lambda now: 0.001 + now / 10, limit_s=0.5)
    assert why == "time limit"
    assert clock.now >= 0.5
    assert len(samples.values) >= 30


def test_fast_calls_are_sampled_now_and_then(clock: Clock) -> None:
    samples, _ = sample(clock, lambda now: 0.00002)
    assert samples.median == pytest.approx(0.02)
    assert 300 <= len(samples.values) <= 400


def test_of_a_slow_call_five_will_do(clock: Clock) -> None:
    samples, _ = sample(clock, lambda now: 2.0)
    assert len(samples.values) == 5


class Gpu:
    """A recorder that a kernel and the flush tell what the card did, ms."""

    def __init__(self) -> None:
        self.now = 0
        self.intervals: list[tuple[int, int]] = []
        self.on = False

    def ran(self, *pieces: tuple[float, float]) -> None:
        """Pieces of work by their start and end from now on."""
        if self.on:
            self.intervals += [(self.now + round(a * 1e6), self.now + round(b * 1e6)) for a, b in pieces]
        self.now += round(1e6 * max((end for _, end in pieces), default=0))

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        self.on = True
        yield
        self.on = False

    def drain(self) -> list[tuple[int, int]]:
        found, self.intervals = sorted(self.intervals), []
        return found


class OnGpu(Takes):
    def __init__(self, clock: Clock, gpu: Gpu, *pieces: tuple[float, float]) -> None:
        super().__init__(clock, lambda now: 0.01)
        self.gpu, self.pieces = gpu, pieces

    def __call__(self) -> object:
        self.gpu.ran(*self.pieces)
        return super().__call__()


def test_the_device_clock_is_the_union_of_the_calls_own_work(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three kernels, two of which overlap, after a flush that is not theirs; a gap is in the span alone."""
    gpu = Gpu()
    monkeypatch.setattr(clocks, "recorder", lambda: gpu)
    kernel = OnGpu(clock, gpu, (0.0, 1.0), (0.5, 2.0), (5.0, 6.0))
    device, span, why = device_samples(kernel, lambda: gpu.ran((0.0, 70.0)), Sampling())
    assert set(device.values) == {3.0}
    assert set(span.values) == {6.0}
    assert (len(device.values), len(span.values), why) == (30, 30, "interval")
    assert not gpu.on


def test_a_call_of_which_no_kernel_was_caught_is_an_error_and_no_zero(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = Gpu()
    monkeypatch.setattr(clocks, "recorder", lambda: gpu)
    with pytest.raises(CuptiError, match="recorded no kernel"):
        device_samples(OnGpu(clock, gpu), lambda: gpu.ran((0.0, 70.0)), Sampling())
