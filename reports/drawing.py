"""Figures, drawn by matplotlib's object API: no pyplot, no global figure, so that any process may do it.

matplotlib is imported when the first figure is drawn.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from .axes import legend, limits, measured_ticks, scale, stacked
from .figures import Figure, Panel, Point
from .format import clean
from .plan import AnyFigure
from .scatter_drawing import scatter_panel, scatter_scale
from .sheets import REPORT, Sheet
from .style import INK, MUTED, PAPER, Dash, Look
from .winner_drawing import draw_winners
from .winners import WinnerMap

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

__all__ = ["FORMATS", "Format", "draw", "rendered"]

Format = Literal["png", "svg", "pdf"]
FORMATS: tuple[Format, ...] = get_args(Format)


def draw(
    figure: AnyFigure,
    looks: Mapping[str, Look],
    dashes: Mapping[str, Dash],
    sheet: Sheet = REPORT,
    formats: Iterable[Format] = ("svg", "png"),
) -> dict[Format, bytes]:
    """The figure as a file of each format."""

    def compose() -> Canvas:
        if isinstance(figure, WinnerMap):
            return draw_winners(figure, looks, sheet)
        return _compose(figure, looks, dashes, sheet)

    return rendered(compose, figure.title, sheet, formats)


def rendered(
    compose: Callable[[], Canvas],
    title: str,
    sheet: Sheet = REPORT,
    formats: Iterable[Format] = ("svg", "png"),
) -> dict[Format, bytes]:
    """What `compose` draws, under the sheet's settings, as a file of each format."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with warnings.catch_warnings(), mpl.rc_context():
        # A name in a script that the font lacks is still drawn, as boxes.
        warnings.filterwarnings("ignore", message="Glyph", category=UserWarning)
        mpl.rcdefaults()
        settings: Any = mpl.rcParams  # matplotlib's stubs list its keys, which differ from version to version
        settings.update(sheet.settings)
        canvas = compose()
        # savefig would lay out the figure again and draw it twice for each format, in twice the time.
        agg: Any = FigureCanvasAgg(canvas)
        if (layout := canvas.get_layout_engine()) is not None:
            layout.execute(canvas)
        canvas.set_layout_engine("none")
        found: dict[Format, bytes] = {}
        # The PNG first: the others set the canvas to 72 dots an inch, and leave it so.
        for name in sorted(set(formats), key=FORMATS.index):
            found[name] = _png(agg, sheet) if name == "png" else _vector(canvas, name, clean(title))
    return found


def _png(agg: Any, sheet: Sheet) -> bytes:
    from PIL import Image

    agg.draw()
    pixels = Image.fromarray(np.asarray(agg.buffer_rgba())).convert("RGB")
    if sheet.colors is not None:
        pixels = pixels.quantize(sheet.colors, dither=Image.Dither.NONE)
    out = io.BytesIO()
    pixels.save(out, "PNG", dpi=(sheet.dpi, sheet.dpi))
    return out.getvalue()


def _vector(canvas: Canvas, name: Format, title: str) -> bytes:
    """SVG or PDF, without the date, so that the same run gives the same file."""
    from matplotlib.backends.backend_pdf import FigureCanvasPdf
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    if name == "svg":
        text = io.StringIO()
        svg: Any = FigureCanvasSVG(canvas)
        svg.print_svg(text, metadata={"Date": None, "Creator": "mtbench", "Title": title})
        return text.getvalue().encode("utf-8", "replace")
    out = io.BytesIO()
    pdf: Any = FigureCanvasPdf(canvas)
    pdf.print_pdf(out, metadata={"CreationDate": None, "Creator": "mtbench", "Title": title})
    return out.getvalue()


