"""The arrays a case is computed on: seeded, the same for every backend, never zeros."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from mtbench.spec import Case

__all__ = ["NUMPY_DTYPES", "Inputs", "make_inputs"]

Array = NDArray[Any]

NUMPY_DTYPES: Mapping[str, np.dtype[Any]] = {
    "float32": np.dtype(np.float32),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float16": np.dtype(np.float16),
}
"""A case's dtype as NumPy's; bfloat16 is ml_dtypes'."""

LARGE = 1 << 22
"""Numbers of the largest array from which on each array is drawn by a thread of its own. Small ones would be
got from the threads' own heaps, which keep them, and count as memory of the process."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """NumPy arrays in the case's dtype, all [batch, heads, positions, dim]."""

    q: Array
    """[batch, heads, seq_len, head_dim]"""
    k: Array
    """[batch, kv_heads, kv_len, head_dim]"""
    v: Array
    """[batch, kv_heads, kv_len, value_dim]"""
    do: Array | None = None
    """[batch, heads, seq_len, value_dim], the gradient that reaches the output; None in mode forward."""

    def check(self, case: Case) -> None:
        """Raises ValueError where a shape or dtype is not the case's."""
        b, h, g = case.batch, case.heads, case.kv_heads
        wanted = {
            "q": (b, h, case.seq_len, case.head_dim),
            "k": (b, g, case.kv_len, case.head_dim),
            "v": (b, g, case.kv_len, case.value_dim),
            "do": (b, h, case.seq_len, case.value_dim),
        }
        for name, shape in wanted.items():
            array = getattr(self, name)
            if array is None and name == "do" and case.mode == "forward":
                continue
            if array is None or array.shape != shape or array.dtype != NUMPY_DTYPES[case.dtype]:
                found = "missing" if array is None else f"{array.dtype} {array.shape}"
                raise ValueError(f"{name} must be {case.dtype} {shape} and is {found}")


def make_inputs(case: Case) -> Inputs:
    """Standard normal arrays, drawn in float32 from the case's seed and rounded to its dtype.

    Each array has a stream of its own, so that q does not change with kv_len, nor k with mode. The mean
    of v stays 0: with another, a kernel whose weights are wrong would still return about that mean, and
    pass at long lengths.

    Raises:
        MemoryError: they are larger than the memory there is, or than any.
    """
    streams = np.random.SeedSequence(case.seed).spawn(4)
    dtype = NUMPY_DTYPES[case.dtype]

    def draw(stream: np.random.SeedSequence, shape: tuple[int, ...]) -> Array:
        return np.random.default_rng(stream).standard_normal(shape, dtype=np.float32).astype(dtype)

    b, h, g = case.batch, case.heads, case.kv_heads
    shapes = {
        "q": (b, h, case.seq_len, case.head_dim),
        "k": (b, g, case.kv_len, case.head_dim),
        "v": (b, g, case.kv_len, case.value_dim),
        "do": (b, h, case.seq_len, case.value_dim),
    }
    if case.mode == "forward":
        del shapes["do"]
    most = max(math.prod(shape) for shape in shapes.values())
    if most > sys.maxsize // np.dtype(np.float32).itemsize:  # NumPy takes it for a mistake
        raise MemoryError(f"an array of {most:.1e} numbers has no address in any memory")
    large = most >= LARGE
    # NumPy draws without holding Python's lock.
    with ThreadPoolExecutor(len(shapes)) if large else nullcontext() as threads:
        drawn = list((threads.map if threads else map)(draw, streams, shapes.values()))
    return Inputs(**dict(zip(shapes, drawn, strict=True)))
