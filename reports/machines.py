"""A run of several kinds of machine: what each of them is, and the same rows on each, side by side.

Nothing here ranks: which kind is faster is a matter of its price and its age, and no verdict of an attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from mtbench.results import Measurement, Run

from .format import clean, count
from .header import mapping, sequence, words_of
from .medians import Entry, entry
from .settings import Clock, Context, Names, Shape, clocks
from .table import in_order

__all__ = ["Beside", "Kind", "Line", "kinds", "notes", "side_by_side"]

NAME_LENGTH = 60
MOST_NOTES = 100


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of machine."""

    name: str
    words: tuple[str, ...]
    """Its hardware, what was measured first."""
    nodes: int
    statuses: dict[str, int]
    lacks: tuple[tuple[str, str], ...]
    """What could not run there, and why."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One row of a table: the same on each kind of machine."""

    attention: str
    backend: str
    form: str
    shape: Shape
    seq_len: int
    cells: tuple[Entry | None, ...]
    """By kind; None where the run has no such row."""


@dataclass(frozen=True, kw_only=True)
class Beside:
    """The rows of one context, by one clock."""

    context: Context
    """On no kind of machine in particular."""
    clock: Clock
    hardware: tuple[str, ...]
    lines: tuple[Line, ...]

    @property
    def by_shape(self) -> list[tuple[Shape, list[Line]]]:
        """The lines of each shape, which are together already."""
        return [(shape, list(lines)) for shape, lines in groupby(self.lines, key=lambda line: line.shape)]

    @property
    def has_less(self) -> bool:
        """Whether a cell's form does less than the attention."""
        return any(cell.less for line in self.lines for cell in line.cells if cell)


def kinds(run: Run) -> list[Kind]:
    """Those of a run whose machines have names; none where it is of one machine."""
    found = []
    for name, part in run.parts().items():
        if not name:
            continue
        counts: dict[str, int] = {}
        for row in part:
            counts[row.status] = counts.get(row.status, 0) + 1
        nodes = [mapping(node) for node in sequence(mapping(run.machines.get(name)).get("nodes"))]
        lacks = dict.fromkeys(
            (clean(backend, NAME_LENGTH), clean(why, 300))
            for node in nodes
            for backend, why in mapping(node.get("lacks")).items()
        )
        kind = Kind(
            name=clean(name, NAME_LENGTH),
            words=(*(clean(word, 120) for word in words_of(part)), *_threads(part)),
            nodes=len(nodes),
            statuses=counts,
            lacks=tuple((f"{backend}{_of(nodes, backend)}", why) for backend, why in lacks),
        )
        found.append(kind)
    return found


def _threads(run: Run) -> list[str]:
    threads = mapping(run.header.get("environment")).get("threads")
    return [count(threads, "CPU thread")] if isinstance(threads, int) else []


def _of(nodes: Sequence[object], backend: str) -> str:
    """On how many nodes it is not, where it is on some."""
    without = sum(backend in map(str, mapping(mapping(node).get("lacks"))) for node in nodes)
    return "" if without == len(nodes) else f" (on {without} of {len(nodes)} nodes)"


def notes(run: Run) -> list[str]:
    """What happened to the machines while it ran."""
    return [clean(note, 400) for note in sequence(run.header.get("notes"))[:MOST_NOTES]]


def side_by_side(rows: Sequence[Measurement]) -> list[Beside]:
    """A table for each context and clock in which two kinds of machine or more have a time."""
    names = Names(rows)
    contexts: dict[Context, list[Measurement]] = {}
    for row in in_order(rows):
        contexts.setdefault(Context.of(row).anywhere, []).append(row)
    found = []
    for context, members in sorted(contexts.items(), key=lambda item: item[0].key):
        hardware = sorted({row.hardware for row in members})
        on = [[row for row in members if row.hardware == name] for name in hardware]
        for clock in dict.fromkeys(clock for some in on for clock in clocks(some)):
            lines = _lines(members, hardware, clock, names)
            timed = {at for line in lines for at, cell in enumerate(line.cells) if cell and not cell.status}
            if len(timed) > 1:
                table = Beside(context=context, clock=clock, hardware=tuple(hardware), lines=tuple(lines))
                found.append(table)
    return found


def _lines(rows: Sequence[Measurement], hardware: Sequence[str], clock: Clock, names: Names) -> list[Line]:
    by: dict[str, dict[str, Measurement]] = {}
    for row in rows:
        by.setdefault(row.unplaced_id, {})[row.hardware] = row
    found = []
    for on in by.values():
        one = next(iter(on.values()))
        cells = tuple(entry(clock, on[name]) if name in on else None for name in hardware)
        if any(cell and not cell.status for cell in cells):
            line = Line(
                attention=names(one.case.spec),
                backend=clean(one.backend, 40),
                form=clean(one.form, 40),
                shape=Shape.of(one.case),
                seq_len=one.case.seq_len,
                cells=cells,
            )
            found.append(line)
    lengths: dict[Shape, set[int]] = {}
    for line in found:
        lengths.setdefault(line.shape, set()).add(line.seq_len)
    # The longest sweep first; within a shape as in the table of all rows.
    return sorted(found, key=lambda line: (-len(lengths[line.shape]), line.shape.key))
