"""What is said of a list of samples. All of them are kept; these are views of them."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["CONFIDENCE", "INTERVAL", "RESAMPLES", "TIME_LIMIT", "Samples"]

INTERVAL, TIME_LIMIT = "interval", "time limit"
"""What ends the sampling of a clock: the median is known well enough, or there is no more time."""
RESAMPLES = 999
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Samples:
    """The samples of one clock, in milliseconds, in the order they were taken; at least one.

    A launch is a process started for the measurement. What differs between two processes (where memory came
    to lie, which core, what the machine did meanwhile) is the same for all samples of one, so with several
    launches each counts once: by its median.
    """

    values: tuple[float, ...]
    """Of all launches, one after another."""
    sizes: tuple[int, ...]
    """Samples of each launch."""

    def __init__(self, values: Iterable[float], sizes: Iterable[int] | None = None) -> None:
        object.__setattr__(self, "values", tuple(float(v) for v in values))
        object.__setattr__(self, "sizes", (len(self.values),) if sizes is None else tuple(sizes))
        if not self.values:
            raise ValueError("a clock that took no sample is an error, not a zero")
        if sum(self.sizes) != len(self.values) or min(self.sizes) < 1:
            raise ValueError(f"{len(self.values)} samples are not launches of {self.sizes}")

    def __add__(self, later: Samples) -> Samples:
        """These launches and later ones."""
        return Samples(self.values + later.values, self.sizes + later.sizes)

    @property
    def launches(self) -> tuple[tuple[float, ...], ...]:
        """The samples of each launch."""
        ends = list(itertools.accumulate(self.sizes))
        return tuple(self.values[end - size : end] for end, size in zip(ends, self.sizes, strict=True))

    @functools.cached_property
    def launch_medians(self) -> tuple[float, ...]:
        """The median of each launch, ms: what two runs are compared by."""
        return tuple(float(np.median(launch)) for launch in self.launches)

    @property
    def median(self) -> float:
        """The median of the launches' medians, ms; of one launch, its median."""
        return float(np.median(self.launch_medians))

    @property
    def minimum(self) -> float:
        """The smallest sample, ms."""
        return min(self.values)

    @property
    def p95(self) -> float:
        """The 95th percentile, ms."""
        return float(np.percentile(self.values, 95))

    @functools.cached_property
    def interval(self) -> tuple[float, float]:
        """The 95% percentile-bootstrap interval of the median, ms.

        With several launches, launches are drawn first and then samples within each: few launches give a
        wide interval, as they should. The resampling is seeded: the same samples give the same interval.
        One sample has none, so both ends are that sample.
        """
        tail = 100 * (1 - CONFIDENCE) / 2
        low, high = np.percentile(self.resampled(0), [tail, 100 - tail])
        return float(low), float(high)

    def resampled(self, seed: int) -> NDArray[np.float64]:
        """The median of each bootstrap resample, ms, [RESAMPLES]: what an interval of anything made of
        medians is reckoned from. Rows that are compared need seeds that differ, or their draws are alike."""
        rng = np.random.default_rng(seed)
        # [resample, launch]: the median of one resample of each launch
        medians = np.stack([_resampled_medians(rng, np.asarray(x)) for x in self.launches], axis=1)
        count = len(self.sizes)
        if count > 1:
            chosen = rng.integers(0, count, (RESAMPLES, count))
            medians = np.take_along_axis(medians, chosen, axis=1)
        of_launches: NDArray[np.float64] = np.median(medians, axis=1)
        return of_launches

    @property
    def relative_width(self) -> float:
        """Half the interval's width over the median."""
        low, high = self.interval
        return (high - low) / 2 / self.median if self.median > 0 else 0.0

    @property
    def outliers(self) -> int:
        """Samples beyond 1.5 interquartile ranges of the quartiles; counted, never dropped."""
        q1, q3 = np.percentile(self.values, [25, 75])
        reach = 1.5 * (q3 - q1)
        return sum(not (q1 - reach <= v <= q3 + reach) for v in self.values)

    def to_dict(self) -> dict[str, Any]:
        """For JSON. The samples and the size of each launch say all; the rest is there for readers."""
        low, high = self.interval
        return {
            "median": self.median,
            "ci_low": low,
            "ci_high": high,
            "min": self.minimum,
            "p95": self.p95,
            "outliers": self.outliers,
            "samples": list(self.values),
            "launch_sizes": list(self.sizes),
            "launch_medians": list(self.launch_medians),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Samples:
        """The samples that `to_dict` wrote; schema 1 had one launch and no sizes."""
        return cls(data["samples"], data.get("launch_sizes"))


def _resampled_medians(rng: np.random.Generator, values: NDArray[np.float64]) -> NDArray[np.float64]:
    draws = rng.integers(0, len(values), (RESAMPLES, len(values)))
    medians: NDArray[np.float64] = np.median(values[draws], axis=1)
    return medians
