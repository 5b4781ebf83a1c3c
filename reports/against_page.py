"""The page of two profiles side by side."""

from __future__ import annotations

from typing import Any

from mtbench.profile.against import Against, Line
from mtbench.profile.record import Profile

from . import format as fmt
from .rendering import styles, template

__all__ = ["against_html"]

MOST_LINES = 200


def against_html(beside: Against, a: str, b: str) -> str:
    """The page's text.

    Args:
        beside: the two, aligned.
        a: the name of A's folder.
        b: that of B's.
    """
    most = max((abs(line.more_ms) for line in (*beside.lines, *beside.gaps)), default=0.0) or 1.0
    return template("against.html.j2").render(
        style=styles("report.css", "several.css", "profile.css"),
        beside=beside,
        names=(a, b),
        sides=[_side(beside.a), _side(beside.b)],
        lines=[_line(line, most) for line in beside.lines[:MOST_LINES]],
        gaps=[_line(line, most) for line in beside.gaps],
        more=max(0, len(beside.lines) - MOST_LINES),
    )


def _side(profile: Profile) -> dict[str, Any]:
    return {
        "profile": profile,
        "row": profile.row,
        "wall": fmt.duration(profile.wall_ms),
        "device": fmt.duration(profile.device_ms),
        "memory": fmt.memory(profile.row.peak_memory_bytes),
        "launches": fmt.times(profile.traced.launches) if profile.traced else fmt.NOTHING,
    }


def _line(line: Line, most: float) -> dict[str, Any]:
    sign = "+" if line.more_ms > 0 else "−" if line.more_ms < 0 else ""
    return {
        "name": fmt.clean(line.name, 200),
        "a": fmt.duration(line.a_ms),
        "b": fmt.duration(line.b_ms),
        "more": f"{sign}{fmt.duration(abs(line.more_ms))}",
        "slower": line.more_ms > 0,
        "width": f"{100 * abs(line.more_ms) / most:.1f}%",
        "calls": f"{fmt.times(line.a_calls)} and {fmt.times(line.b_calls)}",
        "only": "A" if line.b_ms is None else "B" if line.a_ms is None else "",
    }
