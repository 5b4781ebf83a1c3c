"""One case over many runs: its time at each, the levels between its changes, and the commits below."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from mtbench.trend import Change, Series

from .format import duration
from .marks import WIDTH, Element, figure, number, percent, spanned, ticks, unit_of

__all__ = ["course"]

HEIGHT, TOP, LABELS = 150, 38, 62
LEAST_RANGE_LOG = math.log(1.1)
"""What the axis spans at the least: noise of a percent should look like one."""
WIDE_LABELS, PHONE_LABELS = 40, 12
"""Commits that are named below a figure, at most, on a wide screen and on a phone."""

NEAR = 0.25
"""Part of the width that the word at a change needs on a phone."""

Place = Callable[[float], float]


def course(series: Series, changes: Sequence[Change], labels: Sequence[str]) -> Any:
    """The figure.

    Args:
        series: the case, with a level a run.
        changes: its changes, in order.
        labels: the short hash of each run's commit, or what stands for it.
    """
    levels = [(at, level) for at, level in enumerate(series.levels) if level is not None]
    ends = [ms for _, level in levels for ms in (level.low_ms or level.ms, level.high_ms or level.ms)]
    low, high = _range(ends, [level.ms for _, level in levels])
    bottom = TOP + HEIGHT
    root = figure("course", bottom + LABELS, _told(series, changes, labels))

    def across(at: float) -> float:
        return (at + 0.5) / len(labels)

    def down(ms: float) -> float:
        return TOP + HEIGHT * (1 - (min(max(ms, low), high) - low) / (high - low))

    _scale(root, low, high, bottom, down)
    inside = root.stretched(bottom)
    shown = [(WIDTH * across(at), down(level.ms)) for at, level in levels]
    inside.path("M" + "L".join(f"{number(x)} {number(y)}" for x, y in shown), kind="line")
    whiskers = [
        f"M{number(WIDTH * across(at))} {number(down(level.low_ms))}V{number(down(level.high_ms))}"
        for at, level in levels
        if level.low_ms is not None and level.high_ms is not None
    ]
    if whiskers:
        inside.path("".join(whiskers), kind="whisker")
    _levels(inside, changes, len(labels), across, down)
    for at, level in levels:
        dot = root.child("circle", cx=percent(across(at)), cy=down(level.ms), r=3.0, kind="dot-run")
        dot.child("title").text = f"{labels[at]}: {duration(level.ms)}"
    for at, (status, known) in enumerate(zip(series.statuses, series.levels, strict=True)):
        if known is None and status:
            root.write("×", x=percent(across(at)), y=bottom - 3, text_anchor="middle", kind="failed")
    _marks(root, changes, across, bottom)
    _commits(root, labels, {change.at for change in changes}, across, bottom)
    return root.markup()


def _range(ends: Sequence[float], centers: Sequence[float]) -> tuple[float, float]:
    """What the axis spans: all levels, and their intervals as far as those do not flatten the levels."""
    room = max(max(centers) - min(centers), min(centers) * math.expm1(LEAST_RANGE_LOG))
    low = max(min(ends), min(centers) - room / 2)
    high = min(max(ends), max(centers) + room / 2)
    low, high = spanned([low, high], 0.08)
    missing = max(0.0, min(centers) * math.expm1(LEAST_RANGE_LOG) - (high - low)) / 2
    return max(0.0, low - missing), high + missing


def _told(series: Series, changes: Sequence[Change], labels: Sequence[str]) -> str:
    timed = [level.ms for level in series.levels if level is not None]
    words = f"{series.id}: {len(timed)} runs, from {duration(timed[0])} to {duration(timed[-1])}"
    steps = [
        f"{'slower' if c.slower else 'faster'} from {labels[c.at]} on, {c.ratio:.2f} times" for c in changes
    ]
    return f"{words}; {', '.join(steps) or 'no change'}"


def _scale(root: Element, low: float, high: float, bottom: int, down: Place) -> None:
    """Ticks inside the figure, above their lines: no room at the left is lost on a phone."""
    unit, name = unit_of(high)
    for number_, tick in enumerate(reversed(ticks(low / unit, high / unit, 4))):
        y = down(tick * unit)
        root.child("line", x1=0, x2="100%", y1=y, y2=y, kind="grid")
        root.write(f"{tick:g} {name}" if number_ == 0 else f"{tick:g}", x=-4, y=y + 4, text_anchor="end")
    root.child("line", x1=0, x2="100%", y1=bottom, y2=bottom, kind="axis")


def _levels(inside: Element, changes: Sequence[Change], runs: int, across: Place, down: Place) -> None:
    """A line at the mean of each level."""
    if not changes:
        return
    bounds = [-0.5, *(change.at - 0.5 for change in changes), runs - 0.5]
    means = [changes[0].before_ms, *(change.after_ms for change in changes)]
    d = [
        f"M{number(WIDTH * across(a))} {number(down(ms))}H{number(WIDTH * across(b))}"
        for a, b, ms in zip(bounds, bounds[1:], means, strict=False)
    ]
    inside.path("".join(d), kind="level")


def _marks(root: Element, changes: Sequence[Change], across: Place, bottom: int) -> None:
    """A line between the two runs of each change, and by how much: the arrow says it to who sees no colours.
    A word that would touch the one before it stands a line higher."""
    before, raised = -1.0, False
    for change in changes:
        at = across((change.since + change.at) / 2)
        raised = at - before < NEAR and not raised
        before = at
        kind = "slower" if change.slower else "faster"
        root.child("line", x1=percent(at), x2=percent(at), y1=TOP - 4, y2=bottom, kind=f"change {kind}")
        by = 100 * abs(change.ratio - 1)
        words = f"▲ +{by:.0f}%" if change.slower else f"▼ −{by:.0f}%"
        anchor = "start" if at < 0.1 else "end" if at > 0.9 else "middle"
        y = TOP - (23 if raised else 9)
        root.write(words, x=percent(at), y=y, text_anchor=anchor, kind="step")


def _commits(root: Element, labels: Sequence[str], marked: set[int], across: Place, bottom: int) -> None:
    """The hashes, aslant; of many runs some, and those at a change always."""
    wide, phone = (_chosen(len(labels), most, marked) for most in (WIDE_LABELS, PHONE_LABELS))
    for at, label in enumerate(labels):
        x = percent(across(at))
        root.child("line", x1=x, x2=x, y1=bottom, y2=bottom + 4, kind="axis")
        if at in wide:
            # A box of its own, since a turn needs its centre in pixels.
            place = root.child("svg", x=x, y=bottom + 10, width=1, height=1)
            kinds = [*(["marked"] if at in marked else []), *([] if at in phone else ["wide"])]
            slant = {"transform": "rotate(-50)", "text_anchor": "end", "kind": " ".join(kinds)}
            place.write(label, x=0, y=6, **slant)


def _chosen(runs: int, most: int, marked: set[int]) -> set[int]:
    """Every so many-th run, counted from the last; one beside a marked run makes room for it.

    >>> sorted(_chosen(10, 5, {4}))
    [1, 4, 7, 9]
    """
    step = math.ceil(runs / most)
    regular = set(range(runs - 1, -1, -step))
    return {at for at in regular if not any(0 < abs(at - m) < step for m in marked)} | marked
