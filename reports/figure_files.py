"""Every figure of a report as files of its own: the drawing, its data and its caption."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from mtbench.errors import BadInput, nearest
from mtbench.floor import NOT_MEASURED, NOWHERE_MEASURED, Ceilings
from mtbench.results import Run

from .captions import caption
from .disk import write_whole
from .drawing import FORMATS, Format, draw
from .exports import csv_text, flat_row
from .figures import Quantity
from .plan import AnyFigure, plan_figures
from .settings import Clock
from .sheets import STYLES, StyleName, sheet
from .style import backend_looks, form_dashes
from .verdict import Race
from .winners import WinnerMap

__all__ = ["figure_csv", "write_figures"]

Name = TypeVar("Name", bound=str)
SIZES = ("batch", "heads", "kv_heads", "seq_len", "kv_len", "lengths", "head_dim", "value_dim")
CASE = (
    *("id", "attention", "beta", "gamma", "eps", "scale", "feature_map", "backend", "form"),
    *("hardware", "device", "dtype", "mode", "causal", *SIZES, "world_size", "seed", "status", "flags"),
)


PARTS = ("median", "ci_low", "ci_high", "samples_count", "launches_count", "outliers_count")
"""Of a clock's columns, those that a figure is drawn from."""
DRAWN: Mapping[Quantity, tuple[str, ...]] = {
    "memory": ("peak_memory_bytes", "memory_method"),
    "scaling": ("exchange",),
    "agreement": ("relative_error", "tolerance", "compared"),
    "speed": ("relative_error", "tolerance", "compared"),
    "roofline": ("operations_count", "floor_bytes", "roofline_ms", "roofline_share"),
}
SCALED: Mapping[int | None, str] = {1: "speed_up_ratio", 0: "weak_efficiency_ratio"}
"""What is drawn of scaling, which is no row's own, by the power that it would ideally grow with."""
LEAD = ("next_backend", "next_form", "next_attention", "ratio_to_next", "sure")


def figure_csv(figure: AnyFigure, ceilings: Mapping[str, Mapping[str, Ceilings]] = NOWHERE_MEASURED) -> str:
    """The figure's points: the panel, the case, and what is drawn, a unit in each column's name. Of a map of
    winners the winner of each cell, and its lead."""
    reached = ceilings.get(figure.context.hardware, NOT_MEASURED)
    names = ["panel", *CASE, *DRAWN.get(figure.quantity, ()), *_timed(figure.clock)]
    rows = []
    if isinstance(figure, WinnerMap):
        names += LEAD
        for panel, race in figure.races:
            row = {"panel": panel.title, **flat_row(race.winner.row, reached), **_lead(race)}
            rows.append({name: row[name] for name in names})
        return csv_text(names, rows)
    scaled = [SCALED[figure.ideal]] if figure.quantity == "scaling" else []
    for part in figure.panels:
        for point in (p for series in part.series for p in series.points):
            row = {"panel": part.title, **flat_row(point.row, reached), **dict.fromkeys(scaled, point.y)}
            rows.append({name: row[name] for name in (*names, *scaled)})
    return csv_text([*names, *scaled], rows)


def _timed(clock: Clock | None) -> list[str]:
    return [] if clock is None else [f"{clock}_ms_{part}" for part in PARTS]


def _lead(race: Race) -> dict[str, Any]:
    then = race.next
    values = (None,) * 3 if then is None else (then.backend, then.form, then.attention)
    return dict(zip(LEAD, (*values, race.ratio, race.sure), strict=True))


def write_figures(
    folder: Path | str,
    out: Path | str | None = None,
    formats: Sequence[str] = ("pdf", "svg", "png"),
    style: str = "paper",
    columns: int = 2,
) -> list[Path]:
    """Write each figure of the run in `folder` into `out` (by default its folder ``figures-STYLE``): NAME.pdf
    and the like, NAME.csv with its data and NAME.txt with its caption. `columns` is how wide the style
    ``paper`` is: 1 (3.3 in) or 2 (7 in). Returns the paths written; other files in `out` are left alone.

    Raises:
        BadInput: there is no run, nothing in it can be drawn, a format, style or width is unknown, or `out`
            cannot be written.
    """
    wanted = [_format(name) for name in formats]
    target = sheet(_style(style), _columns(columns))
    run = Run.load(folder)
    rows = list(run)
    ceilings = run.ceilings
    figures = plan_figures(rows, ceilings)
    if not figures:
        raise BadInput(f"{run.folder} has no row with a time, a memory or an error: there is nothing to draw")
    looks, dashes = backend_looks(row.backend for row in rows), form_dashes(row.form for row in rows)
    place = run.folder / f"figures-{style}" if out is None else Path(out)
    written: list[Path] = []
    try:
        place.mkdir(parents=True, exist_ok=True)
        for figure in figures:
            files: list[tuple[str, bytes]] = [
                *draw(figure, looks, dashes, target, wanted).items(),
                ("csv", figure_csv(figure, ceilings).encode("utf-8", "replace")),
                ("txt", caption(figure, run, target).encode("utf-8", "replace")),
            ]
            for ending, data in files:
                written.append(place / f"{figure.name}.{ending}")
                write_whole(written[-1], data)
    except OSError as error:
        raise BadInput(f"--out {place} cannot be written: {error.strerror}") from error
    return written


def _format(name: str) -> Format:
    return _one_of("--format", name, FORMATS)


def _style(name: str) -> StyleName:
    return _one_of("--style", name, STYLES)


def _columns(columns: int) -> int:
    if columns not in (1, 2):
        raise BadInput(f"--columns {columns}: a figure is 1 column wide (3.3 in) or 2 (7 in)")
    return columns


def _one_of(option: str, value: str, known: Iterable[Name]) -> Name:
    names = list(known)
    for name in names:
        if name == value:
            return name
    raise BadInput(f"{option} {value}: {nearest(value, names)}")
