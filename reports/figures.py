"""What is in a figure, data alone; and the figures of one value against a swept size. `plan` says which a run
gives, `drawing` draws them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

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
    "Quantity",
    "Roof",
    "Series",
    "drawable",
    "error_point",
    "gathered",
    "latency_point",
    "line_figures",
    "memory_point",
    "named",
    "not_drawn",
    "titled",
]

HIGH_WATER = "VmHWM"
"""What the method of a reading by Linux's high-water mark begins with (`mtbench.measure.memory`)."""
GOOD_TO = ", good to some 250 KiB for each CPU that worked"
"""What such a reading lags by at the most (`mtbench.measure.memory.unseen`); more above 16 CPUs."""

Quantity = Literal["winners", "latency", "memory", "agreement", "speed", "roofline", "scaling"]
Axis = Literal["seq_len", "batch", "head_dim", "heads", "world_size"]
FILE_PREFIXES: tuple[Quantity, ...] = get_args(Quantity)
Value = Callable[[Measurement], "Point | None"]


@dataclass(frozen=True)
class Point:
    """One row in a figure."""

    row: Measurement = field(repr=False, compare=False)
    y: float
    low: float
    """The interval's lower end; y where there is no interval."""
    high: float
    x: float = 0
    """The swept size, or what `Figure.x_unit` says."""
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
class Roof:
    """The machine's measured ceilings, in the unit of a figure's measured axis."""

    copy: float
    """For each FLOP/byte: the rate of a copy bounds what lies left of the ridge."""
    product: float


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
    x_unit: str = ""
    """The label of the other axis where that is measured, too."""
    roof: Roof | None = None
    ideal: int | None = None
    """The power of the swept size that a value would ideally grow with; None: there is no ideal."""

    @property
    def dots(self) -> bool:
        """Whether each backend and form has a dot on a line of its own: nothing lies on the other axis."""
        return self.axis is None and not self.x_unit

    @property
    def guides(self) -> bool:
        """Whether lines that grow as O(N) and O(N^2) are drawn for the eye."""
        return self.axis == "seq_len" and self.quantity in ("latency", "memory")

    @property
    def points(self) -> list[Point]:
        """All of them."""
        return [point for panel in self.panels for series in panel.series for point in series.points]

    @property
    def rows(self) -> list[Measurement]:
        """Those that are drawn."""
        return [point.row for point in self.points]


def line_figures(axis: Axis | None, rows: list[Measurement], names: Names) -> Iterable[Figure]:
    """Latency, memory and agreement of rows that differ in one size."""
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
    panels, absent = gathered(rows, names, value, lambda point: getattr(point.row.case, axis or "seq_len"))
    if not panels:
        return
    xs = sorted({int(p.x) for panel in panels for series in panel.series for p in series.points})
    if len(xs) == 1:
        axis = None  # one size was left: a line through one dot shows nothing
    seq_len = rows[0].case.seq_len if axis else xs[0]
    caption = {
        "latency": f"Median and its 95% interval, {CLOCK_NAMES[clock or 'wall']}.",
        "memory": "Peak memory of one call, beyond what was in use before it"
        f"{GOOD_TO if any(row.memory_method.startswith(HIGH_WATER) for row in rows) else ''}.",
        "agreement": "Relative error against float64, of the array nearest to its tolerance or furthest "
        "beyond it; the grey lines are the tolerances. A cross marks a wrong row.",
    }[quantity]
    what = {"latency": "Latency", "memory": "Peak memory", "agreement": "Numerical agreement"}[quantity]
    yield Figure(
        name=named(quantity, axis, rows[0], seq_len, clock),
        quantity=quantity,
        axis=axis,
        unit=unit,
        clock=clock,
        title=titled(f"{what}{f' against {axis}' if axis else ''}", axis, rows[0], seq_len),
        caption=caption + not_drawn(absent),
        alt=_alt(unit, axis, xs, panels, quantity),
        context=Context.of(rows[0]),
        panels=panels,
    )


def gathered(
    rows: Iterable[Measurement], names: Names, value: Value, x: Callable[[Point], float]
) -> tuple[tuple[Panel, ...], int]:
    """The panels, a series a backend and form, and how many rows a log axis cannot show."""
    drawn: dict[str, dict[tuple[str, str], list[Point]]] = {}
    absent = 0
    for row in sorted(rows, key=lambda r: (ATTENTIONS.index(r.case.spec.kind), r.case.spec.beta, r.id)):
        found = value(row)
        if found is None:
            continue
        point = replace(found, x=x(found))
        if not all(map(drawable, (point.x, point.y, point.low, point.high))):
            absent += 1
            continue
        panel = drawn.setdefault(names(row.case.spec), {})
        panel.setdefault((row.backend, row.form), []).append(point)
    panels = tuple(
        Panel(
            title=title,
            series=tuple(
                Series(backend=b, form=f, points=tuple(sorted(points, key=lambda p: (p.x, p.y))))
                for (b, f), points in sorted(lines.items())
            ),
        )
        for title, lines in drawn.items()
    )
    return panels, absent


def not_drawn(absent: int) -> str:
    """What a caption says of rows that a log axis cannot show."""
    if not absent:
        return ""
    left_out = "is zero or not finite, which a log axis cannot show"
    return f" Not drawn: {count(absent, 'row')} whose value {left_out}."


def named(quantity: Quantity, axis: Axis | None, row: Measurement, seq_len: int, clock: Clock | None) -> str:
    """A figure's file: what it shows, the context, and the sizes that are not swept."""
    context, shape = Context.of(row), Shape.of(row.case)
    return "-".join(
        [quantity, *([clock] if context.device == "cuda" and clock else []), axis or "one-size", context.slug]
        + [shape.slug if axis is None else _slug_without(shape, axis)]
        + ([] if axis == "seq_len" else [f"n{seq_len}"])
    )


def titled(what: str, axis: Axis | None, row: Measurement, seq_len: int) -> str:
    """What it shows, the context, and the sizes that are not swept."""
    at = "" if axis == "seq_len" else f", seq_len {seq_len}"
    return f"{what}: {Context.of(row).label}; {Shape.of(row.case).label(without=axis)}{at}"


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
