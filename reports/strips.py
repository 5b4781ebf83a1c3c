"""Two runs of one case: every launch a line with its samples and its median, and where the one run lies by
the interval of the ratio, when the other stays where it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .format import count, duration
from .marks import WIDTH, Element, figure, number, percent, spanned, ticks, unit_of

__all__ = ["Strip", "forest", "strips"]

MOST_SAMPLES = 60
"""Drawn of one launch, evenly chosen from all of them by their order."""
MOST_LAUNCHES = 24
"""Drawn of one run; the rest is counted."""
LAUNCH_HEIGHT, NAME_HEIGHT, AXIS_HEIGHT = 9, 20, 38
COLORS = ("var(--blue)", "var(--vermilion)")


@dataclass(frozen=True, kw_only=True)
class Strip:
    """One run's side of the figure."""

    name: str
    center_ms: float
    medians_ms: tuple[float, ...]
    """Of each launch."""
    samples_ms: tuple[tuple[float, ...], ...]
    """Of each launch; none where nobody kept them."""


def strips(
    a: Strip, b: Strip, interval_ms: tuple[float, float] | None, *, effect_percent: float, clock: str
) -> Any:
    """The figure.

    Args:
        a: the baseline.
        b: the other.
        interval_ms: B's centre at the ends of the ratio's 95% interval; None where nothing was tested.
        effect_percent: the smallest effect that matters: a band about A's centre.
        clock: by which the times are, ``wall`` or ``device``.
    """
    ends = interval_ms or ()
    low, high = spanned([*a.medians_ms, *b.medians_ms, a.center_ms, b.center_ms, *ends], 0.12)
    drawn = [min(len(side.medians_ms), MOST_LAUNCHES) for side in (a, b)]
    heights = [NAME_HEIGHT + LAUNCH_HEIGHT * n + 6 for n in drawn]
    bottom = sum(heights) + (14 if interval_ms else 0)
    root = figure("strips", bottom + AXIS_HEIGHT, _told(a, b, interval_ms))

    def share(ms: float) -> float:
        return (ms - low) / (high - low)

    effect = math.log1p(effect_percent / 100)
    band = [max(low, a.center_ms * math.exp(-effect)), min(high, a.center_ms * math.exp(effect))]
    left, right = map(share, band)
    root.child("rect", x=percent(left), width=percent(right - left), y=0, height=bottom, kind="band")
    inside = root.stretched(bottom)
    for at, (side, color) in enumerate(zip((a, b), COLORS, strict=True)):
        top = sum(heights[:at]) + NAME_HEIGHT
        beyond = _samples(inside, side, top, low, high, color)
        _medians(root, side, at, top, share, color)
        left_out = len(side.medians_ms) - drawn[at]
        notes = [
            "1 launch" if len(side.medians_ms) == 1 else f"{len(side.medians_ms)} launches",
            *([f"{left_out} not drawn"] if left_out else []),
            *([f"{count(beyond, 'sample')} beyond the axis"] if beyond else []),
        ]
        root.write(f"{side.name}: {', '.join(notes)}", x=0, y=top - 6, kind="name")
        center = number(WIDTH * share(side.center_ms))
        end = top + LAUNCH_HEIGHT * drawn[at]
        inside.path(f"M{center} {top - 2}V{bottom if at == 0 else end}", stroke=color, stroke_width=1.5)
    if interval_ms:
        _bar(inside, [WIDTH * share(end) for end in interval_ms], bottom - 8)
    _axis(root, low, high, bottom, clock)
    return root.markup()


def _told(a: Strip, b: Strip, interval_ms: tuple[float, float] | None) -> str:
    words = f"{a.name}: {duration(a.center_ms)}; {b.name}: {duration(b.center_ms)}"
    if interval_ms is None:
        return words
    return f"{words}, by the 95% interval {duration(interval_ms[0])} to {duration(interval_ms[1])}"


