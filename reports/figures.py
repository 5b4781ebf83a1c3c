"""Which figures a run gives, and what is in each: data alone, drawn by `drawing`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from mtbench.results import Measurement
from mtbench.spec import ATTENTIONS

from .format import count, duration, listing
from .settings import CLOCK_NAMES, Clock, Context, Names, Shape, clocks, samples

__all__ = [
    "FILE_PREFIXES",
    "Axis",
    "Figure",
    "Panel",
    "Point",
    "Series",
    "drawable",
    "error_point",
    "latency_point",
    "memory_point",
    "plan_figures",
]

Quantity = Literal["latency", "memory", "agreement"]
Axis = Literal["seq_len", "batch", "head_dim", "heads"]
FILE_PREFIXES: tuple[Quantity, ...] = ("latency", "memory", "agreement")
Value = Callable[[Measurement], "Point | None"]


@dataclass(frozen=True)
class Point:
    """One row in a figure."""

    row: Measurement = field(repr=False, compare=False)
    y: float
    low: float
    """The interval's lower end; y where there is no interval."""
    high: float
    x: int = 0
    """The swept size."""
    wrong: bool = False
    tolerance: float | None = None


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line: a backend's form."""

    backend: str
    form: str
    points: tuple[Point, ...]


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One attention; at least one series."""

    title: str
    series: tuple[Series, ...]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure; at least one panel, no empty one."""

    name: str
    """The file's name without its ending."""
    quantity: Quantity
    axis: Axis | None
    """What is swept; None: one size only, a dot for each backend and form."""
    unit: str
    """The label of the measured axis."""
    clock: Clock | None
    """Of a latency."""
    title: str
    caption: str
    alt: str
    context: Context
    panels: tuple[Panel, ...]

    @property
    def guides(self) -> bool:
        """Whether lines that grow as O(N) and O(N^2) are drawn for the eye."""
        return self.axis == "seq_len" and self.quantity != "agreement"

    @property
    def points(self) -> list[Point]:
        """All of them."""
        return [point for panel in self.panels for series in panel.series for point in series.points]


def plan_figures(rows: Sequence[Measurement]) -> list[Figure]:
    """The figures of a run, each context's together, the sweeps over seq_len first."""
    names = Names(rows)
    tried = list({r.id: r for r in rows if r.status not in ("unsupported", "unavailable")}.values())
    figures: list[Figure] = []
    taken: set[str] = set()
    for axis, members in _sweeps(tried):
        for figure in _figures(axis, members, names):
            number = 2
            unique = figure.name
            while unique in taken:
                unique, number = f"{figure.name}-{number}", number + 1
            taken.add(unique)
            figures.append(replace(figure, name=unique))
    return sorted(figures, key=lambda f: f.context.key)


def _sweeps(rows: Sequence[Measurement]) -> list[tuple[Axis | None, list[Measurement]]]:
    """The rows in groups that differ in one size: every setting with several lengths; around settings of one
    length the sweeps of batch, head_dim and heads; and alone what no sweep covers.
    """
    found: list[tuple[Axis | None, list[Measurement]]] = []
    settings = _grouped(rows, "seq_len")
    lone = [g for g in settings if len(_values(g, "seq_len")) == 1]
    found += [("seq_len", g) for g in settings if len(_values(g, "seq_len")) > 1]
    lone_ids = {row.id for group in lone for row in group}
    covered: set[str] = set()
    axes: tuple[Axis, ...] = ("batch", "head_dim", "heads")
    for axis in axes:
        for group in _grouped(rows, axis):
            ids = {row.id for row in group}
            if len(_values(group, axis)) > 1 and ids & lone_ids:
                found.append((axis, group))
                covered |= ids
    found += [(None, group) for group in lone if not {row.id for row in group} & covered]
    return found


def _values(rows: Iterable[Measurement], axis: Axis) -> set[int]:
    return {getattr(row.case, axis) for row in rows}


def _grouped(rows: Iterable[Measurement], axis: Axis) -> list[list[Measurement]]:
    """Rows that are equal in everything but the axis (and the attention, backend and form)."""
    groups: dict[tuple[object, ...], list[Measurement]] = {}
    for row in rows:
        sizes = {"seq_len": row.case.seq_len, **Shape.of(row.case).__dict__}
        del sizes[axis]
        groups.setdefault((Context.of(row.case), *sizes.items()), []).append(row)
    return sorted(groups.values(), key=lambda g: min((Shape.of(r.case).key, r.case.seq_len) for r in g))


def _figures(axis: Axis | None, rows: list[Measurement], names: Names) -> Iterable[Figure]:
    for clock in clocks(rows):
        by = CLOCK_NAMES[clock]
        yield from _figure("latency", axis, rows, names, f"Latency, {by} (ms)", latency_point(clock), clock)
    yield from _figure("memory", axis, rows, names, "Peak memory (MiB)", memory_point)
    if axis in ("seq_len", None):
        yield from _figure("agreement", axis, rows, names, "Relative error (ratio)", error_point)


