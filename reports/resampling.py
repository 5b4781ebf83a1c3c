"""Intervals of what is made of several rows' medians, by the bootstrap."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from mtbench.measure.statistics import CONFIDENCE, Samples

__all__ = ["Floats", "between", "fastest", "log_medians"]

Floats = NDArray[np.float64]
_LEAST_MS = 1e-9
"""What a resample that is zero counts as: it has no logarithm."""


def log_medians(samples: Samples, seed: int) -> Floats:
    """The logarithm of a row's median and of each of its resamples', [1 + RESAMPLES]."""
    together = np.concatenate([[samples.median], samples.resampled(seed)])
    logs: Floats = np.log(np.maximum(together, _LEAST_MS))
    return logs


def fastest(forms: Iterable[Samples], seeds: Iterable[int]) -> Floats:
    """The smallest of several rows' `log_medians`, chosen anew in each resample."""
    found: Floats = np.min([log_medians(s, seed) for s, seed in zip(forms, seeds, strict=False)], axis=0)
    return found


def between(values: Floats) -> tuple[float, float]:
    """The 95% percentile interval. No value is made that was not there, as some may be infinite."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(values, [tail, 1 - tail], method="nearest")
    return float(low), float(high)
