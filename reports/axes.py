"""The axes and the legend of a figure: scales, ticks with plain numbers, and what each line is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from .figures import Axis, Figure
from .format import clean
from .sheets import Sheet
from .style import GRID, INK, MUTED, Dash, Look

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

__all__ = ["AXIS_UNITS", "legend", "limits", "logarithmic", "measured_ticks", "scale", "stacked", "with_room"]

AXIS_UNITS: Mapping[Axis, str] = {
    "seq_len": "tokens",
    "batch": "sequences",
    "head_dim": "elements",
    "heads": "count",
    "world_size": "devices",
}
"""What a swept size counts."""


def limits(figure: Figure) -> tuple[float, float]:
    """The measured axis, with room at both ends."""
    values = [v for p in figure.points for v in (p.low, p.high, p.tolerance) if v is not None and v > 0]
    return with_room([*values, *([figure.roof.product] if figure.roof else [])])


def with_room(values: Sequence[float]) -> tuple[float, float]:
    """The ends of a log axis that shows these values."""
    low, high = min(values), max(values)
    room = max(1.15, (high / low) ** 0.06)
    return low / room, high * room


def scale(drawn: Sequence[Axes], figure: Figure, columns: int) -> None:
    """Give the panels their common axes, logarithmic both ways, and the guide lines of O(N) and O(N^2)."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    xs = sorted({int(p.x) for p in figure.points})
    low, high = limits(figure)
    first = drawn[0]
    first.set_xscale("log", base=2)
    room = (xs[-1] / xs[0]) ** 0.08
    first.set_xlim(xs[0] / room, xs[-1] * room)
    logarithmic(first, "y", low, high)
    for number, ax in enumerate(drawn):
        ax.xaxis.set_major_locator(FixedLocator(_thinned(xs)))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: _short(x)))
        if number + columns >= len(drawn):
            ax.set_xlabel(f"{figure.axis} ({AXIS_UNITS[figure.axis]})" if figure.axis else "")
            ax.tick_params(axis="x", labelbottom=True)
        if number % columns == 0:
            # Stacked panels are lower than their label is long: those share one, which `drawing` sets.
            ax.set_ylabel("" if stacked(columns, len(drawn)) else figure.unit)
        else:
            ax.tick_params(axis="y", length=0)
        if figure.ideal is not None:
            ends = [x**figure.ideal for x in (xs[0], xs[-1])]
            ax.plot([xs[0], xs[-1]], ends, color=GRID, linewidth=2.2, zorder=0.5, scaley=False)
        if figure.guides:
            for power, dash in ((1, (0, (1, 1))), (2, "-")):
                start = low * (high / low) ** 0.04
                ends = [start, start * (xs[-1] / xs[0]) ** power]
                ax.plot(
                    [xs[0], xs[-1]], ends, color=GRID, linestyle=dash, linewidth=2.2, zorder=0.5, scaley=False
                )


def stacked(columns: int, panels: int) -> bool:
    """Whether the panels stand in one column."""
    return columns == 1 and panels > 1


def _thinned(xs: Sequence[int], most: int = 8) -> list[int]:
    """At most so many ticks, far enough apart on a log axis for their labels, the last among them."""
    gap = math.log(xs[-1] / xs[0]) / most
    kept = [xs[-1]]
    for x in reversed(xs[:-1]):
        if math.log(kept[-1] / x) >= gap * 0.99:
            kept.append(x)
    return kept[::-1]


def _short(x: float) -> str:
    """Lengths of five digits and more in units of 1024, where they are whole ones."""
    return f"{x / 1024:g}Ki" if x >= 16384 and x % 1024 == 0 else f"{x:g}"


def logarithmic(ax: Axes, way: Literal["x", "y"], low: float, high: float) -> None:
    """Make an axis a measured one: logarithmic, from one value to another."""
    ax.set(**{f"{way}scale": "log"})
    measured_ticks(getattr(ax, f"{way}axis"), low, high)
    ax.set(**{f"{way}lim": (low, high)})


def measured_ticks(axis: Any, low: float, high: float) -> None:
    """Ticks at powers of ten, finer where those are fewer than three, with plain numbers."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    decades = range(first, last + 1, 1 + (last - first) // 10)
    ticks: list[float] = []
    for steps in ((1,), (1, 3), (1, 2, 5)):
        ticks = [s * 10.0**d for d in decades for s in steps if low <= s * 10.0**d <= high]
        if len(ticks) >= 3:
            break
    if len(ticks) < 3:
        ticks = [t for t in MaxNLocator(4, steps=[1, 2, 5, 10]).tick_values(low, high) if low <= t <= high]
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda y, _: _plain(y)))


def _plain(value: float) -> str:
    """A tick's number: ``0.01``, ``30``, ``1e-5``."""
    return f"{value:g}" if value >= 0.001 else f"{value:.3g}".replace("e-0", "e-")


def legend(
    canvas: Canvas, figure: Figure, looks: Mapping[str, Look], dashes: Mapping[str, Dash], sheet: Sheet
) -> None:
    """Below the panels: a row of backends by marker, then forms by line style and what the grey lines are."""
    from matplotlib.lines import Line2D

    series = [s for panel in figure.panels for s in panel.series]
    backends = [n for n in looks if n in {s.backend for s in series}]
    forms = [f for f in dashes if f in {s.form for s in series}]
    size = sheet.marker_size
    first = [
        (n, {"color": looks[n].color, "marker": looks[n].marker, "markersize": 1.4 * size}) for n in backends
    ]
    second: list[tuple[str, dict[str, Any]]] = [(f, {"color": INK, "linestyle": dashes[f]}) for f in forms]
    if figure.quantity in ("agreement", "speed"):
        second.append(("tolerance", {"color": MUTED, "linewidth": 1.1}))
        if any(p.wrong for p in figure.points):
            cross = {"color": INK, "marker": "x", "linestyle": "", "markersize": 1.9 * size}
            second.append(("wrong", cross))
    elif figure.roof:
        second.append(("copy", {"color": MUTED, "linewidth": 1.4}))
        second.append(("product", {"color": MUTED, "linewidth": 1.4, "linestyle": "--"}))
    elif figure.guides:
        second.append(("O(N)", {"color": GRID, "linestyle": (0, (1, 1)), "linewidth": 2.2}))
        second.append(("O(N²)", {"color": GRID, "linewidth": 2.2}))
    # As few lines as fit, and no lone entry on the last one.
    columns = max(_balanced(len(entries), sheet.legend_columns) for entries in (first, second))
    lines = [
        [*entries[at : at + columns], *[("", {"linestyle": ""})] * (at + columns - len(entries))]
        for entries in (first, second)
        for at in range(0, len(entries), columns)
    ]
    # matplotlib fills a legend column by column, and leaves out labels that begin with an underscore.
    across = [line[column] for column in range(columns) for line in lines]
    shown = [clean(label, 28) for label, _ in across]
    canvas.legend(
        [Line2D([], [], **style) for _, style in across],
        [f" {label}" if label.startswith("_") else label for label in shown],
        loc="outside lower left",
        ncols=columns,
        handlelength=sheet.legend_handle,
        columnspacing=1.2,
    )


def _balanced(entries: int, most: int) -> int:
    return math.ceil(entries / max(1, math.ceil(entries / most)))
