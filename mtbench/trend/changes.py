"""Where a series of runs changed its level, and how surely.

x_1 ... x_n are the logarithms of one case's times, a run each, in order; a change is a step of their mean.

*Arcs.* Circular binary segmentation (Olshen et al. 2004): every stretch of runs i < t <= j is held against
the runs around it, left and right together. A stretch that reaches an end is a plain step, as in binary
segmentation (Vostrikova 1981); one that does not is a slow-down that was mended later, which plain binary
segmentation cannot see. The surest arc is cut out, and each piece is searched again (`find_changes`).

*Spikes.* One run off both its neighbours by more than three times the noise, with the noise by the median
successive difference, is drawn in to that (`_without_spikes`, the idea of Hampel's filter, 1974): a machine
is disturbed now and then, and two runs of which one was are no level.

*The noise.* It is taken from successive differences (von Neumann 1941), s^2 = sum (x_t+1 - x_t)^2 / (2 m),
over the m pairs that the arc's ends do not part, so the step itself is not in it, and an older step is in it
once. With S pieces it has 2 m^2 / (3 m - S) degrees of freedom (the moments of s^2 for independent normal
x). Few runs tell a variance badly, so each is drawn towards the one that all cases have in common (Smyth
2004, as in `mtbench.compare.test`).

*The test.* That of a comparison: the hypothesis is |step| <= log(1 + effect) / 2 and not 0 (McCarthy and
Smyth 2009), and the step itself has to be beyond the whole effect. p is multiplied by the number of arcs
that were tried (Bonferroni), and the cases are held together by the false-discovery rate (Benjamini and
Hochberg 1995), with all cases counted however few are still searched.

*In the end* every two neighbouring levels are held against each other by the same test, and joined, the
least sure first, where they do not differ.

A level has two runs or more: one run that stands alone is a run that was disturbed, or the first of a new
level, and nobody can tell which yet.

Sources: A. B. Olshen, E. S. Venkatraman, R. Lucito, M. Wigler, Circular binary segmentation for the analysis
of array-based DNA copy number data, Biostatistics 5 (2004) 557. L. Y. Vostrikova, Detecting "disorder" in
multidimensional random processes, Soviet Math. Doklady 24 (1981) 55. J. von Neumann, Distribution of the
ratio of the mean square successive difference to the variance, Ann. Math. Stat. 12 (1941) 367. F. R. Hampel,
The influence curve and its role in robust estimation, J. Am. Stat. Assoc. 69 (1974) 383. The others are in
`mtbench.compare.test`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mtbench.compare.test import EDGE, adjusted, common_variance
from mtbench.compare.verdicts import FALSE_DISCOVERY_RATE

__all__ = ["LEAST_RUNS", "Step", "find_changes"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LEAST_LEVEL = 2
"""Runs of a level at the least."""
LEAST_RUNS = 2 * LEAST_LEVEL
"""Runs under which nothing is tested."""
SPIKE = 3.0
"""Times the noise that one run may be off both its neighbours."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """A change of the level."""

    at: int
    """The first run of the new level, counted from 0."""
    log_before: float
    """The mean of x over the level before."""
    log_after: float
    reach: float
    """Half the 95% interval of the difference. The place was chosen by the same runs, so it is a little too
    short."""
    p: float
    """Of these two levels, at a place that was given: the search is paid for before."""

    @property
    def log_ratio(self) -> float:
        """The step: above 0 is slower."""
        return self.log_after - self.log_before


@dataclass(frozen=True)
class _Noise:
    """What all cases know of the variance together."""

    common: float
    freedom: float

    def moderated(self, variance: Floats, freedom: Floats) -> tuple[Floats, Floats]:
        """The variances drawn towards the common one, and their degrees of freedom."""
        if math.isinf(self.freedom):
            return np.full_like(variance, self.common), np.full_like(variance, 1e6)
        total = self.freedom + freedom
        return np.maximum((self.freedom * self.common + freedom * variance) / total, 1e-12), total


def find_changes(logs: Sequence[Floats], *, effect_log: float) -> list[list[Step]]:
    """The steps of each case, in order.

    Args:
        logs: x of each case, a run an entry, in order, without gaps; cases may have different runs.
        effect_log: log(1 + the smallest ratio that matters), above 0.
    """
    long = [at for at, x in enumerate(logs) if len(x) >= LEAST_RUNS]
    typical = float(np.median([_typical_noise(logs[at]) for at in long])) if long else 0.0
    logs = [_without_spikes(x, max(typical, _typical_noise(x))) if len(x) >= LEAST_RUNS else x for x in logs]
    cuts: dict[int, list[int]] = {at: [] for at in long}
    # The steps that the first search finds are no noise: the second one knows the noise without them.
    for _ in range(2 if long else 0):
        noise = _shared_noise([logs[at] for at in long], [cuts[at] for at in long])
        cuts = _search({at: logs[at] for at in long}, noise, effect_log)
    return [_joined(logs[at], cuts[at], noise, effect_log) if at in cuts else [] for at in range(len(logs))]


def _typical_noise(x: Floats) -> float:
    """The standard deviation by the median successive difference, which few spikes and steps do not touch."""
    return float(np.median(np.abs(np.diff(x)))) / (0.6745 * math.sqrt(2))


def _without_spikes(x: Floats, noise: float) -> Floats:
    """Every run within `SPIKE` times the noise of what its two neighbours span, at an end its nearest two.

    >>> _without_spikes(np.array([0.0, 0, 9, 0, 0, 5, 5]), 1.0).tolist()
    [0.0, 0.0, 3.0, 0.0, 0.0, 5.0, 5.0]
    """
    around = np.stack([np.concatenate([x[2:3], x[:-1]]), np.concatenate([x[1:], x[-3:-2]])])
    found: Floats = np.clip(x, around.min(axis=0) - SPIKE * noise, around.max(axis=0) + SPIKE * noise)
    return found


def _shared_noise(logs: Sequence[Floats], cuts: Sequence[Sequence[int]]) -> _Noise:
    pieces = [_within(x, [0, *cut, len(x)]) for x, cut in zip(logs, cuts, strict=True)]
    told = [(s2, freedom) for s2, freedom in pieces if freedom > 0]
    variances, freedoms = (np.array(column) for column in zip(*told, strict=True))
    _, common, freedom = common_variance(variances, freedoms)
    return _Noise(common, min(freedom, float(freedoms.sum())))


def _within(x: Floats, bounds: Sequence[int]) -> tuple[float, float]:
    """The variance by the successive differences inside the pieces, and its degrees of freedom."""
    parts = [x[a:b] for a, b in pairwise(bounds) if b - a >= LEAST_LEVEL]
    pairs = sum(len(part) - 1 for part in parts)
    if not pairs:
        return 0.0, 0.0
    squares = sum(float((np.diff(part) ** 2).sum()) for part in parts)
    return squares / (2 * pairs), _freedom(pairs, len(parts))


def _freedom(pairs: int, pieces: int) -> float:
    """Of a variance by successive differences: twice its squared mean over its variance.

    >>> _freedom(1, 1), round(_freedom(19, 1), 1)
    (1.0, 12.9)
    """
    return 2 * pairs**2 / (3 * pairs - pieces)


def _search(logs: dict[int, Floats], noise: _Noise, effect_log: float) -> dict[int, list[int]]:
    """Where each case is cut."""
    cuts: dict[int, list[int]] = {at: [] for at in logs}
    open_pieces = [(at, 0, len(x)) for at, x in logs.items()]
    while open_pieces:
        found = [_surest_arc(logs[at][a:b], noise, effect_log) for at, a, b in open_pieces]
        p = np.ones(max(len(logs), len(open_pieces)))
        p[: len(found)] = [arc.p for arc in found]
        q = adjusted(p)
        following = []
        for (at, a, b), arc, significance in zip(open_pieces, found, q, strict=False):
            if significance > FALSE_DISCOVERY_RATE or abs(arc.step) <= effect_log:
                continue
            bounds = sorted({a, a + arc.start, a + arc.end, b})
            cuts[at] += bounds[1:-1]
            following += [(at, x, y) for x, y in pairwise(bounds) if y - x >= LEAST_RUNS]
        open_pieces = following
    return {at: sorted(cut) for at, cut in cuts.items()}


@dataclass(frozen=True)
class _Arc:
    start: int
    end: int
    step: float
    p: float


def _surest_arc(x: Floats, noise: _Noise, effect_log: float) -> _Arc:
    """The arc that differs most surely, with p for the number of arcs."""
    start, end = _arcs(len(x))
    n, inside = len(x), (end - start).astype(np.float64)
    sums = np.concatenate([[0.0], np.cumsum(x)])
    within = sums[end] - sums[start]
    step = within / inside - (sums[-1] - within) / (n - inside)
    squares = np.concatenate([[0.0], np.diff(x) ** 2, [0.0]])  # [t]: of the runs t - 1 and t
    pieces = 1.0 + (start > 0) + (end < n)
    pairs = n - pieces
    variance = np.maximum(squares.sum() - squares[start] - squares[end], 0.0) / (2 * pairs)
    freedom = 2 * pairs**2 / (3 * pairs - pieces)
    p = _p(step, 1 / inside + 1 / (n - inside), variance, freedom, noise, effect_log)
    best = int(np.lexsort((-np.abs(step), p))[0])
    return _Arc(int(start[best]), int(end[best]), float(step[best]), min(1.0, float(p[best]) * len(p)))


def _arcs(n: int) -> tuple[Ints, Ints]:
    """All arcs of so many runs, start and end, that leave no piece of one run; of the two ways to say a
    step, the one that begins at 0.

    >>> [pair.tolist() for pair in _arcs(6)]
    [[0, 0, 0, 2], [2, 3, 4, 4]]
    """
    start, end = np.triu_indices(n + 1, k=LEAST_LEVEL)
    left, right = start, n - end
    kept = ((left == 0) | (left >= LEAST_LEVEL)) & (right >= LEAST_LEVEL)
    return start[kept], end[kept]


def _p(
    step: Floats, scale: Floats, variance: Floats, freedom: Floats, noise: _Noise, effect_log: float
) -> Floats:
    """P of TREAT, its equation (2), with a moderated variance; `scale` is 1 / n + 1 / m of the two means."""
    from scipy import special

    moderated, total = noise.moderated(variance, freedom)
    error = np.sqrt(moderated * scale)
    distance, edge = np.abs(step), EDGE * effect_log
    found: Floats = special.stdtr(total, -(distance - edge) / error) + special.stdtr(
        total, -(distance + edge) / error
    )
    return np.minimum(1.0, found)


def _joined(x: Floats, cuts: list[int], noise: _Noise, effect_log: float) -> list[Step]:
    """The steps between neighbouring levels, without those that are none."""
    while True:
        steps = _steps(x, [0, *cuts, len(x)], noise, effect_log)
        weak = [s for s in steps if s.p > FALSE_DISCOVERY_RATE or abs(s.log_ratio) <= effect_log]
        if not weak:
            return steps
        least = max(weak, key=lambda s: (s.p, -abs(s.log_ratio)))
        cuts = [cut for cut in cuts if cut != least.at]


def _steps(x: Floats, bounds: list[int], noise: _Noise, effect_log: float) -> list[Step]:
    from scipy import special

    own, own_freedom = _within(x, bounds)
    variance, freedom = np.array([own]), np.array([own_freedom])
    moderated, total = noise.moderated(variance, freedom)
    quantile = float(special.stdtrit(total[0], 0.975))
    found = []
    for a, at, b in zip(bounds, bounds[1:], bounds[2:], strict=False):
        before, after = float(x[a:at].mean()), float(x[at:b].mean())
        scale = np.array([1 / (at - a) + 1 / (b - at)])
        p = _p(np.array([after - before]), scale, variance, freedom, noise, effect_log)
        reach = quantile * math.sqrt(float(moderated[0]) * float(scale[0]))
        found.append(Step(at=at, log_before=before, log_after=after, reach=reach, p=float(p[0])))
    return found
