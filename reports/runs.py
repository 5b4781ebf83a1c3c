"""Several runs and what they were measured on, a column each."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from mtbench.compare.sides import Side

__all__ = ["runs_table", "short_commit", "when"]


def when(moment: datetime | None) -> str:
    """To the minute, in UTC."""
    return "" if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def short_commit(side: Side) -> str:
    """Seven digits, with a plus where there were changes beside the commit; empty where there is none.

    >>> from pathlib import Path
    >>> short_commit(Side(path=Path("x"), rows={}, commit="0123456789ab with changes"))
    '0123456+'
    """
    digits, _, changes = side.commit.partition(" ")
    return f"{digits[:7]}{'+' if changes else ''}"


def runs_table(names: Sequence[str], sides: Sequence[Side]) -> list[dict[str, Any]]:
    """The lines of the table: a name, a cell a run, and whether the runs differ in it."""
    lines: list[tuple[str, list[str]]] = [
        ("folder", [str(side.path) for side in sides]),
        ("started", [when(side.started) for side in sides]),
        ("committed", [when(side.committed) for side in sides]),
        ("cases", [str(len(side.rows)) for side in sides]),
        ("launches", [_launches(side) for side in sides]),
    ]
    for part in ("machine", "software"):
        known: list[dict[str, str]] = [dict(getattr(side, part)) for side in sides]
        keys = dict.fromkeys(key for found in known for key in found)
        lines += [(key, [found.get(key, "") for found in known]) for key in keys]
    same = ("folder", "started", "committed", "cases")
    return [
        {"name": name, "cells": cells, "differs": name not in same and len(set(cells)) > 1}
        for name, cells in lines
        if any(cells)
    ]


def _launches(side: Side) -> str:
    counts = sorted({len(row.wall_ms) for row in side.rows.values() if row.wall_ms})
    return " to ".join(str(n) for n in dict.fromkeys((*counts[:1], *counts[-1:])))
