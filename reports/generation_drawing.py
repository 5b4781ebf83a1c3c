"""The figures of generated images: how long a pixel takes by its place, and time and memory by the size of an
image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mtbench.generation.results import Generated, GenerationRun

from .axes import logarithmic, with_room
from .drawing import Format, rendered
from .sheets import REPORT
from .style import PAPER, Look
from .variants import variant_legend

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

__all__ = ["Panels", "draw_panels", "planned"]

Value = Callable[[Generated], float | None]
Line = tuple[str, tuple[float, ...], tuple[float, ...]]
"""A variant, x and y."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One quantity."""

    title: str
    x_label: str
    y_label: str
    x_log: bool
    lines: tuple[Line, ...]


@dataclass(frozen=True, kw_only=True)
class Panels:
    """Some beside each other."""

    name: str
    title: str
    caption: str
    panels: tuple[Panel, ...]


def planned(run: GenerationRun) -> list[Panels]:
    """What there is to draw, of the rows with the largest batch of each variant and size; of what is not ok
    nothing is."""
    rows = _largest(run.rows)
    found = []
    here = [row for row in rows if row.trained_size and row.parts_s]
    if here:
        found.append(
            Panels(
                name="pixel-latency",
                title="How long a pixel takes, by its place in the image",
                caption=f"{_batches(here)} at a time; an eighth of the pixels a point.",
                panels=(
                    Panel(
                        title="latency",
                        x_label="pixel",
                        y_label="ms a pixel's step",
                        x_log=False,
                        lines=tuple(
                            (
                                row.variant,
                                tuple(
                                    (n + 0.5) * row.positions / len(row.parts_s)
                                    for n in range(len(row.parts_s))
                                ),
                                tuple(1000 * s for s in row.parts_s),
                            )
                            for row in here
                        ),
                    ),
                ),
            )
        )
    if len({row.positions for row in rows}) > 1:
        found.append(
            Panels(
                name="by-size",
                title="Speed and memory, by the pixels of an image",
                caption=f"{_batches(rows)} at a time. Memory is what the attention keeps of an image.",
                panels=(
                    _by_size(rows, "speed", "images/s", lambda row: row.images_per_s),
                    _by_size(
                        rows,
                        "memory of an image",
                        "MiB",
                        lambda row: None if row.held_bytes is None else row.held_bytes / 2**20,
                    ),
                ),
            )
        )
    return found


def _largest(rows: Sequence[Generated]) -> list[Generated]:
    kept: dict[tuple[str, int], Generated] = {}
    for row in rows:
        key = (row.variant, row.positions)
        if row.status == "ok" and row.seconds and (key not in kept or row.batch > kept[key].batch):
            kept[key] = row
    return list(kept.values())


def _batches(rows: Sequence[Generated]) -> str:
    found = sorted({row.batch for row in rows})
    return " or ".join(map(str, found)) + (" image" if found == [1] else " images")


def _by_size(rows: Sequence[Generated], title: str, unit: str, value: Value) -> Panel:
    lines = []
    for variant in dict.fromkeys(row.variant for row in rows):
        points = sorted(
            (row.positions, y) for row in rows if row.variant == variant and (y := value(row)) is not None
        )
        if points:
            xs, ys = zip(*points, strict=True)
            lines.append((variant, tuple(map(float, xs)), ys))
    return Panel(title=title, x_label="pixels of an image", y_label=unit, x_log=True, lines=tuple(lines))


def draw_panels(figure: Panels, looks: Mapping[str, Look]) -> dict[Format, bytes]:
    """The figure as SVG and PNG."""

    def compose() -> Canvas:
        canvas = REPORT.canvas(REPORT.panel_height_in + REPORT.margin_in, figure.title)
        grid = canvas.subplots(1, len(figure.panels), squeeze=False)[0]
        for ax, panel in zip(grid, figure.panels, strict=True):
            _panel(ax, panel, looks)
        there = [line[0] for panel in figure.panels for line in panel.lines]
        variant_legend(canvas, there, looks, REPORT)
        return canvas

    return rendered(compose, figure.title, REPORT)


def _panel(ax: Axes, panel: Panel, looks: Mapping[str, Look]) -> None:
    ax.set_title(panel.title, loc="left")
    for variant, xs, ys in panel.lines:
        look = looks[variant]
        style: dict[str, Any] = {"color": look.color, "marker": look.marker, "markeredgecolor": PAPER}
        ax.plot(xs, ys, markeredgewidth=0.5, markersize=REPORT.marker_size, **style)
    logarithmic(ax, "y", *with_room([y for _, _, ys in panel.lines for y in ys]))
    if panel.x_log:
        places = sorted({x for _, points, _ in panel.lines for x in points})
        ax.set_xscale("log")
        ax.set_xticks(places, [f"{x:g}" for x in places])
        ax.minorticks_off()
    else:
        ax.set_xlim(left=0)
    ax.set_xlabel(panel.x_label)
    ax.set_ylabel(panel.y_label)
