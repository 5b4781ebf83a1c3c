"""Numbers, units and untrusted text, as a person reads them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

__all__ = [
    "clean",
    "clock_time",
    "count",
    "duration",
    "error",
    "interval",
    "listing",
    "memory",
    "number",
    "printable",
    "ratio",
    "seconds",
    "spread",
    "times",
]

NOTHING = "–"
"""What stands for a value that is not there."""


def printable(text: str) -> str:
    """The text with U+FFFD for what does not print: control characters, overrides, lone surrogates."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)


def clean(text: object, limit: int | None = None) -> str:
    r"""Text from a run, fit to be shown on one line: printable, white space is one space, and what is longer
    than `limit` says how much is cut.

    >>> clean("a\x00b\n c")
    'a�b c'
    >>> clean("abcdef", 3)
    'abc… (3 more characters)'
    """
    shown = printable(" ".join(str(text).split()))
    if limit is not None and len(shown) > limit:
        return f"{shown[:limit]}… ({len(shown) - limit:,} more characters)"
    return shown


def number(value: float | None, digits: int = 3) -> str:
    """A number to so many significant digits, without an exponent.

    >>> number(1234.6), number(0.012345), number(3.0), number(None)
    ('1,235', '0.0123', '3.00', '–')
    """
    if value is None:
        return NOTHING
    if not math.isfinite(value):
        return str(value)
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(float(f"{value:.{digits - 1}e}"))))
    return f"{value:,.{max(0, digits - 1 - magnitude)}f}"


def duration(ms: float | None) -> str:
    """Milliseconds in the unit that suits them.

    >>> duration(0.08713), duration(1.2), duration(2345.6)
    ('87.1 µs', '1.20 ms', '2.35 s')
    """
    if ms is None or not math.isfinite(ms):
        return number(ms)
    if ms < 1:
        shown = number(ms * 1000)
        return f"{shown} µs" if shown != "1,000" else "1.00 ms"
    return f"{number(ms)} ms" if ms < 999.5 else seconds(ms / 1000)


def interval(low: float, high: float) -> str:
    """Two durations in milliseconds, in the unit of the larger.

    >>> interval(0.9512, 1.049), interval(1.25, 1.3)
    ('0.951–1.05 ms', '1.25–1.30 ms')
    """
    shown_low, shown_high = duration(low).split(" "), duration(high).split(" ")
    if shown_low[-1] != shown_high[-1] and shown_high[-1] in _PER_UNIT:
        shown_low[0] = number(low / _PER_UNIT[shown_high[-1]])
    return f"{shown_low[0]}–{' '.join(shown_high)}"


_PER_UNIT = {"µs": 0.001, "ms": 1.0, "s": 1000.0, "min": 60_000.0}


def seconds(value: float | None) -> str:
    """Seconds, in minutes from two of them on.

    >>> seconds(0.5), seconds(61), seconds(600)
    ('0.500 s', '61.0 s', '10.0 min')
    """
    if value is None or not math.isfinite(value):
        return number(value)
    return f"{number(value)} s" if value < 120 else f"{number(value / 60)} min"


def clock_time(value: float) -> str:
    """A span of time as a person says it.

    >>> clock_time(42.4), clock_time(462), clock_time(7322)
    ('42 s', '7 min 42 s', '2 h 2 min')
    """
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if minutes else f"{rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def memory(size: float | None) -> str:
    """Bytes, in binary units.

    >>> memory(0), memory(512), memory(3 * 2**20), memory(1.5 * 2**30)
    ('0 B', '512 B', '3.00 MiB', '1.50 GiB')
    """
    if size is None or not math.isfinite(size):
        return number(size)
    for unit, power in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if abs(size) >= 2**power:
            return f"{number(size / 2**power)} {unit}"
    return f"{size:.0f} B"


def error(value: float | None) -> str:
    """A relative error: two digits are all that it means.

    >>> error(1.2345e-6), error(0.3), error(float("inf"))
    ('1.2e-6', '0.30', 'inf')
    """
    if value is None or not math.isfinite(value) or value == 0 or abs(value) >= 0.01:
        return number(value, 2)
    return re.sub(r"e-0?", "e-", f"{value:.1e}")


def ratio(value: float) -> str:
    """How many times as long.

    >>> ratio(1.004), ratio(0.876), ratio(31.7)
    ('1.00×', '0.88×', '31.7×')
    """
    return f"{number(value, 3 if value >= 1 else 2)}×"


def spread(values: Iterable[float]) -> str:
    """The range of some ratios, or the one that they share.

    >>> spread([1.2, 3, 1.5]), spread([2.0, 2.001])
    ('1.20–3.00×', '2.00×')
    """
    found = list(values)
    low, high = number(min(found)), number(max(found))
    return f"{low}×" if low == high else f"{low}–{high}×"


def listing(items: Sequence[object], word: str = "and") -> str:
    """Items as a sentence has them.

    >>> listing([1, 2, 3])
    '1, 2 and 3'
    """
    texts = [str(item) for item in items]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} {word} {texts[-1]}" if texts else ""


def count(n: int, noun: str) -> str:
    """So many of something.

    >>> count(1, "row"), count(1200, "row")
    ('1 row', '1,200 rows')
    """
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def times(n: float) -> str:
    """How often, where that may be an average over calls.

    >>> times(12.0), times(1234567.0), times(33.333)
    ('12', '1,234,567', '33.3')
    """
    return f"{n:,.0f}" if n == round(n) else number(n)
