"""SVG by hand, for figures of one case: a few hundred bytes where matplotlib's take twenty thousand, and as
wide as the page leaves room. Places across are percentages and places down are pixels, so that neither text
nor markers shrink on a phone; only the lines inside `stretched` are scaled, and no line gets thinner by it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree as ET

from .format import clean

__all__ = ["WIDTH", "Element", "figure", "number", "percent", "spanned", "ticks", "time_text", "unit_of"]

WIDTH = 1000
"""Of the box that `stretched` lines are drawn in."""


class Element(ET.Element):
    """A figure, or a part of one."""

    def child(self, tag: str, **attributes: Any) -> Element:
        """An element in it. An underscore in an attribute's name is a hyphen; ``kind`` is its class."""
        names = {"kind": "class"}
        told = {names.get(key, key.replace("_", "-")): _value(value) for key, value in attributes.items()}
        made = Element(tag, told)
        self.append(made)
        return made

    def write(self, words: object, **attributes: Any) -> None:
        """A line of text, made fit to be shown."""
        self.child("text", **attributes).text = clean(words)

    def stretched(self, height: int) -> Element:
        """A part of the figure from its top, `WIDTH` wide whatever its true width, for `path`."""
        box = f"0 0 {WIDTH} {height}"
        return self.child("svg", width="100%", height=height, viewBox=box, preserveAspectRatio="none")

    def path(self, d: str, **attributes: Any) -> None:
        """A line in a stretched part: across from 0 to `WIDTH`, down in pixels."""
        self.child("path", d=d, vector_effect="non-scaling-stroke", **attributes)

    def markup(self) -> Any:
        """The figure as it may stand in a template."""
        from markupsafe import Markup

        return Markup(ET.tostring(self, encoding="unicode"))  # noqa: S704  # ElementTree escaped it


def figure(kind: str, height: int, told: str) -> Element:
    """An empty figure: its class, its height in pixels, and the text that stands for it."""
    return Element(
        "svg",
        {"class": kind, "width": "100%", "height": str(height), "role": "img", "aria-label": clean(told)},
    )


def percent(share: float) -> str:
    """A place across.

    >>> percent(0.25), percent(1)
    ('25%', '100%')
    """
    return f"{number(100 * share)}%"


def number(value: float) -> str:
    """To a hundredth, and no longer than it needs.

    >>> number(12.0), number(0.126), number(-0.001)
    ('12', '0.13', '0')
    """
    return f"{round(value, 2) + 0.0:.2f}".rstrip("0").rstrip(".")


def _value(value: Any) -> str:
    return number(value) if isinstance(value, float) else str(value)


def ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers in a range, at most so many, evenly apart by 1, 2 or 5 times a power of ten.

    >>> ticks(0.93, 1.27, 4), ticks(0, 10, 6)
    ([1.0, 1.1, 1.2], [0.0, 2.0, 4.0, 6.0, 8.0, 10.0])
    """
    exponent = math.floor(math.log10((high - low) / most))
    for step in (s * 10.0**e for e in (exponent, exponent + 1) for s in (1, 2, 5)):
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first < most:
            return [round(n * step, 12) for n in range(first, last + 1)]
    return [low, high]


def unit_of(ms: float) -> tuple[float, str]:
    """The unit that suits a time: how many ms it is, and its name.

    >>> unit_of(0.4), unit_of(20), unit_of(4000)
    ((0.001, 'µs'), (1.0, 'ms'), (1000.0, 's'))
    """
    return (0.001, "µs") if ms < 1 else (1.0, "ms") if ms < 1000 else (1000.0, "s")


def time_text(ms: float, low_ms: float | None, high_ms: float | None) -> str:
    """A time to as many digits as its interval allows, three where it has none.

    >>> time_text(1.23456, 1.2, 1.27), time_text(0.5, None, None)
    ('1.23 ms', '500 µs')
    """
    from .digits import with_interval

    unit, name = unit_of(ms)
    low, high = (ms if end is None else end for end in (low_ms, high_ms))
    return f"{with_interval(ms / unit, low / unit, high / unit)[0]} {name}"


def spanned(values: Sequence[float], room: float) -> tuple[float, float]:
    """The range of some values, with a share of it as room at both ends."""
    low, high = min(values), max(values)
    more = (high - low) * room or abs(high) * 0.05 or 1.0
    return low - more, high + more
