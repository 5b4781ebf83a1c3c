"""The figures of a profile: the call's pieces over its time, its memory, the flame graph, the roofline."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mtbench.profile.record import Flame, MemoryCourse, Piece, Profile

from .format import clean, duration, memory, number
from .marks import WIDTH, Element, figure, percent, ticks, unit_of
from .marks import number as place

__all__ = ["bytes_rate", "flame_figure", "flop_rate", "memory_figure", "pieces_figure", "roofline_figure"]

LANE, FRAME = 26, 18
"""Heights, in pixels."""
AXIS = 30
LEAST_DRAWN = 0.001
"""Of the width: what is narrower is not drawn."""
MOST_LANES = 8
COLORS = ("var(--blue)", "var(--orange)", "var(--green)", "var(--purple)", "var(--sky)", "var(--vermilion)")
EDGE = 0.06
"""Of the width, in which a word in the middle of its place would be cut."""
COURSE = 150
WORDS = 12
"""The height of a line of words: nearer to the top than that they stand below their line."""
ROOF = 260


def pieces_figure(pieces: Sequence[Piece], wall_ms: float) -> Any:
    """What ran when, a line a stream or thread; empty space is where nothing did."""
    lanes = list(dict.fromkeys(piece.lane for piece in pieces))[:MOST_LANES]
    end = max([wall_ms, *(piece.start_ms + piece.ms for piece in pieces)])
    height = LANE * len(lanes)
    told = f"{len(pieces)} pieces of work over {duration(end)}, by {len(lanes)} streams or threads"
    root = figure("pieces", height + AXIS, told)
    colors = {name: COLORS[at % len(COLORS)] for at, name in enumerate(_by_time(pieces))}
    for piece in sorted(pieces, key=lambda piece: -piece.ms):
        share = piece.ms / end
        if piece.lane in lanes and (share >= LEAST_DRAWN or len(pieces) < WIDTH / 4):
            box = _box(root, piece.start_ms / end, max(share, LEAST_DRAWN), LANE * lanes.index(piece.lane))
            box.child("rect", width="100%", height=LANE - 4, fill=colors[piece.name], fill_opacity="0.55")
            _title(box, f"{piece.name}: {duration(piece.ms)}, from {duration(piece.start_ms)} on")
            if share > 0.03:
                box.write(piece.name, x=4, y=15)
    _axis(root, height, end)
    return root.markup()


def _by_time(pieces: Sequence[Piece]) -> list[str]:
    totals: dict[str, float] = {}
    for piece in pieces:
        totals[piece.name] = totals.get(piece.name, 0.0) + piece.ms
    return sorted(totals, key=lambda name: -totals[name])


def memory_figure(course: MemoryCourse, swept_bytes: int | None) -> Any:
    """Bytes over time, and a line at the sweep's own peak."""
    end = max(at for at, _ in course.points) or 1.0
    top = max([course.peak_bytes, swept_bytes or 0, 1]) * 1.08
    low = min(0, *(size for _, size in course.points))
    root = figure(
        "memory", COURSE + AXIS, f"memory over {duration(end)}, at most {memory(course.peak_bytes)}"
    )

    def down(size: float) -> float:
        return COURSE * (1 - (size - low) / (top - low))

    inner = root.stretched(COURSE)
    d = "".join(
        f"{'M' if not at else 'H'}{place(moment / end * WIDTH)}{',' if not at else 'V'}{place(down(size))}"
        for at, (moment, size) in enumerate(course.points)
    )
    inner.path(f"{d}H{WIDTH}V{place(down(low))}H0Z", kind="filled")
    inner.path(f"{d}H{WIDTH}", kind="line")
    unit = next(2**power for power in (30, 20, 10, 0) if top >= 2**power)
    for size in (tick * unit for tick in ticks(low / unit, top / unit, 4)):
        inner.path(f"M0,{place(down(size))}H{WIDTH}", kind="grid")
        words = down(size) - 3 if down(size) > WORDS else down(size) + WORDS
        root.write(memory(size), x="100%", y=place(words), text_anchor="end")
    if swept_bytes is not None:
        inner.path(f"M0,{place(down(swept_bytes))}H{WIDTH}", kind="swept")
        root.write(
            f"the sweep's peak, {memory(swept_bytes)}", x=0, y=place(down(swept_bytes) - 4), kind="name"
        )
    _axis(root, COURSE, end)
    return root.markup()


def flame_figure(flame: Flame) -> Any:
    """The tree from the top down, each frame as wide as its part of the time."""
    depth = _depth(flame)
    root = figure("flame", FRAME * depth, f"{number(flame.seconds)} s of frames, {depth} deep")
    _frames(root, flame, 0.0, 0, flame.seconds or 1.0)
    return root.markup()


def _depth(flame: Flame) -> int:
    return 1 + max((_depth(one) for one in flame.children), default=0)


