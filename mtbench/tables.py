"""A table on the terminal: where it is narrow, names break and figures do not."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = ["table"]

WIDE = 100
"""Columns of a terminal from which on there is room for two spaces between columns."""
LEAST = 18
"""Letters of a name in a line, at the least."""


def table(
    console: Console,
    headings: Sequence[str],
    rows: Iterable[tuple[Sequence[str], str]],
    *,
    folded: Collection[int],
    right: Collection[int] = (),
) -> Table:
    """One for this console.

    Args:
        console: whose width counts.
        headings: of the columns.
        rows: the cells of each, and its style.
        folded: columns of names, which may break anywhere; the others are never cut while names have more
            than they need at the least.
        right: columns whose cells end below each other.
    """
    gap = 2 if console.width >= WIDE else 1
    made = Table(box=None, padding=(0, gap, 0, 0), pad_edge=False, header_style="bold")
    for index, heading in enumerate(headings):
        fold = index in folded
        made.add_column(
            heading,
            justify="right" if index in right else "left",
            overflow="fold",
            no_wrap=not fold,
            min_width=LEAST if fold else None,
        )
    for cells, style in rows:
        made.add_row(*map(Text, cells), style=style)
    return made
