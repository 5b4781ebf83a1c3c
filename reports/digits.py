"""As many digits of a measured value as its uncertainty allows."""

from __future__ import annotations

import math

__all__ = ["MOST_DIGITS", "decimals", "fixed", "with_interval"]

MOST_DIGITS = 5
"""Significant digits at most: a narrower interval says that a clock is steady, not that it is so true."""
UNKNOWN_DIGITS = 3
"""Significant digits where no uncertainty is known."""


def decimals(value: float, low: float, high: float) -> int:
    """The decimal place of the last digit: that of the first digit of half the interval's width, or of the
    second where the first is 1; but no further left than the value's own first digit, as a value whose
    interval is wider than itself is not 0. Negative: tens, hundreds.

    >>> decimals(2.5124, 2.5032, 2.5184), decimals(2.5, 2.4884, 2.5116), decimals(1234, 1200, 1270)
    (3, 3, -1)
    >>> decimals(0.4, 0.4, 25.1)
    1
    """
    half = (high - low) / 2
    top = _top(value)
    if not half > 0:
        return UNKNOWN_DIGITS - 1 - top
    exponent = math.floor(math.log10(half))
    place = -exponent + (1 if half / 10.0**exponent < 2 else 0)
    return max(-top, min(place, MOST_DIGITS - 1 - top))


def _top(value: float) -> int:
    """The power of ten of its first digit: 2 of 234.5."""
    return math.floor(math.log10(abs(value))) if value else 0


def fixed(value: float, places: int, thousands: str = "") -> str:
    """The value to that place, without an exponent, and with that sign a thousand.

    >>> fixed(2.5124, 2), fixed(1234.5, -1), fixed(1234.5, -1, ",")
    ('2.51', '1230', '1,230')
    """
    return f"{round(value, places):{thousands}.{max(0, places)}f}"


def with_interval(value: float, low: float, high: float) -> tuple[str, str]:
    """The value, and its interval to the same place (nothing where there is none), with a comma a thousand.
    An end that is not 0 keeps its first digit, too.

    >>> with_interval(2.5124, 2.5032, 2.5184), with_interval(0.12345, 0.12345, 0.12345)
    (('2.512', '2.503, 2.518'), ('0.123', ''))
    >>> with_interval(71234, 65000, 77000)
    ('71,000', '65,000, 77,000')
    >>> with_interval(0.478, 0.046, 4.926)
    ('0.5', '0.05, 4.9')
    """
    places = decimals(value, low, high)
    ends = [fixed(end, max(places, -_top(end)) if end else places, ",") for end in (low, high)]
    return fixed(value, places, ","), ", ".join(ends) if high > low else ""
