"""The page of many runs over commits, a section for each machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mtbench.trend import Change, Line, Series, Trend

from .course import course
from .digits import with_interval
from .format import clean, count
from .marks import time_text
from .rendering import styles, template
from .runs import runs_table, short_commit, when

__all__ = ["trend_html"]

MOST_FIGURES = 400
"""Cases that are drawn, of one machine: those that changed first."""


def trend_html(trends: Sequence[Trend]) -> str:
    """The page's text."""
    return template("trend.html.j2").render(
        style=styles("report.css", "several.css"),
        lines=[_line(trend, number) for number, trend in enumerate(trends, start=1)],
        runs=sum(trend.runs for trend in trends),
        effect=trends[0].effect_percent,
    )


def _line(trend: Trend, number: int) -> dict[str, Any]:
    """What the template says of one machine."""
    labels = _labels(trend.line)
    changed = {id(change.series) for change in trend.changes}
    by_size = sorted(trend.changes, key=lambda c: -max(c.ratio, 1 / c.ratio))
    first = list({id(change.series): change.series for change in by_size}.values())
    rest = [series for series in trend.line.series if id(series) not in changed]
    room = max(0, MOST_FIGURES - len(first))
    return {
        "number": number,
        "trend": trend,
        "name": _machine(trend.line),
        "short": _parts(trend.line)[0][:30],
        "slower": sum(change.slower for change in trend.changes),
        "faster": sum(not change.slower for change in trend.changes),
        "at": [
            {
                "label": labels[run],
                "side": trend.line.sides[run],
                "when": when(trend.line.sides[run].committed or trend.line.sides[run].started),
                "remarks": trend.remarks_at(run),
                "rows": [_row(change, labels) for change in trend.at(run)],
            }
            for run in sorted({change.at for change in trend.changes}, reverse=True)
        ],
        "changed": [_figure(trend, series, labels) for series in first[:MOST_FIGURES]],
        "steady": _by_backend(trend, rest[:room], labels),
        "undrawn": max(0, len(first) - MOST_FIGURES) + len(rest[room:]),
        "runs": runs_table(labels, trend.line.sides),
        "labels": labels,
    }


def _labels(line: Line) -> list[str]:
    """A run's commit; where there is none its folder's name, cut to as much as fits below a figure."""
    return [short_commit(side) or clean(side.path.name)[:12] or "?" for side in line.sides]


def _machine(line: Line) -> str:
    """In a few words."""
    return ", ".join(_parts(line))


def _parts(line: Line) -> list[str]:
    """Its GPUs, its CPU, its threads."""
    machine = line.machine
    gpus = machine.get("GPUs", "none")
    found = [*([gpus] if gpus != "none" else []), machine.get("CPU", "a machine that no run names")]
    if "threads" in machine:
        found.append(f"{machine['threads']} thread{'' if machine['threads'] == '1' else 's'}")
    return found


def _row(change: Change, labels: Sequence[str]) -> dict[str, Any]:
    ratio, ends = with_interval(change.ratio, change.ratio_low, change.ratio_high)
    low, high = change.ratio_low / change.ratio, change.ratio_high / change.ratio
    return {
        "change": change,
        "since": labels[change.since],
        "before": time_text(change.before_ms, change.before_ms * low, change.before_ms * high),
        "after": time_text(change.after_ms, change.after_ms * low, change.after_ms * high),
        "ratio": ratio,
        "interval": ends.replace(", ", " to "),
    }


def _figure(trend: Trend, series: Series, labels: Sequence[str]) -> dict[str, Any]:
    return {"series": series, "svg": course(series, trend.of(series), labels)}


def _by_backend(trend: Trend, found: Sequence[Series], labels: Sequence[str]) -> list[dict[str, Any]]:
    groups: dict[str, list[Series]] = {}
    for series in found:
        groups.setdefault(series.backend, []).append(series)
    return [
        {
            "name": backend or "no backend named",
            "count": count(len(members), "case"),
            "figures": [_figure(trend, series, labels) for series in members],
        }
        for backend, members in groups.items()
    ]
