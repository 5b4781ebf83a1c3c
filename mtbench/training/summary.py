"""What seeds say together: means with their 95% intervals, and one variant against another."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from mtbench.training.metric import Metric
from mtbench.training.published import Quantity
from mtbench.training.results import Trained, TrainingRun

__all__ = ["CONFIDENCE", "Estimate", "against", "estimate", "of_variant", "over_held_out", "values"]

CONFIDENCE = 0.95
Scale = Literal["linear", "log"]
SCALES: Mapping[Quantity, Scale] = {"loss": "log", "metric": "linear", "seconds_per_epoch": "log"}
"""Losses and times are compared as ratios, so their means are geometric; a metric's is not."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over seeds."""

    value: float
    low: float | None
    """Ends of the 95% interval by Student's t, of that many seeds; None of one seed."""
    high: float | None
    seeds: int


def estimate(found: Sequence[float], scale: Scale) -> Estimate | None:
    """Of one value a seed; None of none, or of one that is not finite, or, on a log scale, not above 0.

    >>> found = estimate([1.0, 2.0, 3.0], "linear")
    >>> found.value, round(found.low, 3), round(found.high, 3), found.seeds
    (2.0, -0.484, 4.484, 3)
    """
    from scipy import special

    if not found or not all(math.isfinite(x) and (scale == "linear" or x > 0) for x in found):
        return None
    turn, back = (math.log, math.exp) if scale == "log" else (float, float)
    inner = [turn(x) for x in found]
    count = len(inner)
    mean = sum(inner) / count
    if count == 1:
        return Estimate(value=back(mean), low=None, high=None, seeds=1)
    spread = math.sqrt(sum((x - mean) ** 2 for x in inner) / (count - 1) / count)
    reach = float(special.stdtrit(count - 1, (1 + CONFIDENCE) / 2)) * spread
    return Estimate(value=back(mean), low=back(mean - reach), high=back(mean + reach), seeds=count)


def values(run: TrainingRun, variant: str, quantity: Quantity) -> dict[int, float]:
    """A variant's quantity by seed, of the trainings that got to their end."""
    found = {t.job.seed: t.value(quantity) for t in run.of(variant) if t.finished}
    return {seed: x for seed, x in found.items() if x is not None}


def of_variant(
    run: TrainingRun, variant: str, quantity: Quantity, metric: Metric | None = None
) -> Estimate | None:
    """A variant's mean over its seeds. The interval of a quantity of which the metric is given ends where its
    values do."""
    found = estimate(list(values(run, variant, quantity).values()), SCALES.get(quantity, "linear"))
    return found if found is None or metric is None else _within(found, metric)


def _within(found: Estimate, metric: Metric) -> Estimate:
    """With the ends of its interval where a value may lie."""
    if found.low is None or found.high is None:
        return found
    return replace(found, low=max(metric.least, found.low), high=min(metric.most, found.high))


def over_held_out(trained: Trained, metric: Metric) -> Estimate | None:
    """The metric of one training with the 95% interval that its held-out data leaves: what other data of the
    kind would give this very model. None where its values' spread is not known. It ends where the metric's
    values do."""
    if not trained.finished or trained.metric is None:
        return None
    last = trained.epochs[-1]
    if last.held_out_metric_error is None:
        return None
    reach = 1.96 * last.held_out_metric_error
    value = trained.metric
    return _within(Estimate(value=value, low=value - reach, high=value + reach, seeds=1), metric)


def against(run: TrainingRun, variant: str, other: str, quantity: Quantity) -> Estimate | None:
    """The ratio of a variant's quantity to another's, paired by seed: two trainings of a seed have the same
    data and begin with the same parameters. None without a seed that both have."""
    ours, theirs = values(run, variant, quantity), values(run, other, quantity)
    both = sorted(set(ours) & set(theirs))
    if any(theirs[seed] == 0 for seed in both):
        return None
    return estimate([ours[seed] / theirs[seed] for seed in both], "log")
