"""The table of all rows: what is the same in every row is said once, above it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mtbench.floor import NOT_MEASURED, NOWHERE_MEASURED, Ceilings, floor_ms
from mtbench.measure.statistics import Samples
from mtbench.results import Measurement
from mtbench.spec import ATTENTIONS

from .format import clean, duration, error, interval, memory, number, seconds
from .profiles import NO_PROFILES, Link
from .roofline import roofline_share
from .settings import Context, Names

__all__ = ["Cell", "Column", "Table", "all_rows", "in_order", "shown_value"]

REASON_LENGTH = 160
TIME_HINT = "median; its 95% interval; samples"
ALWAYS = {"status", "attention", "backend", "form", "seq_len"}
MEASURED = {
    *(
        "wall",
        "device time",
        "over the floor",
        "of the roofline",
        "span",
        "peak memory",
        "static estimate",
        "error",
        "build",
        "first call",
    ),
    *("flags", "profile", "reason"),
}
"""Columns that are shown wherever a row has something there, equal or not."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column's head."""

    title: str
    numeric: bool = False
    hint: str = ""
    unit: str = ""
    """Of the numbers that the cells are sorted by, for who exports them."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A cell: what is shown, and the number it is sorted by (None: by its text)."""

    text: str
    value: float | None = None
    note: str = ""
    """Small print below."""
    href: str = ""
    """What the text leads to, a path from the page; made here and never the run's own."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of cells, each row with its status."""

    constant: tuple[tuple[str, str], ...]
    """Columns left out because every row has the same."""
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]

    def has(self, title: str) -> bool:
        """Whether it has that column."""
        return any(column.title == title for column in self.columns)

    def choices(self, title: str) -> list[str]:
        """What a column has, each once, in the order of the rows."""
        at = [column.title for column in self.columns].index(title)
        return list(dict.fromkeys(cells[at].text for _, cells in self.rows))


def shown_value(value: float | None) -> str | None:
    """The number of a cell as the page has it: whole numbers whole, others to seven digits.

    >>> shown_value(1234567890), shown_value(0.1234567891), shown_value(math.inf)
    ('1234567890', '0.1234568', 'inf')
    """
    return None if value is None else str(value) if isinstance(value, int) else f"{value:.7g}"


Maker = Callable[[Measurement], Cell]


def _text(value: object) -> Cell:
    return Cell(text=clean(value))


def _whole(value: int | None) -> Cell:
    return Cell(text="" if value is None else str(value), value=value)


def _time(found: Samples | None) -> Cell:
    if found is None:
        return Cell(text="")
    low, high = found.interval
    launches = f" in {len(found.sizes)} launches" if len(found.sizes) > 1 else ""
    note = f"{interval(low, high)}; n = {len(found.values)}{launches}"
    return Cell(text=duration(found.median), value=found.median, note=note)


def _error(row: Measurement) -> Cell:
    worst = row.worst
    if worst is None:
        return Cell(text="")
    value = worst.relative if math.isfinite(worst.relative) else math.inf
    return Cell(text=error(worst.relative), value=value, note=f"of at most {error(worst.tolerance)}")


def _number(value: float | None, shown: Callable[[float | None], str]) -> Cell:
    return Cell(text="" if value is None else shown(value), value=value)


def _why(row: Measurement) -> str:
    parts = [row.reason]
    if row.status == "ok" and not row.timed:
        parts.append(row.wall_reason)
    if row.case.device == "cuda" and row.timed and row.device_ms is None:
        parts.append(row.device_reason)
    parts += [reason for launch in row.machine for reason in launch.get("noisy", ())]
    return "; ".join(dict.fromkeys(part for part in parts if part))


def _over_floor(row: Measurement, ceilings: Mapping[str, Ceilings]) -> Cell:
    floor = floor_ms(row.case, ceilings)
    if floor is None or row.device_ms is None:
        return Cell(text="")
    ratio = row.device_ms.median / floor
    return Cell(text=f"{ratio:.2f}×", value=ratio, note=f"floor {duration(floor)}")


def _of_roofline(row: Measurement, ceilings: Mapping[str, Ceilings]) -> Cell:
    share = roofline_share(row, ceilings)
    if share is None:
        return Cell(text="")
    percent = 100 * share.value
    note = f"least {duration(share.least_ms)}, by the {share.bound}"
    return Cell(text=f"{number(percent, 2)}%", value=percent, note=note)


def in_order(rows: Sequence[Measurement]) -> list[Measurement]:
    """The rows in the order of the table."""
    names = Names(rows)
    return sorted(rows, key=lambda m: (Context.of(m).key, *_by(m, names)))


