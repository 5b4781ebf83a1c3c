"""The data behind the page's explorer: the rows of the table, in its order, as numbers in columns.

What a row has on an axis is what the figures draw of it, by the same functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mtbench.floor import NOT_MEASURED, Ceilings, floor_bytes, floor_ms
from mtbench.results import Measurement
from mtbench.work import operations, tokens

from .figures import Point, drawable, error_point, latency_point, memory_point
from .format import clean
from .roofline import least_ms
from .settings import Names, Shape
from .style import THEMED, Look, form_dashes

__all__ = ["explorer_data"]

_SHAPES = dict(
    zip(
        "o s ^ D v P X < > p h * d 8".split(),
        (
            "circle square triangle-up diamond triangle-down cross x triangle-left triangle-right pentagon "
            "hexagon star diamond-tall octagon"
        ).split(),
        strict=True,
    )
)
"""plotly's names of matplotlib's markers."""
DIGITS = 5
NAME_LENGTH = 40


def explorer_data(
    rows: Sequence[Measurement], looks: Mapping[str, Look], ceilings: Mapping[str, Mapping[str, Ceilings]]
) -> dict[str, Any]:
    """For JSON. ``dims`` has what can be chosen, each with its values and every row's place among them;
    ``points`` what can be drawn, as [value, low, high] or null; ``work`` what rates are made of."""
    names = Names(rows)
    points: dict[str, Callable[[Measurement], Point | None]] = {
        "wall": latency_point("wall"),
        "device": latency_point("device"),
        "memory": memory_point,
        "error": error_point,
    }
    dashes = form_dashes(row.form for row in rows)
    reached = [(row, ceilings.get(row.hardware, NOT_MEASURED)) for row in rows]
    return {
        "count": len(rows),
        "dims": {name: _coded([value(row) for row in rows]) for name, value in _dimensions(names).items()},
        "points": {name: [_numbers(point(row)) for row in rows] for name, point in points.items()},
        "work": {
            "tokens": [tokens(row.case) for row in rows],
            "operations": [_short(operations(row.case)) for row in rows],
            "bytes": [floor_bytes(row.case) for row in rows],
            "floor": [_short(floor_ms(row.case, here)) for row, here in reached],
            "roofline": [_short((least_ms(row.case, here) or (None,))[0]) for row, here in reached],
        },
        "wrong": [at for at, row in enumerate(rows) if row.status == "wrong"],
        "tolerance": [_short(row.tolerance) for row in rows],
        "looks": {
            clean(name, NAME_LENGTH): {"color": THEMED[look.color], "marker": _SHAPES[look.marker]}
            for name, look in looks.items()
        },
        "dashes": {
            clean(form, NAME_LENGTH): "" if isinstance(dash, str) else " ".join(f"{2 * d:g}" for d in dash[1])
            for form, dash in dashes.items()
        },
    }


def _dimensions(names: Names) -> dict[str, Callable[[Measurement], str | int]]:
    def size(name: str) -> Callable[[Measurement], int]:
        return lambda m: int(getattr(m.case, name))

    return {
        "attention": lambda m: names(m.case.spec),
        "backend": lambda m: clean(m.backend, NAME_LENGTH),
        "form": lambda m: clean(m.form, NAME_LENGTH),
        "hardware": lambda m: clean(m.hardware, NAME_LENGTH) or "this machine",
        "device": lambda m: m.case.device,
        "dtype": lambda m: m.case.dtype,
        "mode": lambda m: m.case.mode.replace("_", " + "),
        "causal": lambda m: "causal" if m.case.spec.causal else "not causal",
        **{name: size(name) for name in ("seq_len", "batch", "heads", "head_dim", "world_size")},
        "other sizes": _others,
    }


def _others(row: Measurement) -> str:
    """The sizes that mostly follow another one, where they do not."""
    shape = Shape.of(row.case)
    plain = Shape(batch=shape.batch, heads=shape.heads, head_dim=shape.head_dim)
    return shape.label().removeprefix(plain.label()).removeprefix(", ") or "as usual"


def _coded(values: Sequence[str | int]) -> dict[str, list[Any]]:
    """Numbers in their order, words in that of the rows."""
    kinds = list(dict.fromkeys(values))
    if all(isinstance(kind, int) for kind in kinds):
        kinds.sort()
    place = {kind: at for at, kind in enumerate(kinds)}
    return {"values": kinds, "rows": [place[value] for value in values]}


def _numbers(point: Point | None) -> list[float | None] | None:
    if point is None or not all(map(drawable, (point.y, point.low, point.high))):
        return None
    if point.low == point.high == point.y:
        return [_short(point.y)]
    return [_short(v) for v in (point.y, point.low, point.high)]


def _short(value: float | None) -> float | None:
    return float(f"{value:.{DIGITS}g}") if value is not None and drawable(value) else None