def _compose(figure: Figure, looks: Mapping[str, Look], dashes: Mapping[str, Dash], sheet: Sheet) -> Canvas:
    columns = min(sheet.dot_columns if figure.dots else sheet.columns, len(figure.panels))
    rows = math.ceil(len(figure.panels) / columns)
    heights = [sheet.panel_height_in] * rows
    if figure.dots:
        lines = [len(panel.series) for panel in figure.panels]
        most = [max(lines[at : at + columns]) for at in range(0, len(lines), columns)]
        heights = [max(sheet.dot_least_in, sheet.dot_height_in * n + sheet.dot_margin_in) for n in most]
    canvas = sheet.canvas(sum(heights) + sheet.margin_in, figure.title)
    grid = canvas.subplots(
        rows,
        columns,
        sharex=True,
        sharey=not figure.dots,
        squeeze=False,
        gridspec_kw={"wspace": 0.03, "height_ratios": heights},
    )
    axes = [ax for line in grid for ax in line]
    for ax in axes[len(figure.panels) :]:
        ax.remove()
    for ax, panel in zip(axes, figure.panels, strict=False):
        ax.set_title(clean(panel.title, 40), loc="left")
        if figure.dots:
            _dots(ax, panel, looks, sheet)
        elif figure.x_unit:
            scatter_panel(ax, figure, panel, looks, dashes, sheet)
        else:
            _lines(ax, figure, panel, looks, dashes, sheet)
    drawn = axes[: len(figure.panels)]
    if not figure.dots:
        (scatter_scale if figure.x_unit else scale)(drawn, figure, columns)
        if stacked(columns, len(drawn)):
            canvas.supylabel(figure.unit, fontsize=sheet.settings["axes.labelsize"])
        legend(canvas, figure, looks, dashes, sheet)
    else:
        measured_ticks(drawn[0].xaxis, *limits(figure))
        for ax in drawn[-columns:]:
            ax.tick_params(axis="x", labelbottom=True)
        # Below all of them: a panel may be narrower than its label is long.
        canvas.supxlabel(figure.unit, fontsize=sheet.settings["axes.labelsize"])
    return canvas


def _errors(points: Sequence[Point]) -> tuple[list[float], list[float]]:
    return [p.y - p.low for p in points], [p.high - p.y for p in points]


def _lines(
    ax: Axes,
    figure: Figure,
    panel: Panel,
    looks: Mapping[str, Look],
    dashes: Mapping[str, Dash],
    sheet: Sheet,
) -> None:
    for series in panel.series:
        look = looks[series.backend]
        right = [p for p in series.points if not p.wrong]
        xs, ys = [p.x for p in right], [p.y for p in right]
        style: dict[str, Any] = {"color": look.color, "marker": look.marker, "markersize": sheet.marker_size}
        style |= {"linestyle": dashes[series.form], "markeredgecolor": PAPER, "markeredgewidth": 0.5}
        # An area needs two points: a line of one has a bar on paper, too.
        banded = sheet.bands and len(right) > 1
        if figure.quantity == "latency" and not banded:
            ax.errorbar(xs, ys, yerr=_errors(right), capsize=2, elinewidth=0.9, **style)
        elif right:
            ax.plot(xs, ys, **style)
        if figure.quantity == "latency" and banded:
            lows, highs = [p.low for p in right], [p.high for p in right]
            ax.fill_between(xs, lows, highs, color=look.color, alpha=0.25, linewidth=0)
        for point in series.points:
            if point.wrong:
                ax.plot([point.x], [point.y], **style | {"linestyle": ""})
                ax.plot([point.x], [point.y], "x", color=INK, markersize=2.2 * sheet.marker_size, zorder=5)
    if figure.quantity == "agreement":
        lines = {tuple((p.x, p.tolerance) for p in s.points) for s in panel.series}
        for tolerances in sorted(lines, key=str):
            told = [(x, t) for x, t in tolerances if t is not None]
            ax.plot([x for x, _ in told], [t for _, t in told], color=MUTED, linewidth=1.1, zorder=1)


def _dots(ax: Axes, panel: Panel, looks: Mapping[str, Look], sheet: Sheet) -> None:
    """One size: each backend and form on a line of its own, the smallest on top."""
    ordered = sorted(panel.series, key=lambda s: (-s.points[0].y, s.backend, s.form))
    for at, series in enumerate(ordered):
        point, look = series.points[0], looks[series.backend]
        style: dict[str, Any] = {
            "color": look.color,
            "marker": look.marker,
            "markersize": 1.4 * sheet.marker_size,
        }
        ax.errorbar([point.y], [at], xerr=_errors(series.points), capsize=2, **style)
        if point.wrong:
            ax.plot([point.y], [at], "x", color=INK, markersize=2.4 * sheet.marker_size, zorder=5)
        if point.tolerance is not None:
            ax.plot([point.tolerance], [at], "|", color=MUTED, markersize=2.8 * sheet.marker_size)
    ax.set_yticks(range(len(ordered)), [clean(f"{s.backend}/{s.form}", 30) for s in ordered])
    ax.set_ylim(-0.6, len(ordered) - 0.4)
    ax.set_xscale("log")
    ax.grid(visible=False, axis="y")