def all_rows(
    rows: Sequence[Measurement],
    ceilings: Mapping[str, Mapping[str, Ceilings]] = NOWHERE_MEASURED,
    profiles: Mapping[str, Link] = NO_PROFILES,
) -> Table:
    """The table, ordered by attention, sizes, backend and form. With the machine's ceilings the device time
    is also shown as a multiple of the least that memory allows, and a time by its share of the roofline; a
    row that was profiled leads to its page."""
    names = Names(rows)

    def reached(row: Measurement) -> Mapping[str, Ceilings]:
        return ceilings.get(row.hardware, NOT_MEASURED)

    sizes = ["batch", "heads", "kv_heads", "seq_len", "kv_len", "head_dim", "value_dim", "seed"]
    if any(row.case.world_size > 1 for row in rows):
        sizes.append("world_size")

    def size(name: str) -> Maker:
        return lambda m: _whole(getattr(m.case, name))

    makers: list[tuple[Column, Maker]] = [
        (Column(title="status"), lambda m: _text(m.status)),
        (Column(title="attention"), lambda m: _text(names(m.case.spec))),
        (Column(title="backend"), lambda m: Cell(text=clean(m.backend, 40))),
        (Column(title="form"), lambda m: Cell(text=clean(m.form, 40))),
        (Column(title="hardware"), lambda m: Cell(text=clean(m.hardware, 60))),
        (Column(title="device"), lambda m: _text(m.case.device)),
        (Column(title="dtype"), lambda m: _text(m.case.dtype)),
        (Column(title="mode"), lambda m: _text(m.case.mode.replace("_", " + "))),
        (Column(title="causal"), lambda m: _text("yes" if m.case.spec.causal else "no")),
        *((Column(title=name, numeric=True), size(name)) for name in sizes),
        (Column(title="lengths"), lambda m: Cell(text=clean(m.case.lengths or "", 40))),
        (Column(title="layout"), lambda m: Cell(text=clean(m.layout, 20))),
        (
            Column(title="wall", numeric=True, hint=TIME_HINT, unit="ms"),
            lambda m: _time(m.wall_ms),
        ),
        (
            Column(title="device time", numeric=True, hint=TIME_HINT, unit="ms"),
            lambda m: _time(m.device_ms),
        ),
        (
            Column(
                title="over the floor",
                numeric=True,
                hint="device time over that of reading q, k, v and writing o once, at the rate of a copy",
            ),
            lambda m: _over_floor(m, reached(m)),
        ),
        (
            Column(
                title="of the roofline",
                numeric=True,
                hint="the least time that the measured copy and product allow, over the time",
                unit="%",
            ),
            lambda m: _of_roofline(m, reached(m)),
        ),
        (
            Column(title="span", numeric=True, hint="first kernel's start to last kernel's end", unit="ms"),
            lambda m: _time(m.span_ms),
        ),
        (
            Column(
                title="peak memory", numeric=True, hint="of one call, measured; inputs left out", unit="bytes"
            ),
            lambda m: _number(m.peak_memory_bytes, memory),
        ),
        (
            Column(
                title="static estimate", numeric=True, hint="of peak memory, by the compiler", unit="bytes"
            ),
            lambda m: _number(m.static_memory_bytes, memory),
        ),
        (
            Column(title="error", numeric=True, hint="relative, of the worst array; and its tolerance"),
            _error,
        ),
        (Column(title="build", numeric=True, unit="s"), lambda m: _number(m.build_s, seconds)),
        (Column(title="first call", numeric=True, unit="s"), lambda m: _number(m.first_call_s, seconds)),
        (
            Column(title="compiled", hint="programs, in build and first call; a cache had the others"),
            _compiled,
        ),
        (Column(title="cache"), lambda m: Cell(text=clean(m.cache, 40))),
        (Column(title="flags"), lambda m: Cell(text=clean(", ".join(m.flags), 60))),
        (
            Column(title="profile", hint="what bounds the call, by a profile of it"),
            lambda m: _profile(profiles.get(m.id)),
        ),
        (Column(title="reason"), lambda m: Cell(text=clean(_why(m), REASON_LENGTH))),
    ]
    ordered = in_order(rows)
    cells = [[make(row) for _, make in makers] for row in ordered]
    constant: dict[str, str] = {}
    kept = []
    for at, (column, _) in enumerate(makers):
        texts = {line[at].text for line in cells}
        if len(texts) > 1 or column.title in ALWAYS or (column.title in MEASURED and texts != {""}):
            kept.append(at)
        elif texts - {""}:
            constant[column.title] = texts.pop()
    titles = [column.title for column, _ in makers]
    for follower, source in (("kv_heads", "heads"), ("kv_len", "seq_len"), ("value_dim", "head_dim")):
        here, there = titles.index(follower), titles.index(source)
        if all(line[here].text == line[there].text for line in cells):
            kept = [at for at in kept if at != here]
            constant.pop(follower, None)
    return Table(
        constant=tuple(constant.items()),
        columns=tuple(makers[at][0] for at in kept),
        rows=tuple(
            (row.status, tuple(line[at] for at in kept)) for row, line in zip(ordered, cells, strict=True)
        ),
    )


def _profile(link: Link | None) -> Cell:
    return Cell(text="") if link is None else Cell(text=clean(link.verdict, 40), href=link.href)


def _compiled(row: Measurement) -> Cell:
    if not any(row.compiled.values()):
        return Cell(text="")
    anew, kept = (row.compiled.get(how, 0) for how in ("anew", "from_cache"))
    return Cell(text=f"{anew} of {anew + kept}")


def _by(row: Measurement, names: Names) -> tuple[int | str, ...]:
    case, kind = row.case, ATTENTIONS.index(row.case.spec.kind)
    sizes = (case.batch, case.heads, case.head_dim, case.seq_len)
    return (kind, names(case.spec), *sizes, row.backend, row.form)
