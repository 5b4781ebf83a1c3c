"""Tables for a paper: one a metric, context and attention; a row a case, a column a backend's form."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from mtbench.results import DOES_LESS, Measurement
from mtbench.spec import ATTENTIONS

from .digits import with_interval
from .format import clean, error
from .settings import CLOCK_NAMES, Context, Names, Shape, clocks, samples

__all__ = ["METRICS", "Entry", "MedianTable", "Metric", "entry", "median_tables"]

Metric = Literal["wall", "device", "memory", "error"]
METRICS: tuple[Metric, ...] = get_args(Metric)
HEADS: Mapping[Metric, tuple[str, str, str]] = {
    # what it is, its unit, what stands in brackets
    "wall": (f"Latency by the {CLOCK_NAMES['wall']}", "ms", "median [95% interval]"),
    "device": (f"Latency by the {CLOCK_NAMES['device']}", "ms", "median [95% interval]"),
    "memory": ("Peak memory of a call, inputs left out", "MiB", "one reading"),
    "error": ("Relative error against float64", "ratio", "of the worst array"),
}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A cell: a value as text, or why there is none."""

    text: str
    interval: str = ""
    """``LOW, HIGH``, or nothing."""
    best: bool = False
    less: bool = False
    """Whether its form does less than the attention."""
    status: bool = False
    """Whether the text is a status and no value."""


@dataclass(frozen=True, kw_only=True)
class MedianTable:
    """One table; every text in it is clean and of one line, and none is escaped."""

    title: str
    unit: str
    shown: str
    """What a cell holds."""
    sizes: tuple[str, ...]
    """The heads of the first columns: the sizes that differ in the table."""
    columns: tuple[tuple[str, str], ...]
    """(backend, form) of each other column, those of a backend together."""
    rows: tuple[tuple[tuple[str, ...], tuple[Entry | None, ...]], ...]
    """The sizes of a case, and its cells; None where the run has no such row."""

    @property
    def has_less(self) -> bool:
        """Whether a cell's form does less than the attention."""
        return any(cell.less for _, cells in self.rows for cell in cells if cell)


def median_tables(rows: Sequence[Measurement], metrics: Sequence[Metric] = ()) -> list[MedianTable]:
    """The tables of a run, those without a value left out. No metric named: the clocks that its rows are
    ranked by, the device clock where there is one."""
    names = Names(rows)
    contexts: dict[Context, list[Measurement]] = {}
    for row in {row.id: row for row in rows}.values():
        contexts.setdefault(Context.of(row), []).append(row)
    found = []
    for context, members in sorted(contexts.items(), key=lambda item: item[0].key):
        wanted: Sequence[Metric] = metrics or clocks(members)
        kinds: dict[tuple[int, str], list[Measurement]] = {}
        for row in members:
            kinds.setdefault((ATTENTIONS.index(row.case.spec.kind), names(row.case.spec)), []).append(row)
        for metric in wanted:
            for (_, attention), group in sorted(kinds.items()):
                found.append(_table(metric, f"{attention}; {context.label}", group))
    return [table for table in found if table is not None]


def _sizes(row: Measurement) -> dict[str, str]:
    shape = Shape.of(row.case)
    optional = ("kv_len", "kv_heads", "value_dim", "lengths")
    found = {"batch": shape.batch, "heads": shape.heads, "head_dim": shape.head_dim}
    told = {name: str(value) for name, value in found.items()} | {"seq_len": str(row.case.seq_len)}
    for name in optional:
        value = getattr(shape, name)
        told[name] = "" if value is None else clean(value, 24)
    return told | {"seed": str(shape.seed) if shape.seed else ""}


def _table(metric: Metric, about: str, rows: Sequence[Measurement]) -> MedianTable | None:
    value = _value_of(metric)
    if not any(value(row) is not None for row in rows):
        return None
    cases: dict[tuple[object, ...], list[Measurement]] = {}
    for row in rows:
        cases.setdefault((*Shape.of(row.case).key, row.case.seq_len, row.case.id), []).append(row)
    columns = sorted({(row.backend, row.form) for row in rows})
    lines = [(_sizes(group[0]), _entries(metric, group, columns)) for _, group in sorted(cases.items())]
    every = [sizes for sizes, _ in lines]
    differing = [name for name in every[0] if len({sizes[name] for sizes in every}) > 1]
    fixed = [f"{name} {text}" for name, text in every[0].items() if name not in differing and text]
    # Where all is equal the length still stands at the row's head: a row without one cannot be named.
    heads = differing or ["seq_len"]
    what, unit, shown = HEADS[metric]
    return MedianTable(
        title=f"{what}: {about}; {', '.join(text for text in fixed if text.split()[0] not in heads)}",
        unit=unit,
        shown=shown,
        sizes=tuple(heads),
        columns=tuple((clean(backend, 40), clean(form, 40)) for backend, form in columns),
        rows=tuple((tuple(sizes[name] or "–" for name in heads), cells) for sizes, cells in lines),
    )


def _entries(
    metric: Metric, rows: Sequence[Measurement], columns: Sequence[tuple[str, str]]
) -> tuple[Entry | None, ...]:
    value = _value_of(metric)
    by = {(row.backend, row.form): row for row in rows}
    fair = {
        key: found
        for key, row in by.items()
        if row.status == "ok" and DOES_LESS not in row.flags and (found := value(row)) is not None
    }
    best = None if not fair else _text(metric, min(fair.values()))
    cells = []
    for key in columns:
        row = by.get(key)
        # Where two are equal to the digits that are shown, both are the best.
        is_best = key in fair and _text(metric, fair[key]) == best
        cells.append(None if row is None else entry(metric, row, best=is_best))
    return tuple(cells)


Value = tuple[float, float, float]


def entry(metric: Metric, row: Measurement, *, best: bool = False) -> Entry:
    """The cell of one row."""
    found = _value_of(metric)(row)
    less = DOES_LESS in row.flags
    if found is None:
        return Entry(text=_why(row), status=True)
    if metric == "error":
        wrong = " (wrong)" if row.status == "wrong" else ""
        return Entry(text=_text(metric, found) + wrong, best=best, less=less)
    return Entry(text=_text(metric, found), interval=with_interval(*found)[1], best=best, less=less)


def _text(metric: Metric, value: Value) -> str:
    return error(value[0]) if metric == "error" else with_interval(*value)[0]


def _why(row: Measurement) -> str:
    if row.status != "ok":
        return row.status
    return "interpreted" if "interpreted" in row.flags else "not measured"


def _value_of(metric: Metric) -> Callable[[Measurement], Value | None]:
    return {"wall": _wall, "device": _device, "memory": _memory, "error": _error}[metric]


def _wall(row: Measurement) -> Value | None:
    return _time(row, "wall")


def _device(row: Measurement) -> Value | None:
    return _time(row, "device")


def _time(row: Measurement, clock: Literal["wall", "device"]) -> Value | None:
    if DOES_LESS in row.flags and row.timed:
        found = row.wall_ms if clock == "wall" else row.device_ms
        good = found is not None and all(map(math.isfinite, found.values)) and found.median > 0
        found = found if good else None
    else:
        found = samples(row, clock)
    return None if found is None else (found.median, *found.interval)


def _memory(row: Measurement) -> Value | None:
    if row.status != "ok" or "interpreted" in row.flags or row.peak_memory_bytes is None:
        return None
    mib = row.peak_memory_bytes / 2**20
    return mib, mib, mib


def _error(row: Measurement) -> Value | None:
    found = row.relative_error
    return None if found is None else (found, found, found)
