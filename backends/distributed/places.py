"""Where the positions of a sequence lie. Imports no framework."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, pairwise

__all__ = ["Place", "evenly", "pieces_of"]

Piece = tuple[int, int]
"""Positions from the first on, up to and without the second."""


def evenly(length: int, parts: int, grain: int = 1) -> tuple[int, ...]:
    """The lengths of so many parts, as even as whole grains allow; the last takes what is left.

    >>> evenly(1000, 3, 128)
    (384, 384, 232)
    """
    grains = -(-length // grain)
    whole = [grain * (grains // parts + (part < grains % parts)) for part in range(parts)]
    return (*whole[:-1], length - sum(whole[:-1]))


def pieces_of(length: int, ranks: int, rank: int) -> tuple[Piece, ...]:
    """What a rank has of a causal softmax's sequence: one piece from the front and one from the back, so that
    all ranks see about as many keys.

    >>> [pieces_of(80, 2, rank) for rank in range(2)]
    [((0, 20), (60, 80)), ((20, 40), (40, 60))]
    """
    ends = [0, *accumulate(evenly(length, 2 * ranks))]
    cut = list(pairwise(ends))
    return tuple((a, b) for a, b in (cut[rank], cut[2 * ranks - 1 - rank]) if b > a)


@dataclass(frozen=True)
class Place:
    """One rank's part of a sequence that is cut once for each rank."""

    rank: int
    lengths: tuple[int, ...]
    """Of all ranks' parts, each at least 1."""

    @property
    def ranks(self) -> int:
        """How many there are."""
        return len(self.lengths)

    @property
    def piece(self) -> Piece:
        """Its positions."""
        first = sum(self.lengths[: self.rank])
        return first, first + self.lengths[self.rank]

    @property
    def after(self) -> int:
        """Positions after it."""
        return sum(self.lengths[self.rank + 1 :])

    def earlier(self) -> dict[int, int]:
        """The ranks before it, and the positions between each and it."""
        return {other: sum(self.lengths[other + 1 : self.rank]) for other in range(self.rank)}

    def later(self) -> dict[int, int]:
        """The ranks after it, and the positions between each and it."""
        return {other: sum(self.lengths[self.rank + 1 : other]) for other in range(self.rank + 1, self.ranks)}

    def to_end(self) -> dict[int, int]:
        """Every rank, and the positions after it."""
        return {other: sum(self.lengths[other + 1 :]) for other in range(self.ranks)}
