"""Softmax attention over ranks as a ring: keys and values go from rank to rank while each works on those it
has, and its queries' rows are put together online (eq 1).

Bytes grow with the length, where a state's do not: the yardstick of linear and momentum attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from mtbench.spec import Case

from .blocks import Blocks, ChunkedBlocks, FusedBlocks, Rows
from .exchange import Exchange
from .places import Piece

__all__ = ["Ring"]

Tensors = Sequence[torch.Tensor]
"""One a piece, each contiguous [batch, heads, positions, dim]."""


class Ring:
    """One rank's side of a case.

    Args:
        case: the whole sequence's.
        pieces: of every rank, in the order of positions.
        exchange: its end of the line.
        form: ``fused`` (Triton kernels) or ``chunked`` (PyTorch).
    """

    def __init__(self, case: Case, pieces: Sequence[Sequence[Piece]], exchange: Exchange, form: str) -> None:
        self._case, self._pieces, self._exchange = case, pieces, exchange
        self._blocks: Blocks = FusedBlocks(case) if form == "fused" else ChunkedBlocks(case)
        self._rank, self._ranks = exchange.rank, exchange.ranks

    def forward(self, q: Tensors, k: Tensors, v: Tensors) -> tuple[Tensors, Any]:
        """The output of each of the rank's pieces, and what `backward` wants."""
        rows: list[tuple[torch.Tensor, torch.Tensor] | None] = [None] * len(q)
        for source, keys, values in self._around(k, v):
            for i, j, causal in self._meetings(source):
                block = self._blocks.forward(q[i], keys[j], values[j], causal)
                rows[i] = _together(rows[i], block)
        o = [row[0].to(v[0].dtype) for row in rows if row is not None]
        return o, (q, k, v, o, [row[1] for row in rows if row is not None])

    def backward(self, kept: Any, do: Tensors) -> tuple[Tensors, Tensors, Tensors]:
        """dq, dk and dv, a piece each. The sums of dk and dv, in float32, go around with their keys."""
        q, k, v, o, lse = kept
        dq = [torch.zeros_like(x, dtype=torch.float32) for x in q]
        pending = None
        for source, keys, values in self._around(k, v):
            own = [torch.zeros_like(x, dtype=torch.float32) for x in (*keys, *values)]
            for i, j, causal in self._meetings(source):
                rows = Rows(q[i], o[i], do[i], lse[i])
                found = self._blocks.backward(rows, keys[j], values[j], causal)
                for total, part in zip((dq[i], own[j], own[len(keys) + j]), found, strict=True):
                    total += part
            if pending is not None:  # what the ranks before have added for the same keys
                for total, part in zip(own, pending.wait(), strict=True):
                    total += part
            pending = self._exchange.pass_on(own, self._like((source - 1) % self._ranks, torch.float32, k, v))
        assert pending is not None  # noqa: S101  (there is a rank)
        home = pending.wait()
        count, dtype = len(k), v[0].dtype
        return (
            [x.to(dtype) for x in dq],
            [x.to(dtype) for x in home[:count]],
            [x.to(dtype) for x in home[count:]],
        )

    def _around(self, k: Tensors, v: Tensors) -> Any:
        """Each rank's keys and values once, this one's first, with the rank that they are from; the next are
        under way while the caller works."""
        held: Tensors = [*k, *v]
        for step in range(self._ranks):
            source = (self._rank - step) % self._ranks
            pending = None
            if step < self._ranks - 1:
                room = self._like((source - 1) % self._ranks, k[0].dtype, k, v)
                pending = self._exchange.pass_on(held, room)
            count = len(held) // 2
            yield source, held[:count], held[count:]
            if pending is not None:
                held = pending.wait()

    def _like(self, source: int, dtype: torch.dtype, k: Tensors, v: Tensors) -> Tensors:
        """Room for what is of a rank's keys and values."""
        return [
            x[0].new_empty((*x[0].shape[:2], last - first, x[0].shape[3]), dtype=dtype)
            for x in (k, v)
            for first, last in self._pieces[source]
        ]

    def _meetings(self, source: int) -> list[tuple[int, int, bool]]:
        """This rank's pieces of queries, that rank's of keys, and whether the mask goes through."""
        own, theirs = self._pieces[self._rank], self._pieces[source]
        if not self._case.spec.causal:
            return [(i, j, False) for i in range(len(own)) for j in range(len(theirs))]
        return [
            (i, j, queries == keys)
            for i, queries in enumerate(own)
            for j, keys in enumerate(theirs)
            if keys[0] <= queries[0]
        ]


def _together(
    row: tuple[torch.Tensor, torch.Tensor] | None, block: tuple[torch.Tensor, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows over two sets of keys, in float32, from those over each."""
    if row is None:
        return block[0].float(), block[1]
    (o, lse), (other, other_lse) = row, block
    both = torch.logaddexp2(lse, other_lse)
    share, other_share = (torch.exp2(x - both)[..., None] for x in (lse, other_lse))
    return o * share + other.float() * other_share, both
