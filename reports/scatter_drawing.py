"""Figures in which both axes are measured, drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .axes import limits, logarithmic, stacked, with_room
from .figures import Figure, Panel
from .sheets import Sheet
from .style import MUTED, PAPER, Dash, Look

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["scatter_panel", "scatter_scale"]


def scatter_panel(
    ax: Axes,
    figure: Figure,
    panel: Panel,
    looks: Mapping[str, Look],
    dashes: Mapping[str, Dash],
    sheet: Sheet,
) -> None:
    """A line a series through its points, and what bounds them."""
    for series in panel.series:
        look, points = looks[series.backend], series.points
        style: dict[str, Any] = {"color": look.color, "marker": look.marker, "markersize": sheet.marker_size}
        style |= {"linestyle": dashes[series.form], "markeredgecolor": PAPER, "markeredgewidth": 0.5}
        ax.plot([p.x for p in points], [p.y for p in points], linewidth=0.9, **style)
    tolerances = [p.tolerance for s in panel.series for p in s.points if p.tolerance is not None]
    if figure.quantity == "speed" and tolerances:
        for tolerance in {min(tolerances), max(tolerances)}:
            ax.axhline(tolerance, color=MUTED, linewidth=1.1, zorder=1)


def scatter_scale(drawn: Sequence[Axes], figure: Figure, columns: int) -> None:
    """Give the panels their common axes, logarithmic both ways, and the ceilings of a roofline."""
    xs = [p.x for p in figure.points]
    roof = figure.roof
    left, right = with_room([*xs, *([roof.product / roof.copy] if roof else [])])
    low, high = limits(figure)
    logarithmic(drawn[0], "x", left, right)
    logarithmic(drawn[0], "y", low, high)
    for number, ax in enumerate(drawn):
        if number + columns >= len(drawn):
            ax.set_xlabel(figure.x_unit)
            ax.tick_params(axis="x", labelbottom=True)
        if number % columns == 0:
            ax.set_ylabel("" if stacked(columns, len(drawn)) else figure.unit)
        else:
            ax.tick_params(axis="y", length=0)
        if roof:
            ridge = roof.product / roof.copy
            ax.plot([left, ridge], [left * roof.copy, roof.product], color=MUTED, linewidth=1.4, zorder=1)
            ax.plot([ridge, right], [roof.product] * 2, color=MUTED, linewidth=1.4, linestyle="--", zorder=1)
