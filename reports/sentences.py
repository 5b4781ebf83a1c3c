"""A verdict in words."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .crossing import tokens_shown
from .digits import fixed
from .format import clean, listing, number, ratio, spread
from .growth import Growth, order
from .payback import Payback
from .verdict import Crossover, Race, Span, Verdict, spans

__all__ = [
    "advantage",
    "capital",
    "crossing",
    "crossing_sentences",
    "equal",
    "growth",
    "overall",
    "payback",
    "reach",
    "used",
    "winners",
]


def reach(lengths: Sequence[int]) -> str:
    """The range of lengths: ``256..1024``, or the one."""
    return f"{lengths[0]}..{lengths[-1]}" if len(lengths) > 1 else str(lengths[0])


def _brief(name: str) -> str:
    """A backend's name is anyone's, and stands in many sentences."""
    return clean(name, 60)


def capital(text: str) -> str:
    """With a capital at its start, the rest as it is."""
    return text[:1].upper() + text[1:]


def winners(verdict: Verdict, attention: str) -> str:
    """Who computes one attention fastest, and where.

    For instance ``torch-eager/sdpa at every length (256..1024), 1.20–1.50× ahead of the next``.
    """
    found = spans(verdict.along(attention))
    return "; ".join(
        f"{_brief(span.winner.name)}{_where(span, found, verdict)}{_lead(span.races)}" for span in found
    )


def overall(verdict: Verdict) -> str:
    """Which attention is fastest, and by whom."""
    found = spans(verdict.along(None))
    told = []
    for span in found:
        who = f"{span.winner.attention} by {_brief(span.winner.name)}"
        told.append(f"{who}{_where(span, found, verdict)}{_doubt(span.races)}")
    return "; ".join(told)


def _where(span: Span, found: Sequence[Span], verdict: Verdict) -> str:
    lengths = span.lengths
    if len(verdict.lengths) == 1:
        return ""
    if len(found) == 1:
        if lengths == verdict.lengths:
            return f" at every length ({reach(lengths)})"
        return f" at every length measured ({listing(lengths)})"
    if len(lengths) == 1:
        return f" at {lengths[0]}"
    return f" from {lengths[0]} to {lengths[-1]}"


def _lead(races: Sequence[Race]) -> str:
    ratios = [race.ratio for race in races if race.ratio is not None]
    if not ratios:
        return " (alone)"
    return f", {spread(ratios)} ahead of the next{_doubt(races)}"


def _doubt(races: Sequence[Race]) -> str:
    unsure = [race.seq_len for race in races if not race.sure]
    if not unsure:
        return ""
    return " (unsure)" if len(races) == 1 else f" (unsure at {listing(unsure)})"


def crossing(found: Crossover, lengths: Sequence[int]) -> str:
    """From where on the attention beats softmax, or why that cannot be said.

    For instance ``from 512 on`` or ``not within the sweep (256..1024)``.
    """
    if not found.compared:
        return "not compared: one of the two has no time"
    if len(lengths) == 1:
        return f"at {lengths[0]}, the one length: {advantage(found)}"
    if found.start is None:
        text = f"not within the sweep ({reach(lengths)})"
    elif found.holds_on:
        every = ", that is at every length swept" if found.start == lengths[0] else ""
        text = f"from {found.start} on{every}"
    elif found.compared[-1] == found.start:
        text = f"at {found.start}"
    else:
        text = f"from {found.start} to {found.compared[-1]}, where both were measured"
    earlier = [n for n in found.faster if found.start is None or n < found.start]
    remarks = []
    if earlier:
        remarks.append(f"faster at {listing(earlier)} {'too' if found.start else 'only'}")
    if found.missing:
        remarks.append(f"not compared at {listing(found.missing)}")
    if found.unsure:
        remarks.append(f"unsure at {listing(found.unsure)}")
    return text + (f" ({'; '.join(remarks)})" if remarks else "")


def equal(found: Crossover) -> str:
    """At which length the two take equally long, where it lies between two compared ones.

    For instance ``equally fast at about 780 (740 to 820)``; else nothing.
    """
    if found.equal is None or not found.equal.within:
        return ""
    return f"equally fast at about {tokens_shown(found.equal, found.compared)}"


def growth(found: Growth) -> str:
    """How a form grows, as measured.

    For instance ``N^1.02 (0.99 to 1.05): O(N)``; an interval that is narrower than two digits has none.
    """
    slope = found.slope
    if slope is None:
        return "too few lengths are long enough"
    low, high = fixed(slope.low, 2), fixed(slope.high, 2)
    interval = f" ({low} to {high})" if low != high else ""
    return f"N^{fixed(slope.exponent, 2)}{interval}: {order(slope.exponent)}"


def used(found: Growth) -> str:
    """Which lengths the exponent is of, and which are too short for it."""
    short = f", without {_lengths(found.left_out)}" if found.left_out else ""
    return f"of {_lengths(found.used)}{short}"


def _lengths(lengths: Sequence[int], most: int = 5) -> str:
    """Each of a few, else how many and their range."""
    return listing(lengths) if len(lengths) <= most else f"{len(lengths)} lengths, {reach(lengths)}"


def payback(found: Payback) -> str:
    """After how many calls compiling has paid, or that it never does.

    For instance ``after 340 calls (320 to 350)``.
    """
    if not found.pays:
        return "never: it is not faster"
    # Two digits: the seconds of compiling were measured once.
    times = (found.calls, found.low, found.high)
    calls, low, high = (number(v, 2) if v < math.inf else "never" for v in times)
    return f"after {calls} calls{f' ({low} to {high})' if low != high else ''}"


def advantage(found: Crossover) -> str:
    """How the attention stands against softmax at the largest length compared."""
    by, doubt = found.ratios[-1], " (unsure)" if found.compared[-1] in found.unsure else ""
    return f"{ratio(by)} as fast as softmax{doubt}"


def crossing_sentences(verdict: Verdict) -> list[str]:
    """One sentence an attention: from where it beats softmax on each backend; at one length, by how much."""
    sentences = []
    for attention in dict.fromkeys(c.attention for c in verdict.crossovers):
        if len(verdict.lengths) == 1:
            told = [
                f"{_brief(found.backend)} {advantage(found)}"
                for found in verdict.crossovers
                if found.attention == attention and found.backend is not None and found.compared
            ]
            sentences += [f"{capital(attention)}, by backend: {listing(told)}"] if told else []
            continue
        places: dict[str, list[str]] = {}
        for found in verdict.crossovers:
            if found.attention == attention and found.backend is not None:
                place = crossing(found, verdict.lengths)
                place += f", {at}" if (at := equal(found)) else ""
                places.setdefault(place, []).append(_brief(found.backend))
        where = "; ".join(f"on {listing(names)} {place}" for place, names in places.items())
        sentences.append(f"{capital(attention)} beats softmax: {where}")
    return sentences
