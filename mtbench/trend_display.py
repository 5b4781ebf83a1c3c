"""Trends on the terminal: what changed, at which run."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from mtbench.compare.sides import Side
from mtbench.tables import table
from mtbench.trend import Trend

__all__ = ["print_trends"]

HEADINGS = ("since", "case", "before, ms", "after, ms", "ratio", "95% interval", "clock")


def print_trends(trends: Sequence[Trend], *, every: bool = False) -> None:
    """A table for each machine, the last change first; the summary is the last line of each."""
    console = Console(highlight=False)
    for trend in trends:
        if len(trends) > 1:
            machine = "; ".join(f"{name} {text}" for name, text in trend.line.machine.items())
            console.print(Text(machine or "a machine that no run names", style="bold"), soft_wrap=True)
        rows = _rows(trend, every)
        if rows:
            console.print(table(console, HEADINGS, rows, folded=[HEADINGS.index("case")]))
            console.print()
        for run in sorted({change.at for change in trend.changes}, reverse=True):
            for remark in trend.remarks_at(run):
                console.print(Text(f"- {_name(trend.line.sides[run])}: {remark}"), soft_wrap=True)
        for remark in trend.remarks:
            console.print(Text(f"- {remark}"), soft_wrap=True)
        console.print(Text(trend.summary), soft_wrap=True)


def _name(side: Side) -> str:
    """Seven digits of the commit, or the folder's name."""
    digits, _, changes = side.commit.partition(" ")
    return f"{digits[:7]}{'+' if changes else ''}" or side.path.name


def _rows(trend: Trend, every: bool) -> list[tuple[tuple[str, ...], str]]:
    rows: list[tuple[tuple[str, ...], str]] = []
    for change in sorted(trend.changes, key=lambda change: -change.at):
        cells = (
            _name(trend.line.sides[change.at]),
            change.series.id,
            f"{change.before_ms:.4g}",
            f"{change.after_ms:.4g}",
            f"{change.ratio:.3f}",
            f"{change.ratio_low:.3f} to {change.ratio_high:.3f}",
            change.series.clock,
        )
        rows.append((cells, "bold red" if change.slower else "bold green"))
    if every:
        changed = {id(change.series) for change in trend.changes}
        for series in trend.line.series:
            timed = [level.ms for level in series.levels if level is not None]
            if id(series) not in changed:
                ends = (f"{timed[0]:.4g}", f"{timed[-1]:.4g}", f"{timed[-1] / timed[0]:.3f}")
                rows.append((("-", series.id, *ends, "-", series.clock), ""))
    return rows
