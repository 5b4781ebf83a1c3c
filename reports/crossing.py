"""At which length two attentions take equally long: between the two measured ones, with an interval."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mtbench.measure.statistics import Samples

from .digits import decimals, fixed
from .resampling import Floats, between, fastest

__all__ = ["Contest", "Equal", "equal_length", "tokens_shown"]


@dataclass(frozen=True, kw_only=True)
class Contest:
    """The forms of softmax and of another attention at one length; at least one of each."""

    seq_len: int
    softmax: tuple[Samples, ...]
    other: tuple[Samples, ...]


@dataclass(frozen=True, kw_only=True)
class Equal:
    """The length from which on the other is faster, in tokens. 0: at every length compared, so it lies below
    them; infinite: at none, or no longer at the largest."""

    length: float
    low: float
    """Of its 95% interval."""
    high: float

    @property
    def within(self) -> bool:
        """Whether it lies between two lengths that were compared."""
        return 0 < self.length < math.inf


def equal_length(contests: Sequence[Contest]) -> Equal | None:
    """Where the best forms' medians cross for the last time, on a line through the logarithms of the two
    lengths around it. The interval is that of the kept samples: each resample chooses its best forms and has
    its own crossing. None where there are fewer than two lengths.

    Args:
        contests: in order of length.
    """
    if len(contests) < 2:
        return None
    seeds = itertools.count(1)
    # [length, 1 + resamples]: above 0 where softmax is faster
    behind = np.stack([fastest(c.other, seeds) - fastest(c.softmax, seeds) for c in contests])
    found = _last_crossing(np.log([c.seq_len for c in contests]), behind)
    low, high = between(found[1:])
    return Equal(length=float(found[0]), low=low, high=high)


def _last_crossing(lengths: Floats, behind: Floats) -> Floats:
    """Of each column, in tokens: 0 where all of it is below 0, infinite where its last value is not."""
    ahead_from_here = np.logical_and.accumulate((behind < 0)[::-1])[::-1]
    start = np.where(ahead_from_here.any(axis=0), ahead_from_here.argmax(axis=0), len(lengths))
    column = np.arange(behind.shape[1])
    inside = np.clip(start, 1, len(lengths) - 1)
    above, below = behind[inside - 1, column], behind[inside, column]
    step = np.where(above > below, above - below, 1.0)
    part = np.clip(above / step, 0, 1)  # beyond it where there is no crossing to be placed
    crossing = np.exp(lengths[inside - 1] + (lengths[inside] - lengths[inside - 1]) * part)
    found: Floats = np.where(start == 0, 0.0, np.where(start == len(lengths), math.inf, crossing))
    return found


def tokens_shown(found: Equal, lengths: Sequence[int]) -> str:
    """A crossing that is within, and its interval, to as many digits as that allows.

    >>> tokens_shown(Equal(length=782.3, low=741.2, high=823.9), (512, 1024))
    '780 (740 to 820)'
    >>> tokens_shown(Equal(length=782.3, low=0, high=math.inf), (512, 1024))
    '782 (below 512 to beyond 1024)'
    """
    finite = [v for v in (found.low, found.length, found.high) if 0 < v < math.inf]
    places = min(0, decimals(found.length, min(finite), max(finite)))
    low = fixed(found.low, places) if found.low > 0 else f"below {lengths[0]}"
    high = fixed(found.high, places) if found.high < math.inf else f"beyond {lengths[-1]}"
    return f"{fixed(found.length, places)} ({low} to {high})"
