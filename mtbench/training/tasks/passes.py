"""Which of a data set's entries an epoch takes: the next ones of pass after pass, each in its own order."""

from __future__ import annotations

import numpy as np

from mtbench.inputs import Array

__all__ = ["shuffled"]


def shuffled(count: int, *seed: int, first: int, wanted: int) -> Array:
    """`wanted` of 0 .. `count` - 1, from place `first` on of a row of passes over all, shuffled by the seed.

    >>> [int(n) for n in np.sort(shuffled(5, 7, first=10, wanted=5))]
    [0, 1, 2, 3, 4]
    """
    at = np.arange(first, first + wanted)
    turns = at // count
    return np.concatenate(
        [
            np.random.default_rng((*seed, 1, int(turn))).permutation(count)[at[turns == turn] % count]
            for turn in np.unique(turns)
        ]
    )
