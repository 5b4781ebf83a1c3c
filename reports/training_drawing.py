"""The figures of a training run, drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .axes import logarithmic, with_room
from .drawing import Format, rendered
from .format import clean
from .sheets import REPORT, Sheet
from .style import PAPER, Look
from .training_figures import Curves, DotPanel, Dots
from .variants import label, variant_legend

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

__all__ = ["draw_training"]

MOST_MARKERS = 30
"""Points of a line that are marked; of more the line alone is drawn."""
BAND = 0.18
"""Opacity of a band: six of them may lie on one another."""
DOT_ROW_IN = 0.3
"""Height of a variant's line among dots, inches."""


def draw_training(
    figure: Curves | Dots, looks: Mapping[str, Look], sheet: Sheet = REPORT
) -> dict[Format, bytes]:
    """The figure as SVG and PNG."""

    def compose() -> Canvas:
        return _curves(figure, looks, sheet) if isinstance(figure, Curves) else _dots(figure, looks, sheet)

    return rendered(compose, figure.title, sheet)


def _curves(figure: Curves, looks: Mapping[str, Look], sheet: Sheet) -> Canvas:
    canvas = sheet.canvas(sheet.panel_height_in + sheet.margin_in, figure.title)
    grid = canvas.subplots(1, len(figure.panels), sharey=True, squeeze=False)[0]
    values: list[float] = []
    for number, (ax, (title, curves)) in enumerate(zip(grid, figure.panels, strict=True)):
        ax.set_title(title, loc="left")
        for curve in curves:
            color = looks[curve.variant].color
            xs = [p.x for p in curve.points]
            ys, lows, highs = ([getattr(p, part) for p in curve.points] for part in ("y", "low", "high"))
            marked = {"marker": looks[curve.variant].marker, "markersize": sheet.marker_size}
            few = marked if len(xs) <= MOST_MARKERS else {}
            ax.plot(xs, ys, color=color, markeredgecolor=PAPER, markeredgewidth=0.5, **few)
            ax.fill_between(xs, lows, highs, color=color, alpha=BAND, linewidth=0)
            values += [*lows, *highs]
        ax.set_xlabel(figure.x_label)
        ax.set_xlim(left=0)
        if number == 0:
            ax.set_ylabel("loss, nats")
    logarithmic(grid[0], "y", *with_room(values))
    there = [curve.variant for _, curves in figure.panels for curve in curves]
    variant_legend(canvas, there, looks, sheet)
    return canvas


def _dots(figure: Dots, looks: Mapping[str, Look], sheet: Sheet) -> Canvas:
    most = max(len(panel.dots) for panel in figure.panels)
    canvas = sheet.canvas(max(sheet.dot_least_in, DOT_ROW_IN * most + sheet.dot_margin_in), figure.title)
    grid = canvas.subplots(1, len(figure.panels), squeeze=False)[0]
    for number, (ax, panel) in enumerate(zip(grid, figure.panels, strict=True)):
        _dot_panel(ax, panel, looks, sheet, named=number == 0 or not _same_rows(figure))
    return canvas


def _same_rows(figure: Dots) -> bool:
    rows = {tuple(dot.variant for dot in panel.dots) for panel in figure.panels}
    return len(rows) == 1


def _dot_panel(ax: Axes, panel: DotPanel, looks: Mapping[str, Look], sheet: Sheet, *, named: bool) -> None:
    ax.set_title(panel.title, loc="left")
    values: list[float] = []
    for at, dot in enumerate(reversed(panel.dots)):
        look = looks[dot.variant]
        style: dict[str, Any] = {"color": look.color, "markeredgecolor": PAPER, "markeredgewidth": 0.5}
        ax.plot(
            dot.values, [at] * len(dot.values), "o", **style, alpha=0.55, markersize=0.8 * sheet.marker_size
        )
        values += dot.values
        if dot.mean is not None:
            mean = dot.mean
            reach = None
            if mean.low is not None and mean.high is not None:
                low = max(mean.low, 0.0)
                reach = [[mean.value - low], [mean.high - mean.value]]
                values += [low, mean.high]
            style |= {"marker": look.marker, "markersize": 1.5 * sheet.marker_size, "linestyle": ""}
            ax.errorbar([mean.value], [at], xerr=reach, capsize=3, **style)
    names = [clean(label(dot.variant), 44) for dot in reversed(panel.dots)] if named else []
    ax.set_yticks(range(len(panel.dots)), names or [""] * len(panel.dots))
    ax.set_ylim(-0.6, len(panel.dots) - 0.4)
    ax.set_xlabel(panel.unit)
    ax.grid(visible=False, axis="y")
    if panel.log:
        logarithmic(ax, "x", *with_room([x for x in values if x > 0]))
    else:
        span = max(values) - min(values) or abs(max(values)) or 1.0
        ax.set_xlim(max(0.0, min(values) - 0.08 * span), max(values) + 0.08 * span)
        ax.locator_params(axis="x", nbins=5)
        ax.ticklabel_format(axis="x", useOffset=False)
