"""How the time of each form grows with seq_len, as measured: an exponent with an interval."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .resampling import Floats, between, log_medians
from .settings import Clock, Context, Shape
from .verdict import Contender, Verdict

__all__ = ["Growth", "growths", "order"]

LEAST_LENGTHS = 3
"""Fewer give a slope that nothing in it can contradict."""
STEEP_ENOUGH = 0.75
"""A length counts from where the time grows at least so much as steeply as between the two largest."""
NEAR = 0.2
"""An exponent so near to a whole one is called by it."""


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
    exponent: float | None
    """p of time = c seq_len^p; None where fewer than `LEAST_LENGTHS` lengths are long enough."""
    low: float
    """Of its 95% interval, by the samples alone: that the points lie on no line is not in it."""
    high: float


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
    first = _long_enough(logs, times[:, 0])
    used = lengths[first:]
    enough = len(used) >= LEAST_LENGTHS
    slopes = _slopes(logs[first:], times[first:])
    low, high = between(slopes[1:])
    one = by_length[lengths[0]]
    return Growth(
        context=verdict.context,
        shape=verdict.shape,
        clock=verdict.clock,
        attention=one.attention,
        backend=one.backend,
        form=one.form,
        used=tuple(used),
        left_out=tuple(lengths[:first]),
        exponent=float(slopes[0]) if enough else None,
        low=low,
        high=high,
    )


def _long_enough(logs: Floats, times: Floats) -> int:
    """The first length from which on every step is steep enough."""
    steps = np.diff(times) / np.diff(logs)
    flat = np.flatnonzero(steps < STEEP_ENOUGH * steps[-1])
    return int(flat[-1]) + 1 if len(flat) else 0


def _slopes(logs: Floats, times: Floats) -> Floats:
    """The least-squares slope of each column."""
    centred = logs - logs.mean()
    found: Floats = centred @ times / (centred @ centred)
    return found


def order(exponent: float) -> str:
    """What an exponent is near to.

    >>> order(1.07), order(1.5), order(2.1), order(0.4)
    ('O(N)', 'between O(N) and O(N²)', 'O(N²)', 'below O(N)')
    """
    for power, name in ((1, "O(N)"), (2, "O(N²)")):
        if abs(exponent - power) <= NEAR:
            return name
    return "below O(N)" if exponent < 1 else "above O(N²)" if exponent > 2 else "between O(N) and O(N²)"
