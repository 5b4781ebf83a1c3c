"""Figures, drawn by matplotlib's object API: no pyplot, no global figure, so that any process may do it.

matplotlib is imported when the first figure is drawn.
"""

from __future__ import annotations

import io
import math
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .axes import legend, limits, measured_ticks, scale
from .figures import Figure, Panel, Point
from .format import clean
from .style import GRID, INK, MUTED, PAPER, Dash, Look

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

__all__ = ["draw"]

_SETTINGS: Mapping[str, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": MUTED,
    "axes.facecolor": PAPER,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.labelsize": 9,
    "axes.linewidth": 0.7,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10,
    "axes.titlecolor": INK,
    "axes.titleweight": "bold",
    "figure.facecolor": PAPER,
    "font.size": 9,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
    "svg.fonttype": "none",  # text stays text: small, selectable, read aloud
    "svg.hashsalt": "mtbench",  # the same run gives the same file
    "text.color": INK,
    "text.parse_math": False,  # a backend's name may hold a dollar sign
    "xtick.color": MUTED,
    "xtick.labelcolor": INK,
    "xtick.labelsize": 8.5,
    "ytick.color": MUTED,
    "ytick.labelcolor": INK,
    "ytick.labelsize": 8.5,
}
COLUMNS = 3


def draw(figure: Figure, looks: Mapping[str, Look], dashes: Mapping[str, Dash]) -> tuple[str, bytes]:
    """The SVG text and the PNG bytes of a figure."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from PIL import Image

    with warnings.catch_warnings(), mpl.rc_context():
        # A name in a script that the font lacks is still drawn, as boxes.
        warnings.filterwarnings("ignore", message="Glyph", category=UserWarning)
        mpl.rcdefaults()
        settings: Any = mpl.rcParams  # matplotlib's stubs list its keys, which differ from version to version
        settings.update(_SETTINGS)
        canvas = _compose(figure, looks, dashes)
        svg, png = io.StringIO(), io.BytesIO()
        # savefig would lay out the figure again and draw it twice for each format, in twice the time.
        agg: Any = FigureCanvasAgg(canvas)
        if (layout := canvas.get_layout_engine()) is not None:
            layout.execute(canvas)
        canvas.set_layout_engine("none")
        agg.draw()
        pixels = Image.fromarray(np.asarray(agg.buffer_rgba())).convert("RGB")
        # So few colours are in a figure that 64 show it alike, in a quarter of the bytes.
        pixels.quantize(64, dither=Image.Dither.NONE).save(png, "PNG", dpi=(canvas.dpi, canvas.dpi))
        about = {"Date": None, "Creator": "mtbench", "Title": clean(figure.title)}
        vector: Any = FigureCanvasSVG(canvas)
        vector.print_svg(svg, metadata=about)
    return svg.getvalue(), png.getvalue()


def _compose(figure: Figure, looks: Mapping[str, Look], dashes: Mapping[str, Dash]) -> Canvas:
    from matplotlib.figure import Figure as Canvas

    columns = min(COLUMNS, len(figure.panels))
    rows = math.ceil(len(figure.panels) / columns)
    lines = max(len(panel.series) for panel in figure.panels)
    height = 3.1 if figure.axis else max(1.6, 0.24 * lines + 0.9)
    canvas = Canvas(figsize=(9, rows * height + 1.0), dpi=150, layout="constrained")
    canvas.suptitle(_wrapped(figure.title), fontsize=9, color=MUTED, x=0.01, ha="left")
    grid = canvas.subplots(
        rows, columns, sharex=True, sharey=bool(figure.axis), squeeze=False, gridspec_kw={"wspace": 0.03}
    )
    axes = [ax for line in grid for ax in line]
    for ax in axes[len(figure.panels) :]:
        ax.remove()
    for ax, panel in zip(axes, figure.panels, strict=False):
        ax.set_title(clean(panel.title, 40), loc="left")
        if figure.axis:
            _lines(ax, figure, panel, looks, dashes)
        else:
            _dots(ax, panel, looks)
    drawn = axes[: len(figure.panels)]
    if figure.axis:
        scale(drawn, figure, columns)
        legend(canvas, figure, looks, dashes)
    else:
        measured_ticks(drawn[0].xaxis, *limits(figure))
        for ax in drawn:
            ax.set_xlabel(figure.unit)
    return canvas


def _wrapped(title: str) -> str:
    return "\n".join(textwrap.wrap(clean(title), 130))


def _errors(points: Sequence[Point]) -> tuple[list[float], list[float]]:
    return [p.y - p.low for p in points], [p.high - p.y for p in points]


def _lines(
    ax: Axes, figure: Figure, panel: Panel, looks: Mapping[str, Look], dashes: Mapping[str, Dash]
) -> None:
    for series in panel.series:
        look = looks[series.backend]
        right = [p for p in series.points if not p.wrong]
        xs, ys = [p.x for p in right], [p.y for p in right]
        style: dict[str, Any] = {"color": look.color, "marker": look.marker, "markersize": 4.2}
        style |= {"linestyle": dashes[series.form], "markeredgecolor": PAPER, "markeredgewidth": 0.5}
        if figure.quantity == "latency":
            ax.errorbar(xs, ys, yerr=_errors(right), capsize=2, elinewidth=0.9, **style)
        elif right:
            ax.plot(xs, ys, **style)
        for point in series.points:
            if point.wrong:
                ax.plot([point.x], [point.y], **style | {"linestyle": ""})
                ax.plot([point.x], [point.y], "x", color=INK, markersize=9, zorder=5)
    if figure.quantity == "agreement":
        lines = {tuple((p.x, p.tolerance) for p in s.points) for s in panel.series}
        for tolerances in sorted(lines, key=str):
            told = [(x, t) for x, t in tolerances if t is not None]
            ax.plot([x for x, _ in told], [t for _, t in told], color=MUTED, linewidth=1.1, zorder=1)


def _dots(ax: Axes, panel: Panel, looks: Mapping[str, Look]) -> None:
    """One size: each backend and form on a line of its own, the smallest on top."""
    ordered = sorted(panel.series, key=lambda s: (-s.points[0].y, s.backend, s.form))
    for at, series in enumerate(ordered):
        point, look = series.points[0], looks[series.backend]
        style: dict[str, Any] = {"color": look.color, "marker": look.marker, "markersize": 6}
        ax.errorbar([point.y], [at], xerr=_errors(series.points), capsize=2, **style)
        if point.wrong:
            ax.plot([point.y], [at], "x", color=INK, markersize=10, zorder=5)
        if point.tolerance is not None:
            ax.plot([point.tolerance], [at], "|", color=MUTED, markersize=12)
    ax.set_yticks(range(len(ordered)), [clean(f"{s.backend}/{s.form}", 30) for s in ordered])
    ax.set_ylim(-0.6, len(ordered) - 0.4)
    ax.set_xscale("log")
    ax.grid(visible=False, axis="y")
