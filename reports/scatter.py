"""Figures in which both axes are measured: speed against error, and the roofline."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from mtbench.floor import Ceilings
from mtbench.results import Measurement
from mtbench.spec import Device
from mtbench.work import intensity, operations

from .figures import Axis, Figure, Panel, Point, Roof, Series, error_point, gathered, named, not_drawn, titled
from .format import duration, error, listing, number
from .roofline import clock_of, roofline_share
from .settings import CLOCK_NAMES, Context, Names, Shape, clocks, samples

__all__ = ["RATE_UNITS", "roofline_figures", "speed_figures"]

RATE_UNITS: Mapping[Device, tuple[str, float]] = {"cpu": ("GFLOP/s", 1e9), "cuda": ("TFLOP/s", 1e12)}


def speed_figures(axis: Axis | None, rows: Sequence[Measurement], names: Names) -> Iterable[Figure]:
    """The error of each ranked row against its latency, a figure a clock; a line joins a form's lengths."""
    for clock in clocks(rows):
        medians = {row.id: found.median for row in rows if (found := samples(row, clock)) is not None}
        timed = [row for row in rows if row.id in medians]
        panels, absent = gathered(timed, names, error_point, _time(medians))
        if not panels:
            continue
        panels = _by_length(panels)
        lengths = sorted({p.row.case.seq_len for panel in panels for s in panel.series for p in s.points})
        swept, one = axis if len(lengths) > 1 else None, rows[0]
        told = [f"{panel.title}: {_fastest(panel)}" for panel in panels]
        yield Figure(
            name=named("speed", swept, one, lengths[0], clock),
            quantity="speed",
            axis=swept,
            unit="Relative error (ratio)",
            x_unit=f"Latency, {CLOCK_NAMES[clock]} (ms)",
            clock=clock,
            title=titled("Speed against error", swept, one, lengths[0]),
            caption="Relative error against float64 over the median time, "
            f"{CLOCK_NAMES[clock]}: left is faster, down is nearer to the truth. A line joins the lengths of "
            "a form. The grey lines are the smallest and the largest tolerance; a wrong row is not timed."
            f"{not_drawn(absent)}",
            alt=f"Relative error against latency, seq_len {lengths[0]} to {lengths[-1]}; panels "
            f"{listing([p.title for p in panels])}. Fastest at {lengths[-1]}, {'; '.join(told)}.",
            context=Context.of(one),
            panels=panels,
        )


def _time(medians: Mapping[str, float]) -> Callable[[Point], float]:
    return lambda point: medians[point.row.id]


def _fastest(panel: Panel) -> str:
    longest = max(p.row.case.seq_len for s in panel.series for p in s.points)
    x, y, name = min(
        (p.x, p.y, f"{s.backend}/{s.form}")
        for s in panel.series
        for p in s.points
        if p.row.case.seq_len == longest
    )
    return f"{name} with {duration(x)} and an error of {error(y)}"


def roofline_figures(
    rows: Sequence[Measurement], names: Names, ceilings: Mapping[str, Ceilings]
) -> Iterable[Figure]:
    """The rate that each ranked row of a context reaches, over what it does with a byte, below the measured
    ceilings; all sizes together. None where a ceiling was not measured."""
    case = rows[0].case
    found = ceilings.get(case.device, Ceilings())
    copy, product = found.copy_bytes_per_s, found.matmul(case.dtype)
    if copy is None or product is None:
        return
    # Of all devices together, as the rates are.
    copy, product = case.world_size * copy, case.world_size * product
    together = f", of {case.world_size} devices together" if case.world_size > 1 else ""
    unit, size = RATE_UNITS[case.device]
    clock = clock_of(case)
    shares = {row.id: share for row in rows if (share := roofline_share(row, ceilings)) is not None}

    def value(row: Measurement) -> Point | None:
        time = samples(row, clock)
        if time is None:
            return None
        work = operations(row.case) * 1e3 / size  # of which a call of one ms does so much a second
        low, high = time.interval
        return Point(row, work / time.median, low=work / high, high=work / low)

    panels, absent = gathered(rows, names, value, lambda point: intensity(point.row.case))
    if not panels:
        return
    panels = _by_length(panels)
    context = Context.of(rows[0])
    best = []
    for panel in panels:
        nearest = max((p for s in panel.series for p in s.points), key=lambda p: shares[p.row.id].value)
        percent, row = 100 * shares[nearest.row.id].value, nearest.row
        best.append(f"{panel.title}: {row.backend}/{row.form} at {number(percent, 2)}%")
    yield Figure(
        name=f"roofline-{context.slug}",
        quantity="roofline",
        axis=None,
        unit=f"Rate ({unit})",
        x_unit="Arithmetic intensity (FLOP/byte)",
        clock=clock,
        title=f"Roofline: {context.label}; all sizes",
        caption="The least operations that the attention needs over the median time, "
        f"{CLOCK_NAMES[clock]}, against those operations over the least bytes: q, k and v read and o "
        f"written. The grey lines are the ceilings measured in this run{together}: a copy of "
        f"{number(copy / 1e9, 2)} GB/s, and a product of two matrices in {case.dtype} of "
        f"{number(product / size, 2)} {unit}. A line joins the lengths of a form.{not_drawn(absent)}",
        alt=f"Rate in {unit} against arithmetic intensity; panels {listing([p.title for p in panels])}. "
        f"Nearest to the ceiling, {'; '.join(best)}.",
        context=context,
        panels=panels,
        roof=Roof(copy=copy / size, product=product / size),
    )


def _by_length(panels: Iterable[Panel]) -> tuple[Panel, ...]:
    return tuple(replace(panel, series=tuple(_by_shape(panel.series))) for panel in panels)


def _by_shape(series: Iterable[Series]) -> Iterable[Series]:
    """A line of its own for each shape, in order of length."""
    for one in series:
        shapes: dict[Shape, list[Point]] = {}
        for point in sorted(one.points, key=lambda p: p.row.case.seq_len):
            shapes.setdefault(Shape.of(point.row.case), []).append(point)
        for points in shapes.values():
            yield replace(one, points=tuple(points))
