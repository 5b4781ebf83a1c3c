"""The momentum weights, in float64 NumPy: no framework, and no cancellation as beta nears 1.

Eq 13's weight is ``gamma (1 - beta^n) / (1 - beta)``, n the positions from j to i, both counted. The forms
work with `weight`, that over its value at the longest n of a matrix product, so that the largest is 1: near
beta = 1 a float16 product would lose the digits of the small 1 - beta^n. `output_factor` is what was left
out; it is applied once, to the output, in float32.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Float64", "decay", "growth", "output_factor", "weight"]

Float64 = NDArray[np.float64]


def decay(beta: float, n: ArrayLike) -> Float64:
    """``beta^n``: how much of the momentum is left n steps later.

    >>> decay(0.0, [0, 1]).tolist()
    [1.0, 0.0]
    """
    return np.power(np.float64(beta), np.asarray(n, np.float64))


def growth(beta: float, n: ArrayLike) -> Float64:
    """``1 - beta^n``: how much of the momentum is gone n steps later.

    >>> growth(0.5, [0, 1, 2]).tolist()
    [0.0, 0.5, 0.75]
    """
    n = np.asarray(n, np.float64)
    if beta == 0:
        return np.where(n == 0, 0.0, 1.0)
    return -np.expm1(n * math.log1p(beta - 1.0))


def weight(beta: float, n: ArrayLike, longest: int) -> Float64:
    """Eq 13's weight over n positions, relative to that over `longest`.

    ``beta`` times it is what a momentum state adds to the sum over n further steps, in the same unit.

    >>> weight(0.5, [0, 1, 2], longest=2).round(3).tolist()
    [0.0, 0.667, 1.0]
    """
    return growth(beta, n) / growth(beta, longest)


def output_factor(beta: float, gamma: float, longest: int) -> float:
    """Eq 13's weight over `longest` positions: the unit of `weight`.

    >>> output_factor(0.5, 2.0, longest=2)
    3.0
    """
    return float(gamma * growth(beta, longest) / (1.0 - beta))
