"""The figures of a training run as data: curves over steps and seconds, and dots of what stands at the
end."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mtbench.training.metric import Metric
from mtbench.training.published import Quantity
from mtbench.training.results import EpochRow, Trained, TrainingRun
from mtbench.training.summary import Estimate, estimate, of_variant, over_held_out

__all__ = [
    "Curve",
    "CurvePoint",
    "Curves",
    "Dot",
    "DotPanel",
    "Dots",
    "curves",
    "dots",
    "mean_metric",
]


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """A moment of a variant's training, over the seeds that got there."""

    x: float
    y: float
    """The geometric mean over seeds."""
    low: float
    high: float
    """The lowest and the highest seed."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One variant in one panel."""

    variant: str
    points: tuple[CurvePoint, ...]


@dataclass(frozen=True, kw_only=True)
class Curves:
    """Training loss and held-out loss, a panel each."""

    name: str
    title: str
    x_label: str
    caption: str
    panels: tuple[tuple[str, tuple[Curve, ...]], ...]


def curves(run: TrainingRun, axis: str) -> Curves | None:
    """Against ``steps`` or ``seconds``; None where no training has an epoch."""
    panels = []
    for title, loss in (("training loss", _training_loss), ("held-out loss", _held_out_loss)):
        found = tuple(
            Curve(variant=variant, points=points)
            for variant in run.variants
            if (points := tuple(_points(run.of(variant), axis, loss)))
        )
        if found:
            panels.append((title, found))
    if not panels:
        return None
    seeds = len({trained.job.seed for trained in run})
    over = "steps" if axis == "steps" else "seconds of training"
    if seeds == 1:
        lines, mean = "Lines are of one seed.", ""
    else:
        fewer = "" if all(trained.finished for trained in run) else ", or those of them that got there"
        bands = "bands reach from the lowest to the highest"
        lines, mean = f"Lines are geometric means over {seeds} seeds{fewer}, {bands}.", ", a mean over seeds"
    return Curves(
        name=f"loss-{axis}",
        title=f"Loss against {over}",
        x_label="steps" if axis == "steps" else "seconds",
        caption=(
            "Training loss is the mean over an epoch's steps, with dropout; held-out loss is without. "
            + lines
            + ("" if axis == "steps" else f" Seconds are those of training steps alone{mean}.")
        ),
        panels=tuple(panels),
    )


def _training_loss(row: EpochRow) -> float | None:
    return row.mean_loss


def _held_out_loss(row: EpochRow) -> float | None:
    return row.held_out_loss


def _points(
    trained: Sequence[Trained], axis: str, loss: Callable[[EpochRow], float | None]
) -> list[CurvePoint]:
    by_epoch: dict[int, list[tuple[float, float]]] = {}
    for one in trained:
        seconds = 0.0
        for row in one.epochs:
            seconds += row.total_s
            y = loss(row)
            if y is not None and math.isfinite(y) and y > 0:
                steps = (row.epoch + 1) * one.job.schedule.iterations
                by_epoch.setdefault(row.epoch, []).append((steps if axis == "steps" else seconds, y))
    points = []
    for epoch in sorted(by_epoch):
        xs, ys = zip(*by_epoch[epoch], strict=True)
        mean = math.exp(sum(map(math.log, ys)) / len(ys))
        points.append(CurvePoint(x=sum(xs) / len(xs), y=mean, low=min(ys), high=max(ys)))
    return points


@dataclass(frozen=True, kw_only=True)
class Dot:
    """One variant at the end: a value a seed, and their mean."""

    variant: str
    values: tuple[float, ...]
    mean: Estimate | None


@dataclass(frozen=True, kw_only=True)
class DotPanel:
    """A quantity of all variants."""

    title: str
    unit: str
    log: bool
    dots: tuple[Dot, ...]


@dataclass(frozen=True, kw_only=True)
class Dots:
    """Quantities beside each other."""

    name: str
    title: str
    caption: str
    panels: tuple[DotPanel, ...]


def dots(run: TrainingRun, metric: Metric, scores: Sequence[Metric] = ()) -> list[Dots]:
    """Quality, then what else was found at the end, and then speed and memory; without what no training
    has."""
    unit = f"{metric.unit}, {metric.better} is better"
    quality = (
        _panel(run, "held-out loss", "loss, nats", lambda t: t.loss, log=True),
        _panel(run, f"held-out {metric.name}", unit, lambda t: t.metric, metric=metric),
    )
    found_at_end = tuple(
        _panel(
            run,
            score.name,
            f"{score.unit}, {score.better} is better",
            functools.partial(_score, score.name),
            metric=score,
            quantity=score.name,
        )
        for score in scores
    )
    cost = (
        _panel(run, "throughput", "thousand tokens a second", _thousand_tokens),
        _panel(run, "peak memory", "MiB", _mebibytes),
    )
    found = []
    for name, title, caption, panels in (
        (
            "final-quality",
            "Quality at the end",
            "Small marks are seeds, large ones means with 95% intervals, of one seed over its held-out data.",
            quality,
        ),
        (
            "scores",
            "On the test set",
            "Small marks are seeds, large ones their mean with its 95% interval by Student's t.",
            found_at_end,
        ),
        (
            "cost",
            "Throughput and memory",
            "Throughput by the median epoch but the first; memory is the peak of the training process.",
            cost,
        ),
    ):
        there = tuple(panel for panel in panels if panel.dots)
        if there:
            found.append(Dots(name=name, title=title, caption=caption, panels=there))
    return found


def _score(name: str, trained: Trained) -> float | None:
    return trained.value(name)


def _thousand_tokens(trained: Trained) -> float | None:
    return None if trained.tokens_per_s is None else trained.tokens_per_s / 1000


def _mebibytes(trained: Trained) -> float | None:
    return None if trained.peak_memory_bytes is None else trained.peak_memory_bytes / 2**20


def _panel(
    run: TrainingRun,
    title: str,
    unit: str,
    value: Callable[[Trained], float | None],
    *,
    log: bool = False,
    metric: Metric | None = None,
    quantity: Quantity = "metric",
) -> DotPanel:
    """`metric` is given where it is the task's own, whose mean a summary has already."""
    found = []
    for variant in run.variants:
        values = [x for t in run.of(variant) if (x := value(t)) is not None and math.isfinite(x)]
        if log:
            values = [x for x in values if x > 0]
        if values:
            mean = None
            if metric:
                at_end = quantity == "metric"
                mean = (
                    mean_metric(run, variant, metric)
                    if at_end
                    else of_variant(run, variant, quantity, metric)
                )
            mean = mean or estimate(values, "log" if log else "linear")
            found.append(Dot(variant=variant, values=tuple(values), mean=mean))
    return DotPanel(title=title, unit=unit, log=log, dots=tuple(found))


def mean_metric(run: TrainingRun, variant: str, metric: Metric) -> Estimate | None:
    """Over seeds; of one seed over its held-out data, where that has a spread."""
    mean = of_variant(run, variant, "metric", metric)
    if mean is None or mean.low is not None:
        return mean
    return next((found for t in run.of(variant) if (found := over_held_out(t, metric)) is not None), mean)
