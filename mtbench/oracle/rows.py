"""Which output rows are looked at: all of them, or a sample that any length can afford."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mtbench.spec import Case

__all__ = ["Rows"]

BORDERS = (16, 32, 64, 128, 256, 512, 1024)
"""Chunk, block and segment sizes that kernels use: an error at a border shows in the rows beside it."""


@dataclass(frozen=True)
class Rows:
    """Query positions by (batch, head) pair."""

    positions: dict[tuple[int, int], NDArray[np.intp]]
    complete: bool
    """Every row of every pair is there."""

    @classmethod
    def all(cls, case: Case) -> Rows:
        """Every row."""
        every = np.arange(case.seq_len)
        return cls({(b, h): every for b in range(case.batch) for h in range(case.heads)}, complete=True)

    @classmethod
    def sample(cls, case: Case, *, pairs: int = 3, each: int = 48) -> Rows:
        """About `each` rows of `pairs` (batch, head) pairs, seeded by the case.

        The first and last pair are always there; in each pair the first and last rows, the rows beside a
        random border of every size in `BORDERS`, and rows drawn at random.
        """
        rng = np.random.default_rng([case.seed, case.batch, case.heads, case.seq_len])
        count, n = case.batch * case.heads, case.seq_len
        chosen = {0, count - 1, *rng.integers(0, count, max(0, pairs - 2)).tolist()}
        positions = {}
        for pair in sorted(chosen):
            rows = {0, 1, n - 2, n - 1}
            for size in BORDERS:
                if n > size:
                    border = size * int(rng.integers(1, (n - 1) // size + 1))
                    rows |= {border - 1, border}
            rows |= set(rng.integers(0, n, max(0, each - len(rows))).tolist())
            kept = np.array(sorted(r for r in rows if 0 <= r < n), dtype=np.intp)
            positions[divmod(pair, case.heads)] = kept
        return cls(positions, complete=False)

    def __iter__(self) -> Iterator[tuple[int, int, NDArray[np.intp]]]:
        for (b, h), positions in self.positions.items():
            yield b, h, positions

    @property
    def count(self) -> int:
        """How many rows, over all pairs."""
        return sum(len(p) for p in self.positions.values())

    @property
    def description(self) -> str:
        """For the row's `compared`."""
        if self.complete:
            return f"all {self.count} rows"
        return f"{self.count} sampled rows of {len(self.positions)} (batch, head) pairs"

    def take(self, array: NDArray[np.generic]) -> NDArray[np.float64]:
        """These rows of a [batch, heads, seq_len, dim] array, one under the other, in float64."""
        return np.concatenate([array[b, h, p].astype(np.float64) for b, h, p in self])
