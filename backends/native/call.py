"""A case as `attention.cpp` takes it: sizes, threads, and the momentum weights, computed in float64.

Eq 13's weight over n positions, from j to i, both counted, is gamma (1 - beta^n) / (1 - beta). The kernel
works with ``w(n) = (1 - beta^n) / (1 - beta^longest)``, longest being the chunk, or the whole sequence in
eq 14; the unit that is left out is applied once, to the output.
"""

from __future__ import annotations

import ctypes
import math
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mtbench.frameworks.numpy import threads
from mtbench.inputs import Array
from mtbench.spec import Case

from .compiler import library, version

__all__ = ["CHUNK", "Attention", "Problem", "growth", "segment_length"]

CHUNK = 32
"""Positions a chunk: 16 to 64 are within a few percent of each other at head_dim 64 and 128."""
LEAST_CHUNKS = 4
"""Of a segment: a thread that is started for less costs more than it takes over."""

Floats = ctypes.POINTER(ctypes.c_float)


class Problem(ctypes.Structure):
    """The struct of the same name in `attention.cpp`, field by field."""

    _fields_: ClassVar = [
        *((name, Floats) for name in ("q", "k", "v", "o", "near", "roll", "decayed", "by_key")),
        *((name, ctypes.c_int64) for name in ("pairs", "length", "d", "e", "segment", "threads")),
        *((name, ctypes.c_int32) for name in ("causal", "momentum")),
        *((name, ctypes.c_float) for name in ("eps", "unit")),
        *((name, ctypes.c_float) for name in ("chunk_roll", "chunk_gone", "segment_roll", "segment_gone")),
    ]


def growth(beta: float, n: ArrayLike) -> NDArray[np.float64]:
    """``1 - beta^n``, for 0 < beta < 1, by expm1: near beta = 1 a difference would lose its digits.

    >>> growth(0.5, [0, 1, 2]).tolist()
    [0.0, 0.5, 0.75]
    """
    return -np.expm1(np.asarray(n, np.float64) * math.log1p(beta - 1.0))


def segment_length(length: int, pairs: int, threads: int) -> int:
    """Positions a segment, in whole chunks: all of them where every thread has a (batch, head) of its own,
    else so many that there are about two segments a thread.

    >>> segment_length(100, pairs=8, threads=2)
    128
    >>> segment_length(4096, pairs=1, threads=2)
    1024
    """
    chunks = -(-length // CHUNK)
    if pairs >= threads:
        return chunks * CHUNK
    segments = -(-2 * threads // pairs)
    return min(chunks, max(LEAST_CHUNKS, -(-chunks // segments))) * CHUNK


class Attention:
    """The function of one case. It holds the tables that the kernel points to."""

    def __init__(self, case: Case) -> None:
        spec = case.spec
        self._library = library(CHUNK=CHUNK)
        self._shape = (case.batch, case.heads, case.seq_len, case.value_dim)
        self._tables: dict[str, NDArray[np.float32]] = {}
        segment = segment_length(case.seq_len, case.batch * case.heads, threads())
        self._problem = Problem(
            pairs=case.batch * case.heads,
            length=case.seq_len,
            d=case.head_dim,
            e=case.value_dim,
            segment=segment,
            threads=threads(),
            causal=spec.causal,
            momentum=spec.beta > 0,
            eps=spec.eps,
            unit=spec.gamma,
        )
        if spec.beta > 0:
            self._weigh(spec.beta, spec.gamma, CHUNK if spec.causal else case.seq_len)
        for name, table in self._tables.items():
            setattr(self._problem, name, _pointer(table))
        self.config = {
            "chunk": CHUNK,
            "segments": -(-case.seq_len // segment),
            "threads": threads(),
            "compiler": version(),
        }

    def _weigh(self, beta: float, gamma: float, longest: int) -> None:
        problem, whole = self._problem, growth(beta, longest)
        left = np.arange(longest, 0, -1)
        problem.unit = gamma * whole / (1.0 - beta)
        weights = growth(beta, left) / whole
        if not problem.causal:
            self._tables["by_key"] = weights.astype(np.float32)
            return
        self._tables["near"] = np.concatenate([weights, np.zeros(longest)]).astype(np.float32)
        self._tables["roll"] = (beta * weights[::-1]).astype(np.float32)
        self._tables["decayed"] = np.power(beta, left - 1.0).astype(np.float32)
        problem.chunk_roll, problem.chunk_gone = beta, whole
        gone = growth(beta, problem.segment)
        problem.segment_roll, problem.segment_gone = beta * gone / whole, gone

    def __call__(self, q: Array, k: Array, v: Array) -> Array:
        """q, k [batch, heads, seq_len, head_dim] and v [..., value_dim], contiguous float32, to
        [batch, heads, seq_len, value_dim].

        Raises:
            MemoryError: the kernel finds no memory for its sums.
        """
        o = np.empty(self._shape, np.float32)
        problem = self._problem
        problem.q, problem.k, problem.v, problem.o = (_pointer(x) for x in (q, k, v, o))
        if self._library.mtbench_attend(ctypes.byref(problem)):
            raise MemoryError("no memory for the sums of the native kernel")
        return o


def _pointer(array: NDArray[Any]) -> Any:
    return array.ctypes.data_as(Floats)
