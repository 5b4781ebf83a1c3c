"""The weights of momentum attention (eq 13, 14) by distance, in float64 NumPy, for the kernels of Triton and
Pallas.

With ``n`` the positions between key and query, momentum weights a key by
``gamma (1 - beta^(n+1)) / (1 - beta)``. The kernels use ``u(n) = 1 - beta^(n+1)``, which lies in (0, 1], and
multiply by ``gamma / (1 - beta)`` once, at the end and in float32: so no operand grows with 1/(1 - beta).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["HALF_UNIT", "carry", "counting", "forgotten", "keep", "u"]

Float32 = NDArray[np.float32]

NEGLIGIBLE = 2.0**-26
"""Below it beta^n adds nothing to a float32 near 1."""

HALF_UNIT = {"ieee": 2.0**-24, "bf16": 2.0**-9, "tf32": 2.0**-11}
"""What a product's operand is rounded by at the most, of itself, by what the product is taken in."""


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


def forgotten(beta: float, chunk: int, dot: str) -> bool:
    """Whether beta^(chunk + 2) is lost in the rounding of a product's operands. So much at the most is the
    weight of a key off that is farther back than the last chunk, where all of those are taken to weigh 1.

    >>> forgotten(0.9, 64, "bf16"), forgotten(0.95, 64, "bf16")
    (True, False)
    """
    return beta ** (chunk + 2) <= HALF_UNIT[dot]


def _log(beta: float) -> float:
    return math.log(beta) if beta > 0 else -math.inf