def _samples(inside: Element, side: Strip, top: int, low: float, high: float, color: str) -> int:
    """A tick a sample, one path a run. Returns how many are beyond the axis."""
    d: list[str] = []
    beyond = 0
    for row, launch in enumerate(side.samples_ms):
        beyond += sum(not low <= ms <= high for ms in launch)
        if row >= MOST_LAUNCHES:
            continue
        y = top + LAUNCH_HEIGHT * row + 1
        d += [
            f"M{number(WIDTH * (ms - low) / (high - low))} {y}v{LAUNCH_HEIGHT - 3}"
            for ms in _thinned(launch)
            if low <= ms <= high
        ]
    if d:
        inside.path("".join(d), stroke=color, kind="sample")
    return beyond


def _thinned(launch: Sequence[float]) -> Sequence[float]:
    step = math.ceil(len(launch) / MOST_SAMPLES)
    return launch[::step]


def _medians(root: Element, side: Strip, at: int, top: int, share: Any, color: str) -> None:
    """A's are round and B's square: the colour is not all that tells them apart."""
    for row, ms in enumerate(side.medians_ms[:MOST_LAUNCHES]):
        y = top + LAUNCH_HEIGHT * row + (LAUNCH_HEIGHT - 1) / 2
        if at == 0:
            root.child("circle", cx=percent(share(ms)), cy=y, r=3.2, fill=color, kind="median")
        else:
            box = {"x": percent(share(ms)), "y": y - 3, "width": 6, "height": 6, "fill": color}
            root.child("rect", **box, transform="translate(-3)", kind="median")


def _bar(inside: Element, ends: Sequence[float], y: float) -> None:
    low, high = map(number, ends)
    inside.path(f"M{low} {number(y)}H{high}M{low} {number(y - 4)}v8M{high} {number(y - 4)}v8", kind="bar")


def _axis(root: Element, low: float, high: float, bottom: int, clock: str) -> None:
    unit, name = unit_of(high)
    root.child("line", x1=0, x2="100%", y1=bottom, y2=bottom, kind="axis")
    for tick in ticks(low / unit, high / unit, 5):
        at = percent((tick * unit - low) / (high - low))
        root.child("line", x1=at, x2=at, y1=bottom, y2=bottom + 4, kind="axis")
        root.write(f"{tick:g}", x=at, y=bottom + 17, text_anchor="middle")
    root.write(f"{clock} time ({name})", x="50%", y=bottom + 33, text_anchor="middle")


FOREST_WIDTH, FOREST_HEIGHT = 130, 18


def forest(
    ratio: float, interval: tuple[float, float] | None, *, widest_log: float, effect_percent: float
) -> Any:
    """A ratio with its interval on one line, for a table: every row of it on the same logarithmic axis, with
    a line at 1 and the smallest effect about it as a band. What leaves the axis ends in an arrow.

    Args:
        ratio: B over A.
        interval: 95%; None where nothing was tested.
        widest_log: the logarithm at the axis' ends.
        effect_percent: the smallest effect that matters.
    """
    width, middle = FOREST_WIDTH, FOREST_HEIGHT / 2
    root = Element(
        "svg", {"class": "forest", "viewBox": f"0 0 {width} {FOREST_HEIGHT}", "aria-hidden": "true"}
    )

    def x(value: float) -> float:
        share = min(1.0, max(-1.0, math.log(value) / widest_log))
        return width / 2 + share * (width / 2 - 6)

    edge = 1 + effect_percent / 100
    root.child("rect", x=x(1 / edge), width=x(edge) - x(1 / edge), y=0, height=FOREST_HEIGHT, kind="band")
    root.child("path", d=f"M{width / 2:g} 0V{FOREST_HEIGHT}", kind="axis")
    if interval:
        root.child("path", d=f"M{number(x(interval[0]))} {middle:g}H{number(x(interval[1]))}", kind="bar")
    beyond = abs(math.log(ratio)) > widest_log
    at = x(ratio)
    if beyond:
        way = 5 if ratio > 1 else -5
        root.child("path", d=f"M{number(at)} {middle - 5:g}l{way} 5l{-way} 5z", kind="center")
    else:
        root.child("circle", cx=at, cy=middle, r=3.5, kind="center")
    return root.markup()
