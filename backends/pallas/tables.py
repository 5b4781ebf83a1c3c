"""The weights of momentum attention (eq 13, 14) by distance, in float64 NumPy.

With ``n`` the positions between key and query, momentum weights a key by
``gamma (1 - beta^(n+1)) / (1 - beta)``. The kernels use ``u(n) = 1 - beta^(n+1)``, which lies in (0, 1], and
multiply by ``gamma / (1 - beta)`` once, at the end and in float32: so no operand grows with 1/(1 - beta).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["carry", "counting", "keep", "u"]

Float32 = NDArray[np.float32]

NEGLIGIBLE = 2.0**-26
"""Below it beta^n adds nothing to a float32 near 1."""


def u(beta: float, n: ArrayLike) -> Float32:
    """``1 - beta^(n+1)``; 0 where n < 0, where there is no key.

    >>> u(0.5, [-1, 0, 1]).tolist()
    [0.0, 0.5, 0.75]
    """
    n = np.asarray(n, np.float64)
    return np.where(n < 0, 0.0, -np.expm1((np.maximum(n, 0) + 1) * _log(beta))).astype(np.float32)


def keep(beta: float, n: ArrayLike) -> Float32:
    """``beta^n``: what is left of a momentum after n positions; 0 where n < 0.

    >>> keep(0.5, [-1, 0, 1]).tolist()
    [0.0, 1.0, 0.5]
    """
    n = np.asarray(n, np.float64)
    return np.where(n < 0, 0.0, np.power(beta, np.maximum(n, 0))).astype(np.float32)


def carry(beta: float, n: ArrayLike) -> Float32:
    """``beta (1 - beta^n)``: how much of a momentum n >= 1 positions add to the sum, over gamma / (1 - beta).

    >>> carry(0.5, [1, 2]).tolist()
    [0.25, 0.375]
    """
    return (beta * u(beta, np.asarray(n) - 1).astype(np.float64)).astype(np.float32)


def counting(beta: float) -> float:
    """From that many positions on beta^n no longer counts: u is 1 in float32.

    >>> counting(0.5)
    26
    """
    return math.ceil(math.log(NEGLIGIBLE) / _log(beta)) if beta > 0 else 1


def _log(beta: float) -> float:
    return math.log(beta) if beta > 0 else -math.inf
