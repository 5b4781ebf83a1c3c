"""A comparison and a noise floor on the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.text import Text

from mtbench.compare.noise import Floor
from mtbench.compare.verdicts import Comparison
from mtbench.compare.writing import (
    CASE_HEADINGS,
    FLOOR_HEADINGS,
    case_cells,
    floor_cells,
    floor_lines,
    sorted_cases,
)
from mtbench.tables import table

__all__ = ["print_comparison", "print_floor"]

STYLES = {"slower": "bold red", "faster": "bold green", "unsure": "yellow", "same": ""}


def print_comparison(comparison: Comparison, *, every: bool = False) -> None:
    """What is not `same`, or every case with what is not the same first; the summary is the last line.

    Cases that were not tested have one line together among the remarks: a table of them says nothing.
    """
    console = Console(highlight=False)
    cases = [case for case in sorted_cases(comparison) if every or (case.tested and case.verdict != "same")]
    if cases:
        rows = []
        for case in cases:
            verdict, name, *rest = case_cells(case)
            reason = f"\n({case.reason})" if case.reason else ""
            rows.append(((verdict, name + reason, *rest), STYLES[case.verdict]))
        _print_table(console, CASE_HEADINGS, rows)
    others = [case for case in comparison.others if every or case.changed]
    if others:
        lines = []
        for other in others:
            reason = f"\n({other.reason})" if other.reason else ""
            cells = ("broken" if other.broken else "", other.id + reason, other.a, other.b)
            lines.append((cells, "bold red" if other.broken else ""))
        _print_table(console, ("", "not judged", "A", "B"), lines)
    for remark in comparison.remarks:
        console.print(Text(f"- {remark}"), soft_wrap=True)
    console.print(Text(comparison.summary), soft_wrap=True)


def print_floor(floor: Floor) -> None:
    """The table and what it means."""
    console = Console(highlight=False)
    _print_table(console, FLOOR_HEADINGS, [(cells, "") for cells in floor_cells(floor)], folded=())
    for line in floor_lines(floor):
        console.print(Text(line), soft_wrap=True)


def _print_table(
    console: Console,
    headings: Sequence[str],
    rows: Iterable[tuple[Sequence[str], str]],
    *,
    folded: Sequence[int] = (1,),
) -> None:
    console.print(table(console, headings, rows, folded=folded))
    console.print()
