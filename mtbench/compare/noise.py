"""The noise floor: what a comparison says of two runs that do not differ."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mtbench.compare.test import EDGE
from mtbench.compare.verdicts import FALSE_DISCOVERY_RATE, Comparison, Judged
from mtbench.errors import BadInput

__all__ = ["Floor", "Scatter", "measure_floor", "smallest_found_percent"]

ALL = "all"
POWER = 0.8


@dataclass(frozen=True, kw_only=True)
class Scatter:
    """How far the ratios of one backend, or of all, are from 1, in pairs of runs of the same code."""

    backend: str
    cases: int
    """Over all pairs."""
    median_percent: float
    """Of ``|log(B / A)|``, as a percentage: half the cases differ by no more."""
    p90_percent: float
    p95_percent: float
    max_percent: float
    slower: int
    """Called slower, falsely."""
    faster: int
    unsure: int
    found_median_percent: float | None
    """The smallest slow-down of one case alone found four times in five, of the middle case."""
    found_p90_percent: float | None
    """The same, of nine cases in ten."""

    @property
    def flagged_percent(self) -> float:
        """Slower or faster, of all cases."""
        return 100 * (self.slower + self.faster) / self.cases


@dataclass(frozen=True, kw_only=True)
class Floor:
    """A machine's noise floor."""

    comparisons: tuple[Comparison, ...]
    """A pair of runs each."""
    scatter: tuple[Scatter, ...]
    """All backends together first, then each."""

    @property
    def drifts_percent(self) -> list[float]:
        """What most backends shared, of each pair."""
        return [100 * (comparison.drift_ratio - 1) for comparison in self.comparisons]


def measure_floor(comparisons: Sequence[Comparison]) -> Floor:
    """The floor, of pairs of runs of the same code.

    Raises:
        BadInput: no case was timed on both sides of any pair.
    """
    every = [(pair, case) for pair in comparisons for case in pair.judged]
    if not every:
        raise BadInput("no case was timed in both runs: there is no floor to tell")
    backends = dict.fromkeys(case.backend for _, case in every)
    return Floor(
        comparisons=tuple(comparisons),
        scatter=(
            _scatter(ALL, every),
            *(
                _scatter(backend, [(pair, case) for pair, case in every if case.backend == backend])
                for backend in backends
                if backend
            ),
        ),
    )


def _scatter(backend: str, cases: Sequence[tuple[Comparison, Judged]]) -> Scatter:
    distance = [abs(math.log(case.ratio)) for _, case in cases]
    median, p90, p95, most = (100 * math.expm1(x) for x in np.percentile(distance, [50, 90, 95, 100]))
    found = [
        smallest_found_percent(case, len(pair.judged), pair.effect_percent)
        for pair, case in cases
        if case.ratio_high is not None
    ]
    verdicts = [case.verdict for _, case in cases]
    return Scatter(
        backend=backend,
        cases=len(cases),
        median_percent=median,
        p90_percent=p90,
        p95_percent=p95,
        max_percent=most,
        slower=verdicts.count("slower"),
        faster=verdicts.count("faster"),
        unsure=verdicts.count("unsure"),
        found_median_percent=float(np.percentile(found, 50)) if found else None,
        found_p90_percent=float(np.percentile(found, 90)) if found else None,
    )


def smallest_found_percent(case: Judged, cases: int, effect_percent: float) -> float:
    """The slow-down of this case alone, among so many, that the test would find four times in five, %.

    A lone case is significant where p <= rate / cases, so its distance beyond `EDGE` of the smallest effect
    has to be the t quantile there, and another for the power, times the standard error; the drift apart. It
    has to be beyond the whole effect, too.
    """
    from scipy import special

    error, freedom = case.standard_error, case.degrees_of_freedom
    power = special.stdtrit(freedom, POWER)
    effect = math.log1p(effect_percent / 100)
    beyond = special.stdtrit(freedom, 1 - FALSE_DISCOVERY_RATE / cases)
    return 100 * math.expm1(max(EDGE * effect + (beyond + power) * error, effect + power * error))