def latency_point(clock: Clock) -> Value:
    """What gives a ranked row's median of a clock and its interval, in ms."""

    def value(row: Measurement) -> Point | None:
        found = samples(row, clock)
        return None if found is None else Point(row, found.median, *found.interval)

    return value


def memory_point(row: Measurement) -> Point | None:
    """A row's peak memory in MiB, where it was measured and means something."""
    if row.status != "ok" or "interpreted" in row.flags or row.peak_memory_bytes is None:
        return None
    mib = row.peak_memory_bytes / 2**20
    return Point(row, mib, mib, mib)


def error_point(row: Measurement) -> Point | None:
    """The relative error of a row's worst array; of wrong rows, too."""
    worst = row.worst
    if worst is None:
        return None
    at, tolerance = worst.relative, worst.tolerance if drawable(worst.tolerance) else None
    return Point(row, at, at, at, wrong=row.status == "wrong", tolerance=tolerance)


def drawable(value: float) -> bool:
    """Whether a log axis can show it; what is beyond these bounds is no measurement."""
    return 1e-18 < value < 1e18


def _figure(
    quantity: Quantity,
    axis: Axis | None,
    rows: list[Measurement],
    names: Names,
    unit: str,
    value: Value,
    clock: Clock | None = None,
) -> Iterable[Figure]:
    drawn: dict[str, dict[tuple[str, str], list[Point]]] = {}
    absent = 0
    ordered = sorted(rows, key=lambda r: (ATTENTIONS.index(r.case.spec.kind), r.case.spec.beta, r.id))
    for row in ordered:
        found = value(row)
        if found is None:
            continue
        point = replace(found, x=getattr(row.case, axis or "seq_len"))
        if not all(map(drawable, (point.x, point.y, point.low, point.high))):
            absent += 1
            continue
        panel = drawn.setdefault(names(row.case.spec), {})
        panel.setdefault((row.backend, row.form), []).append(point)
    if not drawn:
        return
    panels = tuple(
        Panel(
            title=title,
            series=tuple(
                Series(backend=b, form=f, points=tuple(sorted(points, key=lambda p: p.x)))
                for (b, f), points in sorted(lines.items())
            ),
        )
        for title, lines in drawn.items()
    )
    xs = sorted({p.x for panel in panels for series in panel.series for p in series.points})
    if len(xs) == 1:
        axis = None  # one size was left: a line through one dot shows nothing
    context, shape, seq_len = Context.of(rows[0].case), Shape.of(rows[0].case), rows[0].case.seq_len
    what = {"latency": "Latency", "memory": "Peak memory", "agreement": "Numerical agreement"}[quantity]
    fixed = shape.label(without=axis)
    at = "" if axis == "seq_len" else f", seq_len {seq_len if axis else xs[0]}"
    name = "-".join(
        [quantity, *([clock] if context.device == "cuda" and clock else []), axis or "one-size", context.slug]
        + [shape.slug if axis is None else _slug_without(shape, axis)]
        + ([] if axis == "seq_len" else [f"n{seq_len if axis else xs[0]}"])
    )
    caption = {
        "latency": f"Median and its 95% interval, {CLOCK_NAMES[clock or 'wall']}.",
        "memory": "Peak memory of one call, beyond what was in use before it.",
        "agreement": "Relative error against float64, of the array nearest to its tolerance or furthest "
        "beyond it; the grey lines are the tolerances. A cross marks a wrong row.",
    }[quantity]
    if absent:
        left_out = "is zero or not finite, which a log axis cannot show"
        caption += f" Not drawn: {count(absent, 'row')} whose value {left_out}."
    yield Figure(
        name=name,
        quantity=quantity,
        axis=axis,
        unit=unit,
        clock=clock,
        title=f"{what}{f' against {axis}' if axis else ''}: {context.label}; {fixed}{at}",
        caption=caption,
        alt=_alt(unit, axis, xs, panels, quantity),
        context=context,
        panels=panels,
    )


def _slug_without(shape: Shape, axis: Axis) -> str:
    letter = {"batch": "b", "heads": "h", "head_dim": "d"}.get(axis, "")
    return "-".join(p for p in shape.slug.split("-") if not (letter and p[0] == letter and p[1:].isdigit()))


def _alt(unit: str, axis: Axis | None, xs: list[int], panels: Sequence[Panel], quantity: Quantity) -> str:
    """What the figure shows, for who does not see it: its axes, panels and the smallest value in each."""
    swept = f" against {axis}, {xs[0]} to {xs[-1]}" if axis else ""
    told = []
    for panel in panels:
        last = max(p.x for s in panel.series for p in s.points)
        y, best = min((p.y, f"{s.backend}/{s.form}") for s in panel.series for p in s.points if p.x == last)
        shown = {
            "latency": duration(y),
            "memory": f"{y:.3g} MiB",
            "agreement": f"{y:.1e}",
        }[quantity]
        told.append(f"{panel.title}: {best} with {shown}")
    smallest = f"Smallest at {axis} {xs[-1]}" if axis else "Smallest"
    return f"{unit}{swept}; panels {listing([p.title for p in panels])}. {smallest}, {'; '.join(told)}."
