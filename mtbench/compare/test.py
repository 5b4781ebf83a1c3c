"""The test: by how much the times of one side's launches differ from the other's, and how surely.

Everything is computed on x = log(the median of a launch), so that a difference is a ratio. Four things stand
between a plain t-test and a verdict; `docs/comparing.md` has the equations and the simulations behind each.

*Few launches.* Eight launches tell a variance badly. The variances of all cases together tell how variances
are spread, and each case's own is drawn towards the common one (Smyth 2004: `squeezed_variances`).

*Launches that were disturbed.* A neighbour takes the machine now and then, on a shared one for every fourth
launch, and a launch only ever gets slower by it. So the slowest launches of a side are trimmed, two of five,
and the variance is that of Yuen's test (1974: `trimmed`), which trims at both ends.

*What differs between runs and not between the launches of one.* It is nowhere in the launches of a case.
It shows in how far the cases of a backend scatter around their middle, if most of them did not change: all
standard errors are widened until the middle case scatters as it should (`widening`, the scale of Efron's
empirical null), and a shift that most backends share is the machine's drift (`shared_shift`).

*The smallest effect that matters.* With many launches any machine differs from itself by a proven half
percent. The hypothesis tested is ``|log ratio|`` <= log(1 + effect) / 2 and not 0 (McCarthy and Smyth 2009,
TREAT); the verdict asks the estimate itself to be beyond the whole effect.

The many cases are held together by the false-discovery rate (Benjamini and Hochberg 1995).

Sources: G. K. Smyth, Linear models and empirical Bayes methods for assessing differential expression in
microarray experiments, Stat. Appl. Genet. Mol. Biol. 3 (2004) 3. K. K. Yuen, The two-sample trimmed t for
unequal population variances, Biometrika 61 (1974) 165. D. J. McCarthy, G. K. Smyth, Testing significance
relative to a fold-change threshold is a TREAT, Bioinformatics 25 (2009) 765. B. Efron, Large-scale
simultaneous hypothesis testing: the choice of a null hypothesis, J. Am. Stat. Assoc. 99 (2004) 96.
Y. Benjamini, Y. Hochberg, Controlling the false discovery rate, J. R. Stat. Soc. B 57 (1995) 289.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "EDGE",
    "LEAST_LAUNCHES",
    "LEAST_VOICES",
    "TRIM",
    "Tested",
    "adjusted",
    "common_variance",
    "moderated_test",
    "shared_shift",
    "squeezed_variances",
    "trimmed",
    "widening",
]

Floats = NDArray[np.float64]

LEAST_LAUNCHES = 3
"""Launches a side under which nothing is tested: two tell no spread."""
TRIM = 0.4
"""Part of the launches left out, the slowest, rounded down: one of three, three of eight."""
EDGE = 0.5
"""Part of the smallest effect (in logarithms) that the hypothesis covers: what is less was not changed."""
LEAST_VOICES = 5
"""Cases a backend needs for its middle and its scatter to count for the machine."""
WIDEST_ALONE = 2.0
"""The most that standard errors are widened where there is one backend: nothing else tells whether its cases
scatter for the machine or for what was changed."""
SMALLEST_VARIANCE = 1e-12
"""Of a log time: a millionth, below what any clock tells. Keeps equal medians from a variance of zero."""


@dataclass(frozen=True, kw_only=True)
class Tested:
    """What came of the test, an entry a case."""

    log_ratio: Floats
    """log(B / A) of the trimmed means of log medians, as measured: the drift is in it."""
    standard_error: Floats
    """Of log_ratio, widened."""
    degrees_of_freedom: Floats
    p: Floats
    """That a ratio at the edge of the hypothesis would give one as far out; the drift taken away."""
    q: Floats
    """p adjusted by Benjamini and Hochberg."""
    drift: float
    """log(B / A) that most backends share: the machine's. 0 where there is no second backend to tell."""
    widened: float
    """What the standard errors within runs were multiplied by for there being two runs; at least 1."""
    prior_degrees_of_freedom: float
    """How much the cases' variances have in common: d_0 of Smyth."""


def trimmed(logs: Floats) -> tuple[float, float, int]:
    """The mean of the fastest launches of a side, its winsorized sum of squares and how many they are, h.

    The variance of the mean is the sum of squares over h (h - 1), with h - 1 degrees of freedom (Yuen).
    """
    ordered = np.sort(logs)
    kept = ordered[: len(ordered) - int(TRIM * len(ordered) + 1e-9)]
    winsorized = np.minimum(ordered, kept[-1])
    return float(kept.mean()), float(((winsorized - winsorized.mean()) ** 2).sum()), len(kept)


def squeezed_variances(variances: Floats, freedom: Floats) -> tuple[Floats, float]:
    """Each variance drawn towards the common one, and the degrees of freedom d_0 that the common one adds.

    The posterior is (d_0 s_0^2 + d s^2) / (d_0 + d), equation (1) of Smyth 2004.
    """
    s2, common, d0 = common_variance(variances, freedom)
    if math.isinf(d0):
        return np.full_like(s2, common), d0
    return (d0 * common + freedom * s2) / (d0 + freedom), d0


