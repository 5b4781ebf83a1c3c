"""How the time of each form grows with seq_len, as measured: an exponent with an interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .resampling import Floats, between, log_medians
from .settings import Clock, Context, Shape
from .verdict import Contender, Verdict

__all__ = ["Growth", "Slope", "growths", "order"]

LEAST_LENGTHS = 3
"""Fewer give a slope that nothing in it can contradict."""
STEEP_ENOUGH = 0.75
"""A length counts from where the time grows at least so much as steeply as at the largest."""
DOUBLED = 2.0
"""How steeply it grows is told by lengths at least so far apart: the noise of two neighbours is no growth."""
NEAR = 0.2
"""An exponent so near to a whole one is called by it."""


@dataclass(frozen=True, kw_only=True)
class Slope:
    """p of time = c seq_len^p."""

    exponent: float
    low: float
    """Of its 95% interval, by the samples alone: that the points lie on no line is not in it."""
    high: float


@dataclass(frozen=True, kw_only=True)
class Growth:
    """One form's time against seq_len, in one setting."""

    context: Context
    shape: Shape
    clock: Clock
    attention: str
    backend: str
    form: str
    used: tuple[int, ...]
    """The lengths of the fit."""
    left_out: tuple[int, ...]
    """Shorter ones, at which fixed costs still tell."""
    slope: Slope | None
    """None where fewer than `LEAST_LENGTHS` lengths are long enough."""


def growths(verdict: Verdict) -> list[Growth]:
    """Those of each attention, backend and form that was timed at three lengths or more, in their order."""
    lines: dict[tuple[int, str, str], dict[int, Contender]] = {}
    for race in verdict.along(None):
        for found in race.ranking:
            at = verdict.attentions.index(found.attention)
            lines.setdefault((at, found.backend, found.form), {})[race.seq_len] = found
    return [
        _growth(verdict, by_length)
        for _, by_length in sorted(lines.items())
        if len(by_length) >= LEAST_LENGTHS
    ]


def _growth(verdict: Verdict, by_length: dict[int, Contender]) -> Growth:
    lengths = sorted(by_length)
    logs = np.log(lengths)
    # [length, 1 + resamples]
    times = np.stack([log_medians(by_length[n].samples, seed) for seed, n in enumerate(lengths, start=1)])
    first = _long_enough(lengths, times[:, 0])
    one = by_length[lengths[0]]
    return Growth(
        context=verdict.context,
        shape=verdict.shape,
        clock=verdict.clock,
        attention=one.attention,
        backend=one.backend,
        form=one.form,
        used=tuple(lengths[first:]),
        left_out=tuple(lengths[:first]),
        slope=_slope(logs[first:], times[first:]) if len(lengths) - first >= LEAST_LENGTHS else None,
    )


def _long_enough(lengths: Sequence[int], times: Floats) -> int:
    """The place of the first length from which on every doubling is steep enough."""
    steepness = []
    for at, n in enumerate(lengths):
        further = [later for later in range(at, len(lengths)) if lengths[later] >= DOUBLED * n]
        if further:
            steepness.append((times[further[0]] - times[at]) / np.log(lengths[further[0]] / n))
    flat = [at for at, slope in enumerate(steepness) if slope < STEEP_ENOUGH * steepness[-1]]
    return flat[-1] + 1 if flat else 0


def _slope(logs: Floats, times: Floats) -> Slope:
    """By least squares, and so for each resample."""
    centred = logs - logs.mean()
    slopes: Floats = centred @ times / (centred @ centred)
    low, high = between(slopes[1:])
    return Slope(exponent=float(slopes[0]), low=low, high=high)


def order(exponent: float) -> str:
    """What an exponent is near to.

    >>> order(1.07), order(1.5), order(2.1), order(0.4)
    ('O(N)', 'between O(N) and O(N²)', 'O(N²)', 'below O(N)')
    """
    for power, name in ((1, "O(N)"), (2, "O(N²)")):
        if abs(exponent - power) <= NEAR:
            return name
    return "below O(N)" if exponent < 1 else "above O(N²)" if exponent > 2 else "between O(N) and O(N²)"