def _frames(root: Element, flame: Flame, left: float, level: int, total: float) -> None:
    share = flame.seconds / total
    if share < LEAST_DRAWN:
        return
    box = _box(root, left, share, FRAME * level)
    native = ".py)" not in flame.name
    color = "var(--muted)" if level == 0 else "var(--orange)" if native else "var(--blue)"
    box.child("rect", width="100%", height=FRAME - 1, fill=color, fill_opacity="0.35", stroke="var(--card)")
    _title(box, f"{flame.name}: {number(flame.seconds)} s, {share:.1%}")
    if share > 0.02:
        box.write(flame.name, x=3, y=13)
    for one in flame.children:
        _frames(root, one, left, level + 1, total)
        left += one.seconds / total


def roofline_figure(profile: Profile, product: float, points: Sequence[tuple[str, float, float]]) -> Any:
    """FLOP/s over FLOP per byte, both logarithmic, under the machine's roof.

    Args:
        profile: has the copy's rate.
        product: operations/s of a product in the case's dtype.
        points: a name, FLOP per byte, and FLOP/s of each.
    """
    copy = profile.machine.copy_bytes_per_s
    assert copy  # noqa: S101  (the page asks)
    ridge = product / copy
    across = [ridge, *(intensity for _, intensity, _ in points)]
    left, right = min(across) / 4, max(across) * 4
    rates = [product, *(rate for _, _, rate in points), left * copy]
    low, high = min(rates) / 2, product * 2
    told = "; ".join(f"{name} at {flop_rate(rate)}" for name, _, rate in points)
    root = figure("roofline", ROOF + AXIS, f"roofline: {told}")

    def x(intensity: float) -> float:
        return math.log(intensity / left) / math.log(right / left)

    def y(rate: float) -> float:
        return ROOF * (1 - math.log(rate / low) / math.log(high / low))

    inner = root.stretched(ROOF)
    corner = place(x(ridge) * WIDTH)
    d = f"M0,{place(y(left * copy))}L{corner},{place(y(product))}H{WIDTH}"
    inner.path(d, kind="line")
    for exponent in range(math.ceil(math.log10(left)), math.floor(math.log10(right)) + 1):
        inner.path(f"M{place(x(10.0**exponent) * WIDTH)},0V{ROOF}", kind="grid")
        words, at = f"{number(10.0**exponent, 1)} FLOP/byte", x(10.0**exponent)
        anchor = "start" if at < EDGE else "end" if at > 1 - EDGE else "middle"
        root.write(words, x=percent(at), y=ROOF + 18, text_anchor=anchor)
    for exponent in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1):
        inner.path(f"M0,{place(y(10.0**exponent))}H{WIDTH}", kind="grid")
        root.write(flop_rate(10.0**exponent), x=2, y=place(y(10.0**exponent) - 3))
    middle = left * (ridge / left) ** 0.5
    _name(root, f"copy, {bytes_rate(copy)}", x(middle), y(middle * copy) + 16, anchor="start")
    _name(root, f"product, {flop_rate(product)}", 0.99, y(product) - 6, anchor="end")
    for at, (name, intensity, rate) in enumerate(points):
        color = COLORS[at % len(COLORS)]
        spot = root.child("circle", cx=percent(x(intensity)), cy=place(y(rate)), r=6, fill=color)
        _title(spot, f"{name}: {number(intensity)} FLOP/byte, {flop_rate(rate)}")
        _name(root, name, x(intensity), y(rate) + (20 if at % 2 else -11), anchor="middle")
    return root.markup()


def flop_rate(rate: float) -> str:
    """Operations a second.

    >>> flop_rate(6.9e14), flop_rate(4.9e10)
    ('690 TFLOP/s', '49.0 GFLOP/s')
    """
    return f"{number(rate / 1e12)} TFLOP/s" if rate >= 1e12 else f"{number(rate / 1e9)} GFLOP/s"


def bytes_rate(rate: float) -> str:
    """Bytes a second, in the decimal units of memory's makers.

    >>> bytes_rate(3.08e12), bytes_rate(2e10)
    ('3.08 TB/s', '20.0 GB/s')
    """
    return f"{number(rate / 1e12)} TB/s" if rate >= 1e12 else f"{number(rate / 1e9)} GB/s"


def _name(root: Element, words: str, share: float, down: float, *, anchor: str) -> None:
    root.write(words, x=percent(share), y=place(down), text_anchor=anchor, kind="name")


def _box(root: Element, left: float, share: float, top: int) -> Element:
    """A part of the figure that cuts off what does not fit in it."""
    return root.child("svg", x=percent(left), y=top, width=f"{100 * share:.4f}%", height=LANE - 2, kind="box")


def _title(parent: Element, words: str) -> None:
    parent.child("title").text = clean(words, 400)


def _axis(root: Element, top: int, end_ms: float) -> None:
    unit, name = unit_of(end_ms)
    for tick in ticks(0.0, end_ms / unit, 7):
        share = tick * unit / end_ms
        anchor = "start" if share < 0.02 else "end" if share > 0.98 else "middle"
        root.write(
            f"{number(tick, 2) if tick else 0} {name}", x=percent(share), y=top + 18, text_anchor=anchor
        )