def common_variance(variances: Floats, freedom: Floats) -> tuple[Floats, float, float]:
    """The variances, none of them 0; the one that they have in common, s_0^2; and its degrees of freedom d_0.

    Smyth 2004, section 6.2: with z = log s^2 and e = z - digamma(d / 2) + log(d / 2), d_0 solves
    trigamma(d_0 / 2) = var(e) - mean(trigamma(d / 2)), and s_0^2 is
    exp(mean(e) + digamma(d_0 / 2) - log(d_0 / 2)). Where the variances are no more spread than chance makes
    them d_0 is infinite; where there is one alone it is 0.
    """
    from scipy import special

    floor = max(SMALLEST_VARIANCE, 1e-5 * float(np.median(variances)))
    s2 = np.maximum(variances, floor)
    if len(s2) < 2:
        return s2, float(s2[0]), 0.0
    e = np.log(s2) - special.digamma(freedom / 2) + np.log(freedom / 2)
    spread = float(e.var(ddof=1) - special.polygamma(1, freedom / 2).mean())
    if spread <= 0:
        return s2, math.exp(float(e.mean())), math.inf
    d0 = 2 * _trigamma_inverse(spread)
    return s2, math.exp(float(e.mean() + special.digamma(d0 / 2) - math.log(d0 / 2))), d0


def _trigamma_inverse(x: float) -> float:
    """The y with trigamma(y) = x: Newton's steps on 1 / trigamma, which is nearly linear (Smyth 2004,
    appendix)."""
    from scipy import special

    if x > 1e7:
        return 1 / math.sqrt(x)
    if x < 1e-6:
        return 1 / x
    y = 0.5 + 1 / x
    for _ in range(50):
        trigamma = float(special.polygamma(1, y))
        step = trigamma * (1 - trigamma / x) / float(special.polygamma(2, y))
        y += step
        if -step / y < 1e-8:
            break
    return y


def adjusted(p: Floats) -> Floats:
    """The step-up of Benjamini and Hochberg: significant at a false-discovery rate r where this is at most r.

    >>> adjusted(np.array([0.01, 0.04, 0.03, 0.5])).round(4).tolist()
    [0.04, 0.0533, 0.0533, 0.5]
    """
    count = len(p)
    order = np.argsort(p)[::-1]
    ranks = np.arange(count, 0, -1)
    q = np.empty(count)
    q[order] = np.minimum(1.0, np.minimum.accumulate(p[order] * (count / ranks)))
    return q


def shared_shift(middles: Sequence[float]) -> float:
    """The shift that most backends share: the largest such that more than half of them, and two at the least,
    shifted by it or further to the same side. A change of one backend is none; nor is anything where
    there is one backend.

    >>> shared_shift([0.02, 0.03, 0.10]), shared_shift([0.10, 0.0, -0.01]), shared_shift([0.10])
    (0.03, 0.0, 0.0)
    """
    if len(middles) < 2:
        return 0.0
    ordered = sorted(middles)
    least = len(ordered) // 2 + 1
    upward, downward = ordered[-least], ordered[least - 1]
    return max(0.0, upward) + min(0.0, downward)


def widening(residuals: Floats, errors: Floats, freedom: Floats) -> float:
    """What the standard errors have to be multiplied by, for the middle residual to be as large as it should.

    Half the residuals of a t distribution are within its upper quartile. Only the middle one has to fit, so
    that a minority of cases which changed does not count. At least 1.
    """
    from scipy import special

    return max(1.0, float(np.median(np.abs(residuals) / (special.stdtrit(freedom, 0.75) * errors))))


def moderated_test(
    a_ms: Sequence[Sequence[float]],
    b_ms: Sequence[Sequence[float]],
    backends: Sequence[str],
    *,
    effect_log: float,
) -> Tested:
    """Test every case: medians of its launches in A and in B, and the backend it belongs to.

    Args:
        a_ms: the launches' medians of each case, ms, `LEAST_LAUNCHES` or more of them.
        b_ms: the same of the other side.
        backends: a name a case; the empty name is nobody's.
        effect_log: log(1 + the smallest ratio that matters), at least 0.
    """
    from scipy import special

    sides = [[trimmed(np.log(np.asarray(case, np.float64))) for case in side] for side in (a_ms, b_ms)]
    (mean_a, squares_a, left_a), (mean_b, squares_b, left_b) = (
        tuple(np.array(column) for column in zip(*side, strict=True)) for side in sides
    )
    log_ratio = mean_b - mean_a
    freedom = (left_a + left_b - 2).astype(np.float64)
    variances, d0 = squeezed_variances((squares_a + squares_b) / freedom, freedom)
    # No case knows more of its variance than all of them together do.
    total = np.minimum(freedom + d0, freedom.sum())
    within = np.sqrt(variances * (1 / left_a + 1 / left_b))

    names = np.array(backends)
    voices = [names == name for name in dict.fromkeys(backends) if (names == name).sum() >= LEAST_VOICES]
    middles = [float(np.median(log_ratio[own])) for own in voices]
    drift = shared_shift(middles)
    wider = sorted(
        widening(log_ratio[own] - middle, within[own], total[own])
        for own, middle in zip(voices, middles, strict=True)
    )
    # The lower middle one: a backend whose cases all changed, each by another part, does not count.
    widened = wider[(len(wider) - 1) // 2] if wider else 1.0
    if len(wider) == 1:
        widened = min(widened, WIDEST_ALONE)
    error = widened * within

    distance, edge = np.abs(log_ratio - drift), EDGE * effect_log
    # TREAT, equation (2): both tails, at the edge that is nearer.
    p = np.minimum(
        1.0,
        special.stdtr(total, -(distance - edge) / error) + special.stdtr(total, -(distance + edge) / error),
    )
    return Tested(
        log_ratio=log_ratio,
        standard_error=error,
        degrees_of_freedom=total,
        p=p,
        q=adjusted(p),
        drift=drift,
        widened=widened,
        prior_degrees_of_freedom=d0,
    )
