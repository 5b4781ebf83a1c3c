"""A row whose clocks ran while the machine was disturbed: run again on a GPU, a bounded number of times, and
flagged where that did not help."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from mtbench import AttentionSpec, Case
from mtbench.frameworks import load_framework
from mtbench.measure.clocks import Sampling
from mtbench.results import Measurement
from mtbench.sweep import measure
from tests.known import faulty

CLOCKS = {"sm_mhz": 1980, "throttle": []}
CALM = {"seconds": 1.0, "gpu": {"before": CLOCKS, "after": CLOCKS}}
HELD = {"seconds": 1.0, "gpu": {"before": CLOCKS, "after": {"sm_mhz": 1980, "throttle": ["power cap"]}}}
NEIGHBOUR = {"seconds": 1.0, "others_cpu": 0.9}


def measured(monkeypatch: pytest.MonkeyPatch, *readings: dict[str, Any]) -> tuple[Measurement, int]:
    """The row, and how many times its clocks ran, on a machine that gives these readings."""
    states: Iterator[dict[str, Any]] = iter(readings)
    monkeypatch.setattr(measure, "Watch", lambda device, processes: Reading())
    clock, runs = measure.wall_samples, []

    def counted(*arguments: Any) -> Any:
        runs.append(1)
        return clock(*arguments)

    monkeypatch.setattr(measure, "wall_samples", counted)

    class Reading:
        def state(self) -> dict[str, Any]:
            return dict(next(states))

    case = Case(spec=AttentionSpec(kind="softmax"), heads=1, seq_len=8, head_dim=4)
    measurer = measure.Measurer(faulty.BACKEND, load_framework("numpy"), "cpu")
    sampling = Sampling(least_s=0.0, limit_s=0.01, warmup_s=0.0)
    row = measurer.measure(case, "right", sampling, lambda stage: None)
    assert row.status == "ok", row.reason
    return row, len(runs)


def test_clocks_that_ran_while_a_gpu_was_held_down_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    row, runs = measured(monkeypatch, HELD, CALM)
    assert (runs, row.machine[0]["retries"], row.flags) == (2, 1, ())


def test_they_run_three_times_at_most_and_the_row_says_why_it_is_noisy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    row, runs = measured(monkeypatch, *(HELD for _ in range(9)))
    assert (runs, row.machine[0]["retries"], row.flags) == (3, 2, ("noisy",))
    assert row.machine[0]["noisy"] == ["the GPU's clocks were held down: power cap"]
    assert row.timed
    assert row.ranked


def test_a_cpus_neighbour_is_told_and_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    row, runs = measured(monkeypatch, NEIGHBOUR, CALM)
    assert (runs, row.flags) == (1, ("noisy",))
    assert row.machine[0]["noisy"] == ["other processes took 90% of the CPUs"]
