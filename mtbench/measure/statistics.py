"""What is said of a list of samples. All of them are kept; these are views of them."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Samples"]

RESAMPLES = 999
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Samples:
    """The samples of one clock, in milliseconds, in the order they were taken; at least one."""

    values: tuple[float, ...]

    def __init__(self, values: Iterable[float]) -> None:
        object.__setattr__(self, "values", tuple(float(v) for v in values))
        if not self.values:
            raise ValueError("a clock that took no sample is an error, not a zero")

    @property
    def median(self) -> float:
        """The median, ms."""
        return float(np.median(self.values))

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

        The resampling is seeded: the same samples give the same interval. One sample has none, so both
        ends are that sample.
        """
        values = np.asarray(self.values)
        draws = np.random.default_rng(0).integers(0, len(values), (RESAMPLES, len(values)))
        tail = 100 * (1 - CONFIDENCE) / 2
        low, high = np.percentile(np.median(values[draws], axis=1), [tail, 100 - tail])
        return float(low), float(high)

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
        """For JSON. `median` and the rest are there for readers; `from_dict` takes `samples` alone."""
        low, high = self.interval
        return {
            "median": self.median,
            "ci_low": low,
            "ci_high": high,
            "min": self.minimum,
            "p95": self.p95,
            "outliers": self.outliers,
            "samples": list(self.values),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Samples:
        """The samples that `to_dict` wrote."""
        return cls(data["samples"])
